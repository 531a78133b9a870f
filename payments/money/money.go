// Package money is the arithmetic of satoshis: whole numbers, checked for
// overflow and for sign, never rounded but where a function says so.
//
// It is pure: no clock, no input or output, no package state.
package money

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// GiB is the number of bytes that a Rate speaks of.
const GiB = 1 << 30

// Satoshis is an amount, 0 to MaxSatoshis. The zero value is no money.
type Satoshis int64

// MaxSatoshis is the number of satoshis that will ever exist.
const MaxSatoshis Satoshis = 21_000_000 * 100_000_000

// Rate is a price in satoshis per GiB (2^30 bytes), 0 to MaxRate.
type Rate int64

// MaxRate is 10,000 coins per GiB, far above any sane price and far below what
// overflows.
const MaxRate Rate = 1_000_000_000_000

// FeeRate is a miner's fee in satoshis per 1,000 bytes, 0 to MaxFeeRate.
type FeeRate int64

// MaxFeeRate is the highest fee rate that is taken for a rate and not for an
// error: one coin a kilobyte.
const MaxFeeRate FeeRate = 100_000_000

var (
	// ErrRange says that an amount or a rate is negative or above its maximum.
	ErrRange = errors.New("amount out of range")
	// ErrSyntax says that a text is not an amount.
	ErrSyntax = errors.New("not a whole number of satoshis")
)

// Valid reports whether s is an amount that can exist.
func (s Satoshis) Valid() bool { return s >= 0 && s <= MaxSatoshis }

// Add returns s + t, or ErrRange.
func (s Satoshis) Add(t Satoshis) (Satoshis, error) { return Sum(s, t) }

// Sub returns s - t, or ErrRange where t is the larger one.
func (s Satoshis) Sub(t Satoshis) (Satoshis, error) {
	if !s.Valid() || !t.Valid() || t > s {
		return 0, fmt.Errorf("%d - %d: %w", int64(s), int64(t), ErrRange)
	}
	return s - t, nil
}

// Sum returns the sum of all amounts, or ErrRange.
func Sum(amounts ...Satoshis) (Satoshis, error) {
	var sum Satoshis
	for _, a := range amounts {
		if !a.Valid() || sum+a > MaxSatoshis { // both at most 2.1e15: no wrap
			return 0, fmt.Errorf("%d + %d: %w", int64(sum), int64(a), ErrRange)
		}
		sum += a
	}
	return sum, nil
}

// String writes the amount with thousands separated: "12,345 sat".
func (s Satoshis) String() string { return grouped(int64(s)) + " sat" }

// String writes the rate as "1,000 sat/GiB".
func (r Rate) String() string { return grouped(int64(r)) + " sat/GiB" }

// String writes the rate as "50 sat/kB".
func (f FeeRate) String() string { return grouped(int64(f)) + " sat/kB" }

// Valid reports whether r lies within 0 and MaxRate.
func (r Rate) Valid() bool { return r >= 0 && r <= MaxRate }

// Due is what n bytes cost in all: ceil(n × r / 2^30). Amounts due are
// cumulative, so that nothing is rounded twice. ErrRange where n is negative,
// the rate is no rate, or the result is more than exists.
func (r Rate) Due(n int64) (Satoshis, error) {
	if n < 0 || !r.Valid() {
		return 0, fmt.Errorf("%d bytes at %d sat/GiB: %w", n, int64(r), ErrRange)
	}
	hi, lo := bits.Mul64(uint64(n), uint64(r))
	lo, carry := bits.Add64(lo, GiB-1, 0)
	hi += carry
	if hi >= GiB { // the quotient would not fit into 64 bits
		return 0, fmt.Errorf("%d bytes at %d sat/GiB: %w", n, int64(r), ErrRange)
	}
	q := hi<<34 | lo>>30
	if q > uint64(MaxSatoshis) {
		return 0, fmt.Errorf("%d bytes at %d sat/GiB: %w", n, int64(r), ErrRange)
	}
	return Satoshis(q), nil
}

// Bytes is the largest number of bytes whose Due is at most s; math.MaxInt64
// for a rate of zero. A negative s buys nothing.
func (r Rate) Bytes(s Satoshis) int64 {
	if s < 0 || r < 0 {
		return 0
	}
	if r == 0 {
		return math.MaxInt64
	}
	hi, lo := bits.Mul64(uint64(s), GiB)
	if hi >= uint64(r) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(r))
	return int64(min(q, math.MaxInt64))
}

// Fee is the fee for size bytes, rounded up.
func (f FeeRate) Fee(size int) Satoshis {
	if f <= 0 || size <= 0 {
		return 0
	}
	return Satoshis((int64(size)*int64(min(f, MaxFeeRate)) + 999) / 1000)
}

// ParseSatoshis reads a whole number of satoshis; "20,000", "20_000" and
// "20000 sat" are the same. Errors are ErrSyntax and ErrRange.
func ParseSatoshis(text string) (Satoshis, error) {
	n, err := parse(text, "sat", int64(MaxSatoshis))
	return Satoshis(n), err
}

// ParseRate reads a whole number of satoshis per GiB; the unit may be written.
// Errors are ErrSyntax and ErrRange.
func ParseRate(text string) (Rate, error) {
	n, err := parse(text, "sat/GiB", int64(MaxRate))
	return Rate(n), err
}

func parse(text, unit string, most int64) (int64, error) {
	digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), unit))
	digits = strings.NewReplacer(",", "", "_", "").Replace(digits)
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n < 0 || n > most):
		return 0, fmt.Errorf("%q: %w (0 to %s %s)", text, ErrRange, grouped(most), unit)
	case err != nil:
		return 0, fmt.Errorf("%q: %w", text, ErrSyntax)
	}
	return n, nil
}

func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
