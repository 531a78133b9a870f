package seed

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/mse"
	"go.uber.org/goleak"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// testTitle is a title on disk.
type testTitle struct {
	ih   [20]byte
	info []byte
	root string
	data []byte
	pl   int64
	desc paylink.Title
	free bool
}

// makeTitle writes files of the given lengths and makes their info dictionary.
func makeTitle(t testing.TB, name string, pieceLength int64, lengths ...int64) *testTitle {
	t.Helper()
	tt := &testTitle{root: t.TempDir(), pl: pieceLength}
	info := metainfo.Info{Name: name, PieceLength: pieceLength}
	random := rand.NewChaCha8([32]byte{byte(len(lengths)), byte(pieceLength >> 10)})
	for i, n := range lengths {
		b := make([]byte, n)
		random.Read(b)
		file := []string{fmt.Sprintf("dir%d", i%3), fmt.Sprintf("file%d", i)}
		full := filepath.Join(tt.root, name, file[0], file[1])
		if len(lengths) == 1 {
			full = filepath.Join(tt.root, name)
			info.Length = n
		} else {
			info.Files = append(info.Files, metainfo.FileInfo{Path: file, Length: n})
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, b, 0o644); err != nil {
			t.Fatal(err)
		}
		tt.data = append(tt.data, b...)
	}
	for b := tt.data; len(b) > 0; b = b[min(int64(len(b)), pieceLength):] {
		sum := sha1.Sum(b[:min(int64(len(b)), pieceLength)])
		info.Pieces = append(info.Pieces, sum[:]...)
	}
	tt.info = bencode.MustMarshal(info)
	tt.ih = sha1.Sum(tt.info)
	tt.desc = paylink.Title{InfoHash: tt.ih, Name: name, Length: int64(len(tt.data)), PieceLength: pieceLength}
	return tt
}

// shelf is a Catalogue in memory.
type shelf struct {
	titles map[[20]byte]*testTitle
	files  *pieces.Handles
	tried  atomic.Int32
	woken  atomic.Int32
	asleep atomic.Int32
	slept  chan struct{} // one more is asleep; of length 1
}

func (s *shelf) Has(ih [20]byte) bool { return s.titles[ih] != nil }

func (s *shelf) All() iter.Seq[[20]byte] {
	return func(yield func([20]byte) bool) {
		for ih := range s.titles {
			if !yield(ih) {
				return
			}
		}
	}
}

func (s *shelf) Wake(_ context.Context, ih [20]byte) (*Awake, error) {
	s.tried.Add(1)
	t := s.titles[ih]
	var info metainfo.Info
	if err := bencode.Unmarshal(t.info, &info); err != nil {
		return nil, err
	}
	l, err := pieces.LayoutOf(&info)
	if err != nil {
		return nil, err
	}
	store, err := pieces.Open(t.root, l, pieces.Options{Files: s.files, Verify: true})
	if err != nil {
		return nil, err
	}
	s.woken.Add(1)
	return &Awake{Info: t.info, Store: store, Title: t.desc, FreeForAll: t.free}, nil
}

func (s *shelf) Sleep(_ [20]byte, a *Awake) {
	a.Store.Close()
	s.asleep.Add(1)
	select {
	case s.slept <- struct{}{}:
	default:
	}
}

// leaks fails the test where a goroutine outlives its cleanups.
func leaks(t *testing.T) { t.Cleanup(func() { goleak.VerifyNone(t) }) }

// harness is a running server.
type harness struct {
	*Server
	t     testing.TB
	shelf *shelf
	addr  string
	ticks chan time.Time
	ends  chan struct{}
	now   atomic.Int64
	stop  func()
}

func serve(t testing.TB, opt Options, titles ...*testTitle) *harness {
	t.Helper()
	h := &harness{t: t, shelf: &shelf{titles: make(map[[20]byte]*testTitle), files: pieces.NewHandles(8), slept: make(chan struct{}, 1)}, ticks: make(chan time.Time), ends: make(chan struct{}, 1<<12)}
	for _, tt := range titles {
		h.shelf.titles[tt.ih] = tt
	}
	h.now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	opt.Catalogue = h.shelf
	opt.PeerID = [20]byte([]byte("-BC0001-abcdefghijkl"))
	opt.Clock = func() time.Time { return time.Unix(0, h.now.Load()) }
	h.Server = New(opt)
	h.Server.ticks, h.Server.ends = h.ticks, h.ends
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if w, a := h.shelf.woken.Load(), h.shelf.asleep.Load(); w != a {
			t.Errorf("%d titles woken, %d put to sleep", w, a)
		}
	})
	t.Cleanup(h.stop)
	return h
}

// pass moves the clock on and ticks twice: when the second tick is taken, the
// first has been worked off.
func (h *harness) pass(d time.Duration) {
	h.now.Add(int64(d))
	h.ticks <- time.Time{}
	h.ticks <- time.Time{}
}

func (h *harness) dial(tt *testTitle, o wiretest.Options) *wiretest.Peer {
	h.t.Helper()
	p, err := wiretest.Dial(h.addr, tt.ih, o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { p.Close() })
	p.SetDeadline(time.Now().Add(20 * time.Second))
	return p
}

// await waits until the connections that ended for the reason are n.
func (h *harness) await(r peerwire.Reason, n int64) {
	h.t.Helper()
	late := time.After(20 * time.Second)
	for h.Stats().ByReason[r] != n {
		select {
		case <-h.ends:
		case <-late:
			h.t.Fatalf("waiting for %d × %q: %v", n, r, h.Stats().ByReason)
		}
	}
}

// fetchAll downloads the whole title and compares it.
func fetchAll(p *wiretest.Peer, tt *testTitle, block, depth int) error {
	got := make([]byte, len(tt.data))
	if err := p.Fetch(0, int64(len(tt.data)), tt.pl, block, depth, func(off int64, b []byte) { copy(got[off:], b) }); err != nil {
		return err
	}
	if !bytes.Equal(got, tt.data) {
		return errors.New("other bytes than the title's")
	}
	return nil
}

func TestServesFreeTitle(t *testing.T) {
	leaks(t)
	// Many files, some empty: blocks lie across several of them.
	many := []int64{100_000, 0, 1, 70_000, 0, 5, 16384, 33_333, 40_000, 11, 12, 13, 300_000, 0}
	for _, lengths := range [][]int64{{1_000_000}, many} {
		tt := makeTitle(t, "free", 64<<10, lengths...)
		h := serve(t, Options{}, tt)
		for name, o := range map[string]wiretest.Options{
			"plain":             {},
			"fast":              {Fast: true, Extended: true},
			"obfuscated header": {Fast: true, Extended: true, Crypto: mse.AllSupportedCrypto},
			"encrypted":         {Fast: true, Extended: true, Crypto: mse.CryptoMethodRC4},
		} {
			for _, block := range []int{16 << 10, 1000, 64 << 10} {
				if err := fetchAll(h.dial(tt, o), tt, block, 32); err != nil {
					t.Errorf("%s, %d files, blocks of %d: %v", name, len(lengths), block, err)
				}
			}
		}
		h.stop()
		if got, want := h.Stats().BytesSent, int64(12*len(tt.data)); got != want {
			t.Errorf("counted %d bytes, want %d", got, want)
		}
		if got := h.Stats().Titles[tt.ih].BytesSent; got != h.Stats().BytesSent {
			t.Errorf("counted %d bytes of the title", got)
		}
		if n := h.shelf.files.Open(); n != 0 {
			t.Errorf("%d files left open", n)
		}
	}
}

func TestHostilePeers(t *testing.T) {
	leaks(t)
	tt := makeTitle(t, "free", 256<<10, 3<<20)
	paid := makeTitle(t, "paid", 128<<10, 1<<20, 5)
	paid.desc.Ask = 1000
	h := serve(t, Options{HandshakeTimeout: 300 * time.Millisecond, MaxPerAddress: 100}, tt, paid)

	good, progress := h.downloadOn(tt)
	flood := func(b []byte, n int) []byte { return bytes.Repeat(b, n) }
	raw := func(b []byte) func() {
		return func() {
			nc, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.Write(b)
			nc.SetDeadline(time.Now().Add(20 * time.Second))
			io.Copy(io.Discard, nc)
		}
	}
	after := func(tt *testTitle, o wiretest.Options, b []byte) func() {
		return func() {
			p := h.dial(tt, o)
			defer p.Close()
			go p.W.Write(b)
			io.Copy(io.Discard, p.R)
		}
	}
	ext := wiretest.Options{Fast: true, Extended: true}
	handshake := wiretest.Handshake(tt.ih, wiretest.Options{})
	self := wiretest.Options{PeerID: h.opt.PeerID}
	length := binary.BigEndian.AppendUint32
	for _, c := range []struct {
		name   string
		reason peerwire.Reason
		attack func()
	}{
		{"port scan", peerwire.ReasonBadHandshake, func() {
			nc, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			nc.Close()
		}},
		{"half handshake, then silence", peerwire.ReasonHandshakeTimeout, raw(handshake[:30])},
		{"web browser", peerwire.ReasonHandshakeTimeout, raw([]byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"))},
		{"random bytes", peerwire.ReasonBadHandshake, raw(flood([]byte("\xa5random"), 400))},
		{"unknown title", peerwire.ReasonUnknownTitle, raw(wiretest.Handshake([20]byte{1}, wiretest.Options{}))},
		{"unknown title, obfuscated", peerwire.ReasonUnknownTitle, func() {
			if _, err := wiretest.Dial(h.addr, [20]byte{2}, wiretest.Options{Crypto: mse.AllSupportedCrypto}); err == nil {
				t.Error("unknown title accepted")
			}
		}},
		{"ourselves", peerwire.ReasonSelf, raw(wiretest.Handshake(tt.ih, self))},
		{"4 GiB message", peerwire.ReasonTooLong, after(tt, ext, append(length(nil, 0xffffffff), 20, 0))},
		{"long bitfield", peerwire.ReasonTooLong, after(tt, ext, append(length(nil, 1000), 5))},
		{"long extended handshake", peerwire.ReasonTooLong, after(tt, ext, append(length(nil, 20_000), 20, 0))},
		{"long metadata request", peerwire.ReasonTooLong, after(tt, ext, append(length(nil, 2_000), 20, 2))},
		{"short request", peerwire.ReasonBadMessage, after(tt, ext, wiretest.Numbers(6, 1, 2))},
		{"block that nobody asked for", peerwire.ReasonBadMessage, after(tt, ext, wiretest.Numbers(7, 1, 2, 3))},
		{"unsolicited hashes", peerwire.ReasonBadMessage, after(tt, ext, wiretest.Message(22, make([]byte, 60)...))},
		{"unknown type", peerwire.ReasonUnknownMessage, after(tt, ext, wiretest.Message(99))},
		{"nested bencode", peerwire.ReasonBadExtension, after(tt, ext, wiretest.Message(20, append([]byte("\x00d1:a"), flood([]byte("l"), 9000)...)...))},
		{"negative metadata type", peerwire.ReasonBadExtension, after(tt, ext, wiretest.Message(20, []byte("\x02d8:msg_typei-1e5:piecei0ee")...))},
		{"beyond the piece", peerwire.ReasonBadRequest, after(tt, ext, wiretest.Request(0, 256<<10-1, 2))},
		{"beyond the title", peerwire.ReasonBadRequest, after(tt, ext, wiretest.Request(12, 0, 1))},
		{"begin that wraps around", peerwire.ReasonBadRequest, after(tt, ext, wiretest.Request(0, 0xffffffff, 2))},
		{"empty block", peerwire.ReasonBadRequest, after(tt, ext, wiretest.Request(0, 0, 0))},
		{"block of 128 KiB and a byte", peerwire.ReasonBadRequest, after(tt, ext, wiretest.Request(0, 0, 128<<10+1))},
		{"requests while choked, fast", peerwire.ReasonRequestFlood, after(paid, ext, flood(wiretest.Request(0, 0, 16<<10), 3000))},
		{"requests while choked", peerwire.ReasonRequestFlood, after(paid, wiretest.Options{}, flood(wiretest.Request(0, 0, 16<<10), 3000))},
	} {
		before := h.Stats().ByReason[c.reason]
		c.attack()
		h.await(c.reason, before+1)
		if t.Failed() {
			t.Fatalf("at %s", c.name)
		}
		<-progress // the other peer is served as before
	}

	// These take minutes of the server's clock.
	slow := h.dial(tt, ext)
	slow.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	// More than socket buffers hold: the writer stands still.
	go slow.Conn.Write(flood(wiretest.Request(0, 0, 128<<10), 500))
	for h.Stats().ByReason[peerwire.ReasonSlowReader] == 0 {
		<-progress
		h.pass(10 * time.Second)
	}
	h.dial(paid, ext)
	for h.Stats().ByReason[peerwire.ReasonIdle] == 0 {
		<-progress
		h.pass(10 * time.Second)
	}
	if n := h.Stats().ByReason[peerwire.ReasonSlowReader]; n != 1 {
		t.Errorf("%d connections ended as slow readers", n)
	}
	good()
	<-progress
}

// downloadOn downloads the title over and over until stop is called, and fails
// the test where that ends before. Each round gives a value to progress.
func (h *harness) downloadOn(tt *testTitle) (stop func(), progress <-chan int) {
	p := h.dial(tt, wiretest.Options{Fast: true})
	rounds := make(chan int)
	var last atomic.Bool
	go func() {
		defer close(rounds)
		for i := 0; !last.Load(); i++ {
			if err := fetchAll(p, tt, 16<<10, 16); err != nil {
				h.t.Errorf("the peer that behaves: %v", err)
				return
			}
			rounds <- i
		}
	}()
	return func() {
		last.Store(true)
		for range rounds {
		}
	}, rounds
}
