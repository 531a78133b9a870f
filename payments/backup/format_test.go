package backup_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// testKey is made of fixed secrets: to derive them from words takes long.
func testKey(t testing.TB, fill byte) *backup.Key {
	t.Helper()
	k, err := backup.NewKey(bsv.Regtest, func(purpose string) (s [32]byte, err error) {
		copy(s[:], bytes.Repeat([]byte{fill}, 32))
		s[31] = purpose[len(purpose)-3]
		return s, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seeded(n uint64) io.Reader {
	var seed [32]byte
	seed[0] = byte(n)
	return rand.NewChaCha8(seed)
}

var made = time.Unix(1_800_000_000, 0).UTC()

func seal(t testing.TB, k *backup.Key, plain []byte, random uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := backup.Seal(&b, k, made, seeded(random), plain); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestChunks(t *testing.T) {
	k := testKey(t, 1)
	for _, n := range []int{0, 1, backup.ChunkSize - 1, backup.ChunkSize, backup.ChunkSize + 1, 3 * backup.ChunkSize} {
		plain := make([]byte, n)
		if _, err := io.ReadFull(seeded(9), plain); err != nil {
			t.Fatal(err)
		}
		sealed := seal(t, k, plain, 1)
		chunks := max(1, (n+backup.ChunkSize-1)/backup.ChunkSize)
		if want := backup.HeaderSize + n + chunks*backup.TagSize; len(sealed) != want {
			t.Errorf("%d bytes become %d, want %d", n, len(sealed), want)
		}
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(sealed), "byte by byte": iotest.OneByteReader(bytes.NewReader(sealed)),
			"with its end": iotest.DataErrReader(bytes.NewReader(sealed))} {
			if got, err := backup.Unseal(r, k); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %s: %d bytes, %v", n, name, len(got), err)
			}
		}
		broken := errors.New("disk")
		if _, err := backup.Unseal(io.MultiReader(bytes.NewReader(sealed[:len(sealed)/2+32]), iotest.ErrReader(broken)), k); !errors.Is(err, broken) {
			t.Errorf("%d bytes of a disk that fails: %v", n, err)
		}
	}
	if h, err := backup.ReadHeader(bytes.NewReader(seal(t, k, nil, 1))); err != nil || h.Kind != backup.State || !h.Made.Equal(made) ||
		h.Network != bsv.Regtest || h.Fingerprint != k.Fingerprint() {
		t.Errorf("%+v, %v", h, err)
	}
	if bytes.Equal(seal(t, k, []byte("x"), 1)[64:], seal(t, k, []byte("x"), 2)[64:]) {
		t.Error("two files with other random bytes are the same")
	}
}

// Nothing of a file can be changed, moved, left out or added.
func TestChunksAreAuthentic(t *testing.T) {
	k := testKey(t, 1)
	const sealed = backup.ChunkSize + backup.TagSize
	plain := make([]byte, 3*backup.ChunkSize+100)
	good := seal(t, k, plain, 1)
	other := seal(t, k, plain, 2)
	chunk := func(b []byte, n int) []byte {
		from := backup.HeaderSize + n*sealed
		return b[from:min(from+sealed, len(b))]
	}
	join := func(parts ...[]byte) []byte {
		return bytes.Join(append([][]byte{good[:backup.HeaderSize]}, parts...), nil)
	}
	for name, b := range map[string][]byte{
		"two exchanged":          join(chunk(good, 1), chunk(good, 0), chunk(good, 2), chunk(good, 3)),
		"one left out":           join(chunk(good, 0), chunk(good, 2), chunk(good, 3)),
		"one twice":              join(chunk(good, 0), chunk(good, 0), chunk(good, 1), chunk(good, 2), chunk(good, 3)),
		"one of another file":    join(chunk(good, 0), chunk(other, 1), chunk(good, 2), chunk(good, 3)),
		"the last left out":      join(chunk(good, 0), chunk(good, 1), chunk(good, 2)),
		"only the header":        join(),
		"the last twice":         join(chunk(good, 0), chunk(good, 1), chunk(good, 2), chunk(good, 3), chunk(good, 3)),
		"another file's header":  bytes.Join([][]byte{other[:backup.HeaderSize], good[backup.HeaderSize:]}, nil),
		"an empty chunk at last": append(join(chunk(good, 0)), make([]byte, backup.TagSize)...),
	} {
		if _, err := backup.Unseal(bytes.NewReader(b), k); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		at := random.IntN(len(good))
		b := bytes.Clone(good)
		b[at] ^= 1 << random.IntN(8)
		if _, err := backup.Unseal(bytes.NewReader(b), k); err == nil {
			t.Errorf("a change at %d was not noticed", at)
		}
		if _, err := backup.Unseal(bytes.NewReader(good[:at]), k); err == nil {
			t.Errorf("a cut at %d was not noticed", at)
		}
	}
	if _, err := backup.Unseal(bytes.NewReader(good), testKey(t, 2)); !errors.Is(err, backup.ErrOtherWallet) {
		t.Error(err)
	}
}

// A field that is added to a channel must come to the backup too.
func TestEveryFieldOfAChannel(t *testing.T) {
	var c ledger.Channel
	fillFields(reflect.ValueOf(&c).Elem(), new(byte))
	got, err := backup.ChannelRoundTrip(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Created, c.Updated = time.Time{}, time.Time{} // the ledger sets them
	if !reflect.DeepEqual(got, c) {
		t.Errorf("%+v\nwant %+v", got, c)
	}
}

func fillFields(v reflect.Value, n *byte) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(made))
			return
		}
		for i := range v.NumField() {
			fillFields(v.Field(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			fillFields(v.Index(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillFields(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(string('a' + rune(*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	default:
		if v.CanInt() {
			v.SetInt(int64(*n % 100))
			return
		}
		v.SetUint(uint64(*n % 100))
	}
}

const plainText = `{"head":{"next_key":{"0":1,"2":16},"payout":"addr"}}
{"channel":{"id":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","role":2,"state":"open","title":"AgICAgICAgICAgICAgICAgICAgI=","title_name":"x","remote":"","peer_key":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD","key_index":4,"capacity":20000,"seq":3,"payee":10}}
{"later":{"unknown":1}}
{"end":{"channels":1,"outgoing":0}}
`

func TestDecode(t *testing.T) {
	c, err := backup.Decode(bytes.NewReader([]byte(plainText)))
	if err != nil || len(c.Channels) != 1 || c.Channels[0].KeyIndex != 4 || c.NextKey[2] != 16 || c.Payout != "addr" {
		t.Fatalf("%+v, %v", c, err)
	}
	lines := bytes.SplitAfter([]byte(plainText), []byte("\n"))
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"no head":          bytes.Join(lines[1:], nil),
		"two heads":        bytes.Join([][]byte{lines[0], lines[0], lines[3]}, nil),
		"no end":           bytes.Join(lines[:3], nil),
		"a channel less":   bytes.Join([][]byte{lines[0], lines[3]}, nil),
		"more after":       append([]byte(plainText), lines[1]...),
		"no JSON":          []byte("{\n"),
		"a short id":       bytes.Replace([]byte(plainText), []byte("AQEBAQEB"), nil, 1),
		"a huge line":      append([]byte(`{"head":{"payout":"`), bytes.Repeat([]byte("x"), 9<<20)...),
		"wrong tx":         []byte(`{"head":{}}` + "\n" + `{"outgoing":{"txid":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","raw":"AAAA"}}` + "\n"),
		"negative numbers": bytes.Replace([]byte(plainText), []byte(`"key_index":4`), []byte(`"key_index":-4`), 1),
	} {
		if _, err := backup.Decode(bytes.NewReader(b)); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecode: whatever the plaintext is, it is refused or comes out as it went
// in.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(plainText))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := backup.Decode(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := c.Encode(&again); err != nil {
			t.Fatal(err)
		}
		d, err := backup.Decode(&again)
		if err != nil {
			t.Fatalf("%v: %q", err, b)
		}
		var more bytes.Buffer
		if err := d.Encode(&more); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzRead: a file that anybody may have written is refused without harm.
func FuzzRead(f *testing.F) {
	k := testKey(f, 1)
	f.Add(seal(f, k, []byte("not compressed"), 1))
	f.Add(seal(f, k, make([]byte, backup.ChunkSize+1), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := backup.Read(bytes.NewReader(b), k); err == nil {
			t.Error("a file that we have not made")
		}
		if err := backup.CheckHistory(t.Context(), bytes.NewReader(b), k, io.Discard); err == nil {
			t.Error("a ledger that we have not made")
		}
	})
}
