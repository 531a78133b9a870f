package foreigntest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/anacrolix/torrent/bencode"
)

// swarm is the world as one foreign client sees it: a tracker that knows one
// peer, and that peer, a relay to the box that looks at what passes.
type swarm struct {
	tracker string         // announce URL
	peer    netip.AddrPort // of the relay
	// completed is closed when the client tells the tracker that it is complete.
	completed chan struct{}
	box       string
	plain     bool // connections that begin obfuscated are refused

	mu      sync.Mutex
	conns   []*relayed
	refused int
}

// relayed is one connection between the client and the box.
type relayed struct {
	up, down watched // from the client, from the box
	open     bool
	endedBy  string
}

// join makes a swarm of the box that listens at an address.
func join(t *testing.T, box string, plain bool) *swarm {
	t.Helper()
	s := &swarm{completed: make(chan struct{}), box: box, plain: plain}
	// Transmission takes no peer in 127.0.0.0/8 from a tracker.
	l, err := net.Listen("tcp4", netip.AddrPortFrom(namespaceAddress(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s.peer = l.Addr().(*net.TCPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.accept(ctx, l, &running) })
	server := httptest.NewServer(s.announces())
	s.tracker = server.URL + "/announce"
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		running.Wait()
		server.Close()
		t.Logf("connections: %s", s)
	})
	return s
}

// announces answers as a tracker with one peer does (BEP 3, BEP 23).
func (s *swarm) announces() http.Handler {
	ip := s.peer.Addr().As4()
	answer := bencode.MustMarshal(map[string]any{
		"interval": 1800,
		"peers":    string(binary.BigEndian.AppendUint16(ip[:], s.peer.Port())),
	})
	once := sync.OnceFunc(func() { close(s.completed) })
	mux := http.NewServeMux()
	mux.HandleFunc("/announce", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(answer) // who has gone wants none
		if r.URL.Query().Get("event") == "completed" {
			once()
		}
	})
	return mux
}

func (s *swarm) accept(ctx context.Context, l net.Listener, running *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		// Our clients are bound to 127.0.0.1, which nobody outside can be.
		if ip := c.RemoteAddr().(*net.TCPAddr).IP; !ip.IsLoopback() {
			_ = c.Close()
			continue
		}
		running.Go(func() { s.relay(ctx, c) })
	}
}

// relay passes bytes on until one end closes, then closes the other.
func (s *swarm) relay(ctx context.Context, client net.Conn) {
	defer client.Close()
	first := make([]byte, len(greeting))
	if s.plain {
		if _, err := io.ReadFull(client, first); err != nil || string(first) != greeting {
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
			return
		}
	} else {
		first = nil
	}
	var d net.Dialer
	box, err := d.DialContext(ctx, "tcp", s.box)
	if err != nil {
		return
	}
	defer box.Close()
	r := &relayed{open: true}
	s.mu.Lock()
	s.conns = append(s.conns, r)
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { client.Close(); box.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { s.pass(r, &r.up, "the client", first, box, client) })
	both.Go(func() { s.pass(r, &r.down, "the box", nil, client, box) })
	both.Wait()
}

func (s *swarm) pass(r *relayed, w *watched, from string, first []byte, dst, src net.Conn) {
	b := make([]byte, 64<<10)
	n := copy(b, first)
	var err error
	for {
		s.mu.Lock()
		w.feed(b[:n])
		s.mu.Unlock()
		if _, failed := dst.Write(b[:n]); failed != nil {
			break
		}
		if err != nil {
			break
		}
		n, err = src.Read(b)
	}
	s.mu.Lock()
	if r.open {
		r.open, r.endedBy = false, from
	}
	s.mu.Unlock()
	_ = dst.Close()
	_ = src.Close()
}

// view calls look with the connections so far, which stand still meanwhile.
func (s *swarm) view(look func(conns []*relayed) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return look(s.conns)
}

func (s *swarm) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("%d refused", s.refused)
	for _, r := range s.conns {
		text += fmt.Sprintf("\n\topen %t, ended by %q; client: %s; box: %s", r.open, r.endedBy, &r.up, &r.down)
	}
	return text
}
