// Package peerwire is one BitTorrent connection on the upload side.
//
// It speaks BEP 3 with obfuscated handshakes (MSE), fast extension (BEP 6),
// metadata (BEP 9) and extension messages (BEP 10), and knows nothing of
// prices: the owner says through SetAllowed how many bytes a peer may be sent,
// through Stop that it is sent none, and learns through Events what happens.
//
// The peer is hostile: each message's length is checked against its type before
// anything is read or allocated, requests wait in a ring of fixed size, answers
// that the peer does not read are bounded, and every end has a Reason.
//
// A connection costs one goroutine, which reads, and a second one only while
// there is something to send. Plain blocks are sent from the file with
// sendfile, encrypted ones through a pooled buffer; in the steady state neither
// allocates.
package peerwire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

var (
	// ErrClosed says that the connection has ended.
	ErrClosed = errors.New("connection closed")
	// ErrBacklog says that the peer does not read its payment messages.
	ErrBacklog = errors.New("too many payment messages wait")
	// ErrUnsupported says that the peer does not speak bc_pay.
	ErrUnsupported = errors.New("peer does not speak bc_pay")
	// ErrPayload says that a payment message is empty or above MaxPay.
	ErrPayload = errors.New("payment message of impossible length")
)

// Unlimited as an allowance is more than any title has bytes.
const Unlimited = math.MaxInt64

// Bounds of what waits for a peer that does not read, bytes.
const (
	maxPayBacklog    = 192 << 10
	maxAnswerBacklog = 64 << 10
)

// reportEvery is how many bytes are sent, at most, before Events.Sent is told.
const reportEvery = 256 << 10

// Source is where blocks come from. pieces.Store is one.
type Source interface {
	// Check makes sure that the piece on the disk has its hash.
	Check(ctx context.Context, piece int) error
	// Ready reports whether Check would return nil at once.
	Ready(piece int) bool
	// Forget makes the next Check of the piece look at the disk.
	Forget(piece int)
	// ReadAt is io.ReaderAt over the title's bytes.
	ReadAt(p []byte, off int64) (int, error)
	// Sections says which files hold the bytes, and pins them until Release.
	// The error is pieces.ErrSections where there are too many.
	Sections(dst []pieces.Section, off, n int64) ([]pieces.Section, error)
	Release(sections []pieces.Section)
}

// Limiter spaces what all connections send together.
type Limiter interface {
	// Wait returns when n bytes may be sent, or with the context's error.
	Wait(ctx context.Context, n int) error
}

// Title is what a connection needs to know of the torrent it serves.
type Title struct {
	InfoHash    [20]byte
	Length      int64  // bytes
	PieceLength int64  // bytes
	Info        []byte // the bencoded info dictionary, for magnets; may be nil
	// Have has a bit for each piece, the first one highest (BEP 3); nil where
	// all pieces are there.
	Have   []byte
	Source Source
	// Pay says that bc_pay is offered to peers.
	Pay bool
	// Limit is nil where nothing is limited.
	Limit Limiter
}

func (t *Title) pieces() int { return int((t.Length + t.PieceLength - 1) / t.PieceLength) }

func (t *Title) has(piece uint32) bool {
	return t.Have == nil || t.Have[piece/8]&(0x80>>(piece%8)) != 0
}

// Events is told what happens on a connection. Its methods must not block and
// may call those of the Conn.
type Events interface {
	// Extended hands over the peer's extended handshake; it may come again,
	// with all that still holds of those before.
	Extended(h Extended)
	// Interested says whether the peer wants anything.
	Interested(yes bool)
	// Pay hands over one bc_pay payload, the receiver's own.
	Pay(payload []byte)
	// Sent reports the bytes of block data written to the peer since the
	// connection began, whole blocks only: after at most 256 KiB, when no
	// request is left, and when the allowance is used up. Totals rise.
	Sent(total int64)
	// Unservable says that a piece cannot be sent, and why.
	Unservable(piece int, err error)
}

// Conn is one connection. Its methods may be called from any goroutine, and
// only Run blocks.
type Conn struct {
	host     *Host
	hs       *Handshake
	title    Title
	events   Events
	reader   reader
	extended Extended // what the peer has said so far; of the reading goroutine
	asked    bool     // requests came since serveNow; of the reading goroutine
	writer   writer
	remote   netip.AddrPort
	wake     func() // c.write, made once: starting it must not allocate

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	done   sync.WaitGroup // the writing goroutine

	sent atomic.Int64 // bytes of whole blocks written
	// Nanoseconds since epoch and not of the time of day, which may be set
	// meanwhile; never 0.
	epoch     time.Time
	now       atomic.Int64 // as of the newest Tick
	lastRead  atomic.Int64 // the same clock
	lastWrite atomic.Int64
	stalled   atomic.Int64 // since when one write has not been done; 0 for none
	finishing atomic.Bool  // last is set

	mu         sync.Mutex
	end        *Ended
	last       *Ended // the end that comes when out has been sent
	lastTicks  int    // since last was set
	running    bool   // Run has begun
	writing    bool   // the writing goroutine exists
	choked     bool
	interested bool
	allowed    int64
	committed  int64 // bytes of blocks written or being written
	queue      queue
	refused    int // requests turned away since the last progress
	out        []byte
	outHello   int // how much of out is the hello: a bitfield may be long
	outPay     int // how much of out is payment messages
	payID      byte
	metadataID byte
	metadata   []uint64 // pieces of metadata that were asked for
	metaLeft   int      // how many more may be
}

// Conn makes a connection of a peer's handshake. The peer is choked at first.
// now should carry a monotonic clock reading, as that of time.Now does; Tick
// continues it.
func (h *Host) Conn(hs *Handshake, t Title, e Events, now time.Time) *Conn {
	c := &Conn{host: h, hs: hs, title: t, events: e, choked: true}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wake = c.write
	c.remote = addrPort(hs.nc)
	c.reader = reader{src: hs.src, pieces: t.pieces(), pay: t.Pay}
	c.reader.filled = func() { c.lastRead.Store(c.now.Load()) }
	c.reader.drained = c.serveNow
	c.writer.init(c)
	c.metaLeft = 16 + 4*((len(t.Info)+metadataPiece-1)/metadataPiece)
	c.epoch = now.Add(-1)
	for _, clock := range []*atomic.Int64{&c.now, &c.lastRead, &c.lastWrite} {
		clock.Store(1)
	}
	c.out = c.appendHello(nil)
	c.outHello = len(c.out)
	return c
}

func addrPort(nc net.Conn) netip.AddrPort {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}

// appendHello appends this end's handshake and what follows it at once.
func (c *Conn) appendHello(b []byte) []byte {
	t := &c.title
	b = append(b, protocol...)
	b = append(b, 0, 0, 0, 0, 0, reservedExtended, 0, reservedFast)
	b = append(b, t.InfoHash[:]...)
	b = append(b, c.host.cfg.PeerID[:]...)
	if c.hs.Extended {
		var ip []byte
		if a := c.remote.Addr(); a.IsValid() {
			ip = a.AsSlice()
		}
		b = appendExtended(b, c.host.cfg.Version, c.host.cfg.Queue, len(t.Info), t.Pay, ip)
	}
	if t.Have == nil && c.hs.Fast {
		return appendSimple(b, kindHaveAll)
	}
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(kindBitfield))
	n := t.pieces()
	for i := range (n + 7) / 8 {
		bits := byte(0xff)
		if t.Have != nil {
			bits = t.Have[i]
		}
		if left := n - 8*i; left < 8 {
			bits &= 0xff << (8 - left) // spare bits are zero, or peers hang up
		}
		b = append(b, bits)
	}
	return setLength(b, start)
}

// Run serves the connection until it ends, and returns why. It is called once.
func (c *Conn) Run(ctx context.Context) *Ended {
	stop := context.AfterFunc(ctx, func() { c.End(ReasonShutdown, context.Cause(ctx)) })
	defer stop()
	defer c.hs.nc.Close()
	c.writer.tune()
	c.mu.Lock()
	if c.end == nil {
		if err := c.hs.nc.SetDeadline(time.Time{}); err != nil {
			c.endLocked(ReasonClosed, err)
		}
	}
	c.running = true
	c.kick()
	c.mu.Unlock()

	var m message
	for {
		err := c.reader.next(&m)
		if err == nil {
			err = c.handle(&m)
		}
		if err != nil {
			c.fail(ReasonClosed, err)
			break
		}
	}
	c.done.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// fail ends the connection for the reason that err carries, or else for r.
func (c *Conn) fail(r Reason, err error) {
	if e := (*Ended)(nil); errors.As(err, &e) {
		r, err = e.Reason, e.Err
	}
	c.End(r, err)
}

// End ends the connection for a reason, unless it has ended. err may be nil.
func (c *Conn) End(r Reason, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(r, err)
}

// Finish is End for when the peer has been sent what was queued for it: it is
// told why. It takes two Ticks at the most; meanwhile the peer gets no block
// and is not listened to.
func (c *Conn) Finish(r Reason, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil || c.last != nil {
		return
	}
	c.last = &Ended{r, err}
	c.finishing.Store(true)
	c.queue = queue{}
	c.metadata = nil
	c.kick()
	c.rest()
}

// rest ends a connection that is finishing and has nothing more to send. c.mu is
// held.
func (c *Conn) rest() {
	if c.last != nil && !c.writing && (len(c.out) == 0 || !c.running) {
		c.endLocked(c.last.Reason, c.last.Err)
	}
}

func (c *Conn) endLocked(r Reason, err error) {
	if c.end != nil {
		return
	}
	c.end = &Ended{r, err}
	c.queue = queue{}
	c.out, c.metadata = nil, nil
	c.cancel()
	// Close would wait for a call that waits for the disk, with c.mu held: Run
	// closes when both goroutines have gone.
	_ = c.hs.nc.SetDeadline(time.Unix(1, 0))
}

// Remote is the peer's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Handshake is what the peer said at first.
func (c *Conn) Handshake() *Handshake { return c.hs }

// Sent is how many bytes of block data the peer was sent, whole blocks only.
func (c *Conn) Sent() int64 { return c.sent.Load() }

// Wants reports whether the peer is interested, and how many bytes its next
// request lacks: 0 where it has none or may have it.
func (c *Conn) Wants() (interested bool, lacking int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.queue.peek(); ok && !c.choked {
		lacking = max(0, int64(r.length)-(c.allowed-c.committed))
	}
	return c.interested, lacking
}

// Allowed is the allowance that was set last.
func (c *Conn) Allowed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed
}

// SetAllowed sets how many bytes of block data the peer may be sent, counted
// from the beginning of the connection. A rise above what was sent unchokes a
// choked peer; requests beyond the allowance wait.
func (c *Conn) SetAllowed(total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return
	}
	c.allowed = total
	if c.choked && total > c.committed {
		c.choked = false
		c.refused = 0
		c.answer(appendSimple(c.out, kindUnchoke))
	}
	c.kick()
}

// Stop chokes the peer and rejects what it has asked for. A peer without BEP 6
// takes its requests for void itself. The next SetAllowed may unchoke.
//
// Rejects follow the choke: stock clients that are refused while unchoked ask
// for nothing until the next unchoke.
func (c *Conn) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed = 0
	if c.end != nil || c.choked {
		return
	}
	c.choked = true
	c.refused = 0
	b := appendSimple(c.out, kindChoke)
	if c.hs.Fast {
		for i := range c.queue.n {
			b = appendReject(b, *c.queue.at(i))
		}
	}
	c.queue.clear()
	c.answer(b)
}

// Send queues one bc_pay payload. Errors are ErrClosed, ErrUnsupported,
// ErrPayload and ErrBacklog.
func (c *Conn) Send(payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch n := len(payload); {
	case c.end != nil:
		return ErrClosed
	case c.payID == 0:
		return ErrUnsupported
	case n == 0 || n > MaxPay:
		return ErrPayload
	case c.outPay+n > maxPayBacklog:
		return ErrBacklog
	}
	start := len(c.out)
	c.out = append(c.out, 0, 0, 0, 0, byte(kindExtended), c.payID)
	c.out = setLength(append(c.out, payload...), start)
	c.outPay += len(c.out) - start
	c.kick()
	return nil
}

// lastWords is how many Ticks a finishing connection has.
const lastWords = 2

// Tick tells the time. It is called every second or so and is what sends
// keepalives and ends connections that idle or do not read.
func (c *Conn) Tick(now time.Time) {
	t := max(1, int64(now.Sub(c.epoch)))
	c.now.Store(t)
	if c.finishing.Load() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.lastTicks++; c.lastTicks == lastWords {
			c.endLocked(c.last.Reason, c.last.Err)
		}
		return
	}
	cfg := &c.host.cfg
	if s := c.stalled.Load(); s != 0 {
		if t-s > int64(cfg.WriteTimeout) {
			c.End(ReasonSlowReader, fmt.Errorf("nothing taken for %v", time.Duration(t-s)))
		}
		return // it cannot have read what it should answer
	}
	if d := t - c.lastRead.Load(); d > int64(cfg.IdleTimeout) {
		c.End(ReasonIdle, fmt.Errorf("silent for %v", time.Duration(d)))
		return
	}
	if t-c.lastWrite.Load() > int64(keepaliveAfter) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.end == nil && !c.writing {
			c.lastWrite.Store(t)
			c.answer(append(c.out, 0, 0, 0, 0))
		}
	}
}

// answer takes b, which is c.out and more, as what is to be sent. c.mu is held.
func (c *Conn) answer(b []byte) {
	c.out = b
	if len(b)-c.outHello-c.outPay > maxAnswerBacklog {
		c.endLocked(ReasonSlowReader, errors.New("too many answers wait"))
		return
	}
	c.kick()
}

// kick starts the writing goroutine where there is work for it. c.mu is held.
func (c *Conn) kick() {
	if !c.writing && c.running && c.end == nil && c.work() {
		c.writing = true
		c.done.Add(1)
		go c.wake()
	}
}

// work reports whether something can be sent now. c.mu is held.
func (c *Conn) work() bool {
	return len(c.out) > 0 || len(c.metadata) > 0 || c.ready()
}

// ready reports whether the next request may be answered. c.mu is held.
func (c *Conn) ready() bool {
	r, ok := c.queue.peek()
	return ok && int64(r.length) <= c.allowed-c.committed
}

func (c *Conn) handle(m *message) error {
	if c.finishing.Load() {
		return nil
	}
	switch m.kind {
	case kindRequest:
		return c.handleRequest(m.request)
	case kindCancel:
		c.handleCancel(m.request)
	case kindInterested, kindNotInterested:
		yes := m.kind == kindInterested
		c.mu.Lock()
		changed := c.interested != yes
		c.interested = yes
		c.mu.Unlock()
		if changed {
			c.events.Interested(yes)
		}
	case kindExtended:
		switch m.ext {
		case extHandshake:
			return c.handleExtended(m.payload)
		case extMetadata:
			return c.handleMetadata(m.payload)
		case extPay:
			if len(m.payload) > 0 {
				c.events.Pay(m.payload)
			}
		}
	}
	return nil
}

func (c *Conn) handleRequest(r request) error {
	t := &c.title
	begin := int64(r.begin)
	size := int64(0)
	if int64(r.piece) < int64(t.pieces()) {
		size = min(t.PieceLength, t.Length-int64(r.piece)*t.PieceLength)
	}
	if r.length == 0 || r.length > MaxBlock || begin+int64(r.length) > size {
		return ended(ReasonBadRequest, "%d bytes at %d of piece %d", r.length, r.begin, r.piece)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return c.end
	}
	most := c.host.cfg.Queue
	if !c.choked && !c.queue.full(most) && t.has(r.piece) {
		c.queue.push(r, most)
		c.asked = true // serveNow comes when all that has arrived is read
		return nil
	}
	if c.refused++; c.refused > 2*most {
		return ended(ReasonRequestFlood, "%d requests refused, choked %v", c.refused, c.choked)
	}
	if c.hs.Fast {
		c.answer(appendReject(c.out, r))
	}
	return nil
}

func (c *Conn) handleCancel(r request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.remove(r) && c.hs.Fast {
		c.answer(appendReject(c.out, r))
	}
}

func (c *Conn) handleExtended(payload []byte) error {
	h := c.extended // BEP 10: a later handshake tells what has changed
	if err := h.merge(payload); err != nil {
		return &Ended{ReasonBadExtension, err}
	}
	if !c.title.Pay {
		h.Pay = 0
	}
	c.extended = h
	c.mu.Lock()
	c.payID, c.metadataID = h.Pay, h.Metadata
	c.mu.Unlock()
	c.events.Extended(h)
	return nil
}

func (c *Conn) handleMetadata(payload []byte) error {
	kind, piece, err := parseMetadata(payload)
	if err != nil {
		return &Ended{ReasonBadExtension, err}
	}
	if kind != metadataRequest {
		return nil // nothing was asked for; BEP 9: unknown types are ignored
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil || c.metadataID == 0 {
		return nil
	}
	if n := (len(c.title.Info) + metadataPiece - 1) / metadataPiece; piece >= 0 && piece < int64(n) && c.metaLeft > 0 {
		c.metaLeft--
		if c.metadata == nil {
			c.metadata = make([]uint64, (n+63)/64)
		}
		c.metadata[piece/64] |= 1 << (piece % 64)
		c.kick()
		return nil
	}
	c.answer(appendMetadataReject(c.out, c.metadataID, piece))
	return nil
}

// nextMetadata takes the next piece of metadata that was asked for. c.mu is
// held.
func (c *Conn) nextMetadata() (piece int, ok bool) {
	for i, w := range c.metadata {
		if c.metadataID == 0 { // taken back by a second handshake
			break
		}
		for bit := range 64 {
			if w&(1<<bit) != 0 {
				c.metadata[i] &^= 1 << bit
				return 64*i + bit, true
			}
		}
	}
	c.metadata = nil
	return 0, false
}

// tcp is the connection where blocks can be sent straight from the file.
func (c *Conn) tcp() (syscall.RawConn, bool) {
	t, ok := c.hs.nc.(*net.TCPConn)
	if !ok || c.hs.Encrypted {
		return nil, false
	}
	rc, err := t.SyscallConn()
	return rc, err == nil
}
