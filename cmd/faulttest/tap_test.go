package faulttest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/wire"
)

// tap stands between a box and its clients. It counts the block data that the
// box has sent, knows what the box has promised, and can be told to do
// something at a payment message.
type tap struct {
	t        *testing.T
	listener net.Listener
	box      string // host:port

	mu    sync.Mutex
	conns map[net.Conn]bool
	seen  seen
	hook  func(moment) // called before and after each payment message is passed on
}

// seen is what has crossed the wire.
type seen struct {
	blocks int64 // bytes of block data that left the box
	// acked is the newest commitment of each channel that the box has said to
	// be on its disk.
	acked map[wire.ChannelID]uint64
	// closes are the transactions by which the box said to have settled.
	closes map[wire.ChannelID][32]byte
}

// moment is a payment message on its way.
type moment struct {
	fromBox bool
	kind    wire.Kind
	passed  bool // it has been passed on
}

// maxFrame is more than any message between the two.
const maxFrame = 1 << 21

func newTap(t *testing.T, box string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{t: t, listener: l, box: box, conns: make(map[net.Conn]bool)}
	p.seen.acked, p.seen.closes = make(map[wire.ChannelID]uint64), make(map[wire.ChannelID][32]byte)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *tap) address() string { return p.listener.Addr().String() }

// blocks is how many bytes of block data the box has sent so far.
func (p *tap) blocks() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.blocks
}

// promised is what the box has said of a channel.
func (p *tap) promised(id wire.ChannelID) (acked uint64, settled [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.acked[id], p.seen.closes[id]
}

// connected says whether a client is connected with the box.
func (p *tap) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) > 0
}

// at has a function called at each payment message, from several goroutines;
// nil ends that.
func (p *tap) at(hook func(moment)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = hook
}

func (p *tap) serve(client net.Conn) {
	defer p.drop(client)
	box, err := net.Dial("tcp", p.box)
	if err != nil {
		// As the box itself would answer while it is down.
		if c, ok := client.(*net.TCPConn); ok {
			_ = c.SetLinger(0)
		}
		return
	}
	defer p.drop(box)
	p.mu.Lock()
	p.conns[client], p.conns[box] = true, true
	p.mu.Unlock()
	toClient, toBox := &direction{tap: p, fromBox: true, from: box, to: client}, &direction{tap: p, from: client, to: box}
	toClient.other, toBox.other = toBox, toClient
	var wg sync.WaitGroup
	for _, d := range []*direction{toClient, toBox} {
		wg.Go(func() {
			if err := d.run(); err != nil && !errors.Is(err, net.ErrClosed) && errors.Is(err, errFrame) {
				p.t.Errorf("between client and box: %v", err)
			}
			_ = d.from.Close()
			_ = d.to.Close()
		})
	}
	wg.Wait()
}

func (p *tap) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}

// direction passes on one direction of a connection, a message at a time.
type direction struct {
	tap      *tap
	fromBox  bool
	from, to net.Conn
	other    *direction
	// payID is the number under which this side takes payment messages; it is
	// guarded by the tap's mutex.
	payID byte
}

var errFrame = errors.New("no peer wire message")

func (d *direction) run() error {
	// The handshake in the clear: BEP 3.
	hello := make([]byte, 68)
	if _, err := io.ReadFull(d.from, hello); err != nil {
		return err
	}
	if hello[0] != 19 {
		// The client tries to encrypt after the box has hung up on it: not here.
		return nil
	}
	if _, err := d.to.Write(hello); err != nil {
		return err
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(d.from, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n > maxFrame {
			return fmt.Errorf("%d bytes: %w", n, errFrame)
		}
		frame := make([]byte, 4+n)
		copy(frame, head[:])
		if _, err := io.ReadFull(d.from, frame[4:]); err != nil {
			return err
		}
		if err := d.pass(frame); err != nil {
			return err
		}
	}
}

const (
	idPiece     = 7
	idExtended  = 20
	pieceHeader = 1 + 4 + 4
)

func (d *direction) pass(frame []byte) error {
	message := frame[4:]
	var pay wire.Message
	switch {
	case len(message) > pieceHeader && message[0] == idPiece && d.fromBox:
		d.tap.mu.Lock()
		d.tap.seen.blocks += int64(len(message) - pieceHeader)
		d.tap.mu.Unlock()
	case len(message) > 2 && message[0] == idExtended:
		pay = d.extended(message[1], message[2:])
	}
	if pay != nil {
		d.tap.call(moment{d.fromBox, pay.Kind(), false})
	}
	if _, err := d.to.Write(frame); err != nil {
		return err
	}
	if pay != nil {
		d.tap.call(moment{d.fromBox, pay.Kind(), true})
	}
	return nil
}

// extended reads a message of BEP 10: which number the side wants for payment
// messages, or such a message itself.
func (d *direction) extended(id byte, body []byte) wire.Message {
	p := d.tap
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == 0 {
		_, rest, found := bytes.Cut(body, []byte(strconv.Itoa(len(wire.Name))+":"+wire.Name+"i"))
		number, _, _ := bytes.Cut(rest, []byte("e"))
		if n, err := strconv.Atoi(string(number)); found && err == nil {
			d.payID = byte(n)
		}
		return nil
	}
	if id != d.other.payID {
		return nil
	}
	m, err := wire.Decode(body)
	if err != nil {
		return nil
	}
	if !d.fromBox {
		return m
	}
	switch m := m.(type) {
	case *wire.Ack:
		p.seen.acked[m.Channel] = max(p.seen.acked[m.Channel], m.Seq)
	case *wire.Closed:
		p.seen.closes[m.Channel] = m.Txid
	}
	return m
}

func (p *tap) call(m moment) {
	p.mu.Lock()
	hook := p.hook
	p.mu.Unlock()
	if hook != nil {
		hook(m)
	}
}
