package paylink_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
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

// A download that ends because its budget is used up does not wait for a
// payment that never comes.
func TestSuspendWithTheBudgetUsedUp(t *testing.T) {
	m := newMarket(t, 5_000, 700)
	spent := make(chan struct{})
	b := m.buyer(6_000, paylink.NewBudget(100, 0), func(text string) {
		if text == "the budget is used up" {
			close(spent)
		}
	})
	l := m.connect(b)
	l.transfer(m.title.Length, spent)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := b.Suspend(ctx); err != nil {
		t.Error(err)
	}
	l.close()
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 1 || receipts[0].Total() > 100 || receipts[0].Payee == 0 {
		t.Errorf("%+v, %v", receipts, err)
	}
}

// The fees on a receipt are those of the transactions in the end: a close
// without a payment is smaller than one with.
func TestFeesOfAnEmptyClose(t *testing.T) {
	m := newMarket(t, 5_000, 700)
	opened := make(chan struct{})
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(text string) {
		if strings.HasPrefix(text, "channel open") {
			close(opened)
		}
	})
	l := m.connect(b)
	<-opened
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 1 {
		t.Fatalf("%+v, %v", receipts, err)
	}
	r := receipts[0]
	if err := m.chain.WaitState(t.Context(), r.Close, chain.Seen); err != nil {
		t.Fatal(err)
	}
	var fees money.Satoshis
	for _, txid := range []bsv.Txid{r.Funding, r.Close} {
		tx, err := m.chain.RawTx(t.Context(), txid)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range tx.Inputs {
			prev, err := m.chain.RawTx(t.Context(), in.Prev.Txid)
			if err != nil {
				t.Fatal(err)
			}
			fees += prev.Outputs[in.Prev.Index].Value
		}
		for _, o := range tx.Outputs {
			fees -= o.Value
		}
	}
	if r.Fee != fees {
		t.Errorf("receipt says %v, the transactions cost %v", r.Fee, fees)
	}
}
