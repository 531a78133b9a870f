package arc_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// spend makes a coin, and a transaction that spends it with the output that it
// spends.
func spend(t testing.TB, n *regnode.Node, seed byte, b *arc.Backend) (*bsv.Tx, []bsv.Output) {
	t.Helper()
	secret := make([]byte, bsv.PrivateKeySize)
	secret[0], secret[31] = seed, 1
	k, err := bsv.NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	coin, err := n.Pay(t.Context(), k.Public().Hash(), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	rate, err := b.FeeRate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, bsv.Hash160{seed}, rate)
	if err != nil {
		t.Fatal(err)
	}
	return tx, []bsv.Output{coin.Output}
}

// both runs a test against a real node behind either service. post and get are
// the beginnings of its requests.
func both(t *testing.T, test func(t *testing.T, n *regnode.Node, s *arcnode.Server, post, get string)) {
	for _, v := range []struct {
		dialect   arcnode.Dialect
		post, get string
	}{{arcnode.ARC, "POST /v1/tx", "GET /v1/tx"}, {arcnode.Arcade, "POST /tx", "GET /tx"}} {
		t.Run(string(v.dialect), func(t *testing.T) {
			t.Parallel()
			n := regnode.ForTest(t)
			test(t, n, arcnode.ForTest(t, n, arcnode.Options{Dialect: v.dialect, Key: key}), v.post, v.get)
		})
	}
}

func state(t testing.TB, b *arc.Backend, txid bsv.Txid, want chain.State) chain.Status {
	t.Helper()
	s, err := b.Status(t.Context(), txid)
	if err != nil || s.State != want {
		t.Fatalf("%+v, %v; want %s", s, err, want)
	}
	return s
}

func TestFaults(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, n *regnode.Node, server *arcnode.Server, post, get string) {
		c := newClock()
		b := dial(t, server.URL(), arc.Options{Key: key, Clock: c.time})
		tx, prev := spend(t, n, 1, b)
		txid := tx.Txid()
		html := "<html>a proxy's page</html>"
		for name, v := range map[string]struct {
			fault arcnode.Fault
			want  error
		}{
			"no block yet":   {arcnode.Fault{Status: 409, Body: `{"status":409,"title":"Generic error"}`}, chain.ErrUnavailable},
			"too many":       {arcnode.Fault{Status: 429, Header: map[string]string{"Retry-After": "3"}}, chain.ErrUnavailable},
			"out of order":   {arcnode.Fault{Status: 500, Body: html}, chain.ErrUnavailable},
			"bad gateway":    {arcnode.Fault{Status: 502, Body: html}, chain.ErrUnavailable},
			"key expired":    {arcnode.Fault{Status: 403}, arc.ErrCredentials},
			"a web page":     {arcnode.Fault{Status: 200, Body: html}, arc.ErrProtocol},
			"of another one": {arcnode.Fault{Status: 200, Body: `{"txid":"00","txStatus":"SEEN_ON_NETWORK"}`}, arc.ErrProtocol},
		} {
			for _, request := range []string{post, get} {
				v.fault.Request, v.fault.Times = request, 1
				server.Faults(t, v.fault)
				var err error
				if request == post {
					err = b.Broadcast(t.Context(), tx, prev)
				} else {
					_, err = b.Status(t.Context(), txid)
				}
				if !errors.Is(err, v.want) || errors.As(err, new(*chain.Rejected)) {
					t.Errorf("%s, %s: %v; want %v", name, request, err, v.want)
				}
				c.add(10 * time.Second)
				state(t, b, txid, chain.Unknown)
			}
		}

		// An answer that does not come, of a service that does nothing and of one
		// that does.
		for _, after := range []bool{false, true} {
			server.Faults(t, arcnode.Fault{Request: post, Times: 1, Hang: true, After: after})
			slow := dial(t, server.URL(), arc.Options{Key: key, Timeout: 200 * time.Millisecond})
			if err := slow.Broadcast(t.Context(), tx, prev); !errors.Is(err, chain.ErrUnavailable) {
				t.Errorf("did its work: %v: %v", after, err)
			}
			server.Faults(t)
		}
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Error("sent again after a lost answer:", err)
		}
		state(t, b, txid, chain.Seen)
	})
}

func TestKeyIsAskedFor(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, _ *regnode.Node, server *arcnode.Server, _, _ string) {
		tx, prev := sample()
		for _, wrong := range []string{"", "another"} {
			b := dial(t, server.URL(), arc.Options{Key: wrong})
			if err := b.Broadcast(t.Context(), tx, prev); !errors.Is(err, arc.ErrCredentials) {
				t.Error(err)
			}
			if _, err := b.FeeRate(t.Context()); !errors.Is(err, arc.ErrCredentials) {
				t.Error(err)
			}
			if err := b.Watch(t.Context(), func(bsv.Txid) {}); !errors.Is(err, arc.ErrCredentials) {
				t.Error(err)
			}
		}
	})
}

func TestContested(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, n *regnode.Node, server *arcnode.Server, _, _ string) {
		b := dial(t, server.URL(), arc.Options{Key: key})
		tx, prev := spend(t, n, 1, b)
		txid, rival := tx.Txid(), bsv.Txid{9}
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Fatal(err)
		}
		server.SetStatus(t, txid, "DOUBLE_SPEND_ATTEMPTED", "", rival)
		if s := state(t, b, txid, chain.Seen); !slices.Equal(s.Competing, []bsv.Txid{rival}) {
			t.Errorf("%+v", s)
		}
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Error(err)
		}
		server.SetStatus(t, txid, "REJECTED", "double spend lost", rival)
		if s := state(t, b, txid, chain.Conflicted); !slices.Equal(s.Competing, []bsv.Txid{rival}) {
			t.Errorf("%+v", s)
		}
		rejected := new(chain.Rejected)
		if err := b.Broadcast(t.Context(), tx, prev); !errors.As(err, &rejected) || rejected.Reason != chain.DoubleSpend {
			t.Error(err)
		}
		server.SetStatus(t, txid, "SEEN_IN_ORPHAN_MEMPOOL", "")
		state(t, b, txid, chain.Unknown)
		if err := b.Broadcast(t.Context(), tx, prev); !errors.As(err, &rejected) || rejected.Reason != chain.MissingInputs {
			t.Error(err)
		}
	})
}

// Each of several transactions of one block is proved to be in it, and Prover
// says the same.
func TestProofs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, n *regnode.Node, server *arcnode.Server, _, _ string) {
		b := dial(t, server.URL(), arc.Options{Key: key})
		var ids []bsv.Txid
		for seed := byte(1); seed <= 6; seed++ {
			tx, prev := spend(t, n, seed, b)
			if err := b.Broadcast(t.Context(), tx, prev); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Proof(t.Context(), tx.Txid()); !errors.Is(err, chain.ErrNotFound) {
				t.Error(err)
			}
			ids = append(ids, tx.Txid())
		}
		if err := n.Mine(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		tip, err := n.Backend().Tip(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		header, err := n.Backend().Header(t.Context(), tip.Height-2)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // MINED, then IMMUTABLE on Arcade
			for _, id := range ids {
				s := state(t, b, id, chain.Mined)
				if s.Proof == nil || s.Height != header.Height || s.Block != header.Hash {
					t.Fatalf("%+v", s)
				}
				if err := s.Proof.Check(id, header); err != nil {
					t.Error(err)
				}
				if p, err := b.Proof(t.Context(), id); err != nil || p.Index != s.Proof.Index {
					t.Error(p, err)
				}
			}
			if err := n.Mine(t.Context(), 3); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The one service is put in the place of the other while the program runs.
func TestServiceIsReplaced(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	server := arcnode.ForTest(t, n, arcnode.Options{})
	b := dial(t, server.URL(), arc.Options{})
	tx, prev := spend(t, n, 1, b)
	if err := b.Broadcast(t.Context(), tx, prev); err != nil {
		t.Fatal(err)
	}
	for _, dialect := range []arcnode.Dialect{arcnode.Arcade, arcnode.ARC, arcnode.Arcade} {
		server.SetDialect(t, dialect)
		state(t, b, tx.Txid(), chain.Seen)
		state(t, b, bsv.Txid{1}, chain.Unknown)
		if err := b.Broadcast(t.Context(), tx, prev); err != nil {
			t.Error(dialect, err)
		}
	}
	server.SetDialect(t, arcnode.None)
	if s, err := b.Status(t.Context(), tx.Txid()); !errors.Is(err, arc.ErrProtocol) {
		t.Error(s, err)
	}
	server.SetDialect(t, arcnode.ARC)
	state(t, b, tx.Txid(), chain.Seen)
}

// Arcade tells of what this backend sent: that it is seen, and that it is mined,
// also after the stream broke.
func TestWatchArcade(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	server := arcnode.ForTest(t, n, arcnode.Options{Dialect: arcnode.Arcade, Key: key})
	b := dial(t, server.URL(), arc.Options{Key: key})
	other := dial(t, server.URL(), arc.Options{Key: key})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told := make(chan bsv.Txid, 1000)
	ended := make(chan error, 1)
	var fetched atomic.Int64
	go func() {
		ended <- b.Watch(ctx, func(txid bsv.Txid) { fetched.Add(1); told <- txid })
	}()
	until := func(txid bsv.Txid, want chain.State) {
		t.Helper()
		for {
			if s, err := b.Status(t.Context(), txid); err != nil {
				t.Fatal(err)
			} else if s.State == want {
				return
			}
			select {
			case id := <-told:
				if id != txid {
					t.Fatalf("told of %s", id)
				}
			case err := <-ended:
				t.Fatal(err)
			case <-t.Context().Done():
				t.Fatal("never told that it is", want)
			}
		}
	}
	foreign, spent := spend(t, n, 9, b)
	if err := other.Broadcast(t.Context(), foreign, spent); err != nil {
		t.Fatal(err)
	}
	tx, prev := spend(t, n, 1, b)
	if err := b.Broadcast(t.Context(), tx, prev); err != nil {
		t.Fatal(err)
	}
	until(tx.Txid(), chain.Seen)
	server.Faults(t, arcnode.Fault{Request: "GET /events", Times: 2, Status: 503})
	if err := n.Mine(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	until(tx.Txid(), chain.Mined)
	if fetched.Load() == 0 {
		// The status may have been there before the news; they come anyway.
		if id := <-told; id != tx.Txid() {
			t.Fatal(id)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
