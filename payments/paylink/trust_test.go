package paylink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// What a payer has paid in a channel that is settled lets it owe more in the
// next one, and in one at a time.
func TestPaidChannelsMakeTrust(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 50_000, 0)
	m.moreCoins(3)
	m.stop()
	m.offer.UnconfirmedLimit, m.offer.UnconfirmedTotal = 100_000, 10_000_000
	m.startSeller()
	const first = 2_097_152 // bytes that a new payer may owe: 100 sat, at least two pieces

	opened := make(chan struct{}, 8)
	buyer := func() *paylink.Buyer {
		return m.buyer(60_000, paylink.NewBudget(100_000, 0), func(text string) {
			if strings.HasPrefix(text, "channel open") {
				opened <- struct{}{}
			}
		})
	}
	connect := func(b *paylink.Buyer) *link {
		l := m.connect(b)
		select {
		case <-opened:
		case <-time.After(patience):
			t.Fatal("no channel")
		}
		return l
	}
	allowed := func(l *link) int64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.allowed
	}
	b := buyer()
	l := connect(b)
	if got := allowed(l); got < first || got > first+100_000 {
		t.Fatalf("a new payer is allowed %d bytes", got)
	}
	l.transfer(m.title.Length, nil)
	m.chain.Mine(1)
	wait(t, func() bool {
		rows, err := m.box.ledger.Channels(t.Context(), ledger.Filter{})
		return err == nil && len(rows) == 1 && m.confirmed(rows[0].ID)
	})
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	wait(t, func() bool { return m.boxRows(ledger.StateClosed) == 1 })

	// A quarter of 3,125 sat is worth 16 MiB.
	b = buyer()
	l = connect(b)
	if got := allowed(l); got < 15<<20 || got > 17<<20 {
		t.Errorf("a payer that has paid before is allowed %d bytes", got)
	}
	second := connect(b)
	if got := allowed(second); got > first+100_000 {
		t.Errorf("one history backs two channels: %d bytes", got)
	}
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	second.close()

	// It leaves with what it owes, and shows the same history again.
	l.sale.Sent(8 << 20)
	l.close()
	paylink.WaitEnded(l.sale)
	open := true
	rows, err := m.client.ledger.Channels(t.Context(), ledger.Filter{Open: &open})
	if err != nil || len(rows) != 2 {
		t.Fatalf("%+v, %v", rows, err)
	}
	var forgotten ledger.Batch
	for _, row := range rows {
		forgotten.Moves = append(forgotten.Moves, ledger.Move{Channel: row.ID, State: ledger.StateFailed})
	}
	if err := m.client.ledger.Apply(t.Context(), forgotten); err != nil {
		t.Fatal(err)
	}
	b = buyer()
	l = connect(b)
	if got := allowed(l); got > first+100_000 {
		t.Errorf("a payer that left without paying is allowed %d bytes", got)
	}
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
}
