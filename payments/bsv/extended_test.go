package bsv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/libsv/go-bt/v2"

	"github.com/bitcdn/bitcdn/payments/money"
)

func sampleSpent() []Output {
	return []Output{{Value: money.MaxSatoshis - 5, Script: P2PKH(Hash160{4})}, {Value: 5}}
}

func sampleExtended(t testing.TB) []byte {
	t.Helper()
	b, err := sampleTx().Extended(sampleSpent())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExtendedRoundTrip(t *testing.T) {
	for _, script := range []int{0, 1, 0xfc, 0xfd, 0xffff, 0x10000} {
		tx, prev := sampleTx(), sampleSpent()
		tx.Inputs[1].Script, prev[1].Script = make(Script, script), make(Script, script)
		b, err := tx.Extended(prev)
		ok(t, err)
		if !bytes.Equal(b[:10], []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xef}) || cap(b) != len(b) {
			t.Errorf("%x, room for %d bytes, %d used", b[:10], cap(b), len(b))
		}
		got, spent, err := ParseExtended(b, len(b))
		ok(t, err)
		if !bytes.Equal(got.Bytes(), tx.Bytes()) {
			t.Errorf("script of %d: %v", script, got)
		}
		same := slices.EqualFunc(spent, prev, func(a, b Output) bool {
			return a.Value == b.Value && bytes.Equal(a.Script, b.Script)
		})
		if !same {
			t.Errorf("script of %d: spends %v", script, spent)
		}

		// The library knows the format too.
		lib, err := bt.NewTxFromBytes(b)
		ok(t, err)
		if lib.TxID() != tx.Txid().String() || !bytes.Equal(lib.ExtendedBytes(), b) {
			t.Errorf("the library reads %s, want %s", lib.TxID(), tx.Txid())
		}
	}
	if _, err := sampleTx().Extended(sampleSpent()[:1]); !errors.Is(err, ErrInputs) {
		t.Error("one output for two inputs:", err)
	}
}

func TestParseExtendedRefuses(t *testing.T) {
	good := sampleExtended(t)
	change := func(at int, b ...byte) []byte { return slices.Replace(slices.Clone(good), at, at+len(b), b...) }
	const input = 10 + 1 // the first one; the scripts of the sample are short
	const value = input + minInput + 3
	head := func(count ...byte) []byte {
		return append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xef}, count...)
	}
	for name, b := range map[string][]byte{
		"nothing":           {},
		"half":              good[:len(good)/2],
		"one short":         good[:len(good)-1],
		"one long":          append(slices.Clone(good), 0),
		"not extended":      sampleTx().Bytes(),
		"other marker":      change(9, 0xee),
		"no inputs":         head(0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
		"2^64-1 inputs":     head(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"2^32 inputs":       head(0xff, 0, 0, 0, 0, 1, 0, 0, 0),
		"long form of two":  slices.Insert(change(10, 0xfd), 11, 2, 0),
		"script of 512 MiB": change(input+OutpointSize, 0xfe, 0, 0, 0, 0x20),
		"spent script":      change(value+8, 0xfe, 0, 0, 0, 0x20),
		"spent too much":    change(value, binary.LittleEndian.AppendUint64(nil, uint64(money.MaxSatoshis)+1)...),
		"spent 2^64-1":      change(value, bytes.Repeat([]byte{0xff}, 8)...),
		"spent in all":      change(value, binary.LittleEndian.AppendUint64(nil, uint64(money.MaxSatoshis))...),
	} {
		if tx, _, err := ParseExtended(b, 1<<20); !errors.Is(err, ErrTxSyntax) {
			t.Errorf("%s: %v, %v", name, tx, err)
		}
	}
	if _, _, err := ParseExtended(good, len(good)-1); !errors.Is(err, ErrTxSize) {
		t.Error("over the limit:", err)
	}
}

// What ParseExtended takes, Extended gives back, within bounded memory, and its
// plain form is a transaction that ParseTx takes.
func FuzzParseExtended(f *testing.F) {
	good := sampleExtended(f)
	f.Add(good)
	f.Add(sampleTx().Bytes())
	f.Add(append(slices.Clone(good[:10]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	f.Add(append(slices.Clone(good[:10+1+OutpointSize]), 0xfe, 0, 0, 0, 0x20))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 12
		tx, prev, err := ParseExtended(b, limit)
		if err != nil {
			return
		}
		if again, err := tx.Extended(prev); err != nil || !bytes.Equal(again, b) || len(b) > limit {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
		if _, err := ParseTx(tx.Bytes(), limit); err != nil {
			t.Fatalf("%x is a transaction only in the extended format: %v", b, err)
		}
	})
}
