package headers

import (
	"context"
	"math/big"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

type (
	Rules = rules
	Entry = entry
)

const (
	Window    = window
	Below     = below
	MaxBranch = maxBranch
	MaxOld    = maxOld
)

func RulesOf(n bsv.Network) Rules { return rulesOf(n) }

// EasyRules are those of the main network, or with gaps of the test network,
// with work that a test can do.
func EasyRules(gaps bool) Rules {
	return rules{limit: lowBits(255), limitBits: regBits, difficulty: true, since: 100, easyGaps: gaps}
}

// SeriousRules are easy ones that want more of an anchor than of other headers.
func SeriousRules() Rules {
	r := EasyRules(false)
	r.serious = lowBits(200)
	return r
}

func (r rules) IsSerious(bits uint32) bool { return r.isSerious(bits) }

func OpenWith(ctx context.Context, path string, opt Options, r Rules) (*Chain, error) {
	return open(ctx, path, opt, r)
}

func After(parent *Entry, h chain.Header) Entry {
	if parent == nil {
		return after(nil, h)
	}
	return after(parent.work, h)
}

func (r rules) Next(before []Entry, at time.Time) uint32 { return r.next(before, at) }

func (r rules) Check(before []Entry, h chain.Header, now time.Time) error {
	return r.check(before, h, now)
}

func (r rules) Difficulty() bool { return r.difficulty }

func TargetOf(bits uint32) *big.Int { return targetOf(bits) }
func BitsOf(target *big.Int) uint32 { return bitsOf(target) }
func WorkOf(bits uint32) *big.Int   { return workOf(bits) }

// InMemory returns how many headers are kept in memory.
func (c *Chain) InMemory() (recent, old int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.recent), len(c.old)
}

// BreakStore makes the next n writes fail after they have written half.
func (c *Chain) BreakStore(n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store = &broken{store: c.store, left: n, err: err}
}

type broken struct {
	store
	left int
	err  error
}

func (b *broken) WriteAt(p []byte, at int64) (int, error) {
	if b.left == 0 {
		return b.store.WriteAt(p, at)
	}
	b.left--
	n, _ := b.store.WriteAt(p[:len(p)/2], at)
	return n, b.err
}
