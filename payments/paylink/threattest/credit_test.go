package threattest

import (
	"fmt"
	"testing"

	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// perFunding is the most that one funding lets be taken unpaid: a credit that
// is outstanding, and what is forgiven with broken connections, which is another
// credit and a 16th of what was paid for.
func (r *rig) perFunding(paid int64) money.Satoshis {
	r.Helper()
	return r.due(2*r.credit(paid) + paid/16)
}

func (r *rig) royalty() money.Rate {
	if r.title.Royalty == nil {
		return 0
	}
	return r.title.Royalty.Rate
}

// Row 1.
func TestPayerTakesAUnitAndDoesNotPay(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		r := newRig(t, nil)
		before := r.coinsAt(r.purse.Public().Hash())
		p := r.connect()
		if !p.fund(plan{}) {
			t.Fatalf("refused: %v", p.refusal)
		}
		p.take()
		p.leave()
		r.settle()
		record(t, result{row: 1, attack: "takes a unit, does not pay, goes away", attacker: "payer", victim: "seller", tries: 1,
			atRisk: p.state.Open.Capacity, lost: r.due(p.total) - r.received(p), bound: r.due(p.terms.Credit),
			fees: 30_000 + before - r.coinsAt(r.purse.Public().Hash())})
		r.audit(r.box)
	})
	for name, c := range map[string]struct {
		paid  int64 // bytes, before it stops to pay
		mined bool
	}{
		"again and again": {0, true},
		"again and again before the funding is mined":  {0, false},
		"again and again after it has paid for 24 MiB": {24 << 20, true},
		"again and again after it has paid for 60 MiB": {60 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			const channels, connections = 3, 5
			coins := r.coins(channels, 30_000)
			before := r.coinsAt(r.purse.Public().Hash())
			var payers []*payer
			var taken int64
			for _, coin := range coins {
				p := r.connect()
				if !p.fund(plan{coins: coins[len(payers) : len(payers)+1]}) {
					t.Fatalf("%v refused: %v", coin.Outpoint, p.refusal)
				}
				if c.mined {
					r.mine(1)
					r.wait("the funding is mined for the seller", func() bool { p.ping(); return p.conn.limit() >= r.first() })
				}
				p.trade(c.paid)
				p.take()
				for range connections - 1 {
					if !p.resume() {
						break
					}
					p.take()
				}
				p.leave()
				taken += p.total
				payers = append(payers, p)
			}
			r.settle()
			got := r.received(payers...)
			lost := r.due(taken) - got
			record(t, result{row: 1, attack: name, attacker: "payer", victim: "seller", tries: channels * connections,
				atRisk: channels * 20_000, lost: lost, bound: channels * r.perFunding(c.paid),
				fees: before - got - r.coinsAt(r.purse.Public().Hash())})
			r.audit(r.box)
		})
	}
}

// Row 1, by a payer who was honest before.
func TestTrustedPayerDoesNotPay(t *testing.T) {
	r := newRig(t, nil)
	const channels = 3
	honest := r.settled(60 << 20)
	paid := r.due(honest.total)
	before := r.coins(channels, 30_000)
	had, has := r.coinsAt(r.purse.Public().Hash()), r.received(honest)
	all := []*payer{honest}
	taken := int64(0)
	for i := range channels {
		p := r.connect()
		p.show(honest)
		if !p.fund(plan{coins: before[i : i+1]}) {
			t.Fatalf("refused: %v", p.refusal)
		}
		r.mine(1)
		r.wait("the funding is mined for the seller", func() bool { p.ping(); return p.conn.limit() >= r.first() })
		p.take()
		for range 4 {
			if !p.resume() {
				break
			}
			p.show(honest)
			p.take()
		}
		p.leave()
		taken += p.total
		all = append(all, p)
	}
	r.settle()
	got := r.received(all...) - has
	trusted := max(r.first(), min((r.title.Ask+r.royalty()).Bytes(paid/money.Satoshis(r.policy.CreditShare)), channel.MaxCredit))
	record(t, result{row: 1, attack: fmt.Sprintf("again and again, trusted for %v", paid), attacker: "payer", victim: "seller", tries: channels, atRisk: channels * 20_000,
		lost: r.due(taken) - got, bound: channels * r.due(2*trusted), fees: had - got - r.coinsAt(r.purse.Public().Hash())})
	r.audit(r.box)
}

// settled is a channel that was used honestly, closed, and mined.
func (r *rig) settled(bytes int64) *payer {
	r.Helper()
	p := r.traded(bytes)
	p.say(&wire.Close{Channel: p.state.ID()})
	if await[*wire.Closed](p) == nil {
		r.Fatal("not closed")
	}
	r.closing(p)
	r.mine(1)
	r.wait("the seller knows", func() bool { return r.upToDate(r.box) })
	p.leave()
	return p
}

// show proves a channel that is settled, which counts for the next one.
func (p *payer) show(settled *payer) {
	p.r.Helper()
	proof, err := settled.state.Key.SignDigest(channel.ResumeDigest(p.nonce, p.r.title.InfoHash, settled.state.ID()))
	p.r.must(err)
	p.say(&wire.Resume{Channel: settled.state.ID(), Proof: proof})
	p.ping()
}

// first is the credit of a new payer.
func (r *rig) first() int64 {
	return max(min(r.offer.Credit, (r.title.Ask+r.royalty()).Bytes(r.offer.CreditWorth)), 2*r.title.PieceLength, channel.MinCredit)
}

// credit is what a payer may owe who has paid for so much.
func (r *rig) credit(paid int64) int64 {
	if r.policy.CreditShare == 0 {
		return r.first()
	}
	return min(max(r.first(), paid/r.policy.CreditShare), channel.MaxCredit)
}
