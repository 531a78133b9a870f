// Package wiretest is the other end of an upload connection, for tests and
// benchmarks: a peer that downloads, or does what no good peer does.
package wiretest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/anacrolix/torrent/mse"
)

// Types of messages.
const (
	Choke        = 0
	Unchoke      = 1
	Interested   = 2
	Bitfield     = 5
	RequestBlock = 6
	Piece        = 7
	Cancel       = 8
	HaveAll      = 14
	Reject       = 16
	Extended     = 20
)

// Options of a peer.
type Options struct {
	Fast, Extended bool
	// Crypto obfuscates the handshake and offers these methods; 0 is plain.
	Crypto mse.CryptoMethod
	PeerID [20]byte
}

// Peer is a connection that has sent its handshake and seen the answer.
type Peer struct {
	net.Conn // for deadlines, and for what is not encrypted
	R        *bufio.Reader
	W        io.Writer
	Answer   [68]byte // the other end's handshake
	unchoked bool     // seen by Fetch
}

// Handshake is what a peer sends first.
func Handshake(ih [20]byte, o Options) []byte {
	b := append([]byte("\x13BitTorrent protocol"), 0, 0, 0, 0, 0, 0, 0, 0)
	if o.Extended {
		b[25] |= 0x10
	}
	if o.Fast {
		b[27] |= 0x04
	}
	b = append(b, ih[:]...)
	return append(b, o.PeerID[:]...)
}

// Dial connects and shakes hands.
func Dial(addr string, ih [20]byte, o Options) (*Peer, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Peer{Conn: nc, W: nc}
	var rw io.ReadWriter = nc
	if o.Crypto != 0 {
		if rw, _, err = mse.InitiateHandshake(nc, ih[:], nil, o.Crypto); err != nil {
			nc.Close()
			return nil, err
		}
		p.W = rw
	}
	p.R = bufio.NewReaderSize(rw, 64<<10)
	if _, err = p.W.Write(Handshake(ih, o)); err == nil {
		_, err = io.ReadFull(p.R, p.Answer[:])
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return p, nil
}

// Message builds a message.
func Message(kind byte, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)))
	return append(append(b, kind), payload...)
}

// Numbers builds a message of 32-bit numbers.
func Numbers(kind byte, n ...uint32) []byte {
	var payload []byte
	for _, n := range n {
		payload = binary.BigEndian.AppendUint32(payload, n)
	}
	return Message(kind, payload...)
}

// Request builds a request.
func Request(piece, begin, length uint32) []byte {
	return Numbers(RequestBlock, piece, begin, length)
}

// Next reads a message. A keepalive has kind 255.
func (p *Peer) Next() (kind byte, payload []byte, err error) {
	var h [4]byte
	if _, err := io.ReadFull(p.R, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[:])
	if n == 0 {
		return 255, nil, nil
	}
	if n > 1<<20 {
		return 0, nil, fmt.Errorf("message of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.R, b); err != nil {
		return 0, nil, err
	}
	return b[0], b[1:], nil
}

// Until reads messages until one of the kind comes, and returns its payload.
func (p *Peer) Until(kind byte) ([]byte, error) {
	for {
		k, payload, err := p.Next()
		if err != nil {
			return nil, fmt.Errorf("waiting for message %d: %w", kind, err)
		}
		if k == kind {
			return payload, nil
		}
	}
}

// ErrRejected says that a request was rejected.
var ErrRejected = errors.New("request rejected")

// Fetch downloads bytes from to to of a title in blocks, with depth requests in
// flight, and gives each block to got, which may be nil: then the bytes are not
// even looked at. It waits until it is unchoked.
func (p *Peer) Fetch(from, to, pieceLength int64, block, depth int, got func(off int64, b []byte)) error {
	var batch []byte
	asked, left := from, to-from
	ask := func(n int) error {
		batch = batch[:0]
		for ; n > 0 && asked < to; n-- {
			begin := asked % pieceLength
			length := min(int64(block), pieceLength-begin, to-asked)
			batch = binary.BigEndian.AppendUint32(batch, 13)
			batch = append(batch, RequestBlock)
			for _, v := range []int64{asked / pieceLength, begin, length} {
				batch = binary.BigEndian.AppendUint32(batch, uint32(v))
			}
			asked += length
		}
		if len(batch) == 0 {
			return nil
		}
		_, err := p.W.Write(batch)
		return err
	}
	owed := 0
	if p.unchoked {
		if err := ask(depth); err != nil {
			return err
		}
	}
	for left > 0 {
		h, err := p.R.Peek(4)
		if err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint32(h))
		if n == 0 {
			p.R.Discard(4)
			continue
		}
		if h, err = p.R.Peek(5); err != nil {
			return err
		}
		switch kind := h[4]; {
		case kind == Piece && n > 9:
			if h, err = p.R.Peek(13); err != nil {
				return err
			}
			off := int64(binary.BigEndian.Uint32(h[5:]))*pieceLength + int64(binary.BigEndian.Uint32(h[9:]))
			p.R.Discard(13)
			if got == nil {
				_, err = p.R.Discard(n - 9)
			} else {
				b := make([]byte, n-9)
				_, err = io.ReadFull(p.R, b)
				got(off, b)
			}
			if err != nil {
				return err
			}
			left -= int64(n - 9)
			// In batches, as clients ask.
			if owed++; owed >= (depth+3)/4 {
				if err := ask(owed); err != nil {
					return err
				}
				owed = 0
			}
			continue
		case kind == Unchoke && !p.unchoked:
			p.unchoked = true
			if err := ask(depth); err != nil {
				return err
			}
		case kind == Reject:
			return ErrRejected
		}
		if _, err := p.R.Discard(4 + n); err != nil {
			return err
		}
	}
	return nil
}
