package threattest

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Row 3.
func TestPayerDoubleSpendsItsFunding(t *testing.T) {
	t.Run("before it is seen", func(t *testing.T) {
		r := newRig(t, nil)
		coins := r.coins(1, 30_000)
		p := r.connect()
		p.prepare(plan{coins: coins})
		r.must(r.steal(r.spend(feeRate, coins...)))
		if p.funded() || p.refusal.Code != wire.CodeDoubleSpend {
			t.Errorf("answered with %v", p.refusal)
		}
		p.take()
		r.settle()
		record(t, result{row: 3, attack: "before it is seen", attacker: "payer", victim: "seller", tries: 1, atRisk: 20_000,
			lost: r.due(p.total) - r.received(p), bound: 0, fees: feeRate.Fee(192)})
		r.audit(r.box)
	})
	t.Run("before it is seen, mined", func(t *testing.T) {
		r := newRig(t, nil)
		coins := r.coins(1, 30_000)
		p := r.connect()
		p.prepare(plan{coins: coins})
		r.must(r.steal(r.spend(feeRate, coins...)))
		r.mine(1)
		if p.funded() || p.refusal.Code != wire.CodeDoubleSpend && p.refusal.Code != wire.CodeSpent {
			t.Errorf("answered with %v", p.refusal)
		}
		p.take()
		r.settle()
		record(t, result{row: 3, attack: "before it is seen, mined", attacker: "payer", victim: "seller", tries: 1, atRisk: 20_000,
			lost: r.due(p.total) - r.received(p), bound: 0, fees: feeRate.Fee(192)})
		r.audit(r.box)
	})
	t.Run("after, with a higher fee", func(t *testing.T) {
		r := newRig(t, nil)
		coins := r.coins(1, 30_000)
		p := r.connect()
		p.fund(plan{coins: coins})
		p.trade(64 << 20)
		tries := 0
		for _, rate := range []money.FeeRate{feeRate, 10 * feeRate, 100 * feeRate} {
			var rejected *chain.Rejected
			if err := r.steal(r.spend(rate, coins...)); !errors.As(err, &rejected) || rejected.Reason != chain.DoubleSpend {
				t.Errorf("the node takes a second transaction at %v: %v", rate, err)
			}
			tries++
		}
		r.mine(1)
		p.take()
		p.leave()
		r.settle()
		record(t, result{row: 3, attack: "after, with a higher fee", attacker: "payer", victim: "seller", tries: tries, atRisk: 20_000,
			lost: r.due(p.total) - r.received(p), bound: r.perFunding(p.total)})
		r.audit(r.box)
	})
	t.Run("the other one is mined in the next block", func(t *testing.T) {
		r := newRig(t, nil)
		coins := r.coins(1, 30_000)
		p := r.connect()
		p.fund(plan{coins: coins})
		p.trade(64 << 20)
		atRisk := r.due(p.total)
		other := r.spend(feeRate, coins...)
		r.mineInstead(1, other)
		p.stopped(t)
		p.leave()
		r.settle()
		record(t, result{row: 3, attack: "the other one is mined in the next block", attacker: "payer", victim: "seller", tries: 1, atRisk: atRisk,
			lost: r.due(p.total) - r.received(p), bound: r.offer.UnconfirmedLimit, fees: feeRate.Fee(192)})
		r.audit(r.box)
	})
	for _, depth := range []int{1, 3} {
		name := map[int]string{1: "reorganised out of a block", 3: "reorganised out from below three blocks"}[depth]
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			coins := r.coins(1, 30_000)
			r.mine(3)
			p := r.connect()
			p.fund(plan{coins: coins, capacity: 6_000})
			p.trade(10 << 20)
			r.mine(depth)
			r.wait("the funding is mined for the seller", func() bool { p.take(); p.pay(); return p.total > 30<<20 })
			p.trade(60 << 20)
			atRisk := r.due(p.total)
			r.mineInstead(depth, r.spend(feeRate, coins...))
			for range 20 { // what it can still get
				p.trade(p.total + 2<<20)
			}
			p.leave()
			r.settle()
			record(t, result{row: 3, attack: name, attacker: "payer and miner", victim: "seller", tries: 1, atRisk: atRisk,
				lost: r.due(p.total) - r.received(p), bound: p.state.Open.Capacity, fees: feeRate.Fee(192)})
			r.audit(r.box)
		})
	}
}

// stopped waits until the seller has noticed that the funding is lost.
func (p *payer) stopped(t *testing.T) {
	t.Helper()
	p.r.wait("the seller stops", func() bool {
		row, err := p.r.box.ledger.Channel(t.Context(), p.state.ID())
		p.r.must(err)
		return row.State != ledger.StateOpen && p.conn.limit() == 0
	})
}

// Row 3, with the fundings of many channels on one transaction.
func TestPayerDoubleSpendsWhatManyFundingsStandOn(t *testing.T) {
	for name, together := range map[string]bool{"many channels on one parent": false, "many channels on one parent, at the same moment": true} {
		t.Run(name, func(t *testing.T) {
			const channels = 12
			r := newRig(t, func(r *rig) { r.offer.UnconfirmedTotal = 3 * r.offer.UnconfirmedLimit })
			coin := r.coins(1, 1_000_000)[0]
			outs := make([]bsv.Output, channels)
			for i := range outs {
				outs[i] = bsv.Output{Value: 30_000, Script: bsv.P2PKH(r.purse.Public().Hash())}
			}
			parent, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{r.purse}, outs, r.purse.Public().Hash(), feeRate)
			r.must(err)
			r.must(r.steal(parent))
			var payers []*payer
			for i := range channels {
				p := r.connect()
				p.prepare(plan{coins: outputs(parent)[i : i+1]})
				payers = append(payers, p)
				if together {
					continue
				}
				if !p.funded(parent) && p.refusal.Code != wire.CodeUnavailable {
					t.Errorf("channel %d refused: %v", i, p.refusal)
				}
			}
			if together {
				for _, p := range payers {
					p.say(&wire.Funded{Channel: p.state.ID(), Funding: p.state.Funding, Parents: [][]byte{parent.Bytes()}, First: p.state.Last})
				}
				for _, p := range payers {
					if ready := await[*wire.Ready](p); ready != nil {
						p.step(channelGot(ready))
					}
				}
			}
			var taken money.Satoshis
			open := 0
			for _, p := range payers {
				p.trade(64 << 20)
				taken += r.due(p.total)
				if p.total > 0 {
					open++
				}
			}
			t.Logf("%d channels opened", open)
			r.mineInstead(1, r.spend(feeRate, coin))
			for _, p := range payers {
				p.leave()
			}
			r.settle()
			record(t, result{row: 3, attack: name, attacker: "payer and miner", victim: "seller", tries: channels, atRisk: channels * 20_000,
				lost: taken - r.received(payers...), bound: r.offer.UnconfirmedTotal, fees: feeRate.Fee(192)})
			r.audit(r.box)
		})
	}
}
