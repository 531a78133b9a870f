package faulty_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/faulty"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/money"
)

func clock() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC) }

// Without a plan it behaves.
func TestConformance(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	chaintest.Run(t, chaintest.Harness{
		Backend: faulty.New(c, 1, faulty.Plan{}),
		Mine:    func(_ testing.TB, n int) { c.Mine(n) },
		Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			return c.FundUnconfirmed(script, value)
		},
		Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
		Stop:          func(testing.TB) { c.SetDown(true) },
		RefusesLowFee: true,
	})
}

func TestSeedDecides(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (said []string) {
		c := memory.New(clock)
		c.MineTo(5)
		b := faulty.New(c, seed, faulty.Plan{Chance: map[faulty.Fault]float64{
			faulty.Unavailable: 0.2, faulty.Busy: 0.2, faulty.StaleTip: 0.5, faulty.OffByOne: 0.5,
		}})
		for range 100 {
			h, err := b.Tip(t.Context())
			said = append(said, fmt.Sprint(h.Height, err))
			n, err := b.Header(t.Context(), 3)
			said = append(said, fmt.Sprint(n.Height, err))
		}
		return said
	}
	one := run(1)
	if !slices.Equal(one, run(1)) {
		t.Error("one seed, two ways")
	}
	if slices.Equal(one, run(2)) {
		t.Error("two seeds, one way")
	}
}

func TestScript(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(5)
	coin := c.Fund(bsv.P2PKH(bsv.Hash160{1}), 1000)
	reorganised := 0
	b := faulty.New(c, 1, faulty.Plan{
		Script:     []faulty.Fault{faulty.Unavailable, faulty.None, faulty.FalseSpent, faulty.Lost},
		Chance:     map[faulty.Fault]float64{faulty.StaleTip: 1},
		Reorganise: func() { reorganised++ },
	})
	if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
	for range 3 { // the second one waits for a question that it fits
		if h, err := b.Tip(t.Context()); err != nil || h.Height != 6 {
			t.Fatal(h.Height, err)
		}
	}
	if spent, err := b.Spent(t.Context(), coin.Outpoint); err != nil || !spent {
		t.Fatal(spent, err)
	}
	if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
	if h, err := b.Tip(t.Context()); err != nil || h.Height != 5 { // chance, from here on
		t.Fatal(h.Height, err)
	}
	b.Do(faulty.Timeout, faulty.Reorganisation)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := b.FeeRate(ctx); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if _, err := b.FeeRate(t.Context()); err != nil || reorganised != 1 {
		t.Fatal(reorganised, err)
	}
	for fault, want := range map[faulty.Fault]int{
		faulty.Unavailable: 1, faulty.Lost: 1, faulty.FalseSpent: 1, faulty.StaleTip: 1, faulty.Timeout: 1, faulty.Reorganisation: 1,
		faulty.Busy: 0,
	} {
		if got := b.Count(fault); got != want {
			t.Errorf("%s: %d times", fault, got)
		}
	}
}

// A lost answer is that of a call that was made, a false one of one that was
// not.
func TestBroadcast(t *testing.T) {
	t.Parallel()
	k, err := bsv.NewPrivateKey(append(make([]byte, 31), 2))
	if err != nil {
		t.Fatal(err)
	}
	for fault, want := range map[faulty.Fault]struct {
		taken, refused bool
		err            error
	}{
		faulty.None:        {taken: true},
		faulty.Lost:        {taken: true, err: chain.ErrUnavailable},
		faulty.Unavailable: {err: chain.ErrUnavailable},
		faulty.FalseAccept: {},
		faulty.FalseReject: {refused: true},
	} {
		c := memory.New(clock)
		coin := c.Fund(bsv.P2PKH(k.Public().Hash()), 10_000)
		tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, k.Public().Hash(), chain.DefaultFeeRate)
		if err != nil {
			t.Fatal(err)
		}
		err = faulty.New(c, 1, faulty.Plan{Script: []faulty.Fault{fault}}).Broadcast(t.Context(), tx, nil)
		rejected := new(chain.Rejected)
		if refused := errors.As(err, &rejected); refused != want.refused || !refused && !errors.Is(err, want.err) {
			t.Errorf("%s: %v", fault, err)
		}
		if taken := len(c.Mempool()) == 1; taken != want.taken {
			t.Errorf("%s: taken %v", fault, taken)
		}
	}
}
