// Package regnode starts a real node with a chain of its own, in regression
// test mode: a bsvd that listens on loopback only, mines when it is told to,
// and ends with the program that started it. Its newest blocks can be replaced
// by others, and it can be made to forget its mempool. Tests and the demo use
// it; no other program does.
//
// The node is built from the module payments/regtest when it is first needed,
// into the folder .build of the repository. Several processes may do so at the
// same time. That needs the go command and, once, the module cache or a
// network; a start takes about half a second after that.
package regnode

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/internal/sidecar"
	"github.com/bitcdn/bitcdn/payments/chain/node"
)

// Options say where a node lives. The zero value is a temporary folder.
type Options struct {
	// Dir takes the node's chain and its logs. A chain that is there already is
	// lost: in this mode bsvd always begins anew. Empty means a temporary folder
	// that Stop removes.
	Dir string
	// BinDir is where the built node is kept; empty means the folder .build
	// of the repository that the working directory belongs to.
	BinDir string
}

// Network is the network of every Node.
const Network = bsv.Regtest

// startHeight leaves 20 coins of the miner that can be spent.
const startHeight = 119

var (
	// ErrBuild says that the node could not be built.
	ErrBuild = errors.New("bsvd could not be built")
	// ErrStart says that the node ended before it was ready.
	ErrStart = errors.New("bsvd did not start")
)

// Node is a running bsvd. Its methods may be called from several goroutines.
type Node struct {
	dir       string
	temporary bool
	port      func() (string, error) // an address on loopback that is free
	binary    string
	address   *url.URL
	backend   *node.Backend
	miner     bsv.PrivateKey

	life    sync.Mutex // guards process
	process *sidecar.Process

	mu       sync.Mutex // guards what follows; held over Send, Reorganise and Restart
	coins    []bsv.Coin // of the miner, to be spent in this order
	next     uint32     // height of the coinbase that is looked at next
	branches uint32     // that Reorganise has made
}

// Start builds the node if need be, starts it, and mines until the miner has
// 20 coins to give away. It ends early with ctx; a node that has started
// outlives ctx, until Stop or the end of this process, whatever kills it.
func Start(ctx context.Context, opt Options) (*Node, error) {
	binary, err := Build(ctx, opt.BinDir)
	if err != nil {
		return nil, err
	}
	n := &Node{dir: opt.Dir, port: freePort, binary: binary, next: 1}
	if n.miner, err = bsv.NewPrivateKey(bytes.Repeat([]byte{0x11}, bsv.PrivateKeySize)); err != nil {
		return nil, err
	}
	if n.dir == "" {
		if n.dir, err = os.MkdirTemp("", "bsvd-"); err != nil {
			return nil, fmt.Errorf("start bsvd: %w", err)
		}
		n.temporary = true
	} else if n.dir, err = filepath.Abs(n.dir); err != nil { // bsvd runs in it
		return nil, fmt.Errorf("start bsvd: %w", err)
	}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	if err := n.Mine(ctx, startHeight); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

// start tries again when another process takes the port between its choice and
// its use.
func (n *Node) start(ctx context.Context) error {
	var err error
	for range 5 {
		if err = n.choose(); err != nil {
			return fmt.Errorf("start bsvd: %w", err)
		}
		if err = n.launch(ctx); err == nil || !errors.Is(err, ErrStart) {
			return err
		}
	}
	return err
}

// choose decides where the node listens.
func (n *Node) choose() error {
	port, err := n.port()
	if err != nil {
		return err
	}
	// Credentials that no other node has: what answers to them is this one.
	n.address = &url.URL{Scheme: "http", Host: port, User: url.UserPassword("regtest", rand.Text())}
	n.backend, err = node.Dial(n.address.String(), node.Options{})
	return err
}

func (n *Node) launch(ctx context.Context) error {
	password, _ := n.address.User.Password()
	output, err := os.Create(filepath.Join(n.dir, "output.log"))
	if err != nil {
		return fmt.Errorf("start bsvd: %w", err)
	}
	defer func() { _ = output.Close() }() // the child has its own
	cmd := exec.Command(n.binary,
		"--configfile="+filepath.Join(n.dir, "bsvd.conf"), // none: not the user's own
		"--datadir="+filepath.Join(n.dir, "data"),
		"--logdir="+filepath.Join(n.dir, "logs"),
		"--regtest", "--nolisten", "--nodnsseed", "--nobanning",
		"--rpclisten="+n.address.Host, "--rpcuser=regtest", "--rpcpass="+password, "--notls",
		"--rpcmaxclients=1000",
		"--txindex", "--addrindex",
		// Without it, transactions that are not final are taken and block the
		// close of a channel.
		"--rejectnonstd",
		"--norelaypriority", "--minrelaytxfee=0.00000001", "--limitfreerelay=100000", "--blockprioritysize=0",
		"--blockmaxsize=10000000",
		"--miningaddr="+n.miner.Public().Hash().Address(Network),
	)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Dir = n.dir
	p, err := sidecar.Start(cmd)
	if err != nil {
		return fmt.Errorf("start bsvd: %w", err)
	}
	n.life.Lock()
	n.process = p
	n.life.Unlock()

	// What holds the port in the node's place may take requests and not answer.
	probe, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.Done():
			cancel()
		case <-probe.Done():
		}
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := n.backend.Tip(probe)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			said, _ := os.ReadFile(output.Name())
			return fmt.Errorf("%w: %s", ErrStart, said[max(0, len(said)-500):])
		case <-ctx.Done():
			return fmt.Errorf("start bsvd: %w (%w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// URL is what node.Dial takes: http://user:password@127.0.0.1:port.
func (n *Node) URL() string { return n.address.String() }

// Backend is a view of the node that all callers share.
func (n *Node) Backend() *node.Backend { return n.backend }

// Dir is the folder with the node's chain and logs.
func (n *Node) Dir() string { return n.dir }

// Done is closed when the node has ended, for whatever reason; a Restart makes
// another one.
func (n *Node) Done() <-chan struct{} { return n.running().Done() }

func (n *Node) running() *sidecar.Process {
	n.life.Lock()
	defer n.life.Unlock()
	return n.process
}

// Stop ends the node at once and removes its folder if it was a temporary one.
// It may be called several times.
func (n *Node) Stop() error {
	if n.backend != nil {
		n.backend.Close()
	}
	var err error
	if p := n.running(); p != nil {
		err = p.Kill() // its chain ends with it in any case
	}
	if n.temporary {
		err = errors.Join(err, os.RemoveAll(n.dir))
	}
	if err != nil {
		return fmt.Errorf("stop bsvd: %w", err)
	}
	return nil
}

// ForTest starts a node for one test, with its folder below the test's, and
// stops it when the test ends. Nothing is shared with other tests.
func ForTest(t testing.TB) *Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first time, it is built
	defer cancel()
	n, err := Start(ctx, Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}
