// Package arcnode starts ARC's and Arcade's side of their interfaces in front of
// a real node, for tests: the program of the module payments/arctest, which is
// generated from the descriptions of the two services and built when it is first
// needed, as regnode does it with its node.
package arcnode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/internal/sidecar"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// Dialect is which service the server is.
type Dialect string

// The services, and none of them: every path is unknown.
const (
	ARC    Dialect = "arc"
	Arcade Dialect = "arcade"
	None   Dialect = "none"
)

// Options of a server.
type Options struct {
	Dialect Dialect // ARC where it is empty
	Key     string  // the bearer key that it asks for; none where it is empty
}

// Server is a running server. Its methods may be called from several goroutines.
type Server struct {
	url     string
	process *sidecar.Process
}

// Fault is an answer in the place of the true one.
type Fault struct {
	// Request is the beginning of the method and path of the requests that it is
	// for: "POST /v1/tx", or "" for all.
	Request string
	Times   int // how often; 0 means always
	Status  int
	Header  map[string]string
	Body    string
	Hang    bool // no answer at all, until the client goes
	After   bool // the request does its work before
}

// Build makes the program if need be, and returns its path.
func Build(ctx context.Context) (string, error) { return arctest.Build(ctx, "") }

// ForTest starts a server in front of a node for one test, and stops it when the
// test ends.
func ForTest(t testing.TB, n *regnode.Node, opt Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first time, it is built
	defer cancel()
	binary, err := Build(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if opt.Dialect == "" {
		opt.Dialect = ARC
	}
	said, err := os.Create(filepath.Join(t.TempDir(), "arctest.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = said.Close() }() // the child has its own
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(binary)
	cmd.Stdout, cmd.Stderr = in, said
	cmd.Env = append(os.Environ(),
		"ARCTEST_NODE="+n.URL(), "ARCTEST_DIALECT="+string(opt.Dialect), "ARCTEST_KEY="+opt.Key)
	p, err := sidecar.Start(cmd)
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{process: p}
	t.Cleanup(func() { s.Stop(t) })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		text, _ := os.ReadFile(said.Name())
		t.Fatalf("start arctest: %v: %s", err, text)
	}
	s.url = strings.TrimSpace(line)
	return s
}

// URL is what arc.Dial takes.
func (s *Server) URL() string { return s.url }

// Stop ends the server at once. It may be called several times.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.process.Kill(); err != nil {
		t.Error(err)
	}
}

// Faults puts these in the place of all faults before; none ends them.
func (s *Server) Faults(t testing.TB, faults ...Fault) {
	t.Helper()
	s.put(t, "/control/faults", faults)
}

// SetStatus has the server say this of a transaction, whatever the node says.
func (s *Server) SetStatus(t testing.TB, txid bsv.Txid, status, extra string, competing ...bsv.Txid) {
	t.Helper()
	s.put(t, "/control/status", map[string]any{
		"txid": txid, "txStatus": status, "extraInfo": extra, "competingTxs": competing,
	})
}

// SetDialect makes another service of it, with the same transactions.
func (s *Server) SetDialect(t testing.TB, d Dialect) {
	t.Helper()
	s.put(t, "/control/dialect/"+string(d), nil)
}

func (s *Server) put(t testing.TB, path string, order any) {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(fmt.Errorf("%s: %s", path, resp.Status))
	}
}
