package peerwire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

const (
	// writeBuffer holds two blocks of the usual 16 KiB with their headers.
	// Encryption costs far more than a call, so more would buy nothing, and
	// each encrypted peer that is slow to read holds one.
	writeBuffer = 2*(16<<10+pieceHeader) + 64
	// unsentMost is how much the kernel takes before the network has. Beyond
	// it a choke or a cancel would come too late, and a slow peer would look
	// like one that does not read.
	unsentMost = 512 << 10
	// keepOut is the answer buffer that an idle connection keeps, bytes.
	keepOut = 1 << 10
)

// errShort says that a file ended in the middle of a block.
var errShort = errors.New("file is shorter than the torrent says")

// writer is what the writing goroutine works with; it alone touches it.
type writer struct {
	c        *Conn
	raw      syscall.RawConn // nil where blocks go through buf
	transfer func(fd uintptr) bool

	buf      *[]byte // pooled; only while writing
	n        int     // bytes in buf that wait
	finished int64   // bytes of blocks whose last byte is in buf
	reported int64   // the total that Events.Sent was told last
	spare    []byte  // the other buffer of Conn.out
	granted  int64   // bytes that the limit gave and that were not sent yet

	// The block that is on its way from the file, and how far it has come.
	block     request
	underway  bool
	inline    bool // by the reading goroutine, which must not wait
	sections  []pieces.Section
	head      [pieceHeader]byte
	headLeft  []byte
	file      int
	off, left int64
	err       error
}

func (w *writer) init(c *Conn) {
	w.c = c
	if raw, ok := c.tcp(); ok {
		w.raw, w.transfer = raw, w.step
	}
}

// tune sets what the socket should know. None of it is needed to work.
func (w *writer) tune() {
	t, ok := w.c.hs.nc.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMost)
		})
	}
}

// write is the writing goroutine: it sends what there is to send and goes.
func (c *Conn) write() {
	defer c.done.Done()
	w := &c.writer
	if err := w.run(); err != nil {
		w.putBuffer()
		c.fail(ReasonClosed, err)
	}
}

// serveNow is called by the reading goroutine before it waits for more. It
// sends what the socket takes at once, which saves waking a goroutine for every
// few requests; what must wait, for the disk or the peer, is left to write.
func (c *Conn) serveNow() error {
	if !c.asked {
		return nil
	}
	c.asked = false
	w := &c.writer
	c.mu.Lock()
	if w.raw == nil || c.writing || c.end != nil {
		c.kick()
		c.mu.Unlock()
		return nil
	}
	c.writing = true
	c.mu.Unlock()
	w.inline = true
	for !w.underway && w.next() {
		if err := w.transferBlocks(); err != nil {
			return err
		}
		w.report(reportEvery)
	}
	w.inline = false
	if !w.underway {
		w.report(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !w.underway:
		c.writing = false
		c.kick()
		c.rest()
	case c.end == nil:
		c.done.Add(1)
		go c.wake()
	default:
		w.close()
	}
	return nil
}

// run returns nil when nothing is left. It has set c.writing to false then, and
// another writing goroutine may have begun: w is not its own any more.
func (w *writer) run() error {
	c := w.c
	if w.underway {
		if err := w.transferBlocks(); err != nil {
			return err
		}
		w.report(reportEvery)
	}
	for {
		c.mu.Lock()
		if c.end != nil {
			c.mu.Unlock()
			w.putBuffer()
			return nil
		}
		if len(c.out) > 0 {
			out := c.out
			c.out, c.outHello, c.outPay = w.spare, 0, 0
			c.mu.Unlock()
			if err := w.bytes(out); err != nil {
				return err
			}
			w.spare = out[:0]
			if cap(out) > keepOut {
				w.spare = nil
			}
			continue
		}
		if piece, ok := c.nextMetadata(); ok {
			id := c.metadataID
			c.mu.Unlock()
			if err := w.bytes(appendMetadata(nil, id, c.title.Info, piece)); err != nil {
				return err
			}
			continue
		}
		if c.ready() {
			r, _ := c.queue.peek()
			c.mu.Unlock()
			if err := w.serve(r); err != nil {
				return err
			}
			continue
		}
		c.mu.Unlock()

		// Nothing more for now: let it go, tell the owner, look again.
		if err := w.flush(); err != nil {
			return err
		}
		w.putBuffer()
		w.report(1)
		c.mu.Lock()
		if c.end == nil && c.work() {
			c.mu.Unlock()
			continue
		}
		c.writing = false
		c.rest()
		c.mu.Unlock()
		return nil
	}
}

// serve sends the block r, which is at the head of the queue, or refuses it.
func (w *writer) serve(r request) error {
	c := w.c
	if err := c.title.Source.Check(c.ctx, int(r.piece)); err != nil {
		return w.refuse(r, err)
	}
	if w.granted < int64(r.length) && c.title.Limit != nil {
		if err := w.flush(); err != nil { // nothing waits for the limit but this
			return err
		}
		if err := c.title.Limit.Wait(c.ctx, int(int64(r.length)-w.granted)); err != nil {
			return err
		}
		w.granted = int64(r.length)
	}
	err := w.open(r)
	if err != nil && !errors.Is(err, pieces.ErrSections) {
		c.title.Source.Forget(int(r.piece))
		return w.refuse(r, err)
	}
	// A file may have been replaced before it was opened: then it is checked.
	if !c.title.Source.Ready(int(r.piece)) || !w.take(r) {
		w.close()
		return nil // or cancelled, choked, or something else goes first
	}
	w.granted = max(0, w.granted-int64(r.length))
	if w.raw != nil && err == nil {
		w.start(r)
		err = w.transferBlocks()
	} else {
		err = w.sendBuffered(r)
		w.close()
		if err == nil && w.raw != nil {
			err = w.flush() // what follows does not go through the buffer
		}
	}
	if err != nil {
		return err
	}
	w.report(reportEvery)
	return nil
}

func (w *writer) offset(r request) int64 {
	return int64(r.piece)*w.c.title.PieceLength + int64(r.begin)
}

// open finds the sections of r; where that fails, none is held.
func (w *writer) open(r request) (err error) {
	w.sections, err = w.c.title.Source.Sections(w.sections[:0], w.offset(r), int64(r.length))
	if err != nil {
		w.close()
	}
	return err
}

// close lets the sections go.
func (w *writer) close() {
	w.c.title.Source.Release(w.sections)
	w.sections = w.sections[:0]
}

// next takes the next request, where that can be answered without waiting for
// anything but the peer: so that many blocks go out in one wait for the socket.
func (w *writer) next() bool {
	c := w.c
	if c.title.Limit != nil || c.sent.Load()-w.reported >= reportEvery {
		return false
	}
	c.mu.Lock()
	r, _ := c.queue.peek()
	ready := c.end == nil && len(c.out) == 0 && len(c.metadata) == 0 && c.ready()
	c.mu.Unlock()
	if !ready || !c.title.Source.Ready(int(r.piece)) || w.open(r) != nil {
		return false
	}
	if !c.title.Source.Ready(int(r.piece)) || !w.take(r) {
		w.close()
		return false
	}
	w.start(r)
	return true
}

// take takes r off the queue, if it is still its turn.
func (w *writer) take(r request) bool {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if head, ok := c.queue.peek(); !ok || head != r || c.end != nil || len(c.out) > 0 || !c.ready() {
		return false
	}
	c.queue.pop()
	c.committed += int64(r.length)
	c.refused = 0
	return true
}

// refuse drops r, whose piece cannot be read.
func (w *writer) refuse(r request, err error) error {
	c := w.c
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	c.mu.Lock()
	removed := c.queue.remove(r)
	if removed && c.hs.Fast {
		c.answer(appendReject(c.out, r))
	}
	if removed {
		c.refused++
	}
	flood := c.refused > 2*c.host.cfg.Queue
	c.mu.Unlock()
	c.events.Unservable(int(r.piece), err)
	if flood {
		return ended(ReasonRequestFlood, "goes on asking for what cannot be read: %w", err)
	}
	return nil
}

// report tells the owner of what was sent, where it is least or more.
func (w *writer) report(least int64) {
	if total := w.c.sent.Load(); total-w.reported >= least {
		w.reported = total
		w.c.events.Sent(total)
	}
}

// begin and done bracket every call that waits for the peer to read.
func (w *writer) begin() { w.c.stalled.Store(w.c.now.Load()) }

func (w *writer) done() {
	w.c.stalled.Store(0)
	w.c.lastWrite.Store(w.c.now.Load())
}

// bytes sends b, a run of whole messages, behind what waits already.
func (w *writer) bytes(b []byte) error {
	if w.raw != nil {
		w.begin()
		_, err := w.c.hs.nc.Write(b)
		w.done()
		return err
	}
	for len(b) > 0 {
		if err := w.room(1); err != nil {
			return err
		}
		n := copy((*w.buf)[w.n:], b)
		w.n += n
		b = b[n:]
	}
	return nil
}

// room makes sure that n more bytes fit into the buffer.
func (w *writer) room(n int) error {
	if w.buf == nil {
		w.buf = w.c.host.buffers.Get().(*[]byte)
	}
	if w.n+n <= len(*w.buf) {
		return nil
	}
	return w.flush()
}

// flush sends what waits.
func (w *writer) flush() error {
	if w.n == 0 {
		return nil
	}
	p := (*w.buf)[:w.n]
	if w.c.hs.out != nil {
		w.c.hs.out.encrypt(p)
	}
	w.begin()
	_, err := w.c.hs.nc.Write(p)
	w.done()
	if err != nil {
		return err
	}
	w.n = 0
	w.c.sent.Add(w.finished)
	w.finished = 0
	return nil
}

func (w *writer) putBuffer() {
	if w.buf != nil {
		w.c.host.buffers.Put(w.buf)
		w.buf, w.n = nil, 0
	}
}

func (w *writer) sendBuffered(r request) error {
	off := w.offset(r)
	if err := w.room(pieceHeader + min(int(r.length), 16<<10)); err != nil {
		return err
	}
	w.n = len(appendPieceHeader((*w.buf)[:w.n], r))
	for left := int64(r.length); left > 0; {
		if err := w.room(1); err != nil {
			return err
		}
		p := (*w.buf)[w.n:]
		p = p[:min(int64(len(p)), left)]
		if n, err := w.c.title.Source.ReadAt(p, off); n < len(p) {
			w.c.title.Source.Forget(int(r.piece))
			if err == nil || err == io.EOF {
				err = errShort
			}
			w.c.events.Unservable(int(r.piece), err)
			return &Ended{ReasonStorage, err}
		}
		w.n += len(p)
		off += int64(len(p))
		left -= int64(len(p))
	}
	w.finished += int64(r.length)
	return nil
}

// start makes r, whose sections are open, the block that is underway.
func (w *writer) start(r request) {
	w.block, w.underway = r, true
	w.headLeft = appendPieceHeader(w.head[:0], r)
	w.file, w.left = 0, 0
	w.begin()
}

// transferBlocks sends the block that is underway and those that next finds
// behind it. Where it is called inline the last one may be left underway.
func (w *writer) transferBlocks() error {
	w.err = nil
	err := w.raw.Write(w.transfer)
	if err == nil {
		err = w.err
	}
	if err == nil && w.underway {
		return nil // the socket is full, and stalled says since when
	}
	w.done()
	if err == nil {
		return nil
	}
	w.close()
	w.underway = false
	if err == errShort {
		w.c.title.Source.Forget(int(w.block.piece))
		w.c.events.Unservable(int(w.block.piece), err)
		return &Ended{ReasonStorage, err}
	}
	return err
}

// step moves blocks on as far as the socket takes them, and reports whether
// that is all or has failed. Inline it reports so too when the socket is full.
func (w *writer) step(fd uintptr) bool {
	for {
		if !w.stepBlock(fd) {
			return w.inline
		}
		if w.err != nil {
			return true
		}
		w.close()
		w.underway = false
		w.c.sent.Add(int64(w.block.length))
		w.done()
		if !w.next() {
			return true
		}
	}
}

// stepBlock moves the block on as far as the socket takes it, and reports
// whether it is done or has failed.
func (w *writer) stepBlock(fd uintptr) bool {
	for len(w.headLeft) > 0 {
		// MSG_MORE: the header travels with its block.
		n, err := unix.SendmsgN(int(fd), w.headLeft, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
		if again, failed := w.outcome(err); failed {
			return true
		} else if again {
			return false
		}
		if n > 0 {
			w.headLeft = w.headLeft[n:]
		}
	}
	for {
		if w.left == 0 {
			if w.file == len(w.sections) {
				return true
			}
			w.off, w.left = w.sections[w.file].Off, w.sections[w.file].Len
		}
		n, err := w.copySome(int(fd), &w.sections[w.file])
		if again, failed := w.outcome(err); failed {
			return true
		} else if again {
			return false
		}
		if n > 0 {
			w.left -= int64(n)
			if w.left == 0 {
				w.file++
			}
		}
	}
}

// zeros are what pad files hold.
var zeros [4 << 10]byte

// copySome sends some bytes of the section s.
func (w *writer) copySome(fd int, s *pieces.Section) (int, error) {
	if s.File == nil {
		return unix.Write(fd, zeros[:min(w.left, int64(len(zeros)))])
	}
	n, err := unix.Sendfile(fd, s.Fd(), &w.off, int(w.left))
	if n == 0 && err == nil {
		err = errShort
	}
	return n, err
}

// outcome sorts a system call's error: try again when the socket is writable,
// or give up with w.err. A call that a signal interrupted is neither.
func (w *writer) outcome(err error) (again, failed bool) {
	switch err {
	case nil, unix.EINTR:
		return false, false
	case unix.EAGAIN:
		return true, false
	}
	w.err = err
	if err != errShort {
		w.err = fmt.Errorf("send block: %w", err)
	}
	return false, true
}
