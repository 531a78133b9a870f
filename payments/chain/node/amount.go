package node

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/bitcdn/bitcdn/payments/money"
)

// satoshis reads an amount of coins as a node writes it (0.5, 1e-8) without a
// floating-point number in between. A fraction of a satoshi is rounded up
// where up says so, and else an error.
func satoshis(n json.Number, up bool) (money.Satoshis, error) {
	wrong := func(why string) (money.Satoshis, error) {
		return 0, fmt.Errorf("amount %.40q: %s: %w", string(n), why, ErrProtocol)
	}
	text := string(n)
	if len(text) == 0 || len(text) > 40 {
		return wrong("length")
	}
	if text[0] == '-' {
		return wrong("negative")
	}
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	shift := 8 - len(fraction) // of the decimal point behind the digits
	if scientific {
		e, err := strconv.Atoi(exponent)
		if err != nil || e < -100 || e > 100 {
			return wrong("exponent")
		}
		shift += e
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	if strings.Trim(whole+fraction, "0123456789") != "" || whole == "" {
		return wrong("syntax")
	}
	for ; shift < 0 && strings.HasSuffix(digits, "0"); shift++ {
		digits = digits[:len(digits)-1]
	}
	if digits == "" {
		return 0, nil
	}
	rest := money.Satoshis(0)
	switch {
	case shift >= 0 && len(digits)+shift <= 18:
		digits += strings.Repeat("0", shift)
	case shift >= 0:
		return wrong("too much")
	case !up:
		return wrong("less than a satoshi")
	default:
		digits, rest = digits[:max(0, len(digits)+shift)], 1
		if digits == "" {
			digits = "0"
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !(money.Satoshis(v) + rest).Valid() {
		return wrong("too much")
	}
	return money.Satoshis(v) + rest, nil
}
