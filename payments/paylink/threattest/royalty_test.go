package threattest

import (
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// withRoyalty makes the rig's title one of a creator's, who gets 10,000 sat/GiB
// on top.
func withRoyalty(r *rig) {
	creator := r.key()
	r.title.Royalty = &paylink.Royalty{Creator: creator.Public(), Rate: 10_000, To: creator.Public().Hash()}
}

// Row 10. That modified programs of both sides leave the creator out together
// cannot be prevented: what they agree on is between the two of them. All of the
// royalty is lost then. One modified program cannot do it alone.
func TestCreatorIsLeftOut(t *testing.T) {
	const bytes = 40 << 20
	t.Run("by both sides together", func(t *testing.T) {
		r := newRig(t, withRoyalty)
		royalty, err := r.title.Royalty.Rate.Due(bytes)
		r.must(err)
		// What two modified programs need: two keys, a funding, a signature each.
		payer, payee := r.key(), r.key()
		coin := r.coins(1, 30_000)[0]
		funding, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{r.purse},
			[]bsv.Output{{Value: 20_000, Script: bsv.Multisig(payer.Public(), payee.Public())}}, r.purse.Public().Hash(), feeRate)
		r.must(err)
		r.must(r.steal(funding))
		r.mine(1)
		c := bsv.Channel{Payer: payer.Public(), Payee: payee.Public(), Funding: bsv.Outpoint{Txid: funding.Txid()}, Capacity: 20_000,
			PayerHash: r.purse.Public().Hash(), PayeeHash: payee.Public().Hash(), RefundHeight: r.height() + 60, FeeRate: feeRate}
		amount, err := r.title.Ask.Due(bytes)
		r.must(err)
		one, err := c.SignCommitment(payer, amount, nil)
		r.must(err)
		two, err := c.SignCommitment(payee, amount, nil)
		r.must(err)
		tx, err := c.CompleteCommitment(amount, nil, one, two)
		r.must(err)
		r.must(r.steal(tx))
		r.mine(1)
		if got := r.coinsAt(payee.Public().Hash()); got != amount {
			t.Errorf("the seller has %v, agreed was %v", got, amount)
		}
		record(t, result{row: 10, attack: "both sides leave the creator out", attacker: "payer and seller", victim: "creator", tries: 1, atRisk: royalty,
			lost: royalty - r.coinsAt(r.title.Royalty.To), bound: royalty})
	})
	for name, leaveOut := range map[string]func(*rig, *wire.Pay){
		"by the payer": func(_ *rig, m *wire.Pay) { m.Creators = nil },
		"by the payer, for one of its own": func(r *rig, m *wire.Pay) {
			m.Creators = []wire.Royalty{{To: r.purse.Public().Hash(), Amount: m.Creators[0].Amount}}
		},
		"by the payer, a satoshi of it": func(_ *rig, m *wire.Pay) {
			m.Creators = []wire.Royalty{{To: m.Creators[0].To, Amount: m.Creators[0].Amount - 1}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withRoyalty)
			p := r.traded(bytes)
			p.take()
			pay := p.state.Last
			pay.Seq++
			pay.Bytes = p.total
			var err error
			pay.Payee, err = r.title.Ask.Due(p.total)
			r.must(err)
			creator, err := r.title.Royalty.Rate.Due(p.total)
			r.must(err)
			pay.Creators = []wire.Royalty{{To: r.title.Royalty.To, Amount: creator}}
			leaveOut(r, &pay)
			var to []bsv.Royalty
			for _, c := range pay.Creators {
				to = append(to, bsv.Royalty{To: c.To, Amount: c.Amount})
			}
			pay.Signature, err = p.ours().SignCommitment(p.state.Key, pay.Payee, to)
			r.must(err)
			p.say(&pay)
			if ack := await[*wire.Ack](p); ack != nil || p.refusal == nil || p.refusal.Code != wire.CodePayment {
				t.Errorf("%v, %v", ack, p.refusal)
			}
			p.leave()
			r.settle()
			all, err := r.title.Royalty.Rate.Due(p.total)
			r.must(err)
			unpaid, err := r.title.Royalty.Rate.Due(r.credit(bytes))
			r.must(err)
			record(t, result{row: 10, attack: "the creator is left out " + name, attacker: "payer", victim: "creator", tries: 1, atRisk: all,
				lost: all - r.coinsAt(r.title.Royalty.To), bound: unpaid})
			r.audit(r.box)
		})
	}
	for name, change := range map[string]func(*wire.Terms){
		"no royalty":        func(m *wire.Terms) { m.Royalty, m.CreatorHash = 0, bsv.Hash160{} },
		"a smaller royalty": func(m *wire.Terms) { m.Royalty /= 2 },
		"another creator":   func(m *wire.Terms) { m.CreatorHash = bsv.Hash160{1} },
	} {
		t.Run("by the seller, with terms of "+name, func(t *testing.T) {
			r := newRig(t, withRoyalty)
			b, s := r.newBuyer(), r.newSeeder()
			told := make(chan string, 16)
			b.told = func(text string) {
				select {
				case told <- text:
				default:
				}
			}
			s.change = change
			s.connect(b)
			if text := <-told; !strings.Contains(text, channel.ErrRoyalty.Error()) {
				t.Errorf("the buyer says %q", text)
			}
			r.must(b.Finish(t.Context()))
			rows, err := b.ledger.Channels(t.Context(), ledgerPayer)
			if err != nil || len(rows) > 0 {
				t.Errorf("a channel without the creator: %+v, %v", rows, err)
			}
			record(t, result{row: 10, attack: "the seller offers terms of " + name, attacker: "seller", victim: "creator", tries: 1})
		})
	}
	t.Run("by nobody", func(t *testing.T) {
		r := newRig(t, withRoyalty)
		b := r.newBuyer()
		l := r.link(b)
		l.transfer(bytes)
		r.must(b.Finish(t.Context()))
		l.close()
		r.settle()
		royalty, err := r.title.Royalty.Rate.Due(bytes)
		r.must(err)
		ask, err := r.title.Ask.Due(bytes)
		r.must(err)
		if got := r.coinsAt(r.title.Royalty.To); got != royalty {
			t.Errorf("an honest payer pays the creator %v, due are %v", got, royalty)
		}
		record(t, result{row: 10, attack: "both sides are honest", attacker: "nobody", victim: "creator", tries: 1, atRisk: royalty,
			lost: royalty - r.coinsAt(r.title.Royalty.To)})
		record(t, result{row: 10, attack: "both sides are honest", attacker: "nobody", victim: "seller", tries: 1, atRisk: ask,
			lost: ask - r.coinsOf(r.box)})
		record(t, result{row: 10, attack: "both sides are honest", attacker: "nobody", victim: "buyer", tries: 1, atRisk: b.before,
			lost: b.before - r.coinsOf(b.party) - r.due(bytes), bound: channelFees(feeRate)})
		r.audit(r.box, b.party)
	})
}
