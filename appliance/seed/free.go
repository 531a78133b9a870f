package seed

import (
	"slices"
	"time"
)

// Bounds of what one unpaid peer is granted at a time, bytes.
const (
	minGrant = 16 << 10
	maxGrant = 1 << 20
)

// freeShare deals out what peers that do not pay may have. It belongs to the
// goroutine that ticks.
type freeShare struct {
	rate   int64 // bytes a second
	last   time.Time
	tokens int64
	cursor uint64 // the peer that was served last
}

// deal gives the tokens that have come since to the peers that want something,
// one after the other from where it stopped.
func (f *freeShare) deal(now time.Time, peers []*peer) {
	if f.last.IsZero() {
		f.last = now
	}
	f.tokens += int64(now.Sub(f.last).Seconds() * float64(f.rate))
	f.tokens = min(f.tokens, max(f.rate, maxGrant)) // what nobody wanted is lost
	f.last = now

	wanting := peers[:0]
	for _, p := range peers {
		if p.unpaidWants() > 0 {
			wanting = append(wanting, p)
		}
	}
	if len(wanting) == 0 {
		return
	}
	slices.SortFunc(wanting, func(a, b *peer) int {
		// Those behind the cursor come first, in the order of their arrival.
		if first := a.seq > f.cursor; first != (b.seq > f.cursor) {
			if first {
				return -1
			}
			return 1
		}
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	each := min(max(f.tokens/int64(len(wanting)), minGrant), maxGrant)
	for _, p := range wanting {
		grant := max(each, p.unpaidWants())
		if grant > f.tokens {
			return // it is the first one next time
		}
		f.tokens -= grant
		f.cursor = p.seq
		p.conn.SetAllowed(max(p.conn.Allowed(), p.conn.Sent()) + grant)
	}
}
