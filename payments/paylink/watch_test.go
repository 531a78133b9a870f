package paylink_test

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// teller is the memory chain, counts questions, and tells what it is told to
// tell of transactions.
type teller struct {
	chain.Backend
	asked atomic.Int64

	mu    sync.Mutex
	about func(txid bsv.Txid) (chain.Status, bool)
}

func (c *teller) tell(about func(bsv.Txid) (chain.Status, bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.about = about
}

func (c *teller) Tip(ctx context.Context) (chain.Header, error) {
	c.asked.Add(1)
	return c.Backend.Tip(ctx)
}

func (c *teller) Header(ctx context.Context, height uint32) (chain.Header, error) {
	c.asked.Add(1)
	return c.Backend.Header(ctx, height)
}

func (c *teller) FeeRate(ctx context.Context) (money.FeeRate, error) {
	c.asked.Add(1)
	return c.Backend.FeeRate(ctx)
}

func (c *teller) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	c.asked.Add(1)
	c.mu.Lock()
	about := c.about
	c.mu.Unlock()
	if about != nil {
		if status, ok := about(txid); ok {
			return status, nil
		}
	}
	return c.Backend.Status(ctx, txid)
}

// A funding that a reorganisation takes out of its block, however deep, is not
// trusted until it is mined again; one that is buried is not asked for.
func TestFundingsAreFollowedThroughReorganisations(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 5_000, 0)
	view := &teller{Backend: m.chain}
	m.withChain(view)
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	m.chain.Mine(1)
	next[*wire.Ack](p.conn)
	m.chain.Mine(7)
	id := p.state.ID()
	wait(t, func() bool { return m.seller.Height() == 209 })
	m.stop()
	m.startSellerOn(view) // does not know how deep it is
	m.chain.Mine(1)
	wait(t, func() bool { return m.seller.Height() == 210 })
	p = nil
	if !m.confirmed(id) {
		t.Fatal("not confirmed")
	}
	m.chain.Reorganise(9)
	wait(t, func() bool { return !m.confirmed(id) })
	m.chain.Mine(1)
	wait(t, func() bool { return m.confirmed(id) })
	m.chain.Reorganise(1)
	wait(t, func() bool { return !m.confirmed(id) })
	m.chain.Mine(1)
	wait(t, func() bool { return m.confirmed(id) })
}

// While another transaction competes with a funding nothing is delivered, and
// when it has won the newest commitment goes to the outbox all the same.
func TestDoubtedAndLostFundings(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 5_000, 0)
	view := &teller{Backend: m.chain}
	m.withChain(view)
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	funding := p.state.Open.FundingTxid
	is := func(s chain.Status) func(bsv.Txid) (chain.Status, bool) {
		return func(txid bsv.Txid) (chain.Status, bool) { return s, txid == funding }
	}
	view.tell(is(chain.Status{State: chain.Seen, Competing: []bsv.Txid{{1}}}))
	if r := next[*wire.Refusal](p.conn); r.Code != wire.CodeDoubleSpend {
		t.Fatalf("%+v", r)
	}
	p.conn.mu.Lock()
	if p.conn.allowed != 0 {
		t.Errorf("%d bytes allowed", p.conn.allowed)
	}
	p.conn.mu.Unlock()
	view.tell(nil)
	m.chain.Mine(1)
	next[*wire.Ack](p.conn)
	p.conn.mu.Lock()
	if p.conn.allowed == 0 {
		t.Error("nothing allowed although it is mined")
	}
	p.conn.mu.Unlock()
	view.tell(is(chain.Status{State: chain.Conflicted}))
	m.chain.Mine(1)
	if r := next[*wire.Refusal](p.conn); r.Code != wire.CodeDoubleSpend {
		t.Fatalf("%+v", r)
	}
	row, err := m.box.ledger.Channel(t.Context(), p.state.ID())
	if err != nil {
		t.Fatal(err)
	}
	if out, err := m.box.ledger.Outgoing(t.Context(), row.CloseTxid); err != nil || out.Purpose != ledger.Close {
		t.Errorf("%+v, %v", out, err)
	}
}

// What a service tells by itself is looked at without waiting for the poll.
func TestNewsIsLookedAtAtOnce(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 5_000, 0)
	m.stop()
	m.poll = time.Hour
	m.startSeller()
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	m.seller.Changed(bsv.Txid{9}) // of somebody else
	m.chain.Mine(1)
	m.seller.Changed(p.state.Open.FundingTxid)
	next[*wire.Ack](p.conn)
}

// An hour of watching stays within what public services answer.
func TestQuestionsInAnHour(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		channels  int
		mined     bool // in the first of the hour's blocks; else deep below
		questions int64
	}{
		{0, false, 246},
		{10, true, 296},
		{10, false, 256},
		{1_000, true, 5_246},
		{1_000, false, 1_246},
		{5_000, true, 7_446},
	} {
		m := newMarket(t, 5_000, 0)
		p := m.rawPayer()
		p.propose(nil)
		say(t, p.sale, p.funded())
		next[*wire.Ready](p.conn)
		p.sale.Close()
		m.chain.Mine(1)
		wait(t, func() bool { return m.confirmed(p.state.ID()) })
		m.stop()
		row, err := m.box.ledger.Channel(t.Context(), p.state.ID())
		if err != nil {
			t.Fatal(err)
		}
		settled := ledger.Batch{Moves: []ledger.Move{{Channel: row.ID, State: ledger.StateFailed}}}
		if err := m.box.ledger.Apply(t.Context(), settled); err != nil {
			t.Fatal(err)
		}
		var batch ledger.Batch
		for i := range c.channels {
			state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
			if err != nil {
				t.Fatal(err)
			}
			binary.BigEndian.PutUint32(state.Open.FundingTxid[:], uint32(i))
			other := row
			other.FundingTxid, other.ID = state.Open.FundingTxid, state.ID()
			if other.Snapshot, err = state.Snapshot(); err != nil {
				t.Fatal(err)
			}
			batch.Channels = append(batch.Channels, other)
		}
		if err := m.box.ledger.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		view := &teller{Backend: m.chain}
		height := uint32(100)
		if c.mined {
			tip, err := m.chain.Tip(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			height = tip.Height + 1
		}
		view.tell(func(bsv.Txid) (chain.Status, bool) { return chain.Status{State: chain.Mined, Height: height}, true })
		m.poll = 15 * time.Second
		seller := m.newSeller(view)
		for round := range 240 {
			if round%40 == 0 {
				m.chain.Mine(1)
			}
			if err := seller.Watch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if asked := view.asked.Load(); asked != c.questions {
			t.Errorf("%d channels, mined now %v: %d questions in an hour, want %d", c.channels, c.mined, asked, c.questions)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		_ = seller.Run(cancelled)
	}
}

// What cannot be settled in time is told, and when it is over.
func TestEndangeredChannels(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 5_000, 0)
	var mu sync.Mutex
	var told []paylink.Danger
	m.endangered = func(all []paylink.Danger) {
		mu.Lock()
		defer mu.Unlock()
		told = all
	}
	now := func() []paylink.Danger {
		mu.Lock()
		defer mu.Unlock()
		return told
	}
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	l := m.connect(b)
	l.transfer(32<<20, nil)
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	rows, err := m.box.ledger.Channels(t.Context(), ledger.Filter{})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%+v, %v", rows, err)
	}
	row := rows[0]
	// The network forgets the funding and does not take it again.
	forgotten := &faultyChain{Backend: m.chain, missing: map[bsv.Txid]bool{row.FundingTxid: true}}
	m.withChain(forgotten)
	wait(t, func() bool { return len(now()) == 1 && now()[0].Reason == paylink.FundingUnknown })
	forgotten.mu.Lock()
	delete(forgotten.missing, row.FundingTxid)
	forgotten.mu.Unlock()
	m.chain.Mine(1)
	wait(t, func() bool { return len(now()) == 0 })

	m.box.halt() // nothing goes out
	m.chain.MineTo(row.RefundHeight - 144)
	wait(t, func() bool { return m.boxRows(ledger.StateClosing) == 1 })
	if all := now(); len(all) > 0 {
		t.Errorf("in danger at the beginning of the margin: %+v", all)
	}
	m.chain.MineTo(row.RefundHeight - 47)
	wait(t, func() bool { return len(now()) == 1 })
	if d := now()[0]; d.Reason != paylink.CloseLate || d.Channel != row.ID || d.Amount != row.Payee || d.Blocks != 47 {
		t.Errorf("%+v", d)
	}
	m.box.startOutbox(m.chain)
	wait(t, func() bool { return len(m.chain.Mempool()) == 1 })
	m.chain.Mine(1)
	wait(t, func() bool { return len(now()) == 0 })
}
