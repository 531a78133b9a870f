package failover_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/failover"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
)

// broadcasters makes a view of services of which the first n know only what was
// handed to them.
func broadcasters(t testing.TB, opt failover.Options, n int, backends ...chain.Backend) *failover.Backend {
	t.Helper()
	var all []failover.Service
	for i, b := range backends {
		all = append(all, failover.Service{Name: string(rune('a' + i)), Backend: b, OwnOnly: i < n})
	}
	b, err := failover.New(all, opt)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A service that takes a transaction and keeps it to itself is found out by one
// that would see it, and does not keep it from the others.
func TestSwallowed(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	tx, _ := sweep(t, c)
	liar := &said{status: map[bsv.Txid]chain.Status{tx.Txid(): {State: chain.Seen}}}
	b := broadcasters(t, failover.Options{}, 1, liar, c)
	if err := b.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Unknown {
		t.Fatalf("swallowed, and called %v, %v", s.State, err)
	}
	b = broadcasters(t, failover.Options{BroadcastAll: true}, 1, liar, c)
	if err := b.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Seen {
		t.Fatalf("%v, %v", s.State, err)
	}
	if s, err := c.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Seen {
		t.Fatalf("the network has it not: %v, %v", s.State, err)
	}
	// A double spend that is not decided is still told of.
	liar.status[bsv.Txid{9}] = chain.Status{State: chain.Seen, Competing: []bsv.Txid{{8}}}
	if s, err := b.Status(t.Context(), bsv.Txid{9}); err != nil || s.State != chain.Seen || len(s.Competing) != 1 {
		t.Fatal(s, err)
	}
}

// The word of one service that broadcasts gives no transaction up while the
// others are away.
func TestLoneRefusal(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	tx, _ := sweep(t, c)
	txid := tx.Txid()
	liar := &said{status: map[bsv.Txid]chain.Status{txid: {State: chain.Conflicted}}, broadcast: chain.Reject(chain.DoubleSpend, "")}
	honest, keyless := &said{}, &said{err: errors.New("wants a key"), broadcast: errors.New("wants a key")}
	b := broadcasters(t, failover.Options{Clock: fleeting()}, 1, liar, honest, keyless)
	if _, err := b.Tip(t.Context()); err != nil { // it answers once
		t.Fatal(err)
	}
	if _, err := b.Spent(t.Context(), bsv.Outpoint{}); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context(), txid); err != nil || s.State != chain.Conflicted {
		t.Fatal(s, err)
	}
	rejected := new(chain.Rejected)
	honest.broadcast = chain.Reject(chain.DoubleSpend, "")
	if err := b.Broadcast(t.Context(), tx, nil); !errors.As(err, &rejected) {
		t.Fatal(err)
	}
	honest.err, honest.broadcast = chain.ErrUnavailable, chain.ErrUnavailable
	if s, err := b.Status(t.Context(), txid); s.State == chain.Conflicted && err == nil {
		t.Fatal("given up on one word")
	}
	if err := b.Broadcast(t.Context(), tx, nil); errors.As(err, &rejected) || !errors.Is(err, chain.ErrUnavailable) {
		t.Fatal(err)
	}
}

// Who says that another transaction has won has to name one that spends the same
// and is in a block.
func TestFalseWinner(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	tx, coin := sweep(t, c)
	txid := tx.Txid()
	if err := c.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	honest := failover.Service{Name: "honest", Backend: c}
	h, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest, Sources: []headers.Source{c}, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	if _, err := h.Sync(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	liar := &said{status: map[bsv.Txid]chain.Status{txid: {State: chain.Conflicted, Competing: []bsv.Txid{coin.Outpoint.Txid, {7}}},
		{7}: {State: chain.Mined, Height: 1, Block: chain.Hash{1}}}}
	b, err := failover.New([]failover.Service{{Name: "liar", Backend: liar}, honest}, failover.Options{Clock: fleeting(), Headers: h})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(t.Context(), txid); err != nil || s.State != chain.Seen {
		t.Fatal(s, err)
	}
}

// noisy is a service that never stops telling.
type noisy struct {
	said
	watches int
	err     error
}

func (n *noisy) Watch(ctx context.Context, changed func(bsv.Txid)) error {
	n.watches++
	if n.err != nil {
		return n.err
	}
	for i := 0; ctx.Err() == nil; i++ {
		changed(bsv.Txid{byte(i % 3)})
		pauseFor(ctx, 10*time.Millisecond)
	}
	return ctx.Err()
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func TestNoisyWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := combine(t, failover.Options{}, &noisy{}, &said{}, &noisy{err: errors.New("a key, please")}, &noisy{err: chain.ErrUnsupported})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		told := 0
		if err := b.Watch(ctx, func(bsv.Txid) { told++ }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if told < 360 || told > 3*361 {
			t.Errorf("told %d times in an hour", told)
		}
	})
}

// A service whose watching ends is watched again; nobody else is the worse for it.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refused, none := &noisy{err: errors.New("a key, please")}, &noisy{err: chain.ErrUnsupported}
		b := combine(t, failover.Options{}, refused, none)
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Minute)
		defer cancel()
		if err := b.Watch(ctx, func(bsv.Txid) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if refused.watches != 12 || none.watches != 1 {
			t.Error(refused.watches, none.watches)
		}
		if err := combine(t, failover.Options{}, none).Watch(t.Context(), nil); !errors.Is(err, chain.ErrUnsupported) {
			t.Fatal(err)
		}
	})
}

// A service that is slow to hear of a transaction does not hold up who sent it.
func TestBroadcastAllIsNotSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := memory.New(clock)
		tx, _ := sweep(t, c)
		slow := &sleeper{}
		b := combine(t, failover.Options{BroadcastAll: true}, c, slow)
		before := time.Now()
		if err := b.Broadcast(t.Context(), tx, nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before); took > 3*time.Second {
			t.Error(took)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !slices.Equal(slow.asked, []string{"Broadcast"}) {
			t.Error(slow.asked)
		}
	})
}

type sleeper struct{ said }

func (s *sleeper) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	pauseFor(ctx, 20*time.Second)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.said.Broadcast(ctx, tx, prev)
}

// A service that hides the newest blocks holds no refund back.
func TestRefundBehindALaggard(t *testing.T) {
	t.Parallel()
	c := memory.New(clock)
	c.MineTo(20)
	h, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest, Sources: []headers.Source{c}, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	if _, err := h.Sync(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	laggard := &said{tip: chain.Header{Height: 3}}
	b, err := failover.New([]failover.Service{{Name: "laggard", Backend: laggard}}, failover.Options{Headers: h})
	if err != nil {
		t.Fatal(err)
	}
	tx := &bsv.Tx{Version: 1, LockTime: 20, Inputs: make([]bsv.Input, 1), Outputs: make([]bsv.Output, 1)}
	if err := b.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	rejected := new(chain.Rejected)
	tx.LockTime = 21
	if err := b.Broadcast(t.Context(), tx, nil); !errors.As(err, &rejected) || rejected.Reason != chain.NonFinal {
		t.Fatal(err)
	}
}
