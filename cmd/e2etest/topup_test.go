package e2etest

import (
	"bytes"
	"os"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

// TestTopUp buys a title that is dearer than the largest channel: others take
// over while the data flows, and the box never stops the client.
func TestTopUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Channels.MinCapacity, s.Channels.MaxCapacity = 900, 900 // of the title's 2,250 sat
	s.Upload.Rate = uploadRate / 2                            // so that the data does not pass before a channel can open
	b := w.Box(s)
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	w.WantExit(p, 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	if len(r.Channels) != 3 {
		t.Errorf("%d channels", len(r.Channels))
	}
	var billed int64
	for _, ch := range r.Channels {
		billed += ch.Bytes
		if ch.State != ledger.StateClosed {
			t.Errorf("channel %s is %s", ch.Channel, ch.State)
		}
	}
	if billed != r.Peers[0].Wire {
		t.Errorf("%d bytes came, %d were paid for", r.Peers[0].Wire, billed)
	}
	output, err := os.ReadFile(b.Log())
	w.Must(err)
	// Once when all was paid. On a machine that is too busy to sign the next
	// channel in time it may happen before; that it need not, paylink's own test
	// shows.
	if n := bytes.Count(output, []byte("the payer is stopped")); n < 1 || n > len(r.Channels) {
		t.Errorf("the client was stopped %d times", n)
	}
	t.Logf("%d bytes, %v spent: %+v", billed, r.Spent, r.Channels)
	w.Books(c, r)
}
