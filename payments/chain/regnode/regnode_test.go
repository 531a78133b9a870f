package regnode_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

var someone = bsv.Hash160{1, 2, 3}

func TestPayments(t *testing.T) {
	n := regnode.ForTest(t)
	b := n.Backend()
	if net, err := b.Network(t.Context()); err != nil || net != regnode.Network {
		t.Fatal(net, err)
	}
	state := func(txid bsv.Txid, want chain.State) {
		t.Helper()
		if s, err := b.Status(t.Context(), txid); err != nil || s.State != want {
			t.Fatalf("%v, %v; want %v", s, err, want)
		}
	}
	before, err := b.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	coin, err := n.Pay(t.Context(), someone, 12_345)
	if err != nil || coin.Output.Value != 12_345 {
		t.Fatal(coin, err)
	}
	state(coin.Outpoint.Txid, chain.Seen)
	mined, err := n.PayMined(t.Context(), someone, 54_321)
	if err != nil {
		t.Fatal(err)
	}
	state(coin.Outpoint.Txid, chain.Mined)
	state(mined.Outpoint.Txid, chain.Mined)
	if tx, err := b.RawTx(t.Context(), mined.Outpoint.Txid); err != nil || tx.Version != 1 {
		t.Fatal(tx, err)
	}
	if err := n.MineTo(t.Context(), before.Height+5); err != nil {
		t.Fatal(err)
	}
	if tip, err := b.Tip(t.Context()); err != nil || tip.Height != before.Height+5 {
		t.Fatal(tip, err)
	}
	// More than one coin of the miner has.
	large, err := n.Pay(t.Context(), someone, 120_00000000)
	if err != nil {
		t.Fatal(err)
	}
	state(large.Outpoint.Txid, chain.Seen)
	coins, err := b.Unspent(t.Context(), bsv.P2PKH(someone))
	if err != nil || len(coins) != 3 {
		t.Fatal(coins, err)
	}
	// And more than all of them.
	if _, err := n.Pay(t.Context(), someone, 20_000_000_00000000); !errors.Is(err, bsv.ErrFunds) {
		t.Fatal(err)
	}
	if _, err := n.Pay(t.Context(), someone, 1000); err != nil {
		t.Fatal(err)
	}
}

func TestNodesDoNotMeet(t *testing.T) {
	var nodes [3]*regnode.Node
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			n, err := regnode.Start(t.Context(), regnode.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			nodes[i] = n
			if err := n.Mine(t.Context(), i+1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	heights := make(map[uint32]bool)
	for _, n := range nodes {
		if n == nil {
			continue
		}
		tip, err := n.Backend().Tip(t.Context())
		if err != nil {
			t.Error(err)
		}
		heights[tip.Height] = true
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
		if err := n.Stop(); err != nil {
			t.Error("the second time:", err)
		}
		<-n.Done()
		if _, err := os.Stat(n.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Error("the folder is still there:", err)
		}
	}
	if len(heights) != len(nodes) {
		t.Errorf("heights: %v", heights)
	}
}

func TestFolderOfOnesOwn(t *testing.T) {
	dir := t.TempDir()
	n, err := regnode.Start(t.Context(), regnode.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, "logs", "*", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("no log:", err)
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := regnode.Start(ctx, regnode.Options{Dir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// In the child of this test, the node is started and the process ends as it is
// told to.
const endEnv = "REGNODE_TEST_END"

func TestMain(m *testing.M) {
	how := os.Getenv(endEnv)
	if how == "" {
		os.Exit(m.Run())
	}
	n, err := regnode.Start(context.Background(), regnode.Options{Dir: os.Args[1]})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(n.URL())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	switch how {
	case "panic":
		panic("as a test does")
	case "exit":
		os.Exit(3)
	}
	select {} // until killed
}

func TestNodeEndsWithItsParent(t *testing.T) {
	for _, how := range []string{"panic", "exit", "kill"} {
		t.Run(how, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self, t.TempDir())
			cmd.Env = append(os.Environ(), endEnv+"="+how)
			in, errIn := cmd.StdinPipe()
			out, errOut := cmd.StdoutPipe()
			if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "http") {
				t.Fatal(line, err)
			}
			b, err := node.Dial(strings.TrimSpace(line), node.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Tip(t.Context()); err != nil {
				t.Fatal(err)
			}
			// A connection that the node holds open ends with the node.
			_, address, _ := strings.Cut(strings.TrimSpace(line), "@")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if how == "kill" {
				err = cmd.Process.Kill()
			} else {
				_, err = in.Write([]byte("\n"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Fatal("the child ended well")
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Fatal("the node sent", n)
			}
			if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
				t.Fatal(err)
			}
		})
	}
}
