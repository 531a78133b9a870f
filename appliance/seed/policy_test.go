package seed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// till is Payments of a test: it sells a step of bytes for every message.
type till struct {
	step int64
	mu   sync.Mutex
	all  []*tillSale
	made chan *tillSale
}

type tillSale struct {
	till   *till
	conn   paylink.SellerConn
	title  paylink.Title
	mu     sync.Mutex
	paid   int64
	sent   int64
	fell   bool
	closed chan struct{}
}

func newTill(step int64) *till { return &till{step: step, made: make(chan *tillSale, 9)} }

func (t *till) Open(conn paylink.SellerConn, title paylink.Title) paylink.Sale {
	s := &tillSale{till: t, conn: conn, title: title, closed: make(chan struct{})}
	conn.Send([]byte("terms"))
	t.mu.Lock()
	t.all = append(t.all, s)
	t.mu.Unlock()
	t.made <- s
	return s
}

func (s *tillSale) Message(p []byte) {
	switch string(p) {
	case "pay":
		s.mu.Lock()
		s.paid += s.till.step
		paid := s.paid
		s.mu.Unlock()
		s.conn.Allow(paid)
	case "cheat":
		s.conn.Fail(errors.New("a commitment that pays less"))
	}
}

func (s *tillSale) Sent(total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fell = s.fell || total <= s.sent
	s.sent = total
}

func (s *tillSale) Close() { close(s.closed) }

var payer = wiretest.Options{Fast: true, Extended: true}

func hello() []byte { return wiretest.Message(20, []byte("\x00d1:md6:bc_payi3eee")...) }

func payment(text string) []byte { return wiretest.Message(20, append([]byte{1}, text...)...) }

func send(t *testing.T, p *wiretest.Peer, b ...[]byte) {
	t.Helper()
	if _, err := p.W.Write(bytes.Join(b, nil)); err != nil {
		t.Fatal(err)
	}
}

func TestPayingPeerIsServedWhatItPaid(t *testing.T) {
	leaks(t)
	tt := makeTitle(t, "paid", 64<<10, 300_000)
	tt.desc.Ask = 1000
	shop := newTill(100_000)
	h := serve(t, Options{Payments: shop}, tt)
	p := h.dial(tt, payer)
	send(t, p, hello(), wiretest.Message(wiretest.Interested))
	sale := <-shop.made
	if sale.title.Ask != 1000 || sale.title.InfoHash != tt.ih || sale.conn.Remote() == (netip.AddrPort{}) {
		t.Errorf("sale of %+v to %v", sale.title, sale.conn.Remote())
	}
	for { // behind the extended handshake
		b, err := p.Until(wiretest.Extended)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) == "\x03terms" {
			break
		}
	}
	send(t, p, payment("pay"), payment("pay"), payment("pay"))
	if err := fetchAll(p, tt, 16<<10, 8); err != nil {
		t.Fatal(err)
	}
	send(t, p, payment("cheat"))
	<-sale.closed
	h.await(peerwire.ReasonPayment, 1)
	if sale.sent != 300_000 || sale.fell {
		t.Errorf("sale was told of %d bytes, fell %v", sale.sent, sale.fell)
	}
	if n := h.Stats().Titles[tt.ih].BytesSent; n != 300_000 {
		t.Errorf("counted %d bytes", n)
	}
	if err := sale.conn.Send([]byte("x")); !errors.Is(err, paylink.ErrConnClosed) {
		t.Errorf("send after the end: %v", err)
	}
}

func TestUnpaidPeerStaysChoked(t *testing.T) {
	tt := makeTitle(t, "paid", 64<<10, 300_000)
	tt.desc.Ask = 1000
	h := serve(t, Options{Payments: newTill(1)}, tt)
	p := h.dial(tt, payer)
	send(t, p, wiretest.Message(20, []byte("\x00d1:mdee")...), wiretest.Message(wiretest.Interested), wiretest.Request(0, 0, 100))
	if _, err := p.Until(wiretest.Reject); err != nil {
		t.Fatal(err)
	}
	h.pass(10 * time.Second)
	if st := h.Stats(); st.BytesSent != 0 || st.Conns != 1 {
		t.Errorf("%+v", st)
	}
}

// Two peers that do not pay share what is free, no faster than it is; the one
// that pays is not held up by it.
func TestFreeShare(t *testing.T) {
	leaks(t)
	const rate = 200_000
	tt := makeTitle(t, "paid", 64<<10, 1_000_000)
	tt.desc.Ask = 1000
	shop := newTill(2_000_000)
	// The clock runs as fast as it can: nobody is idle, the machine is slow.
	h := serve(t, Options{Payments: shop, FreeShare: rate, IdleTimeout: 1000 * time.Hour, WriteTimeout: 1000 * time.Hour}, tt)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		p := h.dial(tt, wiretest.Options{Fast: true})
		send(t, p, wiretest.Message(wiretest.Interested))
		wg.Go(func() {
			if err := fetchAll(p, tt, 16<<10, 8); err != nil {
				t.Error(err)
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	paying := h.dial(tt, payer)
	send(t, paying, hello(), payment("pay"))
	if err := fetchAll(paying, tt, 16<<10, 8); err != nil {
		t.Fatal(err)
	}
	<-shop.made
	begin := h.now.Load()
	for free := false; !free; {
		select {
		case <-done:
			free = true
		default:
			h.pass(100 * time.Millisecond)
			elapsed := time.Duration(h.now.Load() - begin).Seconds()
			// The paying one's million apart.
			if sent := h.Stats().BytesSent - 1_000_000; float64(sent) > rate*elapsed+maxGrant {
				t.Fatalf("%d free bytes in %.1f s", sent, elapsed)
			}
		}
	}
	if elapsed := time.Duration(h.now.Load() - begin).Seconds(); elapsed < 4 {
		t.Errorf("two million bytes at %d a second in %.1f s", rate, elapsed)
	}
}

func TestLimits(t *testing.T) {
	leaks(t)
	tt := makeTitle(t, "free", 64<<10, 300_000)
	for _, c := range []struct {
		opt    Options
		reason peerwire.Reason
	}{
		{Options{MaxConns: 2}, ReasonFull},
		{Options{MaxPerAddress: 2}, ReasonFullAddress},
	} {
		h := serve(t, c.opt, tt)
		a, b := h.dial(tt, payer), h.dial(tt, payer)
		if _, err := wiretest.Dial(h.addr, tt.ih, payer); err == nil {
			t.Errorf("%s: third connection accepted", c.reason)
		}
		h.await(c.reason, 1)
		if err := fetchAll(a, tt, 16<<10, 8); err != nil {
			t.Error(err)
		}
		b.Close()
		h.await(peerwire.ReasonClosed, 1)
		h.stop()
		if n := h.Stats().ByReason[peerwire.ReasonShutdown]; n != 1 {
			t.Errorf("%d connections shut down", n)
		}
	}
}

// A piece that does not have its hash is refused and reported once, and never
// sent; the title's other pieces are.
func TestCorruptPiece(t *testing.T) {
	tt := makeTitle(t, "free", 64<<10, 300_000)
	full := filepath.Join(tt.root, "free")
	bad := bytes.Clone(tt.data)
	bad[70_000] ^= 1
	if err := os.WriteFile(full, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	reports := make(chan int, 9)
	h := serve(t, Options{Unservable: func(_ [20]byte, piece int, _ error) { reports <- piece }}, tt)
	p := h.dial(tt, payer)
	send(t, p, wiretest.Request(1, 0, 100), wiretest.Request(1, 0, 200), wiretest.Request(2, 0, 100))
	rejects := 0
	for {
		kind, b, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if kind == wiretest.Reject {
			rejects++
		}
		if kind == wiretest.Piece {
			if rejects != 2 || b[3] != 2 || !bytes.Equal(b[8:], tt.data[128<<10:128<<10+100]) {
				t.Errorf("block of piece %d after %d rejects", b[3], rejects)
			}
			break
		}
	}
	if piece := <-reports; piece != 1 || len(reports) != 0 {
		t.Errorf("piece %d reported, %d reports more", piece, len(reports))
	}
}

// A title that cannot be opened ends its connections and no others; one without
// peers goes to sleep after a while.
func TestWakeAndSleep(t *testing.T) {
	leaks(t)
	gone := makeTitle(t, "gone", 64<<10, 300_000)
	gone.root = filepath.Join(gone.root, "unmounted")
	tt := makeTitle(t, "free", 64<<10, 300_000)
	h := serve(t, Options{SleepAfter: time.Minute}, gone, tt)
	if _, err := wiretest.Dial(h.addr, gone.ih, payer); err == nil {
		t.Error("a title without its disk was served")
	}
	h.await(ReasonTitle, 1)
	for i := range 3 {
		p := h.dial(tt, payer)
		if err := fetchAll(p, tt, 16<<10, 8); err != nil {
			t.Fatal(err)
		}
		p.Close()
		h.await(peerwire.ReasonClosed, int64(i+1))
		h.pass(40 * time.Second)
		if n := h.shelf.asleep.Load(); n != 0 {
			t.Fatalf("asleep after 40 s, %d", n)
		}
	}
	h.pass(61 * time.Second)
	if w, a := h.shelf.woken.Load(), h.shelf.asleep.Load(); w != 1 || a != 1 {
		t.Errorf("woken %d times, asleep %d", w, a)
	}
	if n := h.Stats().Titles[tt.ih].BytesSent; n != 900_000 {
		t.Errorf("counted %d bytes", n)
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(1000, func() time.Time { return now })
	ctx, cancel := context.WithCancel(context.Background())
	if err := l.Wait(ctx, 500); err != nil { // the burst
		t.Fatal(err)
	}
	if wait := l.next.Sub(now); wait != 400*time.Millisecond {
		t.Errorf("next after %v", wait)
	}
	// Those who leave while they wait have used nothing up: else peers that ask
	// and hang up could keep everybody waiting for hours.
	var gone sync.WaitGroup
	for range 100 {
		gone.Go(func() {
			if err := l.Wait(ctx, 128<<10); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	cancel()
	gone.Wait()
	if wait := l.next.Sub(now); wait != 400*time.Millisecond {
		t.Errorf("next after %v", wait)
	}
}

// Connections that do not finish their handshake keep out nobody who does: the
// oldest of them goes.
func TestHandshakesMakeWay(t *testing.T) {
	leaks(t)
	tt := makeTitle(t, "free", 64<<10, 300_000)
	h := serve(t, Options{MaxHandshakes: 3}, tt)
	for range 5 {
		nc, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	h.await(ReasonFullHandshakes, 2)
	if err := fetchAll(h.dial(tt, payer), tt, 16<<10, 8); err != nil {
		t.Error(err)
	}
	h.await(ReasonFullHandshakes, 3)
}

// Peers that neither pay nor can be served make way where all places are taken.
func TestIdlersMakeWay(t *testing.T) {
	leaks(t)
	paid := makeTitle(t, "paid", 64<<10, 300_000)
	paid.desc.Ask = 1000
	tt := makeTitle(t, "free", 64<<10, 300_001)
	shop := newTill(100_000)
	h := serve(t, Options{MaxConns: 3, Payments: shop}, tt, paid)
	first := h.dial(paid, payer)
	send(t, first, hello(), wiretest.Message(wiretest.Interested), payment("pay"))
	<-shop.made
	for range 2 {
		send(t, h.dial(paid, wiretest.Options{Fast: true}), wiretest.Message(wiretest.Interested))
	}
	if _, err := wiretest.Dial(h.addr, tt.ih, payer); err == nil {
		t.Error("places of newcomers were given away")
	}
	h.pass(idlerAfter)
	if err := fetchAll(h.dial(tt, payer), tt, 16<<10, 8); err != nil {
		t.Error(err)
	}
	h.await(ReasonMadeWay, 1)
	if err := first.Fetch(0, 64<<10, 64<<10, 16<<10, 4, nil); err != nil {
		t.Errorf("who pays: %v", err)
	}
}

// Who goes through the whole catalogue keeps no more than a few titles awake,
// and a title that cannot be opened is not tried for every connection.
func TestAwakeTitlesAreBounded(t *testing.T) {
	leaks(t)
	var titles []*testTitle
	for i := range 2 * maxIdle {
		titles = append(titles, makeTitle(t, fmt.Sprint("title", i), 64<<10, int64(100_000+i)))
	}
	gone := makeTitle(t, "gone", 64<<10, 300_000)
	gone.root = filepath.Join(gone.root, "unmounted")
	h := serve(t, Options{}, append(titles, gone)...)
	for i, tt := range titles {
		h.dial(tt, payer).Close()
		h.await(peerwire.ReasonClosed, int64(i+1))
	}
	h.pass(0)
	late := time.After(20 * time.Second)
	for h.shelf.woken.Load()-h.shelf.asleep.Load() > maxIdle {
		select {
		case <-h.shelf.slept:
		case <-late:
			t.Fatalf("%d titles awake", h.shelf.woken.Load()-h.shelf.asleep.Load())
		}
	}
	before := h.shelf.tried.Load()
	for i := range 3 {
		if _, err := wiretest.Dial(h.addr, gone.ih, payer); err == nil {
			t.Error("served")
		}
		h.await(ReasonTitle, int64(i+1))
	}
	if n := h.shelf.tried.Load() - before; n != 1 {
		t.Errorf("opened %d times", n)
	}
	h.pass(wakeAgain)
	if _, err := wiretest.Dial(h.addr, gone.ih, payer); err == nil {
		t.Error("served")
	}
	h.await(ReasonTitle, 4)
	if n := h.shelf.tried.Load() - before; n != 2 {
		t.Errorf("opened %d times in all", n)
	}
}

// A title that was changed or removed is not sold on as it was.
func TestDrop(t *testing.T) {
	leaks(t)
	tt := makeTitle(t, "free", 64<<10, 300_000)
	h := serve(t, Options{}, tt)
	p := h.dial(tt, payer)
	if err := fetchAll(p, tt, 16<<10, 8); err != nil {
		t.Fatal(err)
	}
	h.Drop(tt.ih)
	h.await(ReasonChanged, 1)
	if err := fetchAll(h.dial(tt, payer), tt, 16<<10, 8); err != nil {
		t.Error(err)
	}
	if n := h.shelf.woken.Load(); n != 2 {
		t.Errorf("woken %d times", n)
	}
	if n := h.shelf.asleep.Load(); n != 1 {
		t.Errorf("%d titles put to sleep", n)
	}
	h.Drop([20]byte{1})
}

func TestUploadRate(t *testing.T) {
	tt := makeTitle(t, "free", 64<<10, 300_000)
	h := serve(t, Options{UploadRate: 1 << 40}, tt)
	for _, o := range []wiretest.Options{{Fast: true}, {Fast: true, Crypto: 2}} {
		if err := fetchAll(h.dial(tt, o), tt, 16<<10, 8); err != nil {
			t.Error(err)
		}
	}
}
