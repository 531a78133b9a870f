package peerwire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// FuzzReader looks for a stream that makes the reader keep more than its cap,
// read differently in small bites, or fail in an uncounted way.
func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 2})
	f.Add(bytes.Join([][]byte{wiretest.Message(14), wiretest.Message(2), wiretest.Request(1, 2, 3), wiretest.Numbers(8, 1, 2, 3)}, nil))
	f.Add(wiretest.Message(20, []byte("\x00d1:md6:bc_payi1eee")...))
	f.Add(wiretest.Message(20, append([]byte{1}, make([]byte, 5000)...)...))
	f.Add(wiretest.Message(5, 0xff, 0x80))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 20, 0})
	f.Add(wiretest.Message(20, append([]byte{77}, make([]byte, 3000)...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		read := func(src io.Reader) (all []message, err error) {
			d := reader{src: src, pieces: 9, pay: true}
			for {
				var m message
				if err = d.next(&m); err != nil {
					return all, err
				}
				if len(m.payload) > MaxPay || cap(m.payload) > 2*MaxPay {
					t.Fatalf("payload of %d bytes", len(m.payload))
				}
				all = append(all, m)
			}
		}
		whole, err := read(bytes.NewReader(b))
		bites, err2 := read(iotest.OneByteReader(bytes.NewReader(b)))
		if len(whole) != len(bites) || err.Error() != err2.Error() {
			t.Fatalf("%d messages and %v; in bites %d and %v", len(whole), err, len(bites), err2)
		}
		var e *Ended
		if !errors.As(err, &e) && err != io.EOF && err != io.ErrUnexpectedEOF {
			t.Fatalf("uncounted: %v", err)
		}
	})
}

// wire is the other end of a connection as bytes: what it says, and what it was
// told.
type wire struct {
	net.Conn // nil: what is not defined here is not called
	says     *bytes.Reader
	mu       sync.Mutex
	told     bytes.Buffer
}

func (w *wire) Read(p []byte) (int, error) { return w.says.Read(p) }
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told.Write(p)
}
func (w *wire) Close() error                { return nil }
func (w *wire) SetDeadline(time.Time) error { return nil }
func (w *wire) RemoteAddr() net.Addr        { return &net.TCPAddr{} }

// FuzzAccept looks for the beginning of a connection that is taken for a title
// that it does not name, or refused in an uncounted way.
func FuzzAccept(f *testing.F) {
	f.Add(wiretest.Handshake(testHash, wiretest.Options{Fast: true, Extended: true}))
	f.Add(wiretest.Handshake([20]byte{1}, wiretest.Options{}))
	f.Add([]byte("\x13BitTorrent protocol"))
	f.Add(bytes.Repeat([]byte{0xa5}, 700))
	h := NewHost(Config{})
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := h.Accept(context.Background(), &wire{says: bytes.NewReader(b)}, oneHash{})
		var e *Ended
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("uncounted: %v", err)
		}
		if err == nil && hs.InfoHash != testHash {
			t.Fatalf("taken for %x", hs.InfoHash)
		}
	})
}

// FuzzConn looks for a conversation in which the peer is sent more than it may
// have, bytes that are not the title's, or something that is no message; or
// that ends in an uncounted way.
func FuzzConn(f *testing.F) {
	hello := wiretest.Message(20, []byte("\x00d1:md6:bc_payi7e11:ut_metadatai9eee")...)
	f.Add(true, true, int64(5000), bytes.Join([][]byte{hello, wiretest.Message(2), wiretest.Request(0, 0, 3000), wiretest.Request(1, 5, 1000), wiretest.Request(2, 0, 2000)}, nil))
	f.Add(true, true, int64(0), bytes.Join([][]byte{wiretest.Request(0, 0, 1), wiretest.Numbers(8, 0, 0, 1), hello, wiretest.Message(20, []byte("\x02d8:msg_typei0e5:piecei0ee")...)}, nil))
	f.Add(false, false, int64(9000), bytes.Join([][]byte{wiretest.Request(0, 0, 4096), wiretest.Request(0, 0, 4096), wiretest.Numbers(8, 0, 0, 4096)}, nil))
	const length, pieceLength = 10_000, 4096
	data := make([]byte, length)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	f.Fuzz(func(t *testing.T, fast, extended bool, allowed int64, b []byte) {
		w := &wire{says: bytes.NewReader(b)}
		hs := &Handshake{nc: w, src: w, Fast: fast, Extended: extended}
		title := Title{Length: length, PieceLength: pieceLength, Info: data[:100], Source: inMemory(data), Pay: true}
		c := NewHost(Config{}).Conn(hs, title, silent{}, time.Now())
		c.SetAllowed(allowed)
		end := c.Run(context.Background())
		if end == nil || end.Reason == "" {
			t.Fatal("ended without a reason")
		}
		told := w.told.Bytes()
		if len(told) < handshakeSize {
			return
		}
		var sent int64
		for told = told[handshakeSize:]; len(told) >= 4; {
			n := int64(binary.BigEndian.Uint32(told))
			if n > MaxBlock+9 {
				t.Fatalf("message of %d bytes", n)
			}
			if int64(len(told)) < 4+n {
				return // cut off by the end
			}
			m := told[4 : 4+n]
			told = told[4+n:]
			if n < 9 || m[0] != byte(kindPiece) {
				continue
			}
			off := int64(binary.BigEndian.Uint32(m[1:]))*pieceLength + int64(binary.BigEndian.Uint32(m[5:]))
			if sent += n - 9; sent > allowed {
				t.Fatalf("%d bytes sent, %d allowed", sent, allowed)
			}
			if !bytes.Equal(m[9:], data[off:off+n-9]) {
				t.Fatalf("other bytes at %d", off)
			}
		}
		if sent < c.Sent() {
			t.Fatalf("counted %d bytes, sent %d", c.Sent(), sent)
		}
	})
}

type silent struct{}

func (silent) Extended(Extended)     {}
func (silent) Interested(bool)       {}
func (silent) Pay([]byte)            {}
func (silent) Sent(int64)            {}
func (silent) Unservable(int, error) {}

// inMemory is a Source.
type inMemory []byte

func (m inMemory) Check(context.Context, int) error { return nil }
func (m inMemory) Ready(int) bool                   { return true }
func (m inMemory) Forget(int)                       {}
func (m inMemory) Release([]pieces.Section)         {}
func (m inMemory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}
func (m inMemory) Sections(dst []pieces.Section, _, _ int64) ([]pieces.Section, error) {
	return dst, pieces.ErrSections
}

// FuzzExtended looks for an extended handshake that is taken with impossible
// values.
func FuzzExtended(f *testing.F) {
	f.Add([]byte("d1:md6:bc_payi1e11:ut_metadatai2ee13:metadata_sizei20000e4:reqqi512e1:v6:BitCDNe"))
	f.Add([]byte("d1:mle1:vi5e4:reqqi-5e1:xd1:ylleeee"))
	f.Add([]byte("d1:md6:bc_payi999999999999999999999eee"))
	f.Add([]byte("d999999999999999999:"))
	f.Add([]byte(strings.Repeat("d1:a", 4000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseExtended(b)
		if err != nil {
			return
		}
		if len(b) > MaxExtendedHandshake || len(h.Version) > maxVersion || h.Queue < 0 || h.Queue > 1<<20 {
			t.Fatalf("%+v", h)
		}
	})
}

// FuzzMetadata looks for a ut_metadata message that is answered with bytes that
// are not the title's.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte("d8:msg_typei0e5:piecei0ee"))
	f.Add([]byte("d8:msg_typei0e5:piecei-1ee"))
	f.Add([]byte("d8:msg_typei1e5:piecei0e10:total_sizei5ee12345"))
	f.Add([]byte("d8:msg_typei0e5:piecei999999999999999999ee"))
	f.Add([]byte("d5:pieced5:pieceli0eeee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, piece, err := parseMetadata(b)
		if err != nil {
			return
		}
		if kind < 0 {
			t.Fatalf("type %d", kind)
		}
		info := bytes.Repeat([]byte("x"), metadataPiece+1)
		if piece == 0 || piece == 1 {
			m := appendMetadata(nil, 3, info, int(piece))
			if want := []int{metadataPiece, 1}[piece]; !bytes.HasSuffix(m, append([]byte("e"), info[:want]...)) {
				t.Fatalf("piece %d: %d bytes", piece, len(m))
			}
		}
		if m := appendMetadataReject(nil, 3, piece); len(m) > 64 {
			t.Fatalf("reject of %d bytes", len(m))
		}
	})
}
