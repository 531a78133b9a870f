package paylink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/paylink"
)

// What was on its way when a connection ended is not owed on the next one.
func TestOnlyWhatIsVerifiedIsOwedAfterAReconnect(t *testing.T) {
	const verified, lost, more = 24 << 20, 7 << 20, 6 << 20
	m := newMarket(t, 5_000, 700)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	l := m.connect(b)
	l.transfer(verified, nil)
	l.mu.Lock()
	for l.allowed < l.sent+lost && l.failed == nil {
		l.changed.Wait()
	}
	l.mu.Unlock()
	l.sale.Sent(verified + lost)
	l.purchase.Received(verified+lost, verified)
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()

	resumed := make(chan struct{})
	b = m.buyer(6_000, paylink.NewBudget(100_000, 0), func(text string) {
		if strings.HasPrefix(text, "goes on with the channel") {
			close(resumed)
		}
	})
	l = m.connect(b)
	select {
	case <-resumed:
	case <-time.After(20 * time.Second):
		t.Fatal("the channel was not taken up")
	}
	l.transfer(more, nil)
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 1 {
		t.Fatalf("%+v, %v", receipts, err)
	}
	if got := receipts[0].Bytes; got != verified+more {
		t.Errorf("paid for %d bytes, %d were verified", got, verified+more)
	}
}
