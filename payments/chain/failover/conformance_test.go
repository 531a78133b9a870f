package failover_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/faulty"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
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
	for seed := range uint64(3) {
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
