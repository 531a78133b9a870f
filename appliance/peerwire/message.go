package peerwire

import (
	"encoding/binary"
	"io"
)

// kind is a message's type byte (BEP 3, 5, 6, 10, 52).
type kind byte

const (
	kindChoke         kind = 0
	kindUnchoke       kind = 1
	kindInterested    kind = 2
	kindNotInterested kind = 3
	kindHave          kind = 4
	kindBitfield      kind = 5
	kindRequest       kind = 6
	kindPiece         kind = 7
	kindCancel        kind = 8
	kindPort          kind = 9
	kindSuggest       kind = 13
	kindHaveAll       kind = 14
	kindHaveNone      kind = 15
	kindReject        kind = 16
	kindAllowedFast   kind = 17
	kindExtended      kind = 20
	kindHashRequest   kind = 21
	kindHashes        kind = 22
	kindHashReject    kind = 23
	kindKeepalive     kind = 255 // has no type byte on the wire
)

const (
	// MaxBlock is the longest block that a request may ask for, bytes.
	MaxBlock = 128 << 10
	// MaxPay is the longest bc_pay payload, bytes.
	MaxPay = 65_000
	// maxIgnored caps an extended message of a number that this end never
	// gave out, bytes. It is read and thrown away.
	maxIgnored = 64 << 10

	pieceHeader = 13      // bytes of a piece message before its block
	readBuffer  = 2 << 10 // bytes: 120 requests
)

// request names a block: what BEP 3 calls index, begin and length.
type request struct {
	piece, begin, length uint32
}

// message is one message of a peer.
type message struct {
	kind    kind
	request request // of kindRequest and kindCancel
	ext     byte    // of kindExtended
	payload []byte  // of kindExtended; the receiver's own
}

// reader reads a peer's messages through a small fixed buffer. Only extended
// messages that this end understands are ever allocated, and those grow as
// their bytes arrive, not with the length that the peer claims.
type reader struct {
	src    io.Reader
	pieces int    // of the title; a bitfield has as many bits
	pay    bool   // bc_pay was offered
	filled func() // called after each read; may be nil
	// drained is called before each read, which may wait; may be nil. Its
	// error ends the reading.
	drained func() error

	r, w int
	buf  [readBuffer]byte
}

// next reads one message into m. Its errors are *Ended where the message is
// refused, those of the source otherwise.
func (d *reader) next(m *message) error {
	*m = message{kind: kindKeepalive}
	h, err := d.peek(4)
	if err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(h)
	d.r += 4
	if n == 0 {
		return nil
	}
	if h, err = d.peek(1); err != nil {
		return midway(err)
	}
	m.kind = kind(h[0])
	if err := d.checkLength(m.kind, n); err != nil {
		return err
	}
	d.r++
	n--
	switch m.kind {
	case kindRequest, kindCancel:
		if h, err = d.peek(12); err != nil {
			return midway(err)
		}
		m.request = request{binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])}
		d.r += 12
		return nil
	case kindExtended:
		return midway(d.extended(m, int(n)))
	}
	return midway(d.discard(int(n)))
}

// checkLength refuses a message by its type and its length n, type byte
// counted, before anything of it is read.
func (d *reader) checkLength(k kind, n uint32) error {
	var want uint32
	switch k {
	case kindChoke, kindUnchoke, kindInterested, kindNotInterested, kindHaveAll, kindHaveNone:
		want = 1
	case kindHave, kindSuggest, kindAllowedFast:
		want = 5
	case kindPort:
		want = 3
	case kindRequest, kindCancel, kindReject:
		want = 13
	case kindHashRequest, kindHashReject:
		want = 49
	case kindBitfield:
		want = 1 + uint32((d.pieces+7)/8)
	case kindExtended:
		switch {
		case n < 2:
			return ended(ReasonBadMessage, "extended message of %d bytes", n)
		case n > 2+maxIgnored:
			return ended(ReasonTooLong, "extended message of %d bytes", n)
		}
		return nil
	case kindPiece, kindHashes:
		return ended(ReasonBadMessage, "message of type %d that nobody asked for", k)
	default:
		return ended(ReasonUnknownMessage, "type %d", k)
	}
	switch {
	case n > want:
		return ended(ReasonTooLong, "%d bytes in a message of type %d", n, k)
	case n < want:
		return ended(ReasonBadMessage, "%d bytes in a message of type %d", n, k)
	}
	return nil
}

func (d *reader) extended(m *message, n int) error {
	h, err := d.peek(1)
	if err != nil {
		return err
	}
	m.ext = h[0]
	d.r++
	n--
	most := 0
	switch {
	case m.ext == extHandshake:
		most = MaxExtendedHandshake
	case m.ext == extMetadata:
		most = maxMetadataRequest
	case m.ext == extPay && d.pay:
		most = MaxPay
	default:
		return d.discard(n)
	}
	if n > most {
		return ended(ReasonTooLong, "%d bytes in extended message %d", n, m.ext)
	}
	m.payload = make([]byte, 0, min(n, readBuffer))
	for len(m.payload) < n {
		if d.r == d.w {
			if err := d.fill(); err != nil {
				return err
			}
		}
		k := min(n-len(m.payload), d.w-d.r)
		m.payload = append(m.payload, d.buf[d.r:d.r+k]...)
		d.r += k
	}
	return nil
}

// peek returns the next n bytes, at most readBuffer, without passing over them.
func (d *reader) peek(n int) ([]byte, error) {
	for d.w-d.r < n {
		if d.r > 0 {
			copy(d.buf[:], d.buf[d.r:d.w])
			d.r, d.w = 0, d.w-d.r
		}
		k, err := d.read()
		if k == 0 && err != nil {
			if d.w > 0 {
				err = midway(err)
			}
			return nil, err
		}
	}
	return d.buf[d.r : d.r+n], nil
}

func (d *reader) fill() error {
	d.r, d.w = 0, 0
	k, err := d.read()
	if k > 0 {
		return nil
	}
	return err
}

// read makes one read into the free end of the buffer.
func (d *reader) read() (int, error) {
	if d.drained != nil {
		if err := d.drained(); err != nil {
			return 0, err
		}
	}
	for range 100 { // like bufio: a source may return nothing a few times
		k, err := d.src.Read(d.buf[d.w:])
		d.w += k
		if k > 0 || err != nil {
			if k > 0 && d.filled != nil {
				d.filled()
			}
			return k, err
		}
	}
	return 0, io.ErrNoProgress
}

func (d *reader) discard(n int) error {
	for n > 0 {
		if d.r == d.w {
			if err := d.fill(); err != nil {
				return err
			}
		}
		k := min(n, d.w-d.r)
		d.r += k
		n -= k
	}
	return nil
}

// midway makes the end of the stream an unexpected one.
func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// setLength fills in the length prefix of the message that begins at start.
func setLength(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func appendSimple(b []byte, k kind) []byte { return append(b, 0, 0, 0, 1, byte(k)) }

func appendReject(b []byte, r request) []byte {
	b = append(b, 0, 0, 0, 13, byte(kindReject))
	b = binary.BigEndian.AppendUint32(b, r.piece)
	b = binary.BigEndian.AppendUint32(b, r.begin)
	return binary.BigEndian.AppendUint32(b, r.length)
}

func appendPieceHeader(b []byte, r request) []byte {
	b = binary.BigEndian.AppendUint32(b, 9+r.length)
	b = append(b, byte(kindPiece))
	b = binary.BigEndian.AppendUint32(b, r.piece)
	return binary.BigEndian.AppendUint32(b, r.begin)
}
