package spv_test

import (
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/chain/spv"
	"github.com/bitcdn/bitcdn/payments/money"
)

func regtest(t testing.TB, clock func() time.Time, sources ...headers.Source) *headers.Chain {
	t.Helper()
	h, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest, Clock: clock, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestConformanceMemory(t *testing.T) {
	c := memory.New(now)
	chaintest.Run(t, chaintest.Harness{
		Backend: spv.New(c, regtest(t, now), spv.Options{Clock: now}),
		Mine:    func(_ testing.TB, n int) { c.Mine(n) },
		Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			return c.FundUnconfirmed(script, value)
		},
		Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
		Stop:          func(testing.TB) { c.SetDown(true) },
		OwnHeaders:    true,
		RefusesLowFee: true,
	})
}

func TestConformanceBsvd(t *testing.T) {
	n := regnode.ForTest(t)
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b := spv.New(n.Backend(), regtest(t, nil), spv.Options{})
	chaintest.Run(t, chaintest.Harness{
		Backend: b,
		Mine: func(t testing.TB, blocks int) {
			t.Helper()
			must(t, n.Mine(t.Context(), blocks))
		},
		Fund: func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			t.Helper()
			coin, err := n.Fund(t.Context(), script, value)
			must(t, err)
			return coin
		},
		Reorganise: func(t testing.TB, depth int) {
			t.Helper()
			must(t, n.Reorganise(t.Context(), depth, regnode.ToMempool))
		},
		Stop: func(t testing.TB) {
			must(t, n.Stop())
		},
		OwnHeaders: true,
	})
	if n, last := b.Unproven(); n != 0 {
		t.Errorf("%d unproven: %s", n, last)
	}
}

func now() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC) }

var _ headers.Source = (*spv.Backend)(nil)
var _ chain.Backend = (*spv.Backend)(nil)
