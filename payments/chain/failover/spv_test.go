package failover_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/faulty"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/spv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// proving is what a program has: services, the headers, and proof in front.
func proving(t testing.TB, services ...chain.Backend) (*failover.Backend, *spv.Backend, *headers.Chain) {
	t.Helper()
	var sources []headers.Source
	for _, s := range services {
		sources = append(sources, s)
	}
	h, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest, Sources: sources, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	f := combine(t, failover.Options{Clock: fleeting(), Timeout: 300 * time.Millisecond, Headers: h}, services...)
	return f, spv.New(f, h, spv.Options{Sources: sources, Clock: clock}), h
}

// The suite passes with a service in front that lies about transactions in every
// way that proof or a second opinion can find out, and fails besides.
func TestConformanceWithLies(t *testing.T) {
	t.Parallel()
	lies := map[faulty.Fault]float64{
		faulty.OtherTx: 0.3, faulty.NoProof: 0.2, faulty.OtherProof: 0.3, faulty.FalseMined: 0.3,
		faulty.FalseConflict: 0.3,
		faulty.Unavailable:   0.05, faulty.Lost: 0.05, faulty.Busy: 0.05, faulty.Timeout: 0.005,
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			c := memory.New(clock)
			bad := faulty.New(c, seed, faulty.Plan{Chance: lies})
			_, b, _ := proving(t, bad, c)
			chaintest.Run(t, chaintest.Harness{
				Backend: b,
				Mine:    func(_ testing.TB, n int) { c.Mine(n) },
				Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
					return c.FundUnconfirmed(script, value)
				},
				Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
				Stop:          func(testing.TB) { c.SetDown(true) },
				OwnHeaders:    true,
				RefusesLowFee: true,
			})
			for f := range lies {
				t.Logf("%s: %d times", f, bad.Count(f))
			}
		})
	}
}

// A service on another branch proves what is mined there. The others are heard.
func TestProofOfAnotherBranch(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	bad := faulty.New(c, 1, faulty.Plan{Chance: map[faulty.Fault]float64{faulty.OtherProof: 1}})
	f, b, h := proving(t, bad, c)
	coin := c.Fund(bsv.P2PKH(bsv.Hash160{1}), 1000)
	txid := coin.Outpoint.Txid
	tip, err := b.Tip(t.Context()) // brings the headers
	if err != nil {
		t.Fatal(err)
	}
	s, err := f.Status(t.Context(), txid)
	if err != nil || s.State != chain.Mined || s.Proof == nil || s.Proof.Check(txid, tip) != nil {
		t.Fatal(s, err)
	}
	p, err := f.Proof(t.Context(), txid)
	if err != nil || p.Check(txid, tip) != nil {
		t.Fatal(p, err)
	}
	if s, err := b.Status(t.Context(), txid); err != nil || s.State != chain.Mined {
		t.Fatal(s, err)
	}

	// A block that has just been found is looked for first.
	next := c.Fund(bsv.P2PKH(bsv.Hash160{2}), 1000).Outpoint.Txid
	s, err = f.Status(t.Context(), next)
	if err != nil || s.State != chain.Mined || s.Proof == nil {
		t.Fatal(s, err)
	}
	if h, ok := h.At(s.Height); !ok || s.Proof.Check(next, h) != nil {
		t.Fatal(s, ok)
	}

	// What ends in no header is passed on where there is nothing better: it is
	// not for this package to say that it is wrong.
	f, _, _ = proving(t, bad)
	s, err = f.Status(t.Context(), next)
	if err != nil || s.State != chain.Mined || s.Proof == nil {
		t.Fatal(s, err)
	}
	if p, err := f.Proof(t.Context(), next); err != nil || p == nil {
		t.Fatal(p, err)
	}
}
