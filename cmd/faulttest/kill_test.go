package faulttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
	"golang.org/x/sys/unix"
)

const (
	killWorlds = 8
	killsEach  = 25
)

// TestKills kills a box 200 times, at moments that are spread over all that it
// does, and in a part of the tries its client too.
func TestKills(t *testing.T) {
	t.Parallel()
	for i := range killWorlds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			k := &killer{rig: newRig(t, func(s *box.Settings) { s.Payout.Every = box.Duration(time.Second) }),
				random: rand.New(rand.NewPCG(uint64(i), 200)), happened: make(map[string]int), kinds: make(map[wire.Kind]int)}
			for n := range killsEach {
				k.try(moments[(n+i*killsEach)%len(moments)])
			}
			k.finish()
			lost := k.settle()
			record(t, "killed", lost.plus(k.toll))
			t.Logf("killed while: %v; at messages of kind %v; clients killed %d times, interrupted %d times; %d sales", k.happened, k.kinds, k.clientsKilled, k.interrupted, len(k.sales))
		})
	}
}

// killer kills one box.
type killer struct {
	*rig
	random *rand.Rand
	sale   *sale

	owed   int64 // bytes delivered and not paid for, at the last kill
	toll   toll
	stored map[[32]byte]ledger.Channel // at the last kill

	connected                  bool // the client has been since it was started
	happened                   map[string]int
	kinds                      map[wire.Kind]int // of the payment messages at which it was killed
	clientsKilled, interrupted int
}

// moments are what a kill waits for. Each gets what kills the box, once.
type instant struct {
	name string
	wait func(k *killer, kill func())
}

// moments has channels settled now and then, so that new ones are opened.
var moments = []instant{
	{"a payment message comes", (*killer).before},
	{"closing", (*killer).closing},
	{"a payment message has gone", (*killer).behind},
	{"sweeping", (*killer).sweeping},
	{"a payment message comes", (*killer).before},
	{"the ledger is written", func(k *killer, kill func()) { k.atWrite("money.db-wal", 1+k.random.IntN(6), kill) }},
	{"stopping", func(k *killer, kill func()) {
		k.box.Process.Signal(syscall.SIGTERM)
		k.after(40*time.Millisecond, kill)
	}},
	{"a payment message has gone", (*killer).behind},
	{"the write-ahead log is copied back", func(k *killer, kill func()) {
		// That happens now and then while it runs, and always at the end.
		k.atWrite("money.db", 1+k.random.IntN(2), kill)
		if k.random.IntN(2) == 0 {
			k.box.Process.Signal(syscall.SIGTERM)
		}
	}},
	{"starting", (*killer).starting},
	{"closing", (*killer).closing},
	{"anything", func(k *killer, kill func()) { k.after(800*time.Millisecond, kill) }},
}

// patience is how long a kill waits for its moment; then any moment will do.
const patience = 2 * time.Second

// try kills the box at a moment and starts it again.
func (k *killer) try(at instant) {
	k.Helper()
	k.goOn()
	killed := make(chan struct{})
	name := at.name
	kill := sync.OnceFunc(func() {
		k.box.Process.Kill()
		close(killed)
	})
	at.wait(k, kill)
	select {
	case <-killed:
	case <-time.After(patience):
		name = "anything"
		kill()
	}
	k.tap.at(nil)
	k.happened[name]++
	if k.random.IntN(3) == 0 {
		k.sale.get.Kill()
		k.clientsKilled++
	}
	k.inspect()
	k.box.Start()
	k.Must(k.box.Control.Check(k.Ctx))
}

// goOn sees to it that somebody buys, and waits until they are connected.
func (k *killer) goOn() {
	k.Helper()
	began := time.Now()
	k.Await("a client that buys", func() error {
		k.Helper()
		if k.sale != nil && k.sale.get.Running() != nil && k.Exit(k.sale.get) == 0 {
			k.sale.over()
			k.sale = nil
		}
		switch {
		case k.sale == nil:
			k.sale = k.sell()
			k.connected = false
		case k.sale.get.Running() != nil:
			k.sale.run()
			k.connected = false
		case k.tap.connected():
			k.connected = true
			return nil
		case k.connected && time.Since(began) > patience:
			// It waits longer and longer for a box that is always away.
			k.sale.get.Signal(syscall.SIGINT)
			k.Exit(k.sale.get)
			k.interrupted++
		}
		return errors.New("nobody is connected")
	})
}

// finish lets the last client finish.
func (k *killer) finish() {
	k.Helper()
	if k.sale.get.Running() != nil {
		if k.Exit(k.sale.get) == 0 {
			return
		}
		k.sale.run()
	}
	k.sale.complete()
}

func (k *killer) background(do func() error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = do() // the box may be killed meanwhile
	}()
	k.Cleanup(func() { <-done })
}

// after kills within some time.
func (k *killer) after(most time.Duration, kill func()) {
	time.AfterFunc(time.Duration(k.random.Int64N(int64(most))), kill)
}

// atMessage kills at one of the next payment messages, before or after it is
// passed on.
func (k *killer) atMessage(passed bool, kill func()) {
	left := 1 + k.random.IntN(8)
	if k.random.IntN(4) == 0 {
		k.close()
	}
	var mu sync.Mutex
	k.tap.at(func(m moment) {
		if m.passed != passed {
			return
		}
		mu.Lock()
		left--
		now := left == 0
		if now {
			k.kinds[m.kind]++
		}
		mu.Unlock()
		if now {
			kill()
		}
	})
}

func (k *killer) before(kill func()) { k.atMessage(false, kill) }
func (k *killer) behind(kill func()) { k.atMessage(true, kill) }

func (k *killer) closing(kill func()) {
	k.close()
	k.after(60*time.Millisecond, kill)
}

// close has all channels settled, by a box that may end meanwhile.
func (k *killer) close() {
	k.background(func() error {
		_, err := k.box.Control.CloseChannels(k.Ctx, box.CloseRequest{})
		return err
	})
}

// sweeping has earnings paid out that were just mined.
func (k *killer) sweeping(kill func()) {
	k.Helper()
	k.Must(k.mine())
	k.background(func() error {
		_, err := k.box.Control.Sweep(k.Ctx, box.SweepRequest{})
		return err
	})
	k.after(60*time.Millisecond, kill)
}

// starting kills while the box starts.
func (k *killer) starting(kill func()) {
	k.box.Process.Kill()
	k.inspect()
	k.box.Launch()
	k.after(120*time.Millisecond, kill)
}

// atWrite kills when a file of the box has been written a number of times.
func (k *killer) atWrite(name string, times int, kill func()) {
	k.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	k.Must(err)
	if _, err := unix.InotifyAddWatch(fd, k.box.Data, unix.IN_MODIFY); err != nil {
		k.Fatal(err, unix.Close(fd))
	}
	events := os.NewFile(uintptr(fd), "inotify")
	go func() {
		defer kill()
		buffer := make([]byte, 4096)
		for {
			n, err := events.Read(buffer)
			if err != nil {
				return
			}
			for b := buffer[:n]; len(b) >= unix.SizeofInotifyEvent; {
				length := int(binary.NativeEndian.Uint32(b[12:]))
				text := b[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+length]
				b = b[unix.SizeofInotifyEvent+length:]
				if unix.ByteSliceToString(text) == name {
					times--
				}
			}
			if times <= 0 {
				return
			}
		}
	}()
	time.AfterFunc(patience, func() { _ = events.Close() })
}

// inspect compares what is on the dead box's disk with what it had said, and
// counts what was at risk.
func (k *killer) inspect() {
	k.Helper()
	sent := k.tap.blocks()
	var now map[[32]byte]ledger.Channel
	k.snapshot(k.box.Data, func(l *ledger.Ledger) {
		open, paid := k.unsettled(l)
		rows, err := l.Channels(k.Ctx, ledger.Filter{Role: ledger.Payee})
		k.Must(err)
		now = make(map[[32]byte]ledger.Channel, len(rows))
		var largest int64
		for _, row := range rows {
			now[row.ID] = row
			largest = max(largest, row.Bytes)
			was := k.stored[row.ID]
			acked, settled := k.tap.promised(row.ID)
			if row.Seq < max(acked, was.Seq) || row.Payee < was.Payee || row.Creator < was.Creator || row.Bytes < was.Bytes {
				k.Errorf("channel %x: commitment %d on the disk, %d acknowledged, %d at the last kill", row.ID[:4], row.Seq, acked, was.Seq)
			}
			if settled != [32]byte{} {
				if out, err := l.Outgoing(k.Ctx, settled); err != nil || out.Purpose != ledger.Close {
					k.Errorf("channel %x: the close that the box spoke of is not on the disk: %v", row.ID[:4], err)
				}
			}
		}
		for id := range k.stored {
			if _, there := now[id]; !there {
				k.Errorf("channel %x is gone", id[:4])
			}
		}
		// Each channel that was opened meanwhile has a credit of its own.
		owed, most := max(sent-paid, 0), credit(largest)*money.Satoshis(1+len(rows)-len(k.stored))
		k.toll = k.toll.plus(toll{tries: 1, risk: open + worth(owed), limit: most})
		// What was on its way when connections broke is forgiven, up to as much
		// again and a sixteenth of what was paid.
		if worth(owed-k.owed) > 2*most+worth(largest/16) {
			k.Errorf("%d bytes were delivered and not paid for, %d at the last kill; the credit is %v", owed, k.owed, most)
		}
		k.owed = owed
	})
	k.stored = now
	if k.sale.get.Running() == nil {
		return
	}
	k.snapshot(k.sale.client.Data, func(l *ledger.Ledger) {
		rows, err := l.Channels(k.Ctx, ledger.Filter{Role: ledger.Payer})
		k.Must(err)
		for _, row := range rows {
			if there := now[row.ID]; there.Seq > row.Seq && row.State != ledger.StateFailed {
				k.Errorf("channel %x: the box has commitment %d, the client's disk %d", row.ID[:4], there.Seq, row.Seq)
			}
		}
	})
}
