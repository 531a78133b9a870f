package e2etest

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// closeMargin is how many blocks before the refund a box settles.
const closeMargin = 144

// partOfSale buys a third of the title from a box and leaves the channel open.
func partOfSale(w *e2e.World) (*e2e.Seller, *e2e.Client, e2e.Receipt) {
	w.Helper()
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	b := w.Box(s)
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	b.AwaitSold(p, titleLength/3)
	p.Signal(syscall.SIGINT)
	w.WantExit(p, 130)
	r := c.ReadReceipt()
	if len(r.Channels) != 1 || r.Channels[0].State != ledger.StateOpen {
		w.Fatalf("%+v", r)
	}
	return b, c, r
}

// awaitClose waits until a box has made its only channel's close, and returns
// what the client's wallet makes of it.
func awaitClose(w *e2e.World, b *e2e.Seller, c *e2e.Client, r e2e.Receipt) {
	w.Helper()
	funding := w.Transaction(r.Channels[0].Funding)
	w.Await("spent funding", func() error {
		spent, err := w.Node.Backend().Spent(w.Ctx, bsv.Outpoint{Txid: funding.Txid()})
		if err == nil && !spent {
			err = errors.New("unspent")
		}
		return err
	})
	w.Must(w.Node.Mine(w.Ctx, 1))
	confirmed, unconfirmed := c.Balance()
	if unconfirmed != 0 || confirmed != c.Pocket-r.Spent {
		w.Errorf("wallet: %v and %v on the way; had %v, spent %v", confirmed, unconfirmed, c.Pocket, r.Spent)
	}
	w.Ledger(c.Data, func(l *ledger.Ledger) {
		rows, err := l.Channels(w.Ctx, ledger.Filter{Role: ledger.Payer})
		w.Must(err)
		if len(rows) != 1 || rows[0].State != ledger.StateClosed {
			w.Fatalf("%+v", rows)
		}
		r.Channels[0].State, r.Channels[0].Close = rows[0].State, bsv.Txid(rows[0].CloseTxid).String()
	})
	w.Books(c, r)
}

// TestCloseOnDemand has the owner settle while the client is away.
func TestCloseOnDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	p := w.Start(w.Dir, filepath.Join(b.Data, "close.log"), "bitcdn", "box", "close", "--data", b.Data)
	w.WantExit(p, 0)
	p.WantWords("1 channels are being settled\n")
	awaitClose(w, b, c, r)
}

// TestCloseBeforeRefund lets the refund come near while the client is away.
func TestCloseBeforeRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	near := b.Status().Channels[0].Refund - closeMargin
	w.Must(w.Node.MineTo(w.Ctx, near-1))
	w.Await("a look at the chain", func() error {
		if h := b.Status().Chain.Height; h != near-1 {
			return fmt.Errorf("height %d", h)
		}
		return nil
	})
	if rows := b.Status().Channels; len(rows) != 1 || rows[0].State != ledger.StateOpen {
		t.Fatalf("closed too early: %+v", rows)
	}
	w.Must(w.Node.Mine(w.Ctx, 1))
	awaitClose(w, b, c, r)
}

// TestCloseAfterDowntime has the box away over the time at which it should have
// settled.
func TestCloseAfterDowntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	near := b.Status().Channels[0].Refund - closeMargin
	b.Process.Kill()
	w.Must(w.Node.MineTo(w.Ctx, near+closeMargin/2))
	b.Start()
	awaitClose(w, b, c, r)
}

// TestRefund takes the money back from a box that never comes back.
func TestRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	height := b.Status().Channels[0].Refund
	b.Process.Kill()
	w.Must(w.Node.MineTo(w.Ctx, height-1))
	if confirmed, unconfirmed := c.Balance(); confirmed+unconfirmed >= c.Pocket-r.Spent {
		t.Errorf("%v and %v on the way before the refund", confirmed, unconfirmed)
	}
	w.Must(w.Node.Mine(w.Ctx, 1))
	c.Balance()
	var refund ledger.Outgoing
	w.Ledger(c.Data, func(l *ledger.Ledger) {
		sent, err := l.OutgoingFor(w.Ctx, ledger.Refund, 10)
		w.Must(err)
		if len(sent) != 1 || sent[0].State != ledger.Seen {
			t.Fatalf("refunds: %+v", sent)
		}
		refund = sent[0]
	})
	status, err := w.Node.Backend().Status(w.Ctx, refund.Txid)
	if err != nil || status.State != chain.Seen {
		t.Fatalf("the node says %v, %v", status, err)
	}
	tx := w.Mined(bsv.Txid(refund.Txid).String())
	fees := w.Fee(tx) + w.Fee(w.Transaction(r.Channels[0].Funding))
	if confirmed, unconfirmed := c.Balance(); confirmed != c.Pocket-fees || unconfirmed != 0 {
		t.Errorf("%v and %v on the way; had %v, fees were %v", confirmed, unconfirmed, c.Pocket, fees)
	}
	w.Ledger(c.Data, func(l *ledger.Ledger) {
		rows, err := l.Channels(w.Ctx, ledger.Filter{Role: ledger.Payer})
		w.Must(err)
		paid, spent, err := l.SpentOn(w.Ctx, shared.InfoHash)
		w.Must(err)
		totals, err := l.Totals(w.Ctx)
		w.Must(err)
		if rows[0].State != ledger.StateRefunded || paid != 0 || spent != fees || totals.ChannelFees != fees || totals.Escrow != 0 {
			t.Errorf("%s, %v paid, %v in fees (%v were), %+v", rows[0].State, paid, spent, fees, totals)
		}
	})
	t.Logf("%v back, fees %v", tx.Outputs[0].Value, fees)
}
