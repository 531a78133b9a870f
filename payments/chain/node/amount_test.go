package node_test

import (
	"encoding/json"
	"errors"
	"math/big"
	"testing"

	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/money"
	"pgregory.net/rapid"
)

func TestSatoshis(t *testing.T) {
	for _, c := range []struct {
		text     string
		exact    money.Satoshis // -1: an error
		upwards  money.Satoshis
		comments string
	}{
		{"0", 0, 0, ""},
		{"0.0", 0, 0, ""},
		{"0e50", 0, 0, ""},
		{"1", 1e8, 1e8, ""},
		{"50.00000000", 50e8, 50e8, ""},
		{"0.00000001", 1, 1, ""},
		{"1e-8", 1, 1, "as bsvd writes it"},
		{"1E-08", 1, 1, ""},
		{"1.5e-7", 15, 15, ""},
		{"2.1e7", money.MaxSatoshis, money.MaxSatoshis, ""},
		{"20999999.97690000", 20999999_97690000, 20999999_97690000, ""},
		{"0.1", 1e7, 1e7, "not exact in binary"},
		{"0.29", 29e6, 29e6, "0.29 × 1e8 is 28,999,999.999… in binary"},
		{"12345.12345678", 1234512345678, 1234512345678, ""},
		{"0.000000015", -1, 2, "a fraction"},
		{"1e-9", -1, 1, "a fraction"},
		{"1e-99", -1, 1, "a fraction"},
		{"0.000000010", 1, 1, ""},
		{"21000000.00000001", -1, -1, "more than there is"},
		{"1e99", -1, -1, ""},
		{"1e999999999", -1, -1, ""},
		{"1e-999999999", -1, -1, ""},
		{"-1", -1, -1, ""},
		{"-0.00000001", -1, -1, ""},
		{"", -1, -1, ""},
		{"1,5", -1, -1, ""},
		{".5", -1, -1, ""},
		{"0x10", -1, -1, ""},
		{"NaN", -1, -1, ""},
		{"1e", -1, -1, ""},
		{"000000000000000000000000000000000000000001", -1, -1, ""},
	} {
		for up, want := range map[bool]money.Satoshis{false: c.exact, true: c.upwards} {
			got, err := node.Satoshis(c.text, up)
			if want < 0 && !errors.Is(err, node.ErrProtocol) || want >= 0 && (err != nil || got != want) {
				t.Errorf("%q, up %v: %d, %v; want %d %s", c.text, up, got, err, want, c.comments)
			}
		}
	}
}

// What a node makes of an amount with floating-point numbers comes back
// exactly.
func TestSatoshisOfFloats(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int64Range(0, int64(money.MaxSatoshis)).Draw(t, "satoshis")
		text, err := json.Marshal(float64(want) / 1e8)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := node.Satoshis(string(text), false); err != nil || got != money.Satoshis(want) {
			t.Fatalf("%s: %d, %v; want %d", text, got, err, want)
		}
	})
}

func FuzzSatoshis(f *testing.F) {
	for _, seed := range []string{"1e-8", "50.00000000", "0.000000015", "1e99", "00.10e+2", "-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := node.Satoshis(text, true)
		if err != nil {
			return
		}
		exact, ok := new(big.Rat).SetString(text) // short, and its exponent small, or there was an error
		if !ok {
			t.Fatalf("%q is taken for %d", text, got)
		}
		exact.Mul(exact, big.NewRat(1e8, 1))
		below := new(big.Rat).SetInt64(int64(got) - 1)
		if exact.Cmp(new(big.Rat).SetInt64(int64(got))) > 0 || exact.Cmp(below) <= 0 {
			t.Fatalf("%q is taken for %d", text, got)
		}
	})
}
