package announce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const okReply = "d8:completei3e10:incompletei7e8:intervali1800e12:min intervali600e5:peers0:e"

var peerID = [20]byte([]byte("-BC0001-a&b=c d/\x00\xff+%"))

func testClient(tb testing.TB, change func(*Options)) *client {
	opt := Options{Port: 42070, PeerID: peerID, UserAgent: "test", Clock: func() time.Time { return epoch },
		Lookup: func(context.Context, string, string) ([]netip.Addr, error) { return nil, errors.New("no names here") }}
	if change != nil {
		change(&opt)
	}
	c := newClient(opt, [32]byte{2})
	c.udpWaits = []time.Duration{50 * time.Millisecond, 5 * time.Second}
	tb.Cleanup(c.close)
	return c
}

func ask(t *testing.T, c *client, tracker string, e event) (reply, error) {
	t.Helper()
	where, err := parseEndpoint(tracker)
	if err != nil {
		t.Fatal(err)
	}
	return c.ask(t.Context(), request{endpoint: where, infoHash: hash(1), event: e, uploaded: 5_000_000_000})
}

// serveOn is a server on a loopback address.
func serveOn(tb testing.TB, address string, h http.Handler) *httptest.Server {
	l, err := net.Listen("tcp", address)
	if err != nil {
		tb.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	tb.Cleanup(s.Close)
	return s
}

func TestHTTP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		var got *http.Request
		s := serveOn(t, address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Clone(context.Background())
			_, _ = io.WriteString(w, "d8:completei3e11:external ip4:\x05\x06\x07\x0810:incompletei7e8:intervali1800e12:min intervali600ee")
		}))
		c := testClient(t, nil)
		r, err := ask(t, c, s.URL+"/announce?passkey=a%2Fb", started)
		if err != nil {
			t.Fatal(err)
		}
		want := reply{interval: 30 * time.Minute, minInterval: 10 * time.Minute, seeders: 3, leechers: 7, external: netip.MustParseAddr("5.6.7.8")}
		if r != want {
			t.Errorf("%+v", r)
		}
		q := got.URL.Query()
		ih := hash(1)
		for name, want := range map[string]string{"passkey": "a/b", "info_hash": string(ih[:]), "peer_id": string(peerID[:]), "port": "42070",
			"uploaded": "5000000000", "downloaded": "0", "left": "0", "compact": "1", "numwant": "0", "event": "started"} {
			if q.Get(name) != want {
				t.Errorf("%s is %q", name, q.Get(name))
			}
		}
		if !strings.HasPrefix(got.URL.RawQuery, "passkey=a%2Fb&") || strings.Contains(got.URL.RawQuery, "+") || got.UserAgent() != "test" {
			t.Errorf("%q, %q", got.URL.RawQuery, got.UserAgent())
		}
		if _, err := ask(t, c, s.URL+"/announce", none); err != nil || got.URL.Query().Has("event") {
			t.Errorf("%v, %q", err, got.URL.RawQuery)
		}
	}
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, okReply) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := testClient(t, func(o *Options) { o.TLS = &tls.Config{RootCAs: roots} })
	if r, err := ask(t, c, s.URL+"/announce", none); err != nil || r.leechers != 7 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := ask(t, testClient(t, nil), s.URL+"/announce", none); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
}

func TestHostileHTTP(t *testing.T) {
	mux := http.NewServeMux()
	page := func(path string, code int, body string) {
		mux.HandleFunc("/announce/"+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1200")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		})
	}
	page("negative", 200, "d8:completei-3e10:incompletei-7e8:intervali-1800e12:min intervali-600ee")
	page("wrong-kinds", 200, "d8:completele10:incomplete1:78:intervalde5:peersi9e10:tracker idl4:abcdee")
	page("trailing", 200, okReply+"\r\n")
	page("huge-numbers", 200, "d8:completei99999999999999999e10:incompletei123e8:intervali99999999999999999ee")
	page("peers", 200, "d8:intervali1800e5:peers12:aaaaaabbbbbb6:peers618:aaaaaaaaaaaaaaaaaae")
	page("peer-dicts", 200, "d8:intervali1800e5:peersld2:ip9:127.0.0.14:porti1eed2:ip9:127.0.0.14:porti2eeee")
	page("html", 200, "<html>Welcome")
	page("empty", 200, "")
	page("list", 200, "le")
	page("long-string", 200, "d8:interval999999999999:x")
	page("deep", 200, "d1:x"+strings.Repeat("l", 100_000))
	page("large", 200, "d5:peers200000:"+strings.Repeat("x", 200_000)+"e")
	page("refused", 200, "d14:failure reason"+"11:go \x00away\xff!!8:retry ini90ee")
	page("refused-400", 400, "d14:failure reason4:gone8:retry in5:nevere")
	page("missing", 404, "no")
	page("busy", 503, "later")
	page("many", 429, okReply)
	mux.HandleFunc("/announce/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) })
	mux.HandleFunc("/announce/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 1<<20))
		_, _ = io.WriteString(w, okReply)
	})
	mux.HandleFunc("/announce/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "d")
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("/announce/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "d8:")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/announce/hijack", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	})
	s := serveOn(t, "127.0.0.1:0", mux)
	c := testClient(t, nil)
	for path, want := range map[string]reply{
		"negative":     {seeders: -1, leechers: -1},
		"wrong-kinds":  {seeders: -1, leechers: -1},
		"trailing":     {interval: 30 * time.Minute, minInterval: 10 * time.Minute, seeders: 3, leechers: 7},
		"huge-numbers": {interval: 24 * time.Hour, seeders: 1<<31 - 1, leechers: 123},
		"peers":        {interval: 30 * time.Minute, seeders: -1, leechers: 3},
		"peer-dicts":   {interval: 30 * time.Minute, seeders: -1, leechers: 2},
	} {
		if r, err := ask(t, c, s.URL+"/announce/"+path, none); err != nil || r != want {
			t.Errorf("%s: %+v, %v", path, r, err)
		}
	}
	// fault: of this URL; host: of all of them there; refused: of the title.
	for path, want := range map[string]string{
		"html": "fault", "empty": "fault", "list": "fault", "long-string": "fault", "deep": "fault", "large": "fault",
		"missing": "fault", "busy": "host", "many": "host", "header": "host", "hijack": "host",
		"refused": "refused", "refused-400": "refused",
	} {
		_, err := ask(t, c, s.URL+"/announce/"+path+"?passkey=secret", none)
		if got := kind(err); got != want {
			t.Errorf("%s: %s: %v", path, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the pass key is in %q", path, err)
		}
	}
	var no *refusal
	if _, err := ask(t, c, s.URL+"/announce/refused", none); !errors.As(err, &no) || no.reason != "go ?away?!!" || no.retry != 90*time.Minute {
		t.Errorf("%+v", no)
	}
	if _, err := ask(t, c, s.URL+"/announce/refused-400", none); !errors.As(err, &no) || no.retry != neverAgain {
		t.Errorf("%+v", no)
	}
	var later *busy
	if _, err := ask(t, c, s.URL+"/announce/busy", none); !errors.As(err, &later) || later.retry != 20*time.Minute {
		t.Errorf("%+v", later)
	}
	c.timeout = 200 * time.Millisecond
	for _, path := range []string{"endless", "slow"} {
		began := time.Now()
		if _, err := ask(t, c, s.URL+"/announce/"+path, none); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", path, err, time.Since(began))
		}
	}
}

func kind(err error) string {
	var no *refusal
	var own *fault
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &no):
		return "refused"
	case errors.As(err, &own):
		return "fault"
	}
	return "host"
}

// internet resolves names to addresses that are public, and connects to those
// on loopback instead.
type internet struct {
	names map[string][]string // to addresses
	hosts map[string]string   // host:port to host:port on loopback
	asked []string            // networks and addresses that were connected to
}

func (n *internet) options(o *Options) {
	o.Lookup = func(_ context.Context, network, name string) (out []netip.Addr, err error) {
		for _, a := range n.names[name] {
			if a := netip.MustParseAddr(a); a.Is4() == (network == "ip4") {
				out = append(out, a)
			}
		}
		return out, nil
	}
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		n.asked = append(n.asked, network+" "+address)
		to, ok := n.hosts[address]
		if !ok {
			return nil, errors.New("unreachable")
		}
		if strings.HasPrefix(network, "tcp") {
			network = "tcp"
		}
		return (&net.Dialer{}).DialContext(ctx, strings.TrimRight(network, "46"), to)
	}
}

func TestRedirects(t *testing.T) {
	var to string
	s := serveOn(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/there", "/": // a tracker, or a router's page
			_, _ = io.WriteString(w, okReply)
		default:
			http.Redirect(w, r, to, http.StatusFound)
		}
	}))
	loopback := s.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(loopback)
	n := &internet{
		names: map[string][]string{"a.example": {"1.2.3.4"}, "inside.example": {"192.168.1.1", "127.0.0.1", "fd00::1"}},
		hosts: map[string]string{"1.2.3.4:" + port: loopback, "1.2.3.4:80": loopback, "127.0.0.1:" + port: loopback, "192.168.1.1:80": loopback},
	}
	c := testClient(t, n.options)
	for target, want := range map[string]string{
		"http://a.example:" + port + "/there": "no error",
		"http://127.0.0.1:" + port + "/":      "fault",
		"http://localhost:" + port + "/":      "fault",
		"http://192.168.1.1/":                 "fault",
		"http://[::ffff:192.168.1.1]/":        "fault",
		"http://inside.example/":              "host",
		"ftp://a.example/":                    "fault",
		"gopher://192.168.1.1/":               "fault",
	} {
		to = target
		_, err := ask(t, c, "http://a.example/announce", none)
		if kind(err) != want {
			t.Errorf("%s: %v", target, err)
		}
	}
	for _, name := range n.asked {
		if !strings.Contains(name, "1.2.3.4") {
			t.Errorf("connected to %q", name)
		}
	}
}

func TestPrivateNetwork(t *testing.T) {
	n := &internet{names: map[string][]string{
		"inside.example": {"192.168.1.1", "10.0.0.1", "100.64.0.1", "169.254.169.254", "127.0.0.1", "0.0.0.0", "fd00::1", "fe80::1", "::1", "64:ff9b::7f00:1"}}}
	c := testClient(t, n.options)
	for _, tracker := range []string{"http://inside.example/announce", "udp://inside.example:7/announce"} {
		if _, err := ask(t, c, tracker, none); !errors.Is(err, errPrivate) || len(n.asked) > 0 {
			t.Errorf("%s: %v, connected to %v", tracker, err, n.asked)
		}
	}
	for text, ok := range map[string]bool{
		"http://127.0.0.1:8/announce": true, "http://127.0.0.1:8/announce.php?x": true, "http://localhost/announce": true, "udp://192.168.1.1:7": true,
		"http://[::1]:8/announce": true, "http://8.8.8.8/x": true, "https://tracker.example/any/path?x=y#z": true,
		"http://127.0.0.1:8/": false, "http://localhost./reboot": false, "http://192.168.1.1/cgi-bin/reboot": false, "http://[::1]/x": false,
		"http://[fe80::1%25eth0]/announce": false, "udp://255.255.255.255:7": false, "udp://224.0.0.1:7": false, "http://0.0.0.0/announce": false,
		"http://[::ffff:127.0.0.1]/x": false, "udp://tracker.example": false, "udp://tracker.example:0": false, "http://tracker.example:99999/": false,
		"http:///announce": false, "file:///etc/passwd": false, "wss://tracker.example": false, "": false, "http://a.example/\n": false,
		"http://a.example/" + strings.Repeat("x", maxURL): false,
	} {
		if _, err := parseEndpoint(text); (err == nil) != ok {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// A tracker with addresses of both families hears of us over both, and a
// family that does not work is left alone for a while.
func TestBothFamilies(t *testing.T) {
	var asked atomic.Int32
	s := serveOn(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, okReply)
	}))
	v4, v6 := "1.2.3.4:80", "[2606:4700::1]:80"
	loopback := s.Listener.Addr().String()
	n := &internet{names: map[string][]string{"a.example": {"1.2.3.4", "2606:4700::1"}}, hosts: map[string]string{v4: loopback, v6: loopback}}
	now := epoch
	c := testClient(t, func(o *Options) { n.options(o); o.Clock = func() time.Time { return now } })
	if r, err := ask(t, c, "http://a.example/announce", none); err != nil || r.leechers != 7 || asked.Load() != 2 {
		t.Fatalf("%+v, %v, asked %d times", r, err, asked.Load())
	}
	c.close()
	if want := []string{"tcp4 " + v4, "tcp6 " + v6}; !slices.Equal(n.asked, want) {
		t.Errorf("connected to %q", n.asked)
	}
	delete(n.hosts, v6)
	for i := range 3 {
		if _, err := ask(t, c, "http://a.example/announce", none); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if got := fmt.Sprint(n.asked[2:]); strings.Count(got, "tcp6") != 1 {
		t.Errorf("connected to %v", got)
	}
	now = now.Add(avoidFamily + time.Second)
	n.asked, n.hosts[v6] = nil, loopback
	if _, err := ask(t, c, "http://a.example/announce", none); err != nil || !strings.Contains(fmt.Sprint(n.asked), v6) {
		t.Errorf("%v, connected to %v", err, n.asked)
	}
}

// udpTracker is a UDP tracker (BEP 15) whose answers a test may change.
type udpTracker struct {
	net.PacketConn
	id        atomic.Uint64
	announces chan []byte // that came, as packets
	connects  atomic.Int32
	// answer may replace the answer to a packet; nil drops it.
	answer atomic.Pointer[func(packet, answer []byte) [][]byte]
}

func newUDPTracker(tb testing.TB, address string) *udpTracker {
	l, err := net.ListenPacket("udp", address)
	if err != nil {
		tb.Fatal(err)
	}
	u := &udpTracker{PacketConn: l, announces: make(chan []byte, 100)}
	u.id.Store(77)
	done := make(chan struct{})
	go func() {
		defer close(done)
		u.serve()
	}()
	tb.Cleanup(func() { l.Close(); <-done })
	return u
}

func (u *udpTracker) url(path string) string { return "udp://" + u.LocalAddr().String() + path }

func (u *udpTracker) serve() {
	buf := make([]byte, 2048)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		p := buf[:n]
		if n < 16 {
			continue
		}
		answer := append([]byte{0, 0, 0, byte(be32(p[8:]))}, p[12:16]...)
		switch {
		case be32(p[8:]) == actionConnect && binary.BigEndian.Uint64(p) == udpMagic:
			u.connects.Add(1)
			answer = binary.BigEndian.AppendUint64(answer, u.id.Load())
		case be32(p[8:]) == actionAnnounce && binary.BigEndian.Uint64(p) == u.id.Load() && n >= 98:
			u.announces <- append([]byte(nil), p...)
			answer = append(answer, 0, 0, 7, 8, 0, 0, 0, 5, 0, 0, 0, 2, 1, 2, 3, 4, 5, 6)
		default:
			answer = append([]byte{0, 0, 0, 3}, p[12:16]...)
			answer = append(answer, "Connection ID missmatch.\x00"...)
		}
		answers := [][]byte{answer}
		if f := u.answer.Load(); f != nil {
			answers = (*f)(p, answer)
		}
		for _, a := range answers {
			_, _ = u.WriteTo(a, from)
		}
	}
}

func TestUDP(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		u := newUDPTracker(t, address)
		now := epoch
		c := testClient(t, func(o *Options) { o.Clock = func() time.Time { return now } })
		r, err := ask(t, c, u.url("/announce?key=1"), started)
		if want := (reply{interval: 1800 * time.Second, leechers: 5, seeders: 2}); err != nil || r != want {
			t.Fatalf("%+v, %v", r, err)
		}
		p := <-u.announces
		ih := hash(1)
		if string(p[16:36]) != string(ih[:]) || string(p[36:56]) != string(peerID[:]) || binary.BigEndian.Uint64(p[72:]) != 5_000_000_000 ||
			be32(p[80:]) != uint32(started) || be32(p[92:]) != 0 || binary.BigEndian.Uint16(p[96:]) != 42070 || string(p[98:]) != "\x02\x0f/announce?key=1" {
			t.Errorf("% x", p)
		}
		// The connection id and the socket are used again while they may be.
		for range 3 {
			if _, err := ask(t, c, u.url(""), none); err != nil {
				t.Fatal(err)
			}
			<-u.announces
		}
		if u.connects.Load() != 1 || len(c.idle) != 1 {
			t.Errorf("%d connects, %d sockets", u.connects.Load(), len(c.idle))
		}
		now = now.Add(2 * time.Minute)
		if _, err := ask(t, c, u.url(""), stopped); err != nil {
			t.Fatal(err)
		}
		if p := <-u.announces; be32(p[80:]) != uint32(stopped) || u.connects.Load() != 2 || len(c.idle) != 1 {
			t.Errorf("%d connects, %d sockets, % x", u.connects.Load(), len(c.idle), p)
		}
	}
}

func TestUDPLossAndLies(t *testing.T) {
	u := newUDPTracker(t, "127.0.0.1:0")
	c := testClient(t, nil)
	set := func(f func(packet, answer []byte) [][]byte) { u.answer.Store(&f) }
	fresh := func() { c.close() } // sockets with connection ids

	seen := 0
	set(func(_, answer []byte) [][]byte { // the first of each is lost
		if seen++; seen%2 == 1 {
			return nil
		}
		return [][]byte{answer}
	})
	if r, err := ask(t, c, u.url(""), none); err != nil || r.leechers != 5 {
		t.Errorf("loss: %+v, %v", r, err)
	}
	fresh()
	set(func(_, answer []byte) [][]byte { // others' answers, and halves, come first
		other := slices.Clone(answer)
		other[4] ^= 1
		return [][]byte{other, {1, 2, 3}, {}, answer}
	})
	if r, err := ask(t, c, u.url(""), none); err != nil || r.leechers != 5 {
		t.Errorf("strays: %+v, %v", r, err)
	}
	fresh()
	set(func(_, answer []byte) [][]byte {
		other := slices.Clone(answer)
		other[4] ^= 1
		return slices.Repeat([][]byte{other}, 2*maxStray)
	})
	if _, err := ask(t, c, u.url(""), none); !errors.Is(err, errStray) {
		t.Errorf("flood: %v", err)
	}
	fresh()
	set(func(p, answer []byte) [][]byte {
		if be32(p[8:]) == actionConnect {
			return [][]byte{answer}
		}
		return [][]byte{append(append([]byte{0, 0, 0, 3}, p[12:16]...), "not registered\x00"...)}
	})
	var no *refusal
	for range 2 { // with a new connection id, and with a known one
		if _, err := ask(t, c, u.url(""), none); !errors.As(err, &no) || no.reason != "not registered" {
			t.Errorf("refusal: %v", err)
		}
	}
	fresh()
	set(func(_, answer []byte) [][]byte { return [][]byte{answer[:9]} })
	if _, err := ask(t, c, u.url(""), none); kind(err) != "fault" {
		t.Errorf("short: %v", err)
	}
	set(func(_, answer []byte) [][]byte { return [][]byte{append([]byte{0, 0, 0, 9}, answer[4:]...)} })
	if _, err := ask(t, c, u.url(""), none); kind(err) != "fault" {
		t.Errorf("unknown action: %v", err)
	}
	set(func(p, answer []byte) [][]byte { return [][]byte{answer} })
	if _, err := ask(t, c, u.url(""), none); err != nil {
		t.Fatal(err)
	}
	u.id.Add(1) // the tracker begins anew and knows the connection id no longer
	if r, err := ask(t, c, u.url(""), none); err != nil || r.leechers != 5 {
		t.Errorf("new connection id: %+v, %v", r, err)
	}
	set(func([]byte, []byte) [][]byte { return nil })
	c.udpWaits = []time.Duration{time.Millisecond, time.Millisecond}
	if _, err := ask(t, c, u.url(""), none); !errors.Is(err, errTimeout) || len(c.idle) != 0 {
		t.Errorf("silence: %v, %d sockets", err, len(c.idle))
	}
	u.Close()
	if _, err := ask(t, c, u.url(""), none); kind(err) != "host" {
		t.Errorf("closed port: %v", err)
	}
}

// Run as a box has it: titles are announced, renewed never within the test,
// and stopped when removed and when it ends.
func TestRun(t *testing.T) {
	type heard struct{ title, event string }
	heardHTTP := make(chan heard, 100)
	block, once := make(chan struct{}), sync.Once{}
	mux := http.NewServeMux()
	mux.HandleFunc("/announce", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		heardHTTP <- heard{q.Get("info_hash"), q.Get("event")}
		_, _ = io.WriteString(w, okReply)
	})
	mux.HandleFunc("/announce/hangs", func(w http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(block) })
		<-r.Context().Done()
	})
	s4, s6 := serveOn(t, "127.0.0.1:0", mux), serveOn(t, "[::1]:0", mux)
	hangs := serveOn(t, "127.0.0.1:0", mux)
	u := newUDPTracker(t, "127.0.0.1:0")
	a, err := New(Options{Port: 42070, PeerID: peerID, Random: rand.NewChaCha8([32]byte{3}), Uploaded: func([20]byte) int64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	a.Add(hash(1), [][]string{{s4.URL + "/announce"}})
	a.Add(hash(2), [][]string{{s6.URL + "/announce"}})
	a.Add(hash(3), [][]string{{u.url("")}})
	a.Add(hash(4), [][]string{{hangs.URL + "/announce/hangs"}})
	want := func(events ...heard) {
		t.Helper()
		for range events {
			if got := <-heardHTTP; !slices.Contains(events, got) {
				t.Fatalf("heard %q", got)
			}
		}
	}
	id := func(n int) string { ih := hash(n); return string(ih[:]) }
	want(heard{id(1), "started"}, heard{id(2), "started"})
	if p := <-u.announces; be32(p[80:]) != uint32(started) {
		t.Errorf("% x", p)
	}
	<-block
	a.Remove(hash(1))
	want(heard{id(1), "stopped"})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	want(heard{id(2), "stopped"})
	if p := <-u.announces; be32(p[80:]) != uint32(stopped) {
		t.Errorf("% x", p)
	}
}

// The end is bounded, whatever the trackers do.
func TestStopIsBounded(t *testing.T) {
	announced := make(chan struct{}, 5)
	s := serveOn(t, "127.0.0.1:0", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("event") == "stopped" {
			<-r.Context().Done()
		} else {
			announced <- struct{}{}
		}
		_, _ = io.WriteString(w, okReply)
	}))
	a, err := New(Options{Port: 42070, Random: rand.NewChaCha8([32]byte{3})})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		a.Add(hash(i), [][]string{{s.URL + "/announce"}})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	for range 5 {
		<-announced
	}
	began := time.Now()
	cancel()
	<-ended
	if d := time.Since(began); d > StopTimeout+time.Second {
		t.Errorf("took %v", d)
	}
}

func TestNewNeedsPortAndSeed(t *testing.T) {
	if _, err := New(Options{Random: rand.NewChaCha8([32]byte{})}); err == nil {
		t.Error("no port")
	}
	if _, err := New(Options{Port: 1, Random: strings.NewReader("short")}); err == nil {
		t.Error("no seed")
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{okReply, "d14:failure reason4:gone8:retry in5:nevere", "d8:intervali-1ee", "d5:peersl1:aee", "de", "i1e", "d1:xllllleeeeee"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReply(b)
		var no *refusal
		switch {
		case errors.As(err, &no):
			if no.reason == "" || len(no.reason) > 4*maxReason || no.retry < 0 || no.retry > neverAgain {
				t.Errorf("%+v", no)
			}
		case err == nil:
			checkReply(t, r)
		case !errors.Is(err, errReply):
			t.Error(err)
		}
		if r, err := parseUDP(b); err == nil {
			checkReply(t, r)
		}
	})
}

func checkReply(t *testing.T, r reply) {
	if d := interval(r); d < MinInterval || d > MaxInterval || r.seeders < -1 || r.leechers < -1 {
		t.Errorf("%+v", r)
	}
}

func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"http://a.example/announce?x=y", "udp://[::1]:7", "https://user:pw@8.8.8.8:1/", "http://127.0.0.1/announce"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := parseEndpoint(s)
		if err != nil {
			return
		}
		if e.port == 0 || e.host == "" || strings.ContainsAny(s, "\r\n") || e.literal.IsValid() && e.local == public(e.literal) {
			t.Errorf("%q: %+v", s, e)
		}
	})
}
