package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/webui"
)

// Seller is a box and its owner.
type Seller struct {
	Data    string // folder
	Config  string // file
	Peers   string // host:port that clients are told
	Owner   bsv.PrivateKey
	Control *box.Control
	Process *Process // nil where the box runs in this process

	w      *World
	clock  func() time.Time
	inside *inside
}

// inside is a box that runs in this process.
type inside struct {
	stop  context.CancelFunc
	ended chan struct{}
	err   error // once ended is closed
}

// hosts counts the boxes. Each has an address of its own in 127.0.0.0/8, so
// that nobody takes its port while it is down.
var hosts atomic.Uint32

func address(t *testing.T) string {
	t.Helper()
	n := hosts.Add(1)
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.1:0", 1+os.Getpid()%200, n))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Settings are those of a box that sells at a price and waits for no block.
func (w *World) Settings(price money.Rate) box.Settings {
	s := box.DefaultSettings()
	s.Network = regnode.Network
	s.Listen = box.ListenSettings{Peers: address(w.T)}
	s.Chain = box.ChainSettings{Node: w.URL, Poll: box.Duration(200 * time.Millisecond)}
	s.Price.Default = price
	s.Channels.UnconfirmedLimit = 1_000_000
	s.Payout.Threshold, s.Payout.MaxFeeShare = 10, 1000
	return s
}

// Box starts a box that sells the title. Its data folder may be there already.
func (w *World) Box(s box.Settings) *Seller {
	w.Helper()
	return w.BoxWith(s, nil)
}

// BoxWith is Box for a box with a clock of its own, in this process.
func (w *World) BoxWith(s box.Settings, clock func() time.Time) *Seller {
	w.Helper()
	n := byte(len(w.Boxes) + 1)
	b := &Seller{w: w, Data: filepath.Join(w.Dir, fmt.Sprintf("box%d", n)), Peers: s.Listen.Peers, clock: clock}
	b.Config = filepath.Join(b.Data, "bitcdnd.toml")
	b.Control = box.NewControl(b.Data)
	w.Must(os.MkdirAll(b.Data, 0o700))
	var err error
	b.Owner, err = bsv.NewPrivateKey(bytes.Repeat([]byte{n}, bsv.PrivateKeySize))
	w.Must(err)
	s.Payout.Address = b.Owner.Public().Hash().Address(regnode.Network)
	w.Must(box.WriteSettings(b.Config, s))
	b.Start()
	torrent, err := os.ReadFile(w.Goods.Torrent)
	w.Must(err)
	_, err = b.Control.Add(w.Ctx, box.AddRequest{Torrent: torrent, DataDir: w.Goods.Folder})
	w.Must(err)
	w.Boxes = append(w.Boxes, b)
	return b
}

// Start runs the box until it knows the chain.
func (b *Seller) Start() {
	b.w.Helper()
	b.Launch()
	b.w.Await("start of a box", func() error {
		err := b.Running()
		if b.clock != nil && errors.Is(err, box.ErrRunning) {
			// Another child of this process, which was started at the moment that
			// the box ended, holds its lock until it has become a program.
			b.runInside()
			return box.ErrRunning
		}
		if err != nil {
			return fmt.Errorf("%w:\n%s", err, tail(b.Log(), 2000))
		}
		status, err := b.Control.Status(b.w.Ctx)
		if err == nil && status.Chain.Height == 0 {
			err = errors.New("no height yet")
		}
		return err
	})
}

// Launch runs the box and does not wait for it.
func (b *Seller) Launch() {
	b.w.Helper()
	if b.clock != nil {
		b.runInside()
		return
	}
	b.Process = b.w.Start(b.w.Dir, b.Log(), "bitcdnd", "--config", b.Config, "--data", b.Data)
}

func (b *Seller) runInside() {
	b.w.Helper()
	settings, err := box.LoadSettings(b.Config)
	b.w.Must(err)
	output, err := os.OpenFile(b.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	b.w.Must(err)
	ctx, stop := context.WithCancel(context.WithoutCancel(b.w.Ctx))
	in := &inside{stop: stop, ended: make(chan struct{})}
	b.inside = in
	log := slog.New(slog.NewTextHandler(output, nil))
	go func() {
		defer close(in.ended)
		defer output.Close()
		in.err = box.Run(ctx, box.Options{Settings: settings, DataDir: b.Data, Version: "test", Clock: b.clock, Log: log,
			Words: func(string) error { return nil }})
	}()
	b.w.Cleanup(func() {
		stop()
		<-in.ended
		if b.w.Failed() {
			b.w.Logf("the box in this process printed:\n%s", tail(b.Log(), 3000))
		}
	})
}

// Running returns an error if the box has ended.
func (b *Seller) Running() error {
	if b.clock == nil {
		return b.Process.Running()
	}
	select {
	case <-b.inside.ended:
		return fmt.Errorf("%w: %w", ErrEnded, b.inside.err)
	default:
		return nil
	}
}

// Log is the file with all that the box has printed.
func (b *Seller) Log() string { return b.Data + ".log" }

// Stop ends the box in good order.
func (b *Seller) Stop() {
	b.w.Helper()
	if b.Running() != nil {
		return
	}
	if b.clock == nil {
		b.Process.Signal(syscall.SIGTERM)
		b.w.WantExit(b.Process, 0)
		return
	}
	b.inside.stop()
	<-b.inside.ended
	b.w.Must(b.inside.err)
}

// Status is what the box says of itself. It must be running.
func (b *Seller) Status() webui.Status {
	b.w.Helper()
	s, err := b.Control.Status(b.w.Ctx)
	b.w.Must(err)
	return s
}

// Channels are the box's channels. It must not be running.
func (b *Seller) Channels() map[string]ledger.Channel {
	b.w.Helper()
	rows := make(map[string]ledger.Channel)
	b.w.Ledger(b.Data, func(l *ledger.Ledger) {
		all, err := l.Channels(b.w.Ctx, ledger.Filter{Role: ledger.Payee})
		b.w.Must(err)
		for _, c := range all {
			rows[fmt.Sprintf("%x", c.ID)] = c
		}
	})
	return rows
}

// Sold is how many bytes a box has been paid for.
func (b *Seller) Sold() (n int64) {
	b.w.Helper()
	for _, t := range b.Status().Titles {
		n += t.Sold
	}
	return n
}

// AwaitSold waits until a box has been paid for n bytes in all, while the
// client runs.
func (b *Seller) AwaitSold(client *Process, n int64) {
	b.w.Helper()
	b.w.Await(fmt.Sprintf("%d bytes sold", n), func() error {
		sold := b.Sold()
		if sold >= n {
			return nil
		}
		if err := client.Running(); err != nil {
			return fmt.Errorf("%w with %d bytes sold", err, sold)
		}
		return fmt.Errorf("%d bytes sold", sold)
	})
}
