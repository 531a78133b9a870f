package ledger_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// bookYear is a ledger with a record of every kind, one a day, the first of
// them an hour before the year ends.
func bookYear(t *testing.T) *ledger.Ledger {
	t.Helper()
	ctx := context.Background()
	now := time.Date(2025, 12, 30, 23, 0, 0, 0, time.UTC)
	l, err := ledger.OpenFast(ctx, filepath.Join(t.TempDir(), "money.db"), func() time.Time { return now })
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	day := func() { now = now.Add(24 * time.Hour) }
	set := func(txid [32]byte, state string) {
		t.Helper()
		o, err := l.Outgoing(ctx, txid)
		must(t, err)
		o.State, o.Height = state, 0
		if state == ledger.Mined {
			o.Height = 100
		}
		o.Final = state == ledger.Conflicted
		must(t, l.UpdateOutgoing(ctx, o))
	}
	settle := func(c ledger.Channel, txid [32]byte, state string) {
		t.Helper()
		c.State, c.CloseTxid = ledger.StateClosing, txid
		must(t, l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{c}, Outbox: []ledger.Outgoing{closing(c, txid)}}))
		set(txid, state)
	}
	// Sold: a channel of three titles, one whose title is a formula and whose
	// close is not mined yet, one that is open.
	day()
	settle(threeTitles(t, l, empty(1, titleA)), id('t', 1), ledger.Mined)
	day()
	evil := payee(2)
	evil.TitleName = "=HYPERLINK(\"http://192.0.2.1/\",\"film\")\r\n"
	settle(evil, id('t', 2), ledger.Seen)
	must(t, l.SaveChannel(ctx, payee(3)))
	// Bought: one of two titles, one taken back, one whose funding never came.
	day()
	bought := fund(t, l, 4)
	set(bought.FundingTxid, ledger.Mined)
	day()
	bought.State = ledger.StateOpen
	pay(t, l, &bought, titleB, "+bought", 1000, 90, ledger.CreatorAmount{Hash: creator1, Amount: 9})
	pay(t, l, &bought, titleC, "third", 10, 1, ledger.CreatorAmount{Hash: creator1, Amount: 9})
	must(t, l.Apply(ctx, ledger.Batch{
		Coins: []ledger.Coin{{Txid: id('t', 4), Index: 2, Value: 19_870, Branch: 3, KeyIndex: bought.KeyIndex, Height: 120, Origin: ledger.OriginChange}},
		Moves: []ledger.Move{{Channel: bought.ID, State: ledger.StateClosed, CloseTxid: id('t', 4)}},
	}))
	day()
	back := fund(t, l, 5)
	set(back.FundingTxid, ledger.Mined)
	must(t, l.PutOutgoing(ctx, ledger.Outgoing{Txid: id('r', 5), Raw: []byte("refund"), Purpose: ledger.Refund, Channel: back.ID,
		Outputs: []ledger.Coin{{Txid: id('r', 5), Value: 19_976, Branch: 3, KeyIndex: back.KeyIndex, Origin: ledger.OriginRefund}}}))
	set(id('r', 5), ledger.Mined)
	day()
	gone := fund(t, l, 6)
	set(gone.FundingTxid, ledger.Conflicted)
	must(t, l.ReleaseCoins(ctx, gone.FundingTxid))
	// Paid out, joined for a fee, sent, lost.
	day()
	spend := func(from, by [32]byte, purpose string, back ...ledger.Coin) {
		t.Helper()
		must(t, l.Apply(ctx, ledger.Batch{
			Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{{Txid: from}}, By: by}},
			Outbox:  []ledger.Outgoing{{Txid: by, Raw: []byte("raw"), Purpose: purpose, Fee: 20, Outputs: back}},
		}))
		set(by, ledger.Mined)
	}
	spend(id('t', 1), id('j', 1), ledger.Consolidation, ledger.Coin{Txid: id('j', 1), Value: 253, Branch: 3, Origin: ledger.OriginEarning})
	spend(id('j', 1), id('s', 1), ledger.Sweep)
	spend(id('i', 6), id('p', 1), ledger.Send, ledger.Coin{Txid: id('p', 1), Value: 30_000, Branch: 1, Origin: ledger.OriginChange})
	must(t, l.Apply(ctx, ledger.Batch{Lost: []ledger.Outpoint{{Txid: id('p', 1)}}}))
	check(t, l)
	return l
}

func TestExport(t *testing.T) {
	ctx := context.Background()
	l := bookYear(t)
	var table, list, none bytes.Buffer
	must(t, l.WriteCSV(ctx, &table, ledger.Period{}))
	golden(t, "records.csv", table.Bytes())
	must(t, l.WriteJSON(ctx, &list, ledger.Period{}))
	golden(t, "records.json", list.Bytes())
	var parsed []map[string]any
	must(t, json.Unmarshal(list.Bytes(), &parsed))
	rows, err := csv.NewReader(&table).ReadAll()
	must(t, err)
	if len(parsed) != len(rows)-1 || len(rows) < 12 {
		t.Errorf("%d records in JSON, %d lines in CSV", len(parsed), len(rows))
	}
	must(t, l.WriteJSON(ctx, &none, ledger.Period{From: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}))
	must(t, json.Unmarshal(none.Bytes(), &parsed))
	if len(parsed) != 0 {
		t.Errorf("records of a time to come: %s", none.Bytes())
	}
	// A year ends with its last millisecond.
	newYear := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	count := func(p ledger.Period) (n int) {
		t.Helper()
		must(t, l.Records(ctx, p, func(r ledger.Record) error {
			if n++; !p.To.IsZero() && !r.At.Before(p.To) || r.At.Before(p.From) {
				t.Errorf("a record of %v in the period %v", r.At, p)
			}
			return nil
		}))
		return n
	}
	if old, next := count(ledger.Period{To: newYear}), count(ledger.Period{From: newYear}); old != 2 || old+next != len(rows)-1 {
		t.Errorf("%d and %d of %d records", old, next, len(rows)-1)
	}
	stop := errors.New("enough")
	if err := l.Records(ctx, ledger.Period{}, func(ledger.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	if err := l.WriteCSV(ctx, brokenPipe{}, ledger.Period{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nobody reads: %v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// recordsAddUp compares the records with what the accounts hold.
func recordsAddUp(ctx context.Context, l *ledger.Ledger) (records, accounts int64, err error) {
	err = l.Records(ctx, ledger.Period{}, func(r ledger.Record) error {
		records += r.Amount - r.Fee
		if r.Kind != ledger.KindEarning {
			records -= r.Royalty
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	for _, account := range []string{ledger.AccountWallet, ledger.AccountEscrow, ledger.AccountReceivable} {
		entries, err := l.Entries(ctx, ledger.EntryFilter{Account: account, Limit: 100_000})
		if err != nil {
			return 0, 0, err
		}
		for _, e := range entries {
			accounts += e.Amount
		}
	}
	return records, accounts, nil
}

func TestRecordsAddUp(t *testing.T) {
	l := bookYear(t)
	records, accounts, err := recordsAddUp(context.Background(), l)
	if records != accounts || err != nil {
		t.Errorf("records of %d, accounts of %d, %v", records, accounts, err)
	}
}

// A close that a refund displaces is undone by a record of its own.
func TestAnEarningThatIsUndone(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := threeTitles(t, l, empty(1, titleA))
	must(t, l.PutOutgoing(ctx, closing(c, id('t', 1))))
	o, err := l.Outgoing(ctx, id('t', 1))
	must(t, err)
	for _, state := range []string{ledger.Mined, ledger.Conflicted} {
		o.State = state
		must(t, l.UpdateOutgoing(ctx, o))
	}
	sums := make(map[string]ledger.Record)
	n := 0
	must(t, l.Records(ctx, ledger.Period{}, func(r ledger.Record) error {
		sum := sums[r.Title]
		sum.Amount, sum.Bytes, sum.Royalty = sum.Amount+r.Amount, sum.Bytes+r.Bytes, sum.Royalty+r.Royalty
		sums[r.Title] = sum
		n++
		if r.State != ledger.Conflicted || r.Kind != ledger.KindEarning {
			t.Errorf("record %+v", r)
		}
		return nil
	}))
	for title, sum := range sums {
		if sum != (ledger.Record{}) {
			t.Errorf("%s: %+v is left", title, sum)
		}
	}
	if n != 4 {
		t.Errorf("%d records, want 2 and 2 that undo them", n)
	}
}

func TestTotalsBy(t *testing.T) {
	ctx := context.Background()
	l := bookYear(t)
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	write := func(total ledger.Total) error { return enc.Encode(total) }
	for name, by := range map[string]func(func(ledger.Total) error) error{
		"day":     func(fn func(ledger.Total) error) error { return l.TotalsByDay(ctx, ledger.Period{}, fn) },
		"title":   func(fn func(ledger.Total) error) error { return l.TotalsByTitle(ctx, fn) },
		"channel": func(fn func(ledger.Total) error) error { return l.TotalsByChannel(ctx, fn) },
	} {
		out.Reset()
		must(t, by(write))
		golden(t, "totals_"+name+".json", out.Bytes())
		var again bytes.Buffer
		for dec := json.NewDecoder(&out); dec.More(); {
			var total ledger.Total
			must(t, dec.Decode(&total))
			must(t, json.NewEncoder(&again).Encode(total))
		}
		golden(t, "totals_"+name+".json", again.Bytes())
		var sum ledger.Total
		must(t, by(func(total ledger.Total) error {
			sum.Settled += total.Settled
			sum.OnTheWay += total.OnTheWay
			sum.Open += total.Open
			sum.Bought += total.Bought
			sum.Royalty += total.Royalty
			sum.PaidOut += total.PaidOut
			return nil
		}))
		totals, err := l.Totals(ctx)
		must(t, err)
		open, royalty, paidOut := int64(100), int64(totals.Royalty), int64(0)
		if name == "day" {
			open, royalty, paidOut = 0, royalty-10, int64(totals.Swept)+20_000-20+0
		}
		if sum.Settled != int64(totals.Settled) || sum.OnTheWay != 100 || sum.Open != open || sum.Bought != int64(totals.Bought) ||
			sum.Royalty != royalty || sum.PaidOut != paidOut {
			t.Errorf("by %s: %+v, the ledger has %+v", name, sum, totals)
		}
		if err := by(func(ledger.Total) error { return io.EOF }); !errors.Is(err, io.EOF) {
			t.Errorf("by %s, stopped: %v", name, err)
		}
	}
}

// A million entries are exported with the memory of a thousand.
func TestExportOfALargeLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a large ledger")
	}
	ctx := context.Background()
	l := fast(t)
	const payments = 5_000
	must(t, l.Exec(ctx, `INSERT INTO entries (tx_group, at, about, subject, account, amount, title, txid, note)
		WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT i, i * 1000, 'payment', randomblob(32), account, amount, NULL, randomblob(32), ''
		FROM n, (SELECT 'wallet' AS account, -100 AS amount UNION ALL SELECT 'fees:sweep', 20 UNION ALL SELECT 'payouts', 80)
		ORDER BY i`, payments))
	var peak, lines uint64
	must(t, l.WriteCSV(ctx, writerFunc(func(b []byte) {
		lines += uint64(bytes.Count(b, []byte("\n")))
		var m runtime.MemStats
		if lines%1000 < 40 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
	}), ledger.Period{}))
	if lines != payments+1 {
		t.Errorf("%d lines", lines)
	}
	// The other tests' part of the heap is in it, and the database's of some MB.
	if peak > 64<<20 {
		t.Errorf("%d MB of heap", peak>>20)
	}
	t.Logf("%d entries, %d KiB of heap", 3*payments, peak>>10)
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

func TestCellsAreNoFormulas(t *testing.T) {
	ctx := context.Background()
	for name, want := range map[string]string{
		"=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@SUM(A1)": "'@SUM(A1)", "\t=1": "' =1", "\r\n @x": "'   @x", "＝1": "'＝1",
		"plain": "plain", "a=1": "a=1", "": "", "two\nlines": "two lines", "\xff": "\uFFFD", `"quoted", with comma`: `"quoted", with comma`,
	} {
		l := fast(t)
		c := payee(1)
		c.TitleName = name
		c.State, c.CloseTxid = ledger.StateClosing, id('t', 1)
		must(t, l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{c}, Outbox: []ledger.Outgoing{closing(c, c.CloseTxid)}}))
		o, err := l.Outgoing(ctx, c.CloseTxid)
		must(t, err)
		o.State = ledger.Seen
		must(t, l.UpdateOutgoing(ctx, o))
		var out bytes.Buffer
		must(t, l.WriteCSV(ctx, &out, ledger.Period{}))
		rows, err := csv.NewReader(&out).ReadAll()
		must(t, err)
		if len(rows) != 2 || rows[1][4] != want {
			t.Errorf("%q is written %q, want %q", name, rows[1:], want)
		}
		if strings.HasPrefix(rows[1][9], "'") {
			t.Errorf("an amount is text: %q", rows[1][9])
		}
	}
}
