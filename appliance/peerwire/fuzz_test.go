package peerwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
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
