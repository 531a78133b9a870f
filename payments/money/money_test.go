package money_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/bitcdn/bitcdn/payments/money"
	"pgregory.net/rapid"
)

// The product with big integers is the specification of Due and Bytes.
func TestDueAndBytesAreExact(t *testing.T) {
	gib := big.NewInt(money.GiB)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes")
		r := money.Rate(rapid.Int64Range(0, int64(money.MaxRate)).Draw(t, "rate"))
		want := new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(r)))
		want.Add(want, big.NewInt(money.GiB-1)).Div(want, gib)
		due, err := r.Due(n)
		if want.Cmp(big.NewInt(int64(money.MaxSatoshis))) > 0 {
			if !errors.Is(err, money.ErrRange) {
				t.Fatalf("Due(%d) at %d = %d, %v; want ErrRange", n, r, due, err)
			}
			return
		}
		if err != nil || want.Cmp(big.NewInt(int64(due))) != 0 {
			t.Fatalf("Due(%d) at %d = %d, %v; want %s", n, r, due, err, want)
		}
		most := r.Bytes(due)
		if most < n {
			t.Fatalf("paid %d for %d bytes, but that buys only %d", due, n, most)
		}
		if again, err := r.Due(most); r > 0 && most < math.MaxInt64 && (err != nil || again > due) {
			t.Fatalf("Bytes(%d) = %d, which costs %d, %v", due, most, again, err)
		}
		if more, err := r.Due(most + 1); most < math.MaxInt64 && err == nil && more <= due {
			t.Fatalf("one byte more than Bytes(%d) = %d is still paid", due, most)
		}
	})
}

func TestBadAmounts(t *testing.T) {
	for _, text := range []string{"", "x", "1.5", "1e9", "0x10"} {
		if _, err := money.ParseSatoshis(text); !errors.Is(err, money.ErrSyntax) {
			t.Errorf("%q: %v, want ErrSyntax", text, err)
		}
	}
	for _, text := range []string{"-1", "2100000000000001", "99999999999999999999"} {
		if _, err := money.ParseSatoshis(text); !errors.Is(err, money.ErrRange) {
			t.Errorf("%q: %v, want ErrRange", text, err)
		}
	}
	for _, text := range []string{"20000", "20,000", "20_000 sat", " 20000sat "} {
		if n, err := money.ParseSatoshis(text); n != 20000 || err != nil {
			t.Errorf("%q = %d, %v", text, n, err)
		}
	}
	if _, err := money.Satoshis(1).Sub(2); !errors.Is(err, money.ErrRange) {
		t.Errorf("1 - 2: %v, want ErrRange", err)
	}
	if _, err := money.MaxSatoshis.Add(1); !errors.Is(err, money.ErrRange) {
		t.Errorf("MaxSatoshis + 1: %v, want ErrRange", err)
	}
	if _, err := money.Rate(-1).Due(1); !errors.Is(err, money.ErrRange) {
		t.Errorf("negative rate: %v, want ErrRange", err)
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		money.Satoshis(0).String():           "0 sat",
		money.Satoshis(1234567).String():     "1,234,567 sat",
		money.Rate(1000).String():            "1,000 sat/GiB",
		money.FeeRate(50).String():           "50 sat/kB",
		money.FeeRate(1).Fee(192).String():   "1 sat",
		money.FeeRate(100).Fee(271).String(): "28 sat",
	} {
		if text != want {
			t.Errorf("%q, want %q", text, want)
		}
	}
}
