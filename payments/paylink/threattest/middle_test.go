package threattest

import (
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/wire"
)

// Somebody listens to a connection and says again what was said on it.
func TestResumeProofIsReplayed(t *testing.T) {
	r := newRig(t, nil)
	victim := r.traded(20 << 20)
	if !victim.resume() {
		t.Fatal("not resumed")
	}
	heard := victim.proof()
	victim.leave()
	const tries = 5
	for range tries {
		p := r.connect()
		p.state = victim.state
		p.say(heard)
		got := await[*wire.Resumed](p)
		if got != nil || p.refusal == nil || p.refusal.Code != wire.CodeUnknownChannel {
			t.Errorf("a proof of another connection: %v, %v", got, p.refusal)
		}
		<-p.conn.failed
		if n := p.conn.limit(); n > 0 {
			t.Errorf("%d bytes for a stranger", n)
		}
		p.leave()
	}
	// The payer itself is not harmed.
	if !victim.resume() {
		t.Error("the payer's own channel is gone")
	}
	victim.trade(victim.total + 10<<20)
	victim.leave()
	r.settle()
	lost := r.due(victim.total) - r.received(victim)
	record(t, result{row: 13, attack: "a resume proof is replayed", attacker: "listener", victim: "seller", tries: tries, atRisk: 20_000, lost: lost})
	r.audit(r.box)
}

// A relay passes on every message, and keeps the data to itself.
func TestRelayKeepsTheData(t *testing.T) {
	for name, breaks := range map[string]int{"keeps the data": 0, "keeps the data and breaks connections": 5} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			b := r.newBuyer()
			var mu sync.Mutex
			kinds := make(map[wire.Kind]int)
			tap := func(m wire.Message) {
				mu.Lock()
				defer mu.Unlock()
				kinds[m.Kind()]++
			}
			l := r.tapped(b, tap)
			l.transfer(16 << 20)
			var kept int64
			for try := range breaks + 1 {
				if try > 0 {
					r.must(b.Suspend(t.Context()))
					l.close()
					r.again(b)
					mu.Lock()
					before := kinds[wire.KindResumed] + kinds[wire.KindClosed]
					mu.Unlock()
					l = r.tapped(b, tap)
					r.wait("the seller answers", func() bool {
						mu.Lock()
						defer mu.Unlock()
						return kinds[wire.KindResumed]+kinds[wire.KindClosed] > before
					})
					if mu.Lock(); kinds[wire.KindClosed] > 0 {
						mu.Unlock()
						break
					}
					mu.Unlock()
				}
				kept += l.hold()
			}
			r.must(b.Finish(t.Context()))
			l.close()
			r.settle()
			rows, err := b.ledger.Channels(t.Context(), ledgerPayer)
			r.must(err)
			bound := r.due(r.credit(16 << 20))
			if breaks > 0 {
				bound = r.perFunding(16 << 20)
			}
			record(t, result{row: 14, attack: "a relay " + name, attacker: "relay", victim: "seller", tries: breaks + 1, atRisk: rows[0].Capacity,
				lost: r.due(16<<20+kept) - r.coinsOf(r.box), bound: bound})
			record(t, result{row: 14, attack: "a relay " + name, attacker: "relay", victim: "buyer", tries: breaks + 1, atRisk: rows[0].Capacity,
				lost: b.before - r.coinsOf(b.party) - r.due(16<<20), bound: moneyTimes(len(rows), channelFees(feeRate))})
			r.audit(r.box, b.party)
		})
	}
}
