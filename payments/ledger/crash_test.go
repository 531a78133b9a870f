package ledger_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// crashEnv names the ledger that this process, run once more, works on until
// it is killed.
const crashEnv = "LEDGER_CRASH_TEST"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		if err := work(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	// Fewer than rapid's own and the same every time, which flags on the command
	// line still change.
	for name, value := range map[string]string{"rapid.checks": "30", "rapid.seed": "20090103"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const crashWorkers = 4

// work pays, settles and sweeps without end, and says on its output what it
// was told to be durable.
func work(path string) error {
	ctx := context.Background()
	l, err := ledger.OpenFast(ctx, path, time.Now)
	if err != nil {
		return err
	}
	if _, err := l.ReleaseOrphans(ctx); err != nil {
		return err
	}
	var say sync.Mutex
	failed := make(chan error)
	for worker := range crashWorkers {
		go func() {
			for {
				if err := earn(ctx, l, worker, &say); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// earn takes one channel from its opening to the payout.
func earn(ctx context.Context, l *ledger.Ledger, worker int, say *sync.Mutex) error {
	index, err := l.ReserveKeys(ctx, 2, 1)
	if err != nil {
		return err
	}
	report := func(kind string, amount money.Satoshis) {
		say.Lock()
		defer say.Unlock()
		fmt.Printf("%s %d %d\n", kind, index, amount)
	}
	report("key", 0)
	c := payee(int(index))
	c.Seq, c.Payee, c.Creator, c.Bytes = 0, 0, 0, 0
	for range 5 {
		c.Seq++
		c.Payee += money.Satoshis(100 + worker)
		c.Creator += 10
		c.Bytes += 1 << 20
		if err := l.SaveChannel(ctx, c); err != nil {
			return err
		}
		report("paid", c.Payee)
	}
	txid, sweep := id('t', int(index)), id('s', int(index))
	c.State, c.CloseTxid = ledger.StateClosing, txid
	if err := l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{c}, Outbox: []ledger.Outgoing{closing(c, txid)}}); err != nil {
		return err
	}
	report("closing", c.Payee)
	o, err := l.Outgoing(ctx, txid)
	if err != nil {
		return err
	}
	o.State, o.Height = ledger.Mined, 100
	if err := l.UpdateOutgoing(ctx, o); err != nil {
		return err
	}
	report("closed", c.Payee)
	if err := l.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{{Txid: txid}}, By: sweep}},
		Outbox:  []ledger.Outgoing{{Txid: sweep, Raw: []byte("sweep"), Purpose: ledger.Sweep, Fee: 20}},
	}); err != nil {
		return err
	}
	report("swept", c.Payee-20)
	return nil
}

// A process that is killed at any moment loses nothing that it was told to be
// durable, and leaves books that balance.
func TestKilledAtAnyMoment(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "money.db")
	random := rand.New(rand.NewPCG(1, 2))
	paid := make(map[int]money.Satoshis) // by key index
	stage := make(map[int]string)
	for range 8 {
		reports := killed(t, path, 1+random.IntN(60), time.Duration(random.IntN(3000))*time.Microsecond)
		for _, r := range reports {
			if r.kind == "key" && stage[r.index] != "" {
				t.Errorf("key %d was handed out twice", r.index)
			}
			stage[r.index] = r.kind
			if r.kind == "paid" {
				paid[r.index] = r.amount
			}
		}
		l, err := ledger.OpenFast(ctx, path, clock)
		must(t, err)
		check(t, l)
		for index, amount := range paid {
			c, err := l.Channel(ctx, payee(index).ID)
			if err != nil || c.Payee < amount {
				t.Errorf("channel %d: %v was paid, the ledger has %v, %v", index, amount, c.Payee, err)
			}
			if o, err := l.Outgoing(ctx, id('t', index)); stage[index] == "closed" && (err != nil || o.State != ledger.Mined) {
				t.Errorf("close of channel %d: %s, %v", index, o.State, err)
			}
			if _, err := l.Outgoing(ctx, id('s', index)); stage[index] == "swept" && err != nil {
				t.Errorf("payout of channel %d: %v", index, err)
			}
		}
		must(t, l.Close())
	}
	if len(paid) < 8 {
		t.Errorf("only %d channels were paid in", len(paid))
	}
}

type report struct {
	kind   string
	index  int
	amount money.Satoshis
}

// killed runs this test binary as work, kills it a little after a number of
// reports, and returns all that it managed to say.
func killed(t *testing.T, path string, after int, delay time.Duration) (all []report) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	child := exec.Command(exe, "-test.run=^$")
	child.Env = append(os.Environ(), crashEnv+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r report
		if _, err := fmt.Sscan(lines.Text(), &r.kind, &r.index, &r.amount); err != nil {
			break // the last line may be cut
		}
		all = append(all, r)
		if len(all) == after {
			// Not to wait for anything: only to hit the middle of a write.
			time.AfterFunc(delay, func() { _ = child.Process.Kill() })
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.Exited() {
		t.Fatalf("the process ended by itself: %v", err)
	}
	return all
}
