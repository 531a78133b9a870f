package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/spf13/pflag"
)

// errDiffers says that a check of the ledger has found something.
var errDiffers = errors.New("the ledger is not what it should be")

// exportFlags say which records are wanted, in what form and where.
type exportFlags struct {
	from, to  *string
	csv, json *bool
	output    *string
}

func addExportFlags(flags *pflag.FlagSet) exportFlags {
	return exportFlags{
		from:   flags.String("from", "", "first `date` (2026-01-31, UTC) or time (RFC 3339)"),
		to:     flags.String("to", "", "last `date`, which is part of it, or time, which is not"),
		csv:    flags.Bool("csv", false, "write CSV, the default"),
		json:   flags.Bool("json", false, "write JSON"),
		output: flags.StringP("output", "o", "", "write to this `file`, not to the standard output"),
	}
}

func (f exportFlags) request() (r box.ExportRequest, err error) {
	if r.Period, err = period(*f.from, *f.to); err != nil {
		return r, err
	}
	switch {
	case *f.csv && *f.json:
		return r, fmt.Errorf("%w: --csv or --json", errUsage)
	case *f.json:
		r.Format = box.FormatJSON
	default:
		r.Format = box.FormatCSV
	}
	return r, nil
}

// write has the records written to where the flags say. A file is there whole
// or not at all, and only its owner can read it.
func (f exportFlags) write(io stdio, records func(io.Writer) error) error {
	if *f.output == "" {
		return records(io.out)
	}
	return durable.ReplaceWith(*f.output, 0o600, records)
}

// period reads two ends, each a date or a time; "" leaves it open.
func period(from, to string) (p ledger.Period, err error) {
	read := func(name, text string, days int) (time.Time, error) {
		if text == "" {
			return time.Time{}, nil
		}
		if day, err := time.Parse(time.DateOnly, text); err == nil {
			return day.AddDate(0, 0, days), nil
		}
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: --%s: %q is no date like 2026-01-31 and no time like 2026-01-31T12:00:00Z", errUsage, name, text)
		}
		return at, nil
	}
	if p.From, err = read("from", from, 0); err == nil {
		p.To, err = read("to", to, 1)
	}
	if err == nil && !p.From.IsZero() && !p.To.IsZero() && !p.From.Before(p.To) {
		err = fmt.Errorf("%w: --from %s comes after --to %s", errUsage, from, to)
	}
	return p, err
}

const boxLedgerAbout = `The books of a box, running or not: earnings, payouts and all else that moved
money, each traced to a channel, a title and a transaction.

  export   every earning and payment, one on a line, for a tax return
  totals   sums by day, title, channel, or creator
  check    recompute every balance, and compare with the chain`

func runBoxLedger(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "box ledger", "export|totals|check", boxLedgerAbout)
	data := flags.String("data", environment("BITCDN_BOX", "/var/lib/bitcdn"), "the box's data `folder`; env BITCDN_BOX")
	export := addExportFlags(flags)
	by := flags.String("by", box.ByDay, "with totals: day, title, channel or creator")
	nodeURL := flags.String("node", "", "with check, for a box that does not run: `URL` of a node to compare with")
	if done, err := parse(flags, args, 1, 1); done || err != nil {
		return err
	}
	b := &books{dir: *data, io: io, control: box.NewControl(*data)}
	switch verb := flags.Arg(0); verb {
	case "export":
		request, err := export.request()
		if err != nil {
			return err
		}
		return export.write(io, func(w writer) error { return b.export(ctx, request, w) })
	case "totals":
		request := box.TotalsRequest{By: *by}
		var err error
		if request.Period, err = period(*export.from, *export.to); err != nil {
			return err
		}
		return export.write(io, func(w writer) error { return b.totals(ctx, request, w, *export.json) })
	case "check":
		return b.check(ctx, *nodeURL, *export.json)
	default:
		return fmt.Errorf("%w: bitcdn box ledger %s", errUsage, verb)
	}
}

// writer is what io.Writer is called where io is the name of a parameter.
type writer = io.Writer

// books are a box's ledger: asked through the box where it runs, and else read
// from its folder.
type books struct {
	dir     string
	io      stdio
	control *box.Control
}

// either asks the running box, or opens the ledger of one that does not run.
func (b *books) either(ctx context.Context, running func() error, stopped func(*ledger.Ledger) error) error {
	err := running()
	if !errors.Is(err, box.ErrNotRunning) {
		return err
	}
	l, unlock, failed := openLedger(ctx, b.dir)
	if errors.Is(failed, fs.ErrNotExist) {
		return err // there is no box at all
	}
	if failed != nil {
		return failed
	}
	defer unlock()
	return stopped(l)
}

// openLedger opens the ledger in a folder that no program uses.
func openLedger(ctx context.Context, dir string) (*ledger.Ledger, func(), error) {
	path := filepath.Join(dir, "money.db")
	if _, err := os.Stat(path); err != nil {
		return nil, nil, err
	}
	lock, err := box.Lock(dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := ledger.Open(ctx, path, time.Now)
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return l, func() {
		_ = l.Close() // nothing was written
		_ = lock.Close()
	}, nil
}

func (b *books) export(ctx context.Context, r box.ExportRequest, w writer) error {
	return b.either(ctx, func() error { return b.control.Export(ctx, r, w) },
		func(l *ledger.Ledger) error { return box.WriteRecords(ctx, l, w, r) })
}

func (b *books) totals(ctx context.Context, r box.TotalsRequest, w writer, asJSON bool) error {
	table := &totalsTable{by: r.By, w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	row, end := table.row, table.end
	if asJSON {
		list := &jsonList{w: w}
		row, end = func(t ledger.Total) error { return list.add(t) }, list.end
	}
	if err := b.either(ctx, func() error { return b.control.EachTotal(ctx, r, row) },
		func(l *ledger.Ledger) error { return box.EachTotal(ctx, l, r, row) }); err != nil {
		return err
	}
	return end()
}

// jsonList writes an array, an element on a line.
type jsonList struct {
	w writer
	n int
}

func (l *jsonList) add(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	before := "[\n"
	if l.n++; l.n > 1 {
		before = ",\n"
	}
	_, err = fmt.Fprintf(l.w, "%s%s", before, line)
	return err
}

func (l *jsonList) end() error {
	text := "\n]\n"
	if l.n == 0 {
		text = "[\n]\n"
	}
	_, err := io.WriteString(l.w, text)
	return err
}

// totalsTable is totals for people. Its width is found over some thousand rows
// at a time, so that a long one needs no memory.
type totalsTable struct {
	by  string
	w   *tabwriter.Writer
	n   int
	sum ledger.Total
}

const tableFlush = 2000

func (t *totalsTable) row(v ledger.Total) error {
	if t.n == 0 {
		t.head()
	}
	if t.n++; t.n%tableFlush == 0 {
		if err := t.w.Flush(); err != nil {
			return err
		}
	}
	t.sum.Settled += v.Settled
	t.sum.OnTheWay += v.OnTheWay
	t.sum.Open += v.Open
	t.sum.Royalty += v.Royalty
	t.sum.RoyaltySettled += v.RoyaltySettled
	t.sum.Bytes += v.Bytes
	t.sum.Bought += v.Bought
	t.sum.Fees += v.Fees
	t.sum.PaidOut += v.PaidOut
	t.sum.PayingOut += v.PayingOut
	name, key := printable(v.Name), ""
	switch t.by {
	case box.ByDay:
		key = v.Day.Format(time.DateOnly)
	case box.ByTitle:
		key = fmt.Sprintf("%x", v.Title)
	case box.ByChannel:
		key = fmt.Sprintf("%x", v.Channel)
	case box.ByCreator:
		key = v.Creator
	}
	return t.line(key, v, name)
}

func (t *totalsTable) head() {
	switch t.by {
	case box.ByDay:
		fmt.Fprintln(t.w, "DAY (UTC)\tEARNED\tON THE WAY\tROYALTIES\tSOLD\tBOUGHT\tFEES\tPAID OUT\tON THE WAY")
	case box.ByCreator:
		fmt.Fprintln(t.w, "CREATOR\tROYALTIES\tIN BLOCKS\tCHANNELS")
	case box.ByTitle:
		fmt.Fprintln(t.w, "INFO HASH\tEARNED\tON THE WAY\tOPEN\tROYALTIES\tSOLD\tBOUGHT\tFEES\tTITLE")
	default:
		fmt.Fprintln(t.w, "CHANNEL\tEARNED\tON THE WAY\tOPEN\tROYALTIES\tSOLD\tBOUGHT\tFEES\tTITLE")
	}
}

func (t *totalsTable) line(key string, v ledger.Total, name string) (err error) {
	sat := func(n int64) string { return money.Satoshis(n).String() }
	switch t.by {
	case box.ByDay:
		_, err = fmt.Fprintf(t.w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key, sat(v.Settled), sat(v.OnTheWay), sat(v.Royalty), size(v.Bytes),
			sat(v.Bought), sat(v.Fees), sat(v.PaidOut), sat(v.PayingOut))
	case box.ByCreator:
		_, err = fmt.Fprintf(t.w, "%s\t%s\t%s\t%d\n", key, sat(v.Royalty), sat(v.RoyaltySettled), v.Channels)
	default:
		_, err = fmt.Fprintf(t.w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", key, sat(v.Settled), sat(v.OnTheWay), sat(v.Open), sat(v.Royalty),
			size(v.Bytes), sat(v.Bought), sat(v.Fees), name)
	}
	return err
}

func (t *totalsTable) end() error {
	if t.n == 0 {
		fmt.Fprintln(t.w, "nothing yet")
	} else if t.by != box.ByCreator {
		if err := t.line("in all", t.sum, ""); err != nil {
			return err
		}
	}
	return t.w.Flush()
}

func (b *books) check(ctx context.Context, nodeURL string, asJSON bool) error {
	var report box.LedgerReport
	err := b.either(ctx, func() (err error) {
		report, err = b.control.CheckLedger(ctx)
		return err
	}, func(l *ledger.Ledger) (err error) {
		var c chain.Backend
		if nodeURL != "" {
			if c, err = node.Dial(nodeURL, node.Options{}); err != nil {
				return fmt.Errorf("%w: --node: %w", errUsage, err)
			}
		}
		report, err = box.CheckLedger(ctx, l, c)
		return err
	})
	if err != nil {
		return err
	}
	if asJSON {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(b.io.out, "%s\n", text)
	} else {
		printReport(b.io.out, report)
	}
	switch {
	case len(report.Differences) > 0:
		return fmt.Errorf("%d differences: %w", len(report.Differences), errDiffers)
	case report.ChainError != "":
		return fmt.Errorf("%w: %s", chain.ErrUnavailable, report.ChainError)
	}
	return nil
}

func printReport(w writer, r box.LedgerReport) {
	for _, d := range r.Differences {
		fmt.Fprintln(w, "!", printable(d))
	}
	for _, q := range r.Unasked {
		fmt.Fprintf(w, "the chain service cannot tell %s\n", q)
	}
	if len(r.Differences) == 0 {
		fmt.Fprintln(w, "the ledger adds up")
	}
	if r.Offline {
		fmt.Fprintf(w, "%d transactions looked at; the chain was not asked\n", r.Transactions)
		return
	}
	fmt.Fprintf(w, "compared with the chain: %d coins, %d transactions, %d closes\n", r.Coins, r.Transactions, r.Closes)
	fmt.Fprintf(w, "settled earnings: %v in the ledger, %v paid by closes in blocks\n", money.Satoshis(r.Settled), money.Satoshis(r.Paid))
}
