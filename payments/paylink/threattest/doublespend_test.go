package threattest

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Row 3.
func TestPayerDoubleSpendsItsFunding(t *testing.T) {
	for name, mined := range map[string]int{"before it is seen": 0, "before it is seen, mined": 1} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			coins := r.coins(1, 30_000)
			p := r.connect()
			p.prepare(plan{coins: coins})
			other := r.spend(feeRate, coins...)
			r.must(r.steal(other))
			r.mine(mined)
			if p.funded() || p.refusal.Code != wire.CodeDoubleSpend {
				t.Errorf("answered with %v", p.refusal)
			}
			p.take()
			r.settle()
			record(t, result{row: 3, attack: name, attacker: "payer", victim: "seller", tries: 1, atRisk: 20_000,
				lost: r.due(p.total) - r.received(p), bound: 0, fees: coins[0].Output.Value - other.Outputs[0].Value})
			r.audit(r.box)
		})
	}
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
			lost: r.due(p.total) - r.received(p), bound: r.offer.UnconfirmedLimit, fees: coins[0].Output.Value - other.Outputs[0].Value})
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
			other := r.spend(feeRate, coins...)
			r.mineInstead(depth, other)
			for range 20 { // what it can still get
				p.trade(p.total + 2<<20)
			}
			p.leave()
			r.settle()
			record(t, result{row: 3, attack: name, attacker: "payer and miner", victim: "seller", tries: 1, atRisk: atRisk,
				lost: r.due(p.total) - r.received(p), bound: p.state.Open.Capacity, fees: coins[0].Output.Value - other.Outputs[0].Value})
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

// Row 3, with many channels that one double spend takes all of.
func TestPayerDoubleSpendsWhatManyChannelsStandOn(t *testing.T) {
	const channels = 12
	for name, fund := range map[string]func(*rig, bsv.Coin, []*payer){
		"many channels on one parent": func(r *rig, coin bsv.Coin, payers []*payer) {
			parent := r.fan(coin, len(payers))
			for i, p := range payers {
				p.prepare(plan{coins: outputs(parent)[i : i+1]})
				if !p.funded(parent) && p.refusal.Code != wire.CodeUnavailable {
					t.Errorf("channel %d refused: %v", i, p.refusal)
				}
			}
		},
		"many channels on one parent, at one moment": func(r *rig, coin bsv.Coin, payers []*payer) {
			parent := r.fan(coin, len(payers))
			for i, p := range payers {
				p.prepare(plan{coins: outputs(parent)[i : i+1]})
			}
			together(payers, parent)
		},
		"many channels on one parent, one of them trusted": func(r *rig, coin bsv.Coin, payers []*payer) {
			payers[0].show(r.settled(60 << 20))
			parent := r.fan(coin, len(payers))
			for i, p := range payers {
				p.prepare(plan{coins: outputs(parent)[i : i+1]})
				if !p.funded(parent) && p.refusal.Code != wire.CodeUnavailable {
					t.Errorf("channel %d refused: %v", i, p.refusal)
				}
			}
		},
		"many channels of one funding, at one moment": func(r *rig, coin bsv.Coin, payers []*payer) {
			var keys []bsv.PrivateKey
			var locks []bsv.Output
			for _, p := range payers {
				key := r.key()
				keys = append(keys, key)
				locks = append(locks, bsv.Output{Value: 20_000, Script: bsv.Multisig(key.Public(), p.terms.Payee)})
			}
			funding, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{r.purse}, locks, r.purse.Public().Hash(), feeRate)
			r.must(err)
			for i, p := range payers {
				p.open(keys[i], funding, []bsv.Output{coin.Output}, wire.Open{FundingTxid: funding.Txid(), FundingIndex: uint32(i), Capacity: 20_000})
			}
			together(payers)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) {
				r.offer.UnconfirmedTotal = 3 * r.offer.UnconfirmedLimit
				r.policy.MaxUnconfirmed = 2 * r.offer.UnconfirmedLimit
			})
			coin := r.coins(1, 1_000_000)[0]
			payers := make([]*payer, channels)
			for i := range payers {
				payers[i] = r.connect()
			}
			fund(r, coin, payers)
			var taken money.Satoshis
			for _, p := range payers {
				p.trade(64 << 20)
				taken += r.due(p.total)
			}
			other := r.spend(feeRate, coin)
			r.mineInstead(1, other)
			for _, p := range payers {
				p.leave()
			}
			r.settle()
			record(t, result{row: 3, attack: name, attacker: "payer", victim: "seller", tries: channels, atRisk: channels * 20_000,
				lost: taken - r.received(payers...), bound: r.offer.UnconfirmedTotal, fees: coin.Output.Value - other.Outputs[0].Value})
			r.audit(r.box)
		})
	}
}

// fan is an unconfirmed transaction with n coins of the purse.
func (r *rig) fan(coin bsv.Coin, n int) *bsv.Tx {
	r.Helper()
	outs := make([]bsv.Output, n)
	for i := range outs {
		outs[i] = bsv.Output{Value: 30_000, Script: bsv.P2PKH(r.purse.Public().Hash())}
	}
	tx, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{r.purse}, outs, r.purse.Public().Hash(), feeRate)
	r.must(err)
	r.must(r.steal(tx))
	return tx
}

// together hands all fundings over before any is answered.
func together(payers []*payer, parents ...*bsv.Tx) {
	for _, p := range payers {
		p.say(p.handover(parents...))
	}
	for _, p := range payers {
		if ready := await[*wire.Ready](p); ready != nil {
			p.step(channel.Got{Msg: ready})
		}
	}
}
