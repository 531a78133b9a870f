package paylink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// A person reads our words for every refusal; the seeder's own stand behind them
// in quotes, and steer no terminal.
func TestRefusalsAreToldInOurWords(t *testing.T) {
	t.Parallel()
	m := newMarket(t, 5_000, 0)
	told := make(chan string, 64)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(text string) { told <- text })
	s := m.rawSeeder(b, 1, nil)
	next[*wire.Open](s.conn)
	for code := wire.CodeUnspecified; code <= wire.CodeWrongFunding+1; code++ {
		say(t, s.purchase, &wire.Refusal{Code: code, Text: "\x1b[31mpay more"})
		select {
		case text := <-told:
			words, quoted, _ := strings.Cut(text, " (it says ")
			if words != code.String() || quoted != `"\x1b[31mpay more")` {
				t.Errorf("code %d: %q", code, text)
			}
		case <-time.After(patience):
			t.Fatalf("code %d: nothing is told", code)
		}
	}
}
