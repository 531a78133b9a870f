package peerwire

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"expvar"
	"io"
	"iter"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/anacrolix/torrent/mse"
	"go.uber.org/goleak"

	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

const testPiece = 32 << 10

var testHash = [20]byte([]byte("info hash of a title"))

type oneHash struct{}

func (oneHash) Has(ih [20]byte) bool { return ih == testHash }
func (oneHash) All() iter.Seq[[20]byte] {
	return func(yield func([20]byte) bool) { yield(testHash) }
}

// events records what a connection tells its owner.
type events struct {
	extended chan Extended
	pay      chan []byte
	sent     chan int64
	failed   chan error
}

func (e *events) Extended(h Extended)         { e.extended <- h }
func (e *events) Interested(bool)             {}
func (e *events) Pay(p []byte)                { e.pay <- p }
func (e *events) Sent(total int64)            { e.sent <- total }
func (e *events) Unservable(_ int, err error) { e.failed <- err }

// rig is a connection over loopback and the peer at its other end.
type rig struct {
	*Conn
	events events
	peer   *wiretest.Peer
	ended  chan *Ended
	store  *pieces.Store
	now    time.Time
}

func start(t testing.TB, o wiretest.Options, size int64, change func(*Title)) *rig {
	t.Helper()
	root := t.TempDir()
	l := pieces.Layout{Name: "t", PieceLength: testPiece, Single: true, Files: []pieces.File{{Length: size}}}
	l.Hashes = make([]byte, 20*((size+testPiece-1)/testPiece))
	store, err := pieces.Open(root, l, pieces.Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	pattern := make([]byte, size)
	for i := range pattern {
		pattern[i] = byte(i / 7)
	}
	if _, err := store.WriteAt(pattern, 0); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := &rig{ended: make(chan *Ended, 1), store: store, now: time.Now()}
	r.events = events{make(chan Extended, 9), make(chan []byte, 9), make(chan int64, 1<<16), make(chan error, 9)}
	title := Title{InfoHash: testHash, Length: size, PieceLength: testPiece, Info: bytes.Repeat([]byte("i"), 20_000), Source: store, Pay: true}
	if change != nil {
		change(&title)
	}
	dialled := make(chan error, 1)
	go func() {
		var err error
		r.peer, err = wiretest.Dial(ln.Addr().String(), testHash, o)
		dialled <- err
	}()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	h := NewHost(Config{PeerID: [20]byte([]byte("-BC0001-abcdefghijkl"))})
	hs, err := h.Accept(context.Background(), nc, oneHash{})
	if err != nil {
		t.Fatal(err)
	}
	r.Conn = h.Conn(hs, title, &r.events, r.now)
	go func() { r.ended <- r.Run(context.Background()) }()
	if err := <-dialled; err != nil {
		t.Fatal(err)
	}
	r.peer.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() {
		r.End(ReasonShutdown, nil)
		r.peer.Close()
	})
	return r
}

// next reads one message and compares its kind.
func (r *rig) next(t *testing.T, want byte) []byte {
	t.Helper()
	kind, payload, err := r.peer.Next()
	if err != nil || kind != want {
		t.Fatalf("message %d, %v; want %d", kind, err, want)
	}
	return payload
}

func (r *rig) send(t *testing.T, b ...[]byte) {
	t.Helper()
	if _, err := r.peer.W.Write(bytes.Join(b, nil)); err != nil {
		t.Fatal(err)
	}
}

// sync returns when the connection has handled all that was sent to it.
func (r *rig) sync(t *testing.T) {
	t.Helper()
	r.send(t, wiretest.Message(20, []byte("\x00de")...))
	<-r.events.extended
}

// parked returns when nothing is being written.
func (r *rig) parked() {
	for {
		r.mu.Lock()
		writing := r.writing
		r.mu.Unlock()
		if !writing {
			return
		}
		runtime.Gosched()
	}
}

func (r *rig) reason(t *testing.T, want Reason) {
	t.Helper()
	select {
	case e := <-r.ended:
		if !errors.Is(e, want) {
			t.Errorf("ended for %v, want %v", e, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("still open, want %v", want)
	}
}

// What the box says first, to the byte.
func TestGoldenHello(t *testing.T) {
	hello := "\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x04" + string(testHash[:]) + "-BC0001-abcdefghijkl"
	ext := "\x00\x00\x00\x60\x14\x00d1:md6:bc_payi1e11:ut_metadatai2ee13:metadata_sizei20000e4:reqqi512e1:v6:BitCDN6:yourip4:\x7f\x00\x00\x01e"
	for _, c := range []struct {
		name string
		o    wiretest.Options
		have []byte
		want string
	}{
		{"bare", wiretest.Options{}, nil, hello + "\x00\x00\x00\x03\x05\xff\x80"},
		{"fast", wiretest.Options{Fast: true}, nil, hello + "\x00\x00\x00\x01\x0e"},
		{"all", wiretest.Options{Fast: true, Extended: true}, nil, hello + ext + "\x00\x00\x00\x01\x0e"},
		{"in part", wiretest.Options{Fast: true}, []byte{0x0f, 0xff}, hello + "\x00\x00\x00\x03\x05\x0f\x80"},
	} {
		r := start(t, c.o, 9*testPiece-1, func(t *Title) { t.Have = c.have })
		got := append(r.peer.Answer[:], make([]byte, len(c.want)-68)...)
		if _, err := io.ReadFull(r.peer.R, got[68:]); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if string(got) != c.want {
			t.Errorf("%s:\n%s want\n%s", c.name, hex.Dump(got), hex.Dump([]byte(c.want)))
		}
	}
}

func TestGate(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	r := start(t, wiretest.Options{Fast: true}, 10*testPiece, nil)
	r.next(t, wiretest.HaveAll)
	block := func(i uint32) []byte { return wiretest.Request(i, 0, 16<<10) }

	r.send(t, block(0)) // choked: refused
	r.next(t, wiretest.Reject)

	r.SetAllowed(40 << 10)
	r.next(t, wiretest.Unchoke)
	r.send(t, block(1), block(2), block(3), block(4), wiretest.Numbers(wiretest.Cancel, 4, 0, 16<<10))
	// The third passes the allowance and waits; the cancelled one is rejected,
	// before or after the others.
	for blocks, rejects := 0, 0; blocks < 2 || rejects < 1; {
		switch kind, b, err := r.peer.Next(); {
		case err == nil && kind == wiretest.Piece && blocks < 2:
			blocks++
		case err == nil && kind == wiretest.Reject && bytes.Equal(b, block(4)[5:]):
			rejects++
		default:
			t.Fatalf("message %d, %x, %v", kind, b, err)
		}
	}
	r.sync(t)
	r.parked()
	if got := r.Sent(); got != 32<<10 {
		t.Errorf("sent %d", got)
	}
	if _, lacking := r.Wants(); lacking != 8<<10 {
		t.Errorf("lacking %d", lacking)
	}
	r.SetAllowed(48 << 10)
	if b := r.next(t, wiretest.Piece); !bytes.Equal(b[:8], block(3)[5:13]) {
		t.Errorf("sent %x", b[:8])
	}

	// Choke, then the rejects, then the unchoke: else stock clients stall.
	r.send(t, block(5), block(6))
	r.sync(t)
	r.Stop()
	r.SetAllowed(Unlimited)
	r.next(t, wiretest.Choke)
	r.next(t, wiretest.Reject)
	r.next(t, wiretest.Reject)
	r.next(t, wiretest.Unchoke)
	r.send(t, block(5))
	r.next(t, wiretest.Piece)

	var last int64
	for last != 64<<10 {
		total := <-r.events.sent
		if total <= last || total%(16<<10) != 0 {
			t.Fatalf("reported %d after %d", total, last)
		}
		last = total
	}
	// More requests than may be queued are refused.
	r.parked()
	r.Stop()
	r.next(t, wiretest.Choke)
	r.SetAllowed(r.Sent() + 1)
	r.next(t, wiretest.Unchoke)
	r.send(t, bytes.Repeat(block(1), DefaultQueue+1))
	r.next(t, wiretest.Reject)
	r.peer.Close()
	r.reason(t, ReasonClosed)
}

// A peer without the fast extension is never sent a reject.
func TestGateWithoutFast(t *testing.T) {
	r := start(t, wiretest.Options{}, 10*testPiece, nil)
	r.next(t, wiretest.Bitfield)
	r.send(t, wiretest.Request(0, 0, 100))
	r.sync(t)
	r.SetAllowed(100)
	r.next(t, wiretest.Unchoke)
	r.send(t, wiretest.Request(1, 0, 100), wiretest.Request(2, 0, 100))
	r.next(t, wiretest.Piece)
	r.Stop()
	r.next(t, wiretest.Choke)
	r.SetAllowed(Unlimited)
	r.next(t, wiretest.Unchoke)
	r.send(t, wiretest.Request(3, 0, 100))
	if b := r.next(t, wiretest.Piece); b[3] != 3 {
		t.Errorf("block of piece %d after the choke", b[3])
	}
}

func TestPayAndMetadata(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true, Extended: true}, 10*testPiece, nil)
	r.next(t, wiretest.Extended)
	r.next(t, wiretest.HaveAll)
	if err := r.Send([]byte("x")); err != ErrUnsupported {
		t.Errorf("before the handshake: %v", err)
	}
	r.send(t, wiretest.Message(20, []byte("\x00d1:md6:bc_payi7e11:ut_metadatai9ee4:reqqi99e1:v5:abc\x00\xffe")...))
	if h := <-r.events.extended; h != (Extended{Version: "abc??", Pay: 7, Metadata: 9, Queue: 99}) {
		t.Errorf("extended handshake %+v", h)
	}
	if err := r.Send([]byte("to you")); err != nil {
		t.Error(err)
	}
	if b := r.next(t, wiretest.Extended); string(b) != "\x07to you" {
		t.Errorf("payment %q", b)
	}
	big := bytes.Repeat([]byte("p"), MaxPay)
	r.send(t, wiretest.Message(20, append([]byte{1}, big...)...))
	if got := <-r.events.pay; !bytes.Equal(got, big) {
		t.Errorf("payload of %d bytes", len(got))
	}
	for piece, want := range map[string]string{
		"1":    "\x09d8:msg_typei1e5:piecei1e10:total_sizei20000ee" + strings.Repeat("i", 20_000-metadataPiece),
		"2":    "\x09d8:msg_typei2e5:piecei2ee",
		"-1":   "\x09d8:msg_typei2e5:piecei-1ee",
		"9999": "\x09d8:msg_typei2e5:piecei9999ee",
	} {
		r.send(t, wiretest.Message(20, []byte("\x02d8:msg_typei0e5:piecei"+piece+"ee")...))
		if b := r.next(t, wiretest.Extended); string(b) != want {
			t.Errorf("metadata %s: %.60q", piece, b)
		}
	}
	if err := r.Send(nil); err != ErrPayload {
		t.Errorf("empty: %v", err)
	}
	// A peer that does not read gets no unbounded queue.
	err := error(nil)
	for i := 0; i < 1000 && err == nil; i++ {
		err = r.Send(big)
	}
	if err != ErrBacklog {
		t.Errorf("backlog: %v", err)
	}
	r.End(ReasonPayment, nil)
	if err := r.Send(big); err != ErrClosed {
		t.Errorf("after the end: %v", err)
	}
	r.reason(t, ReasonPayment)
}

// Who is hung up on for a reason of the owner's hears it first.
func TestLastWords(t *testing.T) {
	hello := wiretest.Message(20, []byte("\x00d1:md6:bc_payi7eee")...)
	r := start(t, wiretest.Options{Fast: true, Extended: true}, 10*testPiece, nil)
	r.next(t, wiretest.Extended)
	r.next(t, wiretest.HaveAll)
	r.send(t, hello)
	<-r.events.extended
	if err := r.Send([]byte("because")); err != nil {
		t.Fatal(err)
	}
	r.Finish(ReasonPayment, nil)
	r.Finish(ReasonIdle, nil) // has ended already
	if b := r.next(t, wiretest.Extended); string(b) != "\x07because" {
		t.Errorf("%q", b)
	}
	r.reason(t, ReasonPayment)

	// One who does not read is not waited for.
	r = start(t, wiretest.Options{Fast: true, Extended: true}, 10*testPiece, nil)
	r.send(t, hello)
	<-r.events.extended
	for err := error(nil); err == nil; {
		err = r.Send(bytes.Repeat([]byte("p"), MaxPay)) // until the kernel takes no more
	}
	r.Finish(ReasonPayment, nil)
	r.Tick(r.now.Add(time.Second))
	select {
	case e := <-r.ended:
		t.Errorf("ended before its time: %v", e)
	default:
	}
	r.Tick(r.now.Add(2 * time.Second))
	r.reason(t, ReasonPayment)

	// And what has nothing to say ends at once.
	r = start(t, wiretest.Options{Fast: true}, testPiece, nil)
	r.next(t, wiretest.HaveAll)
	r.parked()
	r.Finish(ReasonPayment, nil)
	r.reason(t, ReasonPayment)
}

func TestClock(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true}, testPiece, nil)
	r.next(t, wiretest.HaveAll)
	r.sync(t)
	r.parked()
	r.Tick(r.now.Add(111 * time.Second))
	r.next(t, 255)
	r.sync(t) // heard from at 111 s
	r.parked()
	r.Tick(r.now.Add(260 * time.Second))
	r.next(t, 255)
	r.parked()
	r.Tick(r.now.Add(262 * time.Second))
	r.reason(t, ReasonIdle)
}

// The time of day jumps when a box without a battery-backed clock hears from a
// time server. That is no reason to end every connection.
func TestTimeOfDayJumps(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true}, testPiece, nil)
	r.next(t, wiretest.HaveAll)
	r.sync(t)
	r.parked()
	for _, jump := range []time.Duration{24 * time.Hour, -48 * time.Hour} {
		now := time.Now()
		if d := jumped(now, jump).Round(0).Sub(now.Round(0)); d != jump {
			t.Fatalf("jumped by %v", d)
		}
		r.Tick(jumped(now, jump))
	}
	r.End(ReasonShutdown, nil)
	r.reason(t, ReasonShutdown)
}

// jumped is now after the time of day was set, while the monotonic clock that
// time.Now reads too went on: a state that only the system can bring about.
func jumped(now time.Time, by time.Duration) time.Time {
	const nanoseconds = 30 // bits below the seconds in the first word
	*(*uint64)(unsafe.Pointer(&now)) += uint64(int64(by/time.Second)) << nanoseconds
	return now
}

// A file that is cut in the middle of a block ends the connection: the peer is
// never sent anything else in its place.
func TestTruncatedFile(t *testing.T) {
	for name, crypto := range map[string]mse.CryptoMethod{"plain": 0, "encrypted": mse.CryptoMethodRC4} {
		r := start(t, wiretest.Options{Fast: true, Crypto: crypto}, 4*testPiece, nil)
		r.next(t, wiretest.HaveAll)
		r.SetAllowed(Unlimited)
		r.next(t, wiretest.Unchoke)
		sections, err := r.store.Sections(nil, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := sections[0].File.Truncate(1000); err != nil {
			t.Fatal(err)
		}
		r.store.Release(sections)
		r.send(t, wiretest.Request(0, 0, 16<<10))
		r.reason(t, ReasonStorage)
		if err := <-r.events.failed; err == nil {
			t.Errorf("%s: not reported", name)
		}
		if r.Sent() != 0 {
			t.Errorf("%s: counted %d bytes", name, r.Sent())
		}
	}
}

// BEP 10: a later handshake tells what has changed; 0 takes an extension back.
func TestLaterExtendedHandshakes(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true, Extended: true}, testPiece, nil)
	r.next(t, wiretest.Extended)
	r.next(t, wiretest.HaveAll)
	say := func(text string) Extended {
		r.send(t, wiretest.Message(20, []byte("\x00"+text)...))
		return <-r.events.extended
	}
	say("d1:md6:bc_payi7e11:ut_metadatai9ee4:reqqi99e1:v3:abce")
	if h := say("d1:md6:ut_pexi3eee"); h != (Extended{Version: "abc", Pay: 7, Metadata: 9, Queue: 99}) {
		t.Errorf("after one about something else: %+v", h)
	}
	if err := r.Send([]byte("x")); err != nil {
		t.Errorf("after one about something else: %v", err)
	}
	if h := say("d1:md6:bc_payi0eee"); h.Pay != 0 || h.Metadata != 9 {
		t.Errorf("taken back: %+v", h)
	}
	if err := r.Send([]byte("x")); err != ErrUnsupported {
		t.Errorf("taken back: %v", err)
	}
}

// The library counts the methods that peers offer by a number that they choose,
// and never forgets one.
func TestOfferedMethodsAreForgotten(t *testing.T) {
	for i := range uint32(20) {
		start(t, wiretest.Options{Fast: true, Crypto: mse.CryptoMethodRC4 | mse.CryptoMethod(i+1)<<8}, testPiece, nil)
	}
	n := 0
	expvar.Get("mseCryptoProvides").(*expvar.Map).Do(func(expvar.KeyValue) { n++ })
	if n > 1 {
		t.Errorf("%d kept", n)
	}
}

// A title of very many pieces has a bitfield that is longer than what may wait
// for a peer that does not read.
func TestLongBitfield(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	c := NewHost(Config{}).Conn(&Handshake{nc: ours}, Title{Length: 600_000, PieceLength: 1}, &events{}, time.Now())
	c.SetAllowed(Unlimited)
	c.Stop()
	if c.end != nil {
		t.Error(c.end)
	}
	if err := c.Send([]byte("x")); err != ErrUnsupported {
		t.Error(err)
	}
}

// A peer that goes on asking for a piece that cannot be read ends.
func TestUnreadablePieceFlood(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true}, 4*testPiece, func(t *Title) { t.Source = lost{t.Source} })
	go func() {
		for range r.events.failed {
		}
	}()
	r.SetAllowed(Unlimited)
	r.next(t, wiretest.HaveAll)
	r.next(t, wiretest.Unchoke)
	for range 4 * DefaultQueue {
		r.send(t, wiretest.Request(0, 0, 16<<10))
		if kind, _, err := r.peer.Next(); err != nil {
			break
		} else if kind != wiretest.Reject {
			t.Fatalf("message %d", kind)
		}
	}
	r.reason(t, ReasonRequestFlood)
}

type lost struct{ Source }

func (lost) Ready(int) bool                   { return false }
func (lost) Check(context.Context, int) error { return pieces.ErrMissing }

// What the limit granted for a block that was cancelled is used for the next.
func TestCancelledBlockKeepsItsGrant(t *testing.T) {
	l := &countingLimit{asked: make(chan int), grant: make(chan struct{})}
	r := start(t, wiretest.Options{Fast: true}, 4*testPiece, func(t *Title) { t.Limit = l })
	r.SetAllowed(Unlimited)
	r.next(t, wiretest.HaveAll)
	r.next(t, wiretest.Unchoke)
	r.send(t, wiretest.Request(0, 0, 16<<10))
	if n := <-l.asked; n != 16<<10 {
		t.Fatalf("asked for %d", n)
	}
	r.send(t, wiretest.Numbers(wiretest.Cancel, 0, 0, 16<<10), wiretest.Request(1, 0, 20<<10))
	r.sync(t)
	l.grant <- struct{}{}
	r.next(t, wiretest.Reject)
	if n := <-l.asked; n != 4<<10 {
		t.Errorf("asked for %d more", n)
	}
	l.grant <- struct{}{}
	r.next(t, wiretest.Piece)
}

type countingLimit struct {
	asked chan int
	grant chan struct{}
}

func (l *countingLimit) Wait(ctx context.Context, n int) error {
	l.asked <- n
	select {
	case <-l.grant:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A peer's end does not wait for a disk that hangs, with locks held.
func TestEndWhileTheDiskHangs(t *testing.T) {
	hang := &hanging{reached: make(chan struct{}), free: make(chan struct{})}
	r := start(t, wiretest.Options{Fast: true}, 4*testPiece, func(t *Title) { hang.Source = t.Source; t.Source = hang })
	r.SetAllowed(Unlimited)
	r.send(t, wiretest.Request(0, 0, 1), wiretest.Request(0, 1, 1), wiretest.Request(0, 2, 1))
	<-hang.reached
	r.End(ReasonShutdown, nil)
	r.Tick(r.now)
	close(hang.free)
	r.reason(t, ReasonShutdown)
}

// hanging stands still within the call that holds the connection's descriptor:
// as sendfile does when the disk does not answer.
type hanging struct {
	Source
	calls         atomic.Int32
	reached, free chan struct{}
}

func (h *hanging) Sections(dst []pieces.Section, off, n int64) ([]pieces.Section, error) {
	if h.calls.Add(1) == 2 {
		close(h.reached)
		<-h.free
	}
	return h.Source.Sections(dst, off, n)
}

func TestTooManyAnswers(t *testing.T) {
	r := start(t, wiretest.Options{Fast: true, Extended: true}, testPiece, nil)
	r.peer.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	r.send(t, wiretest.Message(20, []byte("\x00d1:md11:ut_metadatai9eee")...))
	bad := bytes.Repeat(wiretest.Message(20, []byte("\x02d8:msg_typei0e5:piecei99999ee")...), 1000)
	go func() {
		for { // until the other end hangs up
			if _, err := r.peer.W.Write(bad); err != nil {
				return
			}
		}
	}()
	r.reason(t, ReasonSlowReader)
}

// In the steady state a block costs no allocation.
func TestNoAllocationPerBlock(t *testing.T) {
	const size = 64 * testPiece
	for name, crypto := range map[string]mse.CryptoMethod{"sendfile": 0, "encrypted": mse.CryptoMethodRC4} {
		r := start(t, wiretest.Options{Fast: true, Crypto: crypto}, size, nil)
		r.SetAllowed(Unlimited)
		fetch := func() {
			if err := r.peer.Fetch(0, size, testPiece, 16<<10, 32, nil); err != nil {
				t.Fatal(err)
			}
		}
		fetch()
		const rounds = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			fetch()
		}
		runtime.ReadMemStats(&after)
		// The peer of this process is counted too; what it allocates is for
		// each round, not for each block.
		blocks := rounds * size / (16 << 10)
		if n := after.Mallocs - before.Mallocs; n > uint64(blocks)/4 {
			t.Errorf("%s: %d allocations for %d blocks", name, n, blocks)
		} else {
			t.Logf("%s: %d allocations for %d blocks", name, n, blocks)
		}
	}
}
