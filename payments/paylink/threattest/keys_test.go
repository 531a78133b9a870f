package threattest

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// signing is a key of the seller's and what it signed for.
type signing map[[33]byte]bsv.Outpoint

// note fails the test where a key signs for a second outpoint.
func (s signing) note(t *testing.T, key [33]byte, at bsv.Outpoint) {
	t.Helper()
	if before, ok := s[key]; ok && before != at {
		t.Errorf("one key of the seller's signs for %v and for %v", before, at)
	}
	s[key] = at
}

// Row 9.
func TestPayerAsksForASignatureOverAnotherOutpoint(t *testing.T) {
	for name, connected := range map[string]bool{"another channel, in use": true, "another channel, at rest": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			signed := make(signing)
			a := r.traded(20 << 20)
			at := bsv.Outpoint{Txid: a.state.Open.FundingTxid, Index: a.state.Open.FundingIndex}
			signed.note(t, a.state.Terms.Payee, at)
			before, err := r.box.ledger.Channel(t.Context(), a.state.ID())
			r.must(err)
			if !connected {
				a.leave()
				r.stop()
				r.startSeller()
			}
			const tries = 3
			for range tries {
				p := r.connect()
				if p.terms.Payee == a.state.Terms.Payee {
					t.Error("the key of a channel is offered again")
				}
				sig := p.open(r.key(), a.raw(), nil, wire.Open{FundingTxid: at.Txid, FundingIndex: at.Index, Capacity: a.state.Open.Capacity})
				if sig == nil {
					p.leave()
					continue
				}
				// Were it signed, it would be of no use.
				signed.note(t, p.terms.Payee, at)
				c := a.ours()
				if own, err := c.SignRefund(a.state.Key); err != nil {
					t.Error(err)
				} else if _, err := c.CompleteRefund(own, sig.Signature); err == nil {
					t.Error("the signature spends the other channel")
				}
				p.leave()
			}
			row, err := r.box.ledger.Channel(t.Context(), a.state.ID())
			if err != nil || row.Payee != before.Payee || row.KeyIndex != before.KeyIndex || row.PeerKey != before.PeerKey {
				t.Errorf("the other channel is %+v, was %+v; %v", row, before, err)
			}
			a.leave()
			r.settle()
			record(t, result{row: 9, attack: name, attacker: "payer", victim: "seller", tries: tries, atRisk: r.due(a.total),
				lost: r.due(a.total) - r.received(a), bound: 0})
			r.audit(r.box)
		})
	}
	t.Run("two outpoints for one key", func(t *testing.T) {
		r := newRig(t, nil)
		signed := make(signing)
		const tries = 6
		for i := range tries {
			p := r.connect()
			key, first := r.key(), bsv.Outpoint{Txid: bsv.Txid{1, byte(i)}}
			funding := r.spend(feeRate, r.coins(1, 30_000)...)
			for _, at := range []bsv.Outpoint{first, {Txid: first.Txid, Index: 1}, {Txid: bsv.Txid{2, byte(i)}}} {
				terms := *p.terms
				if sig := p.open(key, funding, nil, wire.Open{FundingTxid: at.Txid, FundingIndex: at.Index, Capacity: 20_000}); sig != nil {
					signed.note(t, terms.Payee, at)
				}
			}
			p.leave()
		}
		if len(signed) != tries {
			t.Errorf("%d keys signed on %d connections", len(signed), tries)
		}
		record(t, result{row: 9, attack: "two outpoints for one key", attacker: "payer", victim: "seller", tries: 3 * tries, atRisk: 20_000 * tries})
	})
	t.Run("the seller's own coins", func(t *testing.T) {
		r := newRig(t, nil)
		// Coins on all branches, and those that a close pays.
		var own []bsv.Coin
		var worth bsv.Output
		for _, branch := range []uint32{wallet.BranchReceive, wallet.BranchChange, wallet.BranchPayout, wallet.BranchIdentity, wallet.BranchChannel} {
			for i := range uint32(3) {
				k, err := r.box.wallet.Key(branch, i)
				r.must(err)
				coin, err := r.node.Pay(t.Context(), k.Public().Hash(), 20_000)
				r.must(err)
				own = append(own, coin)
				worth.Value += coin.Output.Value
			}
		}
		r.mine(1)
		tries := 0
		lost := worth.Value
		for _, coin := range own {
			p := r.connect()
			sig := p.open(r.key(), r.spend(feeRate, r.coins(1, 30_000)...), nil,
				wire.Open{FundingTxid: coin.Outpoint.Txid, FundingIndex: coin.Outpoint.Index, Capacity: coin.Output.Value})
			tries++
			if sig == nil {
				continue
			}
			// The refund with this signature, as whatever could spend the coin.
			tx, err := p.ours().Refund()
			r.must(err)
			tx.LockTime, tx.Inputs[0].Sequence = 0, bsv.FinalSequence
			key := p.terms.Payee
			tx.Inputs[0].Script = append(append([]byte{byte(len(sig.Signature))}, sig.Signature...), append([]byte{33}, key[:]...)...)
			if err := r.force(tx); err == nil {
				t.Errorf("the coin %v is spent", coin.Outpoint)
			}
			p.leave()
		}
		r.mine(1)
		for _, coin := range own {
			if spent, err := r.thief.Spent(t.Context(), coin.Outpoint); err == nil && !spent {
				lost -= coin.Output.Value
			}
		}
		record(t, result{row: 9, attack: "the seller's own coins", attacker: "payer", victim: "seller", tries: tries, atRisk: worth.Value, lost: lost})
	})
}
