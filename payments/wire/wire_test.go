package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

func fill(dst []byte, b byte) {
	for i := range dst {
		dst[i] = b
	}
}

// examples are one message of each kind with every field set.
func examples() []wire.Message {
	terms := &wire.Terms{Network: 2, Ask: 1000, Royalty: 50, MinCapacity: 2000, MaxCapacity: 1_000_000,
		FeeRate: 100, TipHeight: 101, RefundWindow: 1008, CloseMargin: 144, UnconfirmedLimit: 1000,
		Credit: 4 << 20, Expiry: 1_900_000_000, Signature: bytes.Repeat([]byte{0x30}, 71)}
	fill(terms.Nonce[:], 1)
	fill(terms.Identity[:], 2)
	fill(terms.Payee[:], 3)
	fill(terms.PayeeHash[:], 4)
	fill(terms.CreatorHash[:], 5)
	open := &wire.Open{FundingIndex: 1, Capacity: 20000, RefundHeight: 1109, FeeRate: 100}
	fill(open.Payer[:], 6)
	fill(open.PayerHash[:], 7)
	fill(open.FundingTxid[:], 8)
	var id wire.ChannelID
	fill(id[:], 9)
	sig := bytes.Repeat([]byte{0x41}, 72)
	pay := wire.Pay{Channel: id, Seq: 7, Leg: 5, Bytes: 7 << 20, Payee: 7, Creators: []wire.Royalty{{Amount: 1}, {Amount: 2}}, Signature: sig}
	fill(pay.Title[:], 11)
	fill(pay.Creators[0].To[:], 12)
	fill(pay.Creators[1].To[:], 13)
	closed := &wire.Closed{Channel: id, Payee: 7, Creator: 1}
	fill(closed.Txid[:], 10)
	return []wire.Message{
		terms, open,
		&wire.RefundSig{Channel: id, Signature: sig},
		&wire.Funded{Channel: id, Funding: []byte("funding"), Parents: [][]byte{[]byte("a"), []byte("bc")}, First: pay},
		&wire.Ready{Channel: id, Credit: 4 << 20},
		&pay,
		&wire.Ack{Channel: id, Seq: 7, Credit: 8 << 20},
		&wire.Resume{Channel: id, Proof: sig},
		&wire.Resumed{Last: pay, Credit: 4 << 20},
		&wire.Close{Channel: id},
		closed,
		&wire.Refusal{Channel: id, Code: wire.CodeFunding, Text: "version 2"},
	}
}

func TestRoundTrip(t *testing.T) {
	for i, m := range examples() {
		if m.Kind() != wire.Kind(i+1) {
			t.Errorf("%T has kind %d, want %d", m, m.Kind(), i+1)
		}
		b, err := wire.Encode(m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		got, err := wire.Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if !reflect.DeepEqual(m, got) {
			t.Errorf("%T came back as %+v, want %+v", m, got, m)
		}
		for cut := range b {
			if _, err := wire.Decode(b[:cut]); err == nil {
				t.Errorf("%T cut to %d of %d bytes was taken", m, cut, len(b))
			}
		}
		if _, err := wire.Decode(append(b, 0)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%T with a byte too many: %v, want ErrMalformed", m, err)
		}
	}
}

// The layout is the protocol: these bytes never change.
func TestGoldenBytes(t *testing.T) {
	id := strings.Repeat("09", 32)
	sig := "0048" + strings.Repeat("41", 72)
	pay := id + "0000000000000007" + "0000000000000005" + strings.Repeat("0b", 20) + "0000000000700000" + "0000000000000007" +
		"02" + strings.Repeat("0c", 20) + "0000000000000001" + strings.Repeat("0d", 20) + "0000000000000002" + sig
	want := []string{
		"01" + "01" + "02" + strings.Repeat("01", 16) + strings.Repeat("02", 33) + strings.Repeat("03", 33) + strings.Repeat("04", 20) +
			"00000000000003e8" + "0000000000000032" + strings.Repeat("05", 20) + "00000000000007d0" + "00000000000f4240" + "0000000000000064" +
			"00000065" + "000003f0" + "00000090" + "00000000000003e8" + "0000000000400000" + "00000000713fb300" + "0047" + strings.Repeat("30", 71),
		"02" + strings.Repeat("06", 33) + strings.Repeat("07", 20) + strings.Repeat("08", 32) + "00000001" + "0000000000004e20" + "00000455" + "0000000000000064",
		"03" + id + sig,
		"04" + id + "0007" + hex.EncodeToString([]byte("funding")) + "02" + "0001" + "61" + "0002" + "6263" + pay,
		"05" + id + "0000000000400000",
		"06" + pay,
		"07" + id + "0000000000000007" + "0000000000800000",
		"08" + id + sig,
		"09" + pay + "0000000000400000",
		"0a" + id,
		"0b" + id + strings.Repeat("0a", 32) + "0000000000000007" + "0000000000000001",
		"0c" + id + "0003" + "0009" + hex.EncodeToString([]byte("version 2")),
	}
	for i, m := range examples() {
		b, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b); got != want[i] {
			t.Errorf("%T\n got %s\nwant %s", m, got, want[i])
		}
	}
}

func TestBadPayloads(t *testing.T) {
	huge := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		hex  string
		want error
	}{
		"empty":                    {"", wire.ErrMalformed},
		"kind 0":                   {"00", wire.ErrKind},
		"kind of a later version":  {"fe0102", wire.ErrKind},
		"signature of 65535 bytes": {"03" + huge + "ffff", wire.ErrTooLong},
		"signature of 74 bytes":    {"03" + huge + "004a" + strings.Repeat("00", 74), wire.ErrTooLong},
		"funding longer than sent": {"04" + huge + "fde8" + "00", wire.ErrMalformed},
		"255 parents":              {"04" + huge + "0000" + "ff", wire.ErrTooLong},
		"number 2^63":              {"06" + huge + "8000000000000000", wire.ErrMalformed},
		"nine creators":            {"06" + huge + huge + strings.Repeat("00", 20) + "09", wire.ErrTooLong},
		"255 creators":             {"06" + huge + huge + strings.Repeat("00", 20) + "ff", wire.ErrTooLong},
		"fewer creators than said": {"06" + huge + huge + strings.Repeat("00", 20) + "08" + huge, wire.ErrMalformed},
		"negative credit":          {"05" + huge + "ffffffffffffffff", wire.ErrMalformed},
		"more money than exists":   {"0b" + huge + huge + "000775f05a074001" + "0000000000000000", wire.ErrMalformed},
		"text not UTF-8":           {"0c" + huge + "0000" + "0001" + "ff", wire.ErrMalformed},
		"text of 201 bytes":        {"0c" + huge + "0000" + "00c9" + strings.Repeat("61", 201), wire.ErrTooLong},
		"terms of another version": {"01" + "02", wire.ErrKind},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := wire.Decode(b); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v; want %v", name, m, err, c.want)
		}
	}
	if _, err := wire.Decode(make([]byte, wire.MaxPayload+1)); !errors.Is(err, wire.ErrTooLong) {
		t.Errorf("payload above the cap: %v", err)
	}
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	for name, m := range map[string]wire.Message{
		"negative bytes":  &wire.Pay{Bytes: -1},
		"number 2^63":     &wire.Pay{Seq: 1 << 63},
		"leg 2^64-1":      &wire.Pay{Leg: 1<<64 - 1},
		"too much money":  &wire.Pay{Payee: money.MaxSatoshis + 1},
		"long signature":  &wire.Pay{Signature: make([]byte, 74)},
		"too long a sale": &wire.Funded{Funding: make([]byte, wire.MaxPayload)},
		"nine creators":   &wire.Pay{Creators: make([]wire.Royalty, 9)},
		"a debt":          &wire.Pay{Creators: []wire.Royalty{{Amount: -1}}},
		"26 parents":      &wire.Funded{Parents: make([][]byte, 26)},
	} {
		if b, err := wire.Encode(m); err == nil {
			t.Errorf("%s: encoded to %d bytes", name, len(b))
		}
	}
	b, err := wire.Encode(&wire.Refusal{Text: strings.Repeat("é", 300)})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := wire.Decode(b); err != nil || len(m.(*wire.Refusal).Text) != 200 {
		t.Errorf("long text: %+v, %v", m, err)
	}
}

// shown checks that what a person sees of a refusal is short, begins with our
// own words, and has nothing that a terminal obeys.
func shown(t *testing.T, m *wire.Refusal) {
	t.Helper()
	text := m.String()
	if !strings.HasPrefix(text, m.Code.String()) || len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		t.Fatalf("%+v is shown as %q", m, text)
	}
}

func TestRefusalsInWords(t *testing.T) {
	seen := make(map[string]wire.Code)
	for code := range wire.CodeWrongFunding + 1 {
		words := code.String()
		if other, twice := seen[words]; twice || words == "" {
			t.Errorf("codes %d and %d are both %q", code, other, words)
		}
		seen[words] = code
		for _, text := range []string{"", "an ordinary text", "\x1b[2J\r\n\u202etxet", strings.Repeat("é", 100), "\" and \""} {
			shown(t, &wire.Refusal{Code: code, Text: text})
		}
	}
	m := &wire.Refusal{Code: wire.CodeVersion, Text: strings.Repeat("a", 99) + "éé"}
	want := "the seeder does not take the funding: it, or an unconfirmed transaction that it spends, is not version 1 (it says \"" + strings.Repeat("a", 99) + "…\")"
	if got := m.String(); got != want {
		t.Errorf("%s", got)
	}
	if got := wire.Code(999).String(); got != "the seeder refuses for a reason of number 999" {
		t.Error(got)
	}
	for code, of := range map[wire.Code]bool{wire.CodeVersion: true, wire.CodeSpent: true, wire.CodeDoubleSpend: true, wire.CodeUnavailable: false,
		wire.CodeTerms: false, wire.CodeUnconfirmed: false} {
		if code.OfFunding() != of {
			t.Errorf("%v: of the funding %v", code, !of)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range examples() {
		b, err := wire.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	full := &wire.Pay{Seq: wire.MaxSeq, Leg: wire.MaxSeq, Bytes: 1 << 62, Payee: money.MaxSatoshis, Creators: make([]wire.Royalty, wire.MaxCreators)}
	for _, m := range []wire.Message{full, &wire.Resumed{Last: *full}, &wire.Funded{First: *full}, &wire.Refusal{Code: 65535, Text: "\x1b[2J\u202e" + strings.Repeat("\"", 198)}} {
		b, err := wire.Encode(m)
		if err != nil && m.Kind() != wire.KindRefusal {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{4, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.Decode(b)
		if err != nil {
			return
		}
		again, err := wire.Encode(m)
		if err != nil {
			t.Fatalf("%+v was decoded but does not encode: %v", m, err)
		}
		if !bytes.Equal(b, again) {
			t.Fatalf("two encodings of one message:\n%x\n%x", b, again)
		}
		switch m := m.(type) {
		case *wire.Refusal:
			shown(t, m)
		case *wire.Pay:
			if len(m.Creators) > wire.MaxCreators || m.Seq > wire.MaxSeq || m.Leg > wire.MaxSeq {
				t.Fatalf("beyond the caps: %+v", m)
			}
		}
	})
}
