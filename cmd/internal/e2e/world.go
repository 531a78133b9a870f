package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// World is one test's chain, boxes and clients.
type World struct {
	*testing.T
	Ctx   context.Context
	Goods *Goods
	Dir   string
	Node  *regnode.Node
	URL   string // of the node, for the programs
	Boxes []*Seller
	Free  []string // host:port of stock seeders
	// Offline, while it is set, keeps the programs from the node.
	Offline atomic.Bool

	clients int
	shown   map[string]bool // files of output that were printed already
}

// NewWorld starts a node for a test that takes no longer than limit.
func NewWorld(t *testing.T, g *Goods, limit time.Duration) *World {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	w := &World{T: t, Ctx: ctx, Goods: g, Dir: t.TempDir(), Node: regnode.ForTest(t)}
	w.URL = w.dearer()
	return w
}

// dearer stands before the node and makes it ask for the fee that miners
// usually take, 100 sat/kB: at the 1 sat/kB of its own, all fees are one
// satoshi.
func (w *World) dearer() string {
	w.Helper()
	node, err := url.Parse(w.Node.URL())
	w.Must(err)
	user := node.User
	node.User = nil
	proxy := httputil.NewSingleHostReverseProxy(node)
	proxy.ModifyResponse = func(r *http.Response) error {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		b = bytes.Replace(b, []byte(`"relayfee":1e-8`), []byte(`"relayfee":1e-6`), 1)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("Content-Length", fmt.Sprint(len(b)))
		return nil
	}
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.Offline.Load() {
			http.Error(rw, "no node here", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	w.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	w.Must(err)
	address.User = user
	return address.String()
}

// SeedStock seeds one file of the title with the stock client, or the whole
// title where none is named, for nothing.
func (w *World) SeedStock(file string) {
	w.Helper()
	dir := w.Goods.Folder
	if file != "" {
		dir = w.TempDir()
		b, err := os.ReadFile(filepath.Join(w.Goods.Folder, Contents, file))
		w.Must(err)
		w.Must(os.Mkdir(filepath.Join(dir, Contents), 0o755))
		w.Must(os.WriteFile(filepath.Join(dir, Contents, file), b, 0o644))
	}
	cfg := torrent.NewDefaultClientConfig()
	cfg.ListenHost, cfg.ListenPort = torrent.LoopbackListenHost, 0
	cfg.DisableIPv6, cfg.DisableUTP, cfg.NoDHT, cfg.DisableTrackers, cfg.NoDefaultPortForwarding = true, true, true, true, true
	cfg.Seed = true
	cfg.Slogger = slog.New(slog.DiscardHandler)
	files := storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cfg.DefaultStorage = files
	cl, err := torrent.NewClient(cfg)
	w.Must(err)
	w.Cleanup(func() {
		cl.Close()
		_ = files.Close() // its data is not its own
	})
	mi, err := metainfo.LoadFromFile(w.Goods.Torrent)
	w.Must(err)
	t, err := cl.AddTorrent(mi)
	w.Must(err)
	w.Must(t.VerifyDataContext(w.Ctx))
	w.Free = append(w.Free, fmt.Sprintf("127.0.0.1:%d", cl.LocalPort()))
}

// Must ends the test on an error.
func (w *World) Must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// Await repeats a look at another process until it finds nothing to say, and
// ends the test with ErrEnded or with the world's time.
func (w *World) Await(what string, check func() error) {
	w.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if errors.Is(err, ErrEnded) {
			w.Fatalf("%s: %v", what, err)
		}
		select {
		case <-w.Ctx.Done():
			w.Fatalf("%s: %v; last seen: %v", what, w.Ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// Exit returns a process's exit code, once it has ended.
func (w *World) Exit(p *Process) int {
	w.Helper()
	select {
	case <-p.Done:
	case <-w.Ctx.Done():
		w.Fatalf("%v does not end:\n%s", p.cmd.Args, p.Tail(3000))
	}
	return p.cmd.ProcessState.ExitCode()
}

// WantExit waits for a process to end with an exit code.
func (w *World) WantExit(p *Process, code int) {
	w.Helper()
	if got := w.Exit(p); got != code {
		w.Fatalf("exit code %d, want %d:\n%s", got, code, p.Tail(3000))
	}
}
