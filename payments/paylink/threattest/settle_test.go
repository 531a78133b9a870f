package threattest

import (
	"encoding/hex"
	"slices"
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// traded opens a channel, has its funding mined, and takes and pays for so many
// bytes.
func (r *rig) traded(bytes int64) *payer {
	r.Helper()
	p := r.connect()
	if !p.fund(plan{}) {
		r.Fatalf("refused: %v", p.refusal)
	}
	r.mine(1)
	r.wait("it can trade", func() bool { p.trade(bytes); return p.total == bytes })
	return p
}

// refund is the channel's refund, with both signatures.
func (p *payer) refund() *bsv.Tx {
	p.r.Helper()
	tx, err := bsv.ParseTx(p.state.Refund, wire.MaxPayload)
	p.r.must(err)
	return tx
}

// force hands bytes to the node itself, past all checks of our own.
func (r *rig) force(tx *bsv.Tx) error {
	return r.thief.Call(r.Context(), nil, "sendrawtransaction", hex.EncodeToString(tx.Bytes()))
}

// Row 6.
func TestPayerSendsTheRefundEarly(t *testing.T) {
	t.Run("to pin the close", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.traded(20 << 20)
		tries := 0
		early := func() {
			t.Helper()
			tries++
			if err := r.force(p.refund()); err == nil {
				t.Error("the node takes a refund before its time")
			}
		}
		early()
		r.must(r.node.MineTo(t.Context(), p.state.Open.RefundHeight-r.offer.CloseMargin-1))
		early()
		r.mine(1)
		r.closing(p)
		early()
		r.mine(1)
		early()
		r.must(r.node.MineTo(t.Context(), p.state.Open.RefundHeight+1))
		if err := r.force(p.refund()); err == nil {
			t.Error("the node takes a refund after the close")
		}
		record(t, result{row: 6, attack: "to pin the close", attacker: "payer", victim: "seller", tries: tries + 1, atRisk: r.due(p.total),
			lost: r.due(p.total) - r.received(p), bound: 0})
		r.audit(r.box)
	})
	t.Run("commitments to closes that could be pinned", func(t *testing.T) {
		r := newRig(t, nil)
		other := outputs(r.spend(feeRate, r.coins(1, 5_000)...))[0]
		tries := 0
		var lost, atRisk money.Satoshis
		for name, change := range map[string]func(*bsv.Tx){
			"not final":   func(tx *bsv.Tx) { tx.Inputs[0].Sequence = 0 },
			"replaceable": func(tx *bsv.Tx) { tx.Inputs[0].Sequence = bsv.FinalSequence - 1 },
			"two inputs": func(tx *bsv.Tx) {
				tx.Inputs = append(tx.Inputs, bsv.Input{Prev: other.Outpoint, Sequence: bsv.FinalSequence})
			},
			"lock time": func(tx *bsv.Tx) { tx.LockTime = 499_999_999 },
			"version 2": func(tx *bsv.Tx) { tx.Version = 2 },
		} {
			p := r.traded(4 << 20)
			p.take()
			pay := p.state.Last
			pay.Seq++
			pay.Bytes = p.total
			pay.Payee = r.due(p.total)
			tx, err := p.ours().Commitment(pay.Payee, nil)
			r.must(err)
			change(tx)
			digest, err := tx.SignatureHash(0, bsv.Output{Value: p.ours().Capacity, Script: p.ours().Lock()})
			r.must(err)
			sig, err := p.state.Key.SignDigest(digest)
			r.must(err)
			pay.Signature = append(sig, 0x41)
			p.say(&pay)
			if ack := await[*wire.Ack](p); ack != nil || p.refusal == nil || p.refusal.Code != wire.CodePayment {
				t.Errorf("%s: %v, %v", name, ack, p.refusal)
			}
			p.leave()
			r.settle()
			tries++
			atRisk += r.due(p.total)
			lost += r.due(p.total) - r.received(p)
		}
		record(t, result{row: 6, attack: "commitments to closes that could be pinned", attacker: "payer", victim: "seller", tries: tries, atRisk: atRisk,
			lost: lost, bound: moneyTimes(tries, r.due(r.first()))})
		r.audit(r.box)
	})
}

func moneyTimes(n int, each money.Satoshis) money.Satoshis { return money.Satoshis(n) * each }

// closing waits until the seller's close of a channel is with the node.
func (r *rig) closing(p *payer) {
	r.Helper()
	r.wait("the seller closes", func() bool {
		row, err := r.box.ledger.Channel(r.Context(), p.state.ID())
		r.must(err)
		return row.CloseTxid != [32]byte{}
	})
	row, err := r.box.ledger.Channel(r.Context(), p.state.ID())
	r.must(err)
	r.waitState(row.CloseTxid, chain.Seen)
}

// Row 7.
func TestSellerIsOffline(t *testing.T) {
	for name, c := range map[string]struct {
		back   int // blocks from the refund's height
		refund bool
		warned bool // that the close comes late
		bound  func(*payer) money.Satoshis
	}{
		"past the close margin":         {-10, false, false, func(*payer) money.Satoshis { return 0 }},
		"until the block before T":      {-1, false, true, func(*payer) money.Satoshis { return 0 }},
		"past T, and the payer is slow": {2, false, true, func(*payer) money.Satoshis { return 0 }},
		"past T":                        {2, true, true, func(p *payer) money.Satoshis { return p.state.Open.Capacity }},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var late money.Satoshis
			r := newRig(t, func(r *rig) {
				r.danger = func(all []paylink.Danger) {
					mu.Lock()
					defer mu.Unlock()
					for _, d := range all {
						if d.Reason == paylink.CloseLate {
							late = max(late, d.Amount)
						}
					}
				}
			})
			p := r.traded(40 << 20)
			p.leave()
			r.stop()
			height := p.state.Open.RefundHeight
			r.must(r.node.MineTo(t.Context(), uint32(int(height)+min(c.back, -1))))
			if err := r.steal(p.refund()); err == nil {
				t.Error("a refund before its time")
			}
			if c.back > 0 {
				r.mine(1)
			}
			if c.refund {
				r.must(r.steal(p.refund()))
				r.mine(1)
			}
			r.startSeller()
			r.wait("the seller closes", func() bool {
				row, err := r.box.ledger.Channel(t.Context(), p.state.ID())
				r.must(err)
				return row.State != ledger.StateOpen
			})
			if !c.refund {
				r.closing(p)
				r.mine(1)
			} else {
				r.settle()
			}
			mu.Lock()
			warned := late
			mu.Unlock()
			if c.warned != (warned == r.due(p.total)) || !c.warned && warned > 0 {
				t.Errorf("warned of %v, at risk are %v", warned, r.due(p.total))
			}
			fee := money.Satoshis(0)
			if c.refund {
				fee = feeRate.Fee(bsv.CommitmentSize(1))
			}
			record(t, result{row: 7, attack: "the seller is offline " + name, attacker: "payer", victim: "seller", tries: 1, atRisk: r.due(p.total),
				lost: r.due(p.total) - r.received(p), bound: c.bound(p), fees: fee})
			r.audit(r.box)
		})
	}
}

// Row 8.
func TestSellerNeverCloses(t *testing.T) {
	for name, lie := range map[string]bool{"and says nothing": false, "and says that it did": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			b, s := r.newBuyer(), r.newSeeder()
			s.keep = true
			s.silent = func(m wire.Message) bool { return !lie && m.Kind() == wire.KindClose }
			s.connect(b)
			s.isOpen()
			s.deliver(20<<20, 20<<20)
			s.waitFor("it is paid", func() bool { return s.state.Last.Payee > 0 })
			if lie {
				r.must(b.Finish(t.Context()))
			} else {
				r.must(b.Suspend(t.Context()))
			}
			r.mine(1)
			rows, err := b.ledger.Channels(t.Context(), ledgerPayer)
			r.must(err)
			row := rows[0]
			r.must(r.node.MineTo(t.Context(), row.RefundHeight-1))
			r.again(b)
			r.must(b.Maintain(t.Context()))
			if out, err := b.ledger.OutgoingFor(t.Context(), ledger.Refund, 1); err != nil || len(out) > 0 {
				t.Errorf("a refund before its time: %v, %v", out, err)
			}
			r.mine(1)
			r.must(b.Maintain(t.Context()))
			out, err := b.ledger.OutgoingFor(t.Context(), ledger.Refund, 1)
			if err != nil || len(out) != 1 {
				t.Fatalf("no refund: %v, %v", out, err)
			}
			r.waitState(out[0].Txid, chain.Seen)
			r.mine(1)
			// All of what it had, the goods for nothing, and the fees of two
			// transactions gone.
			record(t, result{row: 8, attack: "the seller never closes " + name, attacker: "seller", victim: "buyer", tries: 1, atRisk: row.Capacity,
				lost: b.before - r.coinsOf(b.party), bound: channelFees(feeRate)})
			r.audit(b.party)
		})
	}
}

// An old commitment: the payer cannot broadcast one, and a payee that does
// loses by it.
func TestOldCommitments(t *testing.T) {
	t.Run("the payer broadcasts one", func(t *testing.T) {
		r := newRig(t, nil)
		p := r.connect()
		if !p.fund(plan{}) {
			t.Fatal("refused")
		}
		first := p.state.Last
		r.mine(1)
		r.wait("it can trade", func() bool { p.trade(30 << 20); return p.total == 30<<20 })
		c := p.ours()
		tries := 0
		own, err := c.SignCommitment(p.state.Key, first.Payee, nil)
		r.must(err)
		stranger, err := p.refundSigOf(c)
		r.must(err)
		for name, second := range map[string]bsv.Signature{"its own": own, "the payee's of the refund": stranger} {
			tries++
			if _, err := c.CompleteCommitment(first.Payee, nil, own, second); err == nil {
				t.Errorf("%s signature completes an old commitment", name)
			}
			tx, err := c.Commitment(first.Payee, nil)
			r.must(err)
			tx.Inputs[0].Script = slices.Concat(bsv.Script{0, byte(len(own))}, bsv.Script(own), bsv.Script{byte(len(second))}, bsv.Script(second))
			if err := r.force(tx); err == nil {
				t.Errorf("%s: the node takes it", name)
			}
		}
		p.leave()
		r.settle()
		record(t, result{row: 11, attack: "the payer broadcasts an old commitment", attacker: "payer", victim: "seller", tries: tries, atRisk: r.due(p.total),
			lost: r.due(p.total) - r.received(p), bound: 0})
		r.audit(r.box)
	})
	t.Run("the payee broadcasts one", func(t *testing.T) {
		r := newRig(t, nil)
		b, s := r.newBuyer(), r.newSeeder()
		s.keep = true
		s.connect(b)
		s.isOpen()
		var paid money.Satoshis
		for range 5 {
			s.deliver(4<<20, 4<<20)
			s.waitFor("it is paid", func() bool { return s.state.Last.Payee > paid })
			paid = s.paid()
		}
		r.must(b.Finish(t.Context()))
		s.mu.Lock()
		old := s.closes[2]
		s.mu.Unlock()
		purse := r.coinsAt(s.out)
		r.must(r.steal(old))
		r.mine(1)
		got := r.coinsAt(s.out) - purse
		if got >= s.paid() {
			t.Errorf("the old commitment gives %v, the newest %v", got, s.paid())
		}
		record(t, result{row: 12, attack: "the payee broadcasts an old commitment", attacker: "seller", victim: "buyer", tries: 1, atRisk: s.state.Open.Capacity,
			lost: s.lossOf(b), bound: channelFees(feeRate)})
		record(t, result{row: 12, attack: "the payee broadcasts an old commitment", attacker: "seller", victim: "the seller itself", tries: 1, atRisk: s.paid(),
			lost: s.paid() - got, bound: s.paid()})
	})
}

// refundSigOf is the payee's signature of the refund, with its hash type.
func (p *payer) refundSigOf(c bsv.Channel) (bsv.Signature, error) {
	script := p.refund().Inputs[0].Script // 0, a push of the payer's, a push of the payee's
	at := 2 + int(script[1])
	sig := bsv.Signature(script[at+1:])
	return sig, c.CheckRefund(c.Payee, sig)
}
