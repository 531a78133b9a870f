package failover_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/faulty"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
	"github.com/bitcdn/bitcdn/payments/money"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }

// fleeting is a clock on which a second passes whenever somebody looks: what was
// skipped soon comes back.
func fleeting() func() time.Time {
	var looks atomic.Int64
	return func() time.Time { return noon.Add(time.Duration(looks.Add(1)) * time.Second) }
}

// The suite passes with a service in front that fails in every way there is, but
// tells the truth when it tells something.
func TestConformance(t *testing.T) {
	t.Parallel()
	failures := map[faulty.Fault]float64{
		faulty.Timeout: 0.01, faulty.Unavailable: 0.1, faulty.Lost: 0.1, faulty.Busy: 0.05, faulty.NoProof: 0.2,
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			c := memory.New(clock)
			bad := faulty.New(c, seed, faulty.Plan{Chance: failures})
			b, err := failover.New([]failover.Service{{Name: "bad", Backend: bad}, {Name: "good", Backend: c}},
				failover.Options{Clock: fleeting(), Timeout: 300 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			chaintest.Run(t, chaintest.Harness{
				Backend: b,
				Mine:    func(_ testing.TB, n int) { c.Mine(n) },
				Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
					return c.FundUnconfirmed(script, value)
				},
				Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
				Stop:          func(testing.TB) { c.SetDown(true) },
				RefusesLowFee: true,
			})
			for f := range failures {
				t.Logf("%s: %d times", f, bad.Count(f))
				if bad.Count(f) == 0 {
					t.Errorf("%s never happened", f)
				}
			}
		})
	}
}

// The services of a box without a node of its own: broadcast by one, look up by
// another, over a real node.
func TestConformanceARCAndWhatsOnChain(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	woc, err := whatsonchain.Dial(woctest.Serve(t, n.Backend(), woctest.Options{}), bsv.Regtest,
		whatsonchain.Options{Rate: 1e6, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer woc.Close()
	server := arcnode.ForTest(t, n, arcnode.Options{})
	sender, err := arc.Dial(server.URL(), arc.Options{Tip: func(ctx context.Context) (uint32, error) {
		tip, err := woc.Tip(ctx)
		return tip.Height, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	b, err := failover.New([]failover.Service{
		{Name: "ARC", Backend: sender, OwnOnly: true}, {Name: "WhatsOnChain", Backend: woc},
	}, failover.Options{})
	if err != nil {
		t.Fatal(err)
	}
	chaintest.Run(t, chaintest.Harness{
		Backend: withFee{b},
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
			server.Stop(t)
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	})
	for _, s := range b.Services() {
		if s.LastAnswer.IsZero() {
			t.Errorf("%s has never answered", s.Name)
		}
	}
}

// withFee tells no fee when the services are gone, as the suite wants it: one
// that never tells any makes it the usual one.
type withFee struct{ *failover.Backend }

func (b withFee) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if _, err := b.Tip(ctx); err != nil {
		return 0, err
	}
	return b.Backend.FeeRate(ctx)
}

var _ chain.Backend = withFee{}
