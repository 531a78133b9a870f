package headers

import (
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	spacing  = 10 * time.Minute
	day      = 144           // blocks
	window   = day + 3       // headers that the difficulty of the next one depends on
	medianOf = 11            // headers whose median time the next one has to pass
	ahead    = 2 * time.Hour // of the clock
	easyGap  = 2 * spacing   // after which the test network allows any work
	oldRatio = 16            // how much easier than the anchor a header below it may be
	regBits  = uint32(0x207fffff)
	mainBits = uint32(0x1d00ffff)
	// leastDifficulty is that of an anchor on the main network, as a power of
	// two: a hundredth of what it has been since 2018.
	leastDifficulty = 28
)

// rules are what a network asks of a header.
type rules struct {
	limit      *big.Int // the easiest target
	limitBits  uint32
	difficulty bool   // the 144-block rule holds
	since      uint32 // for blocks above this height
	easyGaps   bool   // a block long after its parent has limitBits
	// serious is the easiest target that a chain may begin with; nil is the
	// limit. What can be mined at home, or is of the test network, is no anchor.
	serious *big.Int
	genesis *chain.Header
}

func rulesOf(n bsv.Network) rules {
	switch n {
	case bsv.Main:
		return rules{limit: lowBits(224), limitBits: mainBits, difficulty: true, since: 504031, serious: lowBits(224 - leastDifficulty)}
	case bsv.Test:
		return rules{limit: lowBits(224), limitBits: mainBits, difficulty: true, since: 1188697, easyGaps: true}
	}
	return rules{limit: lowBits(255), limitBits: regBits, genesis: &regtestGenesis}
}

// lowBits returns 2^n - 1.
func lowBits(n uint) *big.Int {
	x := new(big.Int).Lsh(big.NewInt(1), n)
	return x.Sub(x, big.NewInt(1))
}

// regtestGenesis is the first block of the regression test network.
var regtestGenesis = chain.Header{
	Hash:       mustHash("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
	MerkleRoot: mustHash("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
	Time:       time.Unix(1296688602, 0).UTC(),
	Version:    1,
	Bits:       regBits,
	Nonce:      2,
}

func mustHash(text string) chain.Hash {
	h, err := chain.ParseHash(text)
	if err != nil {
		panic(err) // of a constant
	}
	return h
}

// checkAlone checks what a header shows by itself.
func (r rules) checkAlone(h chain.Header) error {
	if err := h.CheckHash(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	target := targetOf(h.Bits)
	if target == nil || target.Cmp(r.limit) > 0 {
		return fmt.Errorf("block %d: bits %08x: %w", h.Height, h.Bits, ErrInvalid)
	}
	if hashNumber(h.Hash).Cmp(target) > 0 {
		return fmt.Errorf("block %d: %s does not meet bits %08x: %w", h.Height, h.Hash, h.Bits, ErrInvalid)
	}
	return nil
}

// checkAnchor checks a header that the chain is to begin with.
func (r rules) checkAnchor(h chain.Header) error {
	if err := r.checkAlone(h); err != nil {
		return err
	}
	if !r.isSerious(h.Bits) {
		return fmt.Errorf("block %d has bits %08x, as no block of the network: %w", h.Height, h.Bits, ErrInvalid)
	}
	return nil
}

func (r rules) isSerious(bits uint32) bool {
	return r.serious == nil || targetOf(bits).Cmp(r.serious) <= 0
}

// check checks the header that comes after those in before, which are as many
// of the newest ones as there are, up to window.
func (r rules) check(before []entry, h chain.Header, now time.Time) error {
	if err := r.checkAlone(h); err != nil {
		return err
	}
	if median, ok := medianTime(before); ok && !h.Time.After(median) {
		return fmt.Errorf("block %d of %s is not after the median %s: %w", h.Height, h.Time, median, ErrInvalid)
	}
	if h.Time.After(now.Add(ahead)) {
		return fmt.Errorf("block %d of %s, now %s: %w", h.Height, h.Time, now.UTC(), ErrFuture)
	}
	if !r.difficulty || h.Height <= r.since || len(before) < window {
		return nil
	}
	if want := r.next(before, h.Time); h.Bits != want {
		return fmt.Errorf("block %d has bits %08x, the rule gives %08x: %w", h.Height, h.Bits, want, ErrInvalid)
	}
	return nil
}

// medianTime is of the newest eleven; false where not all of them are known.
func medianTime(before []entry) (time.Time, bool) {
	if len(before) == 0 || len(before) < medianOf && before[0].Height != 0 {
		return time.Time{}, false
	}
	var times []time.Time
	for _, e := range before[max(0, len(before)-medianOf):] {
		times = append(times, e.Time)
	}
	slices.SortFunc(times, time.Time.Compare)
	return times[len(times)/2], true
}

// next is the difficulty rule of November 2017: the bits of a block of this
// time after those in before, which are at least window. The work of a day's
// blocks over the time that they took gives the work of the next one. Both ends
// of the day are the median by time of three blocks, and the time counts as at
// least half a day and at most two.
func (r rules) next(before []entry, at time.Time) uint32 {
	n := len(before)
	if r.easyGaps && at.Sub(before[n-1].Time) > easyGap {
		return r.limitBits
	}
	last, first := middle(before[n-3:]), middle(before[n-window:n-day])
	span := last.Time.Sub(first.Time)
	span = min(max(span, day/2*spacing), 2*day*spacing)
	work := new(big.Int).Sub(last.work, first.work)
	work.Mul(work, big.NewInt(int64(spacing/time.Second)))
	work.Div(work, big.NewInt(int64(span/time.Second)))
	if work.Sign() <= 0 { // cannot be: every block has work
		return r.limitBits
	}
	target := new(big.Int).Lsh(big.NewInt(1), 256)
	target.Sub(target, work)
	target.Div(target, work)
	if target.Cmp(r.limit) > 0 {
		return r.limitBits
	}
	return bitsOf(target)
}

// middle returns the second of three by time. What is done where two have the
// same time is part of the rule.
func middle(three []entry) entry {
	e := [3]entry(three)
	later := func(i, j int) bool { return e[i].Time.After(e[j].Time) }
	if later(0, 2) {
		e[0], e[2] = e[2], e[0]
	}
	if later(0, 1) {
		e[0], e[1] = e[1], e[0]
	}
	if later(1, 2) {
		e[1], e[2] = e[2], e[1]
	}
	return e[1]
}

// targetOf reads the compact form of a target; nil where it is none: negative,
// zero or beyond 256 bits.
func targetOf(bits uint32) *big.Int {
	exponent, mantissa := uint(bits>>24), int64(bits&0x007fffff)
	if bits&0x00800000 != 0 {
		return nil
	}
	target := big.NewInt(mantissa)
	if exponent <= 3 {
		target.Rsh(target, 8*(3-exponent))
	} else {
		target.Lsh(target, 8*(exponent-3))
	}
	if target.Sign() == 0 || target.BitLen() > 256 {
		return nil
	}
	return target
}

// bitsOf is the compact form of a target, rounded down.
func bitsOf(target *big.Int) uint32 {
	size := uint((target.BitLen() + 7) / 8)
	mantissa := new(big.Int).Set(target)
	if size <= 3 {
		mantissa.Lsh(mantissa, 8*(3-size))
	} else {
		mantissa.Rsh(mantissa, 8*(size-3))
	}
	m := uint32(mantissa.Uint64())
	if m&0x00800000 != 0 { // it would be a sign
		m >>= 8
		size++
	}
	return uint32(size)<<24 | m
}

// workOf is how many hashes a header with these bits takes; the bits are
// checked.
func workOf(bits uint32) *big.Int {
	target := targetOf(bits)
	target.Add(target, big.NewInt(1))
	return target.Div(new(big.Int).Lsh(big.NewInt(1), 256), target)
}

func hashNumber(h chain.Hash) *big.Int {
	slices.Reverse(h[:])
	return new(big.Int).SetBytes(h[:])
}
