package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

const friend = "mk6ZyPyc9JJyxjjgDJBj3Et9C5A5oToEFK"

// pocket is a purse with 10,000 satoshis on a chain in memory, and the command
// that works on it. Its outbox works until the test is over.
type pocket struct {
	*testing.T
	*purse
	*walletCommand
	ctx      context.Context
	memory   *memory.Chain
	to       bsv.Hash160
	out, err bytes.Buffer
}

func withPocket(t *testing.T, typed string, test func(*pocket)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &pocket{T: t, ctx: t.Context(), memory: memory.New(time.Now)}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		p.memory.Mine(100)
		_, err := wallet.Create(p.ctx, dir, bsv.Regtest, bytes.NewReader(make([]byte, 64)))
		must(err)
		l, err := ledger.Open(p.ctx, filepath.Join(dir, "money.db"), time.Now)
		must(err)
		outbox := wallet.NewOutbox(l, p.memory, time.Now, slog.New(slog.DiscardHandler))
		w, err := wallet.Open(p.ctx, dir, l, p.memory, wallet.Options{Clock: time.Now, Stored: outbox.Kick})
		must(err)
		running, stop := context.WithCancel(p.ctx)
		ended := make(chan error)
		go func() { ended <- outbox.Run(running) }()
		p.purse = &purse{network: bsv.Regtest, chain: p.memory, ledger: l, wallet: w, outbox: outbox, stop: func() { stop(); <-ended }}
		defer p.close()
		address, err := w.ReceiveAddress(p.ctx)
		must(err)
		hash, err := bsv.ParseAddress(address, bsv.Regtest)
		must(err)
		p.memory.Fund(bsv.P2PKH(hash), 10_000)
		must(w.Refresh(p.ctx))
		p.to, err = bsv.ParseAddress(friend, bsv.Regtest)
		must(err)
		p.walletCommand = &walletCommand{io: stdio{strings.NewReader(typed), &p.out, &p.err}, asks: true, yes: new(bool), noQR: new(bool)}
		test(p)
		must(l.Check(context.WithoutCancel(p.ctx)))
	})
}

// pays sends 4,000 satoshis.
func (p *pocket) pays(ctx context.Context) error {
	f, err := p.wallet.Prepare(p.ctx, p.to, 4000, 0)
	return p.pay(ctx, p.purse, f, friend, err)
}

func (p *pocket) left(want string) {
	p.Helper()
	p.out.Reset()
	if err := p.balance(p.ctx, p.purse); err != nil {
		p.Error(err)
	}
	if got := p.out.String(); got != want {
		p.Errorf("balance %q, want %q", got, want)
	}
}

func TestSendAsks(t *testing.T) {
	for _, no := range []string{"", "\n", "n\n", "no\n", "yup\n"} {
		withPocket(t, no, func(p *pocket) {
			if err := p.pays(p.ctx); !errors.Is(err, errDeclined) {
				p.Errorf("%q: %v", no, err)
			}
			if p.out.Len() != 0 || len(p.memory.Mempool()) != 0 {
				p.Errorf("%q: %s was sent", no, &p.out)
			}
			for _, want := range []string{"pays   4,000 sat to " + friend, "fee    23 sat for ", "leaves 5,977 sat", "Send it?"} {
				if !strings.Contains(p.err.String(), want) {
					p.Errorf("%q is not in %q", want, &p.err)
				}
			}
			p.left("10,000 sat in blocks, 0 sat on the way\n")
		})
	}
	for _, yes := range []string{"y\n", "YES\n", " y "} {
		withPocket(t, yes, func(p *pocket) {
			if err := p.pays(p.ctx); err != nil {
				p.Fatalf("%q: %v", yes, err)
			}
			if pool := p.memory.Mempool(); len(pool) != 1 || pool[0].Txid().String()+"\n" != p.out.String() {
				p.Errorf("%q: said %q, sent %d", yes, &p.out, len(pool))
			}
			p.left("0 sat in blocks, 5,977 sat on the way\n")
		})
	}
}

// With --yes nothing is asked.
func TestSendDoesNotAsk(t *testing.T) {
	withPocket(t, "no\n", func(p *pocket) {
		*p.yes = true
		if err := p.pays(p.ctx); err != nil || strings.Contains(p.err.String(), "Send it?") {
			p.Errorf("%v, %q", err, &p.err)
		}
	})
}

// Ctrl-C before the answer sends nothing; afterwards the payment is stored, and
// goes out.
func TestInterruptedSend(t *testing.T) {
	withPocket(t, "", func(p *pocket) {
		ctx, cancel := context.WithCancel(p.ctx)
		typing, _ := io.Pipe() // nobody types
		p.io.in = typing
		defer typing.Close()
		time.AfterFunc(time.Second, cancel) // in the bubble
		if err := p.pays(ctx); !errors.Is(err, errInterrupted) || !errors.Is(err, errDeclined) || hintFor(err) != "" {
			p.Errorf("before the answer: %v", err)
		}
		p.left("10,000 sat in blocks, 0 sat on the way\n")

		p.asks = false
		p.out.Reset()
		stopped, stop := context.WithCancel(p.ctx)
		f, err := p.wallet.Prepare(p.ctx, p.to, 4000, 0)
		if err != nil {
			p.Fatal(err)
		}
		p.memory.SetDown(true)
		time.AfterFunc(time.Second, stop) // in the bubble
		err = p.pay(stopped, p.purse, f, friend, nil)
		if !errors.Is(err, errUnseen) || !errors.Is(err, errInterrupted) || !strings.Contains(hintFor(err), "do not send it again") {
			p.Errorf("after it was stored: %v, hint %q", err, hintFor(err))
		}
		if p.out.String() != f.Tx.Txid().String()+"\n" {
			p.Errorf("said %q", &p.out)
		}
		p.memory.SetDown(false)
		if err := p.memory.WaitState(p.ctx, f.Tx.Txid(), chain.Seen); err != nil {
			p.Error(err)
		}
	})
}

// A network that does not take it within two minutes gets it later.
func TestSendIsNotTaken(t *testing.T) {
	withPocket(t, "", func(p *pocket) {
		p.asks = false
		f, err := p.wallet.Prepare(p.ctx, p.to, 4000, 0)
		if err != nil {
			p.Fatal(err)
		}
		p.memory.SetDown(true)
		before := time.Now()
		if err := p.pay(p.ctx, p.purse, f, friend, nil); !errors.Is(err, errUnseen) || errors.Is(err, errInterrupted) {
			p.Errorf("no network: %v", err)
		}
		if waited := time.Since(before); waited < seenWithin { // in the bubble
			p.Errorf("waited %v", waited)
		}
		p.memory.SetDown(false)
		if err := p.memory.WaitState(p.ctx, f.Tx.Txid(), chain.Seen); err != nil {
			p.Error(err)
		}
	})
}

func TestWhenItComesBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for height, want := range map[uint32]string{
		1000: "now (from block 1000 on)", 2007: "at block 2007, in 1007 blocks, about 27 November 2026", 1001: "at block 1001, in 1 block, about 20 November 2026",
	} {
		if got := backAt(height, 1000, now); got != want {
			t.Errorf("%d: %q, want %q", height, got, want)
		}
	}
}

func TestBoundInChannels(t *testing.T) {
	withPocket(t, "", func(p *pocket) {
		for i := range 2 {
			c := ledger.Channel{ID: [32]byte{byte(i)}, Role: ledger.Payer, State: ledger.StateOpen, Capacity: 2000, RefundHeight: uint32(1000 + i)}
			if err := p.ledger.SaveChannel(p.ctx, c); err != nil {
				p.Fatal(err)
			}
		}
		p.out.Reset()
		if err := p.walletCommand.bound(p.ctx, p.purse); err != nil {
			p.Fatal(err)
		}
		if want := "4,000 sat in channels that are not settled; what they do not cost comes back, at the latest at block 1001, in 900 blocks, about "; !strings.HasPrefix(p.out.String(), want) {
			p.Errorf("%q, want %q", &p.out, want)
		}
	})
}
