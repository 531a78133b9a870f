package paylink_test

import (
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/wire"
)

// Fundings that are looked at all at one time must not pass the cap together.
func TestUnconfirmedFundingsAreCappedWhenTheyComeAtOneTime(t *testing.T) {
	const channels, most = 12, 3
	m := newMarket(t, 5_000, 0)
	m.stop()
	m.offer.UnconfirmedTotal = most * m.offer.UnconfirmedLimit
	m.moreCoins(channels)
	faulty := &faultyChain{Backend: m.chain, holdRaw: make(chan struct{})}
	m.startSellerOn(faulty)
	payers := make([]*rawPayer, channels)
	for i := range payers {
		payers[i] = m.rawPayer()
		payers[i].propose(nil)
		say(t, payers[i].sale, payers[i].funded())
	}
	close(faulty.holdRaw)
	open := 0
	for _, p := range payers {
		select {
		case got := <-p.conn.msgs:
			switch got := got.(type) {
			case *wire.Ready:
				open++
			case *wire.Refusal:
				if got.Code != wire.CodeUnavailable {
					t.Errorf("refused with %v", got)
				}
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	if open != most {
		t.Errorf("%d channels deliver on fundings that are not mined", open)
	}
	// With the next block there is room for others.
	m.chain.Mine(1)
	p := m.rawPayer()
	p.propose(nil)
	wait(t, func() bool {
		say(t, p.sale, p.funded())
		_, ready := (<-p.conn.msgs).(*wire.Ready)
		return ready
	})
}
