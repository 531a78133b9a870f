package foreigntest

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// greeting begins every handshake (BEP 3) that is not obfuscated.
const greeting = "\x13BitTorrent protocol"

const (
	handshakeSize = 68
	blockHeader   = 9 // bytes of a piece message that are not block data
	// searched is how much of a connection's beginning is kept: more than an
	// obfuscated handshake and the plain one behind it.
	searched = 4 << 10
)

// watched counts what passes in one direction of a connection. The messages
// are seen where it is not encrypted.
type watched struct {
	bytes    int64
	begin    []byte
	messages [256]int // by type
	block    int64    // bytes of block data

	header []byte
	skip   int64
}

func (w *watched) feed(b []byte) {
	if len(b) == 0 {
		return
	}
	if w.bytes == 0 {
		w.skip = handshakeSize
	}
	w.bytes += int64(len(b))
	w.begin = append(w.begin, b[:min(len(b), searched-len(w.begin))]...)
	for len(b) > 0 {
		if w.skip > 0 {
			n := min(w.skip, int64(len(b)))
			w.skip -= n
			b = b[n:]
			continue
		}
		w.header, b = append(w.header, b[0]), b[1:]
		if len(w.header) < 4 {
			continue
		}
		length := int64(binary.BigEndian.Uint32(w.header))
		if len(w.header) == 5 {
			w.messages[w.header[4]]++
			if w.header[4] == 7 {
				w.block += length - blockHeader
			}
			w.skip = length - 1
			w.header = w.header[:0]
		} else if length == 0 { // a keepalive
			w.header = w.header[:0]
		}
	}
}

// plain says that the connection began with a handshake that anybody can read.
func (w *watched) plain() bool { return bytes.HasPrefix(w.begin, []byte(greeting)) }

// readable says that a handshake can be seen somewhere in the beginning, as
// where only the handshake before it is obfuscated.
func (w *watched) readable() bool { return bytes.Contains(w.begin, []byte(greeting)) }

func (w *watched) String() string {
	text := fmt.Sprintf("%d bytes", w.bytes)
	if !w.plain() {
		return text + ", not plain"
	}
	for kind, n := range w.messages {
		if n > 0 {
			text += fmt.Sprintf(", %d of type %d", n, kind)
		}
	}
	return text
}
