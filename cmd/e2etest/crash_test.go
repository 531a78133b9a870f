package e2etest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// kills is how often a program is killed in each of these tests.
const kills = 5

// points are the numbers of bytes sold at which something is killed, one in
// each of n+1 parts of the title but the last.
func points(t *testing.T, seed uint64, n int) []int64 {
	random := rand.New(rand.NewPCG(seed, 0))
	part := int64(titleLength) / int64(n+1)
	at := make([]int64, n)
	for i := range at {
		at[i] = int64(i)*part + part/4 + random.Int64N(part/2)
	}
	t.Logf("killed at %d", at)
	return at
}

// TestBoxKilled kills a box again and again under a client that goes on
// running.
func TestBoxKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	b := w.Box(s)
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	var before ledger.Channel
	for _, at := range points(t, 1, kills) {
		b.AwaitSold(p, at)
		b.Process.Kill()
		row := openRow(w, b.Channels())
		if row.Seq <= before.Seq || row.Payee < before.Payee || row.Bytes < at {
			t.Fatalf("after the kill at %d: commitment %d of %v for %d bytes; before it %d of %v", at, row.Seq, row.Payee, row.Bytes, before.Seq, before.Payee)
		}
		before = row
		b.Start()
	}
	w.WantExit(p, 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	if len(r.Channels) != 1 {
		t.Errorf("%d channels", len(r.Channels))
	}
	w.Books(c, r)
	t.Logf("%d kills, %v at stake at the last one, %+v", kills, before.Payee+before.Creator, r.Channels)
}

// TestBothKilled kills box and client together and has the box settle with what
// is on its disk.
func TestBothKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	b := w.Box(s)
	c := w.Client(200_000)
	random := rand.New(rand.NewPCG(2, 0))
	var stake money.Satoshis
	settled := make(map[string]ledger.Channel)
	for round := range kills {
		before := b.Sold()
		p := c.Get(generous, bigBudget)
		b.AwaitSold(p, before+(2<<20)+random.Int64N(3<<20))
		if round%2 == 0 {
			b.Process.Kill()
			p.Kill()
		} else {
			p.Kill()
			b.Process.Kill()
		}
		row := openRow(w, b.Channels())
		acked, signed := newest(w, c, row.ID)
		if row.Seq < acked || row.Seq > signed {
			t.Fatalf("the box has commitment %d, acknowledged were %d, signed %d", row.Seq, acked, signed)
		}
		b.Start()
		closed, err := b.Control.CloseChannels(w.Ctx, box.CloseRequest{Channel: fmt.Sprintf("%x", row.ID)})
		if err != nil || closed.Channels != 1 {
			t.Fatalf("%d closed, %v", closed.Channels, err)
		}
		b.Process.Kill() // before or after the broadcast: the outbox has it
		stored := b.Channels()[fmt.Sprintf("%x", row.ID)]
		b.Start()
		tx := w.Mined(bsv.Txid(stored.CloseTxid).String())
		if tx.Outputs[0].Value != row.Payee || e2e.PaidTo(tx, shared.Creator) != row.Creator {
			t.Fatalf("close %v, the newest commitment has %v and %v", tx.Outputs, row.Payee, row.Creator)
		}
		t.Logf("round %d: acknowledged %d, box %d, signed %d, closed with %v and %v", round, acked, row.Seq, signed, row.Payee, row.Creator)
		stake += row.Payee + row.Creator
		settled[fmt.Sprintf("%x", row.ID)] = row
	}
	w.WantExit(c.Get(generous, bigBudget), 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	// A client's books have what it has signed. What a killed one signed last may
	// not have arrived; the box has then closed with less, at most by what it had
	// let the client owe.
	for i := range r.Channels {
		ch := &r.Channels[i]
		row, ok := settled[ch.Channel]
		if !ok || row.Seq == ch.Commitments {
			continue
		}
		more := ch.Payee + ch.Creator - row.Payee - row.Creator
		if row.Seq > ch.Commitments || more < 0 || more > paylink.DefaultOffer().CreditWorth+(row.Payee+row.Creator)/4+2 {
			t.Errorf("receipt %+v, the box closed with commitment %d of %v and %v", ch, row.Seq, row.Payee, row.Creator)
		}
		ch.Bytes, ch.Commitments, ch.Payee, ch.Creator = row.Bytes, row.Seq, row.Payee, row.Creator
		r.Spent -= more
	}
	if len(r.Channels) != kills+1 {
		t.Errorf("%d channels", len(r.Channels))
	}
	w.Books(c, r)
	t.Logf("%d rounds, %v at stake, %v spent", kills, stake, r.Spent)
}

// openRow is the one channel that is not settled.
func openRow(w *e2e.World, rows map[string]ledger.Channel) (open ledger.Channel) {
	w.Helper()
	n := 0
	for _, row := range rows {
		if row.State == ledger.StateOpen || row.State == ledger.StateOpening {
			open, n = row, n+1
		}
	}
	if n != 1 {
		w.Fatalf("%d open channels", n)
	}
	return open
}

// newest tells which commitment of a channel the box has acknowledged and which
// the client has signed, as the client's disk has it.
func newest(w *e2e.World, c *e2e.Client, id [32]byte) (acked, signed uint64) {
	w.Helper()
	w.Ledger(c.Data, func(l *ledger.Ledger) {
		row, err := l.Channel(w.Ctx, id)
		w.Must(err)
		state, err := channel.RestorePayer(row.Snapshot, bsv.PrivateKey{})
		w.Must(err)
		acked, signed = state.Acked, row.Seq
	})
	return acked, signed
}

// TestClientKilled kills the client again and again and runs it once more.
func TestClientKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.Settings(ask)
	s.Upload.Rate = uploadRate
	b := w.Box(s)
	c := w.Client(200_000)
	for i, at := range points(t, 3, kills) {
		p := c.Get(generous, bigBudget)
		b.AwaitSold(p, at)
		p.Kill()
		w.Ledger(c.Data, func(l *ledger.Ledger) {
			rows, err := l.Channels(w.Ctx, ledger.Filter{Role: ledger.Payer})
			w.Must(err)
			sent, err := l.OutgoingFor(w.Ctx, ledger.Funding, 100)
			w.Must(err)
			paid, fees, err := l.SpentOn(w.Ctx, shared.InfoHash)
			w.Must(err)
			t.Logf("kill %d at %d: %d channels, %v and %v in fees, %d bytes sent by the box", i, at, len(rows), paid, fees, b.Status().Traffic.Uploaded)
			if paid+fees > bigBudget {
				t.Errorf("%v and %v in fees", paid, fees)
			}
			// Each crash costs the box what was on its way. When that comes to
			// more than it forgives it settles, and one more channel is opened.
			for _, row := range rows[:len(rows)-1] {
				w.Transaction(bsv.Txid(row.CloseTxid).String())
			}
			if len(sent) != len(rows) || rows[len(rows)-1].State != ledger.StateOpen {
				t.Errorf("%d fundings, channels %+v", len(sent), rows)
			}
		})
	}
	w.WantExit(c.Get(generous, bigBudget), 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	uploaded := b.Status().Traffic.Uploaded
	again := uploaded - titleLength
	var paid int64
	for _, ch := range r.Channels {
		paid += ch.Bytes
	}
	t.Logf("%d bytes sent, %d of them again; paid for %d, in %d channels", uploaded, again, paid, len(r.Channels))
	if again < 0 || again > kills*(4<<20) {
		t.Errorf("%d bytes were sent again", again)
	}
	// A box that settles has sent more than it lets a new payer owe without
	// being paid for it.
	if settled := int64(len(r.Channels) - 1); again < settled*(ask+royalty).Bytes(paylink.DefaultOffer().CreditWorth) {
		t.Errorf("%d channels were settled for %d bytes", settled, again)
	}
	w.Books(c, r)
}
