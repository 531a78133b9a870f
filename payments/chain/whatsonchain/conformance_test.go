package whatsonchain_test

import (
	"context"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
	"github.com/bitcdn/bitcdn/payments/money"
)

func clock() time.Time { return time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC) }

// fast is without a rate that a test would notice.
var fast = whatsonchain.Options{Rate: 1e6, Burst: 1000}

func dial(t testing.TB, b chain.Backend, opt woctest.Options) *whatsonchain.Backend {
	t.Helper()
	w, err := whatsonchain.Dial(woctest.Serve(t, b, opt), bsv.Regtest, fast)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// withFee tells a fee, which the suite wants to know and WhatsOnChain does not
// say, as long as the service is there.
type withFee struct{ *whatsonchain.Backend }

func (b withFee) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if _, err := b.Tip(ctx); err != nil {
		return 0, err
	}
	return chain.DefaultFeeRate, nil
}

func TestConformanceMemory(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	chaintest.Run(t, chaintest.Harness{
		Backend: withFee{dial(t, c, woctest.Options{Page: 50})},
		Mine:    func(_ testing.TB, n int) { c.Mine(n) },
		Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			return c.FundUnconfirmed(script, value)
		},
		Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
		Stop:          func(testing.TB) { c.SetDown(true) },
		RefusesLowFee: true,
	})
}

func TestConformanceBsvd(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	chaintest.Run(t, chaintest.Harness{
		Backend: withFee{dial(t, n.Backend(), woctest.Options{})},
		Mine: func(t testing.TB, blocks int) {
			t.Helper()
			if err := n.Mine(t.Context(), blocks); err != nil {
				t.Fatal(err)
			}
		},
		Fund: func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			t.Helper()
			coin, err := n.Fund(t.Context(), script, value)
			if err != nil {
				t.Fatal(err)
			}
			return coin
		},
		Reorganise: func(t testing.TB, depth int) {
			t.Helper()
			if err := n.Reorganise(t.Context(), depth, regnode.ToMempool); err != nil {
				t.Fatal(err)
			}
		},
		Stop: func(t testing.TB) {
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	})
}
