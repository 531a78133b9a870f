package e2etest

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// closeMargin is how many blocks before the refund a box settles.
const closeMargin = 144

// partOfSale buys a third of the title from a box and leaves the channel open.
func partOfSale(w *world) (*seller, *client, receipt) {
	w.Helper()
	s := w.settings(ask)
	s.Upload.Rate = uploadRate
	b := w.box(s)
	c := w.client(200_000)
	p := c.get(generous, bigBudget)
	b.awaitSold(p, titleLength/3)
	p.signal(syscall.SIGINT)
	w.wantExit(p, 130)
	r := c.readReceipt()
	if len(r.Channels) != 1 || r.Channels[0].State != ledger.StateOpen {
		w.Fatalf("%+v", r)
	}
	return b, c, r
}

// awaitClose waits until a box has made its only channel's close, and returns
// what the client's wallet makes of it.
func awaitClose(w *world, b *seller, c *client, r receipt) {
	w.Helper()
	funding := w.transaction(r.Channels[0].Funding)
	w.await("spent funding", func() error {
		spent, err := w.node.Backend().Spent(w.ctx, bsv.Outpoint{Txid: funding.Txid()})
		if err == nil && !spent {
			err = errors.New("unspent")
		}
		return err
	})
	w.must(w.node.Mine(w.ctx, 1))
	confirmed, unconfirmed := c.balance()
	if unconfirmed != 0 || confirmed != c.pocket-r.Spent {
		w.Errorf("wallet: %v and %v on the way; had %v, spent %v", confirmed, unconfirmed, c.pocket, r.Spent)
	}
	w.ledger(c.data, func(l *ledger.Ledger) {
		rows, err := l.Channels(w.ctx, ledger.Filter{Role: ledger.Payer})
		w.must(err)
		if len(rows) != 1 || rows[0].State != ledger.StateClosed {
			w.Fatalf("%+v", rows)
		}
		r.Channels[0].State, r.Channels[0].Close = rows[0].State, bsv.Txid(rows[0].CloseTxid).String()
	})
	w.books(c, r)
}

// TestCloseOnDemand has the owner settle while the client is away.
func TestCloseOnDemand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	p := start(t, w.dir, filepath.Join(b.data, "close.log"), "bitcdn", "box", "close", "--data", b.data)
	w.wantExit(p, 0)
	wantWords(t, p, "1 channels are being settled\n")
	awaitClose(w, b, c, r)
}

// TestCloseBeforeRefund lets the refund come near while the client is away.
func TestCloseBeforeRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	near := b.status().Channels[0].Refund - closeMargin
	w.must(w.node.MineTo(w.ctx, near-1))
	w.await("a look at the chain", func() error {
		if h := b.status().Chain.Height; h != near-1 {
			return fmt.Errorf("height %d", h)
		}
		return nil
	})
	if rows := b.status().Channels; len(rows) != 1 || rows[0].State != ledger.StateOpen {
		t.Fatalf("closed too early: %+v", rows)
	}
	w.must(w.node.Mine(w.ctx, 1))
	awaitClose(w, b, c, r)
}

// TestCloseAfterDowntime has the box away over the time at which it should have
// settled.
func TestCloseAfterDowntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	near := b.status().Channels[0].Refund - closeMargin
	b.process.kill()
	w.must(w.node.MineTo(w.ctx, near+closeMargin/2))
	b.start()
	awaitClose(w, b, c, r)
}

// TestRefund takes the money back from a box that never comes back.
func TestRefund(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, c, r := partOfSale(w)
	height := b.status().Channels[0].Refund
	b.process.kill()
	w.must(w.node.MineTo(w.ctx, height-1))
	if confirmed, unconfirmed := c.balance(); confirmed+unconfirmed >= c.pocket-r.Spent {
		t.Errorf("%v and %v on the way before the refund", confirmed, unconfirmed)
	}
	w.must(w.node.Mine(w.ctx, 1))
	c.balance()
	var refund ledger.Outgoing
	w.ledger(c.data, func(l *ledger.Ledger) {
		sent, err := l.OutgoingFor(w.ctx, ledger.Refund, 10)
		w.must(err)
		if len(sent) != 1 || sent[0].State != ledger.Seen {
			t.Fatalf("refunds: %+v", sent)
		}
		refund = sent[0]
	})
	status, err := w.node.Backend().Status(w.ctx, refund.Txid)
	if err != nil || status.State != chain.Seen {
		t.Fatalf("the node says %v, %v", status, err)
	}
	tx := w.mined(bsv.Txid(refund.Txid).String())
	fees := w.fee(tx) + w.fee(w.transaction(r.Channels[0].Funding))
	if confirmed, unconfirmed := c.balance(); confirmed != c.pocket-fees || unconfirmed != 0 {
		t.Errorf("%v and %v on the way; had %v, fees were %v", confirmed, unconfirmed, c.pocket, fees)
	}
	w.ledger(c.data, func(l *ledger.Ledger) {
		rows, err := l.Channels(w.ctx, ledger.Filter{Role: ledger.Payer})
		w.must(err)
		paid, spent, err := l.SpentOn(w.ctx, shared.infoHash)
		w.must(err)
		totals, err := l.Totals(w.ctx)
		w.must(err)
		if rows[0].State != ledger.StateRefunded || paid != 0 || spent != fees || totals.ChannelFees != fees || totals.Escrow != 0 {
			t.Errorf("%s, %v paid, %v in fees (%v were), %+v", rows[0].State, paid, spent, fees, totals)
		}
	})
	t.Logf("%v back, fees %v", tx.Outputs[0].Value, fees)
}
