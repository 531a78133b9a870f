package threattest

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/bitcdn/bitcdn/payments/money"
)

// result is one line of the table.
type result struct {
	row      int    // of the table of threats
	attack   string // what was tried
	attacker string
	victim   string
	tries    int
	atRisk   money.Satoshis // what the victim had in this trade
	lost     money.Satoshis // measured; below zero it has gained
	bound    money.Satoshis // from the settings
	fees     money.Satoshis // that the attacks cost the attacker
}

var table struct {
	sync.Mutex
	results []result
}

// record puts a result into the table, and fails the test where more was lost
// than the settings let.
func record(t *testing.T, r result) {
	t.Helper()
	table.Lock()
	defer table.Unlock()
	table.results = append(table.results, r)
	if r.lost > r.bound {
		t.Errorf("%s: lost %v, the bound is %v", r.attack, r.lost, r.bound)
	}
}

func printTable(w io.Writer) {
	table.Lock()
	defer table.Unlock()
	if len(table.results) == 0 {
		return
	}
	slices.SortStableFunc(table.results, func(a, b result) int {
		return cmp.Or(cmp.Compare(a.row, b.row), cmp.Compare(a.attack, b.attack))
	})
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(out, "row\tattack\tattacker\tvictim\ttries\tat risk\tlost\tbound\tattacker's fees")
	for _, r := range table.results {
		_, _ = fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\n", r.row, r.attack, r.attacker, r.victim, r.tries,
			int64(r.atRisk), int64(r.lost), int64(r.bound), int64(r.fees))
	}
	_ = out.Flush()
}

func TestMain(m *testing.M) {
	code := m.Run()
	printTable(os.Stdout)
	os.Exit(code)
}
