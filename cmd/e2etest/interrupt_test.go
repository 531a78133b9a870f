package e2etest

import (
	"syscall"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// TestInterrupt presses Ctrl-C and runs the same command again.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	b := w.Box(s)
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	b.AwaitSold(p, titleLength/3)
	p.Signal(syscall.SIGINT)
	w.WantExit(p, 130)
	p.WantWords("bitcdn: error: interrupted: ", "bitcdn: hint: run the same command again to go on where it stopped\n")
	first := c.ReadReceipt()
	if len(first.Channels) != 1 || first.Channels[0].State != ledger.StateOpen || first.Channels[0].Close != "" || first.Complete {
		t.Fatalf("%+v", first)
	}
	if rows := b.Status().Channels; len(rows) != 1 || rows[0].State != ledger.StateOpen || rows[0].Paid != first.Channels[0].Payee || rows[0].Bytes != first.Channels[0].Bytes {
		t.Errorf("the box has %+v, the receipt %+v", rows, first.Channels)
	}
	p = c.Get(generous, bigBudget)
	w.WantExit(p, 0)
	p.WantWords("goes on with the channel")
	r := c.ReadReceipt()
	w.CompareFiles(r)
	if len(r.Channels) != 1 {
		t.Errorf("%d channels", len(r.Channels))
	}
	// What came for pieces that were not complete when it stopped came again.
	onWire := first.Peers[0].Wire + r.Peers[0].Wire
	if paid := r.Channels[0].Bytes; paid > onWire || onWire < titleLength || paid < titleLength || onWire > titleLength+4<<20 {
		t.Errorf("%d bytes on the wire, %d paid, the title has %d", onWire, paid, titleLength)
	}
	t.Logf("%d bytes on the wire, %d paid; %d when it was interrupted", onWire, r.Channels[0].Bytes, first.Channels[0].Bytes)
	w.Books(c, r)
}

// TestBudget lets a budget run out in the middle, and adds to it.
func TestBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.Box(w.Settings(ask))
	c := w.Client(200_000)
	const little money.Satoshis = 1_000
	p := c.Get(generous, little)
	w.WantExit(p, 4)
	p.WantWords("bitcdn: error: the budget is used up: ", "bitcdn: hint: run the same command with a larger --budget")
	first := c.ReadReceipt()
	if first.Complete || first.Spent > little || first.Spent < little*9/10 {
		t.Errorf("%v spent of %v, complete %v", first.Spent, little, first.Complete)
	}
	if rows := b.Status().Channels; len(rows) != 1 || rows[0].Paid+rows[0].Royalty+first.Channels[0].Fee != first.Spent {
		t.Errorf("the box has %+v, the receipt %+v", rows, first)
	}
	w.WantExit(c.Get(generous, bigBudget), 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	t.Logf("%v and then %v spent: %+v", first.Spent, r.Spent, r.Channels)
	w.Books(c, r)
}

// TestMaxPrice meets a box that asks for more than the client gives.
func TestMaxPrice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.Box(w.Settings(ask))
	c := w.Client(200_000)
	p := c.Get(ask+royalty-1, bigBudget, "--give-up-after", "5s")
	w.WantExit(p, 3)
	p.WantWords("the price is above the limit", "bitcdn: error: ", "bitcdn: hint: ")
	r := c.ReadReceipt()
	if len(r.Channels) != 0 || len(r.Peers) != 1 || r.Peers[0].Wire != 0 || r.Peers[0].Paid || r.Spent != 0 {
		t.Errorf("%+v", r)
	}
	if rows := b.Status().Channels; len(rows) != 0 {
		t.Errorf("the box has %+v", rows)
	}
	if confirmed, unconfirmed := c.Balance(); confirmed != c.Pocket || unconfirmed != 0 {
		t.Errorf("%v and %v are left of %v", confirmed, unconfirmed, c.Pocket)
	}
	w.SeedStock("")
	w.WantExit(c.Get(ask+royalty-1, bigBudget), 0)
	r = c.ReadReceipt()
	w.CompareFiles(r)
	for _, peer := range r.Peers {
		want := int64(0)
		if peer.Peer == w.Free[0] {
			want = titleLength
		}
		if peer.Wire != want || peer.Paid {
			t.Errorf("%+v", peer)
		}
	}
	if len(r.Channels) != 0 || r.Spent != 0 {
		t.Errorf("%+v", r)
	}
	w.Books(c, r)
}
