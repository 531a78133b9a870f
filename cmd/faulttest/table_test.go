package faulttest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/bitcdn/bitcdn/payments/money"
)

// toll is what a fault put at risk and what it took, in satoshis.
type toll struct {
	tries int
	// risk is what rested on the faulty program when the fault came: what it had
	// earned or paid by channels that were not settled, and what was delivered
	// and not yet paid for.
	risk money.Satoshis
	// box is what was delivered and never paid for, payer what was paid for and
	// never delivered, or bought nothing.
	box, payer money.Satoshis
	// limit is how much may be lost: the credit that the box gave, each time.
	limit money.Satoshis
}

func (a toll) plus(b toll) toll {
	return toll{a.tries + b.tries, a.risk + b.risk, a.box + b.box, a.payer + b.payer, a.limit + b.limit}
}

func (a toll) lost() money.Satoshis { return a.box + a.payer }

// results is what all tests found.
type results struct {
	mu    sync.Mutex
	order []string
	rows  map[string]toll
	notes map[string]string
}

var table = results{rows: make(map[string]toll), notes: make(map[string]string)}

// record adds to a fault's row, and fails the test where too much was lost.
func record(t testing.TB, fault string, what toll) {
	t.Helper()
	table.mu.Lock()
	defer table.mu.Unlock()
	table.row(fault)
	table.rows[fault] = table.rows[fault].plus(what)
	t.Logf("%s: %d tries, %v at risk, lost: box %v, payer %v, of at most %v", fault, what.tries, what.risk, what.box, what.payer, what.limit)
	if what.lost() > what.limit {
		t.Errorf("%s: %v lost, at most %v may be", fault, what.lost(), what.limit)
	}
}

// untried says in the table why a fault was not tried, and skips the test.
func untried(t testing.TB, fault, why string) {
	t.Helper()
	table.mu.Lock()
	table.row(fault)
	table.notes[fault] = why
	table.mu.Unlock()
	t.Skip(why)
}

func (r *results) row(fault string) {
	if _, known := r.rows[fault]; !known {
		r.order = append(r.order, fault)
		r.rows[fault] = toll{}
	}
}

// print returns the table, and whether nobody lost more than may be lost.
func (r *results) print() (text string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		return "", true
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%-40s\ttries\tsatoshis at risk\tsatoshis lost\tof at most\tby the box\tby the payer\t\n", "fault")
	ok = true
	var sum toll
	line := func(name string, row toll) {
		fmt.Fprintf(w, "%-40s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", name, row.tries, row.risk, row.lost(), row.limit, row.box, row.payer, r.notes[name])
	}
	for _, fault := range r.order {
		row := r.rows[fault]
		line(fault, row)
		sum = sum.plus(row)
		ok = ok && row.lost() <= row.limit
	}
	line("all", sum)
	_ = w.Flush() // a strings.Builder takes everything
	return b.String(), ok
}
