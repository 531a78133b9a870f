package threattest

import (
	"errors"
	"slices"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// badFunding hands a funding over that has to be refused for a reason, takes
// what there is to take, and records the loss.
func badFunding(t *testing.T, row int, attack string, code wire.Code, make func(*rig) plan) {
	t.Run(attack, func(t *testing.T) {
		r := newRig(t, nil)
		p := r.connect()
		if p.fund(make(r)) {
			t.Error("the channel is open")
		} else if p.refusal == nil || p.refusal.Code != code {
			t.Errorf("refused with %v, want %v", p.refusal, code)
		}
		p.take()
		p.leave()
		r.settle()
		record(t, result{row: row, attack: attack, attacker: "payer", victim: "seller", tries: 1, atRisk: 20_000,
			lost: r.due(p.total) - r.received(p), bound: 0})
		r.audit(r.box)
	})
}

// Row 4.
func TestPayerUnderpaysTheFundingsFee(t *testing.T) {
	badFunding(t, 4, "no fee at all", wire.CodeUnderpaid, func(r *rig) plan {
		return plan{coins: r.coins(1, 30_000), change: func(tx *bsv.Tx) { tx.Outputs[1].Value = 10_000 }}
	})
	badFunding(t, 4, "a satoshi less than the seller's rate", wire.CodeUnderpaid, func(r *rig) plan {
		return plan{coins: r.coins(1, 30_000), change: func(tx *bsv.Tx) {
			in, out := int64(30_000), int64(0)
			for _, o := range tx.Outputs {
				out += int64(o.Value)
			}
			less := in - out - int64(feeRate.Fee(tx.Size()-4)) + 1 // another signature may be shorter
			tx.Outputs[1].Value += money.Satoshis(less)
		}}
	})
	badFunding(t, 4, "the node has it already", wire.CodeUnderpaid, func(r *rig) plan {
		return plan{coins: r.coins(1, 30_000), feeRate: 1, broadcast: true}
	})
	// What the funding stands on may pay too little as well. Its fee is not
	// looked at: such a funding may never be mined, which is what the limit for
	// unconfirmed ones is for.
	t.Run("an unconfirmed parent without a fee", func(t *testing.T) {
		r := newRig(t, nil)
		coin := r.coins(1, 40_000)[0]
		parent := r.spend(1, coin)
		parent.Outputs[0].Value = 40_000
		r.sign(parent, []bsv.Output{coin.Output})
		p := r.connect()
		opened := p.fund(plan{coins: outputs(parent), parents: []*bsv.Tx{parent}})
		p.trade(64 << 20)
		t.Logf("opened: %v, %v", opened, p.refusal)
		atRisk := r.due(p.total)
		r.mineInstead(1, r.spend(feeRate, coin)) // no miner takes the parent, and then another spends its coin
		p.leave()
		r.settle()
		record(t, result{row: 4, attack: "an unconfirmed parent without a fee", attacker: "payer", victim: "seller", tries: 1, atRisk: atRisk,
			lost: r.due(p.total) - r.received(p), bound: r.offer.UnconfirmedLimit})
		r.audit(r.box)
	})
}

// Row 5.
func TestFundingsThatAnybodyCanChangeOrHoldUp(t *testing.T) {
	version2 := func(tx *bsv.Tx) { tx.Version = 2 }
	nonFinal := func(tx *bsv.Tx) { tx.LockTime, tx.Inputs[0].Sequence = 499_999_999, 0 }
	// parent is an unconfirmed transaction that a funding stands on.
	parent := func(r *rig, change func(*bsv.Tx)) *bsv.Tx {
		coin := r.coins(1, 40_000)[0]
		tx := r.spend(feeRate, coin)
		if change != nil {
			change(tx)
			r.sign(tx, []bsv.Output{coin.Output})
		}
		return tx
	}
	badFunding(t, 5, "funding of version 2", wire.CodeVersion, func(r *rig) plan { return plan{change: version2} })
	badFunding(t, 5, "parent of version 2", wire.CodeVersion, func(r *rig) plan {
		tx := parent(r, version2)
		return plan{coins: outputs(tx), parents: []*bsv.Tx{tx}}
	})
	badFunding(t, 5, "grandparent of version 2", wire.CodeVersion, func(r *rig) plan {
		old := parent(r, version2)
		tx := r.spend(feeRate, outputs(old)...)
		return plan{coins: outputs(tx), parents: []*bsv.Tx{old, tx}}
	})
	badFunding(t, 5, "funding that is not final", wire.CodeNonFinal, func(r *rig) plan { return plan{change: nonFinal} })
	badFunding(t, 5, "parent that is not final", wire.CodeNonFinal, func(r *rig) plan {
		tx := parent(r, nonFinal)
		return plan{coins: outputs(tx), parents: []*bsv.Tx{tx}}
	})
	badFunding(t, 5, "parent that nobody knows", wire.CodeUnknownParent, func(r *rig) plan { return plan{coins: outputs(parent(r, nil))} })
	badFunding(t, 5, "parent that was never funded", wire.CodeUnknownParent, func(r *rig) plan {
		nowhere := bsv.Coin{Outpoint: bsv.Outpoint{Txid: bsv.Txid{9}}, Output: bsv.Output{Value: 40_000, Script: bsv.P2PKH(r.purse.Public().Hash())}}
		tx := r.spend(feeRate, nowhere)
		return plan{coins: outputs(tx), parents: []*bsv.Tx{tx}}
	})
	// The parent that the network has is another form of the one that the
	// funding spends: same coin, other txid.
	badFunding(t, 5, "parent that was changed in flight", wire.CodeDoubleSpend, func(r *rig) plan {
		coin := r.coins(1, 40_000)[0]
		tx, changed := r.spend(feeRate, coin), r.spend(feeRate, coin)
		changed.Outputs[0].Value--
		r.sign(changed, []bsv.Output{coin.Output})
		r.must(r.steal(changed))
		return plan{coins: outputs(tx), parents: []*bsv.Tx{tx}}
	})
	badFunding(t, 5, "parent that was changed in flight and mined", wire.CodeDoubleSpend, func(r *rig) plan {
		coin := r.coins(1, 40_000)[0]
		tx, changed := r.spend(feeRate, coin), r.spend(feeRate, coin)
		changed.Outputs[0].Value--
		r.sign(changed, []bsv.Output{coin.Output})
		r.must(r.steal(changed))
		r.mine(1)
		return plan{coins: outputs(tx), parents: []*bsv.Tx{tx}}
	})
	badFunding(t, 5, "funding that is not the announced one", wire.CodeWrongFunding, func(r *rig) plan {
		return plan{swap: true}
	})
	t.Run("nobody else changes a transaction of version 1", func(t *testing.T) {
		r := newRig(t, nil)
		tx := r.spend(feeRate, r.coins(1, 30_000)...)
		tries := 0
		for name, script := range map[string][]byte{
			"a push before":           append([]byte{0x51}, tx.Inputs[0].Script...),
			"an operation before":     append([]byte{0x61}, tx.Inputs[0].Script...),
			"a longer push":           append([]byte{0x4c}, tx.Inputs[0].Script...),
			"a byte of the signature": slices.Concat(tx.Inputs[0].Script[:40], []byte{tx.Inputs[0].Script[40] ^ 1}, tx.Inputs[0].Script[41:]),
		} {
			changed := *tx
			changed.Inputs = slices.Clone(tx.Inputs)
			changed.Inputs[0].Script = script
			var rejected *chain.Rejected
			if err := r.steal(&changed); !errors.As(err, &rejected) {
				t.Errorf("%s: the node takes it: %v", name, err)
			}
			tries++
		}
		r.must(r.steal(tx))
		r.mine(1)
		r.waitState(tx.Txid(), chain.Mined)
		record(t, result{row: 5, attack: "a stranger changes a funding of version 1", attacker: "anyone", victim: "both", tries: tries, atRisk: 30_000})
	})
}
