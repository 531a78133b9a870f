// Package faulty is a view of the chain that fails and lies, for tests: it
// stands before another one and misbehaves as a script says, or at random from
// a seed. No program uses it.
//
// The same calls one after another meet the same faults. With calls from several
// goroutines, which of them meets a fault is up to their order.
package faulty

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	_ chain.Backend     = (*Backend)(nil)
	_ chain.BulkUnspent = (*Backend)(nil)
	_ chain.HeaderRange = (*Backend)(nil)
	_ chain.SpentBy     = (*Backend)(nil)
)

// Fault is one way to misbehave.
type Fault uint8

const (
	// None is good behaviour, for scripts.
	None Fault = iota
	// Timeout answers nothing until the call's context ends.
	Timeout
	// Unavailable fails without having asked anybody.
	Unavailable
	// Lost does what was asked and loses the answer.
	Lost
	// Busy refuses the call as one too many.
	Busy

	// OtherTx answers RawTx with another transaction.
	OtherTx
	// StaleTip answers Tip with the block before it.
	StaleTip
	// OffByOne answers Tip, Header and a mined Status with a height that is one
	// too high.
	OffByOne
	// NoProof leaves the proof out of a mined Status.
	NoProof
	// OtherProof answers a mined Status with a proof whose path leads elsewhere.
	OtherProof
	// FalseMined answers the Status of what is in the mempool with mined in the
	// newest block, without a proof.
	FalseMined
	// FalseCoin adds a coin to Unspent that does not exist.
	FalseCoin
	// HiddenCoin leaves a coin out of Unspent.
	HiddenCoin
	// FalseSpent answers Spent with the opposite.
	FalseSpent
	// FalseReject refuses a good transaction as a double spend, and does not
	// broadcast it.
	FalseReject
	// FalseAccept says that a transaction is broadcast, which it is not.
	FalseAccept
	// FalseConflict answers the Status of what is in the mempool with conflicted.
	FalseConflict

	// Reorganisation calls Plan.Reorganise first, and behaves well otherwise.
	Reorganisation

	faults
)

var names = [faults]string{
	"none", "timeout", "unavailable", "lost", "busy", "other transaction", "stale tip", "off by one", "no proof",
	"other proof", "false mined", "false coin", "hidden coin", "false spent", "false reject", "false accept",
	"false conflict", "reorganisation",
}

// String names the fault.
func (f Fault) String() string {
	if f < faults {
		return names[f]
	}
	return fmt.Sprintf("fault %d", uint8(f))
}

// methods are what a lie fits; what is not here fits every call.
var methods = map[Fault][]string{
	OtherTx: {"RawTx"}, StaleTip: {"Tip"}, OffByOne: {"Tip", "Header", "Status"}, NoProof: {"Status"},
	OtherProof: {"Status"}, FalseMined: {"Status"}, FalseCoin: {"Unspent"}, HiddenCoin: {"Unspent"},
	FalseSpent: {"Spent"}, FalseReject: {"Broadcast"}, FalseAccept: {"Broadcast"}, FalseConflict: {"Status"},
}

func (f Fault) fits(method string) bool {
	m, ok := methods[f]
	return !ok || slices.Contains(m, method)
}

// Plan is how to misbehave.
type Plan struct {
	// Script is what happens to the first calls, one fault each. A fault that
	// does not fit a call waits for one that it does fit, and lets the call pass.
	Script []Fault
	// Chance of each fault after that, 0 to 1, at every call that it fits.
	Chance map[Fault]float64
	// Reorganise is called by Reorganisation.
	Reorganise func()
}

// Backend misbehaves. Use New.
type Backend struct {
	inner chain.Backend

	mu     sync.Mutex
	random *rand.Rand
	plan   Plan
	counts [faults]int
}

// New returns a view that answers as inner does, but for the plan.
func New(inner chain.Backend, seed uint64, plan Plan) *Backend {
	plan.Script = slices.Clone(plan.Script)
	return &Backend{inner: inner, random: rand.New(rand.NewPCG(seed, 0)), plan: plan}
}

// Do adds faults to the script.
func (b *Backend) Do(script ...Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan.Script = append(b.plan.Script, script...)
}

// Count returns how often a fault has happened.
func (b *Backend) Count(f Fault) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[f]
}

// next decides what happens to a call.
func (b *Backend) next(method string) Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := None
	if len(b.plan.Script) > 0 {
		if b.plan.Script[0].fits(method) {
			f, b.plan.Script = b.plan.Script[0], b.plan.Script[1:]
		}
	} else {
		for g := range faults {
			if g.fits(method) && b.plan.Chance[g] > 0 && b.random.Float64() < b.plan.Chance[g] {
				f = g
				break
			}
		}
	}
	b.counts[f]++
	return f
}

// call makes one call: f asks inner, and lie turns what it answers into what the
// fault says. A nil lie is for calls that no lie fits.
func call[T any](ctx context.Context, b *Backend, method string, f func() (T, error), lie func(Fault, T) (T, error)) (T, error) {
	var none T
	fault := b.next(method)
	switch fault {
	case Timeout:
		<-ctx.Done()
		return none, fmt.Errorf("%s: faulty: %w: %w", method, chain.ErrUnavailable, ctx.Err())
	case Unavailable:
		return none, fmt.Errorf("%s: faulty: %w", method, chain.ErrUnavailable)
	case Busy:
		return none, fmt.Errorf("%s: faulty: %w: 429 Too Many Requests", method, chain.ErrUnavailable)
	case Lost:
		_, _ = f()
		return none, fmt.Errorf("%s: faulty: the answer is lost: %w", method, chain.ErrUnavailable)
	case Reorganisation:
		if b.plan.Reorganise != nil {
			b.plan.Reorganise()
		}
	case FalseReject, FalseAccept:
		return lie(fault, none)
	}
	answer, err := f()
	if err != nil || lie == nil {
		return answer, err
	}
	return lie(fault, answer)
}

// Tip implements chain.Backend.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	return call(ctx, b, "Tip", func() (chain.Header, error) { return b.inner.Tip(ctx) },
		func(f Fault, h chain.Header) (chain.Header, error) {
			if f == StaleTip && h.Height > 0 {
				return b.inner.Header(ctx, h.Height-1)
			}
			return offByOne(f, h)
		})
}

func offByOne(f Fault, h chain.Header) (chain.Header, error) {
	if f == OffByOne {
		h.Height++
	}
	return h, nil
}

// Header implements chain.Backend.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	return call(ctx, b, "Header", func() (chain.Header, error) { return b.inner.Header(ctx, height) }, offByOne)
}

// Headers implements chain.HeaderRange.
func (b *Backend) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	return call(ctx, b, "Headers", func() ([]chain.Header, error) {
		if many, ok := b.inner.(chain.HeaderRange); ok {
			return many.Headers(ctx, from, n)
		}
		return nil, chain.ErrUnsupported
	}, nil)
}

// FeeRate implements chain.Backend.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	return call(ctx, b, "FeeRate", func() (money.FeeRate, error) { return b.inner.FeeRate(ctx) }, nil)
}

// Broadcast implements chain.Backend.
func (b *Backend) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	_, err := call(ctx, b, "Broadcast", func() (struct{}, error) { return struct{}{}, b.inner.Broadcast(ctx, tx, prev) },
		func(f Fault, ok struct{}) (struct{}, error) {
			if f == FalseReject {
				return ok, chain.Reject(chain.DoubleSpend, "faulty: 258: txn-mempool-conflict")
			}
			return ok, nil
		})
	return err
}

// Status implements chain.Backend.
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	return call(ctx, b, "Status", func() (chain.Status, error) { return b.inner.Status(ctx, txid) },
		func(f Fault, s chain.Status) (chain.Status, error) {
			switch {
			case f == FalseMined && s.State == chain.Seen:
				tip, err := b.inner.Tip(ctx)
				return chain.Status{State: chain.Mined, Height: tip.Height, Block: tip.Hash}, err
			case f == FalseConflict && s.State == chain.Seen:
				return chain.Status{State: chain.Conflicted, Competing: []bsv.Txid{{0xff}}}, nil
			case s.State != chain.Mined:
				return s, nil
			}
			switch f {
			case OffByOne:
				s.Height++
			case NoProof:
				s.Proof = nil
			case OtherProof:
				if s.Proof != nil {
					p := *s.Proof
					p.Path = append(slices.Clone(p.Path), chain.Hash{0xff})
					s.Proof = &p
				}
			}
			return s, nil
		})
}

// RawTx implements chain.Backend.
func (b *Backend) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	return call(ctx, b, "RawTx", func() (*bsv.Tx, error) { return b.inner.RawTx(ctx, txid) },
		func(f Fault, tx *bsv.Tx) (*bsv.Tx, error) {
			if f == OtherTx {
				other := *tx
				other.LockTime++
				tx = &other
			}
			return tx, nil
		})
}

// Unspent implements chain.Backend.
func (b *Backend) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	return call(ctx, b, "Unspent", func() ([]chain.Coin, error) { return b.inner.Unspent(ctx, script) },
		func(f Fault, coins []chain.Coin) ([]chain.Coin, error) {
			switch {
			case f == FalseCoin:
				coins = append(coins, chain.Coin{Coin: bsv.Coin{
					Outpoint: bsv.Outpoint{Txid: bsv.Txid{0xff}}, Output: bsv.Output{Value: 1_000_000, Script: script},
				}})
			case f == HiddenCoin && len(coins) > 0:
				coins = coins[1:]
			}
			return coins, nil
		})
}

// UnspentBulk implements chain.BulkUnspent.
func (b *Backend) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	return call(ctx, b, "UnspentBulk", func() ([][]chain.Coin, error) { return chain.UnspentOf(ctx, b.inner, scripts) }, nil)
}

// Spent implements chain.Backend.
func (b *Backend) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	return call(ctx, b, "Spent", func() (bool, error) { return b.inner.Spent(ctx, o) },
		func(f Fault, spent bool) (bool, error) { return spent != (f == FalseSpent), nil })
}

// SpentBy implements chain.SpentBy.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	_, err = call(ctx, b, "SpentBy", func() (struct{}, error) {
		var err error
		by, spent, err = chain.SpenderOf(ctx, b.inner, o)
		return struct{}{}, err
	}, nil)
	if err != nil {
		return bsv.Txid{}, false, err
	}
	return by, spent, nil
}
