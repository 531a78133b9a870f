package ledger_test

import (
	"context"
	_ "embed"
	"errors"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/db"
)

var (
	//go:embed testdata/v1.sql
	versionOne string
	//go:embed testdata/v2.sql
	versionTwo string
)

// released opens a ledger as a former program has left it. steps are its
// schema, the last of them with its rows.
func released(t *testing.T, steps ...string) *ledger.Ledger {
	t.Helper()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "money.db")
	d, err := db.Open(ctx, path, db.Options{Migrations: steps})
	must(t, err)
	must(t, d.Close())
	l, err := ledger.OpenFast(ctx, path, clock)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	check(t, l)
	want, err := fast(t).Schema(ctx)
	must(t, err)
	if got, err := l.Schema(ctx); got != want || err != nil {
		t.Errorf("%v; its schema is\n%s\nand that of a new one\n%s\nA released step may not be changed; add one.", err, got, want)
	}
	return l
}

// A ledger of version 1 opens with its money in it, and becomes one of the
// same schema as a new one.
func TestVersionOneOpens(t *testing.T) {
	ctx := context.Background()
	l := released(t, versionOne)
	totals, err := l.Totals(ctx)
	must(t, err)
	if totals.Earned != 200 || totals.Settled != 100 || totals.Swept != 80 || totals.SweepFees != 20 || totals.Escrow != 20_000 {
		t.Errorf("totals %+v", totals)
	}
	c, err := l.Channel(ctx, payee(2).ID)
	must(t, err)
	if c.Payee != 100 || c.TitleName != "a title" || string(c.Snapshot) != "machine" || c.Created != epoch || c.Creators != nil {
		t.Errorf("channel %+v", c)
	}
	c.Seq++
	c.Payee++
	must(t, l.SaveChannel(ctx, c))
	if first, err := l.ReserveKeys(ctx, 2, 1); first != 16 || err != nil {
		t.Errorf("next key %d, %v", first, err)
	}
	if owner, err := l.Claimed(ctx, "wallet"); owner != "regtest 00" || err != nil {
		t.Errorf("owner %q, %v", owner, err)
	}
	check(t, l)
	// What came after it works on the old rows: transactions keep their order,
	// the creator of what was paid before is not known.
	rest, err := l.OutgoingUnsettled(ctx)
	must(t, err)
	if len(rest) != 3 || rest[0].Txid != id('t', 1) || rest[1].Txid != id('s', 1) || rest[2].Txid != id('f', 3) {
		t.Errorf("outbox %+v", rest)
	}
	must(t, l.PutOutgoing(ctx, closing(c, id('t', 2))))
	if rest, err = l.OutgoingUnsettled(ctx); err != nil || len(rest) != 4 || rest[3].Txid != id('t', 2) {
		t.Errorf("outbox %+v, %v", rest, err)
	}
	was := c.Title
	pay(t, l, &c, titleB, "second", 5, 50, ledger.CreatorAmount{Hash: creator1, Amount: 10})
	shares, err := l.Shares(ctx, was, ledger.Payee)
	must(t, err)
	if len(shares) != 1 || shares[0].Payee != 101 || shares[0].Commitments != 2 || shares[0].Creator != 10 {
		t.Errorf("shares %+v", shares)
	}
	byTitle, err := l.EarningsByTitle(ctx)
	must(t, err)
	earned := make(map[[20]byte]money.Satoshis)
	for _, e := range byTitle {
		earned[e.Title] = e.Settled + e.Unsettled
	}
	if len(earned) != 3 || earned[was] != 101 || earned[titleB] != 50 || earned[[20]byte{1}] != 100 {
		t.Errorf("by title %+v", byTitle)
	}
	creators, err := l.RoyaltiesByCreator(ctx, ledger.Payee)
	must(t, err)
	if len(creators) != 2 || creators[0].Hash != creator1 || creators[0].Unsettled != 10 || creators[1].Hash != [20]byte{} ||
		creators[1].Settled != 10 {
		t.Errorf("royalties %+v", creators)
	}
}

func TestVersionTwoOpens(t *testing.T) {
	ctx := context.Background()
	l := released(t, versionTwo, "")
	totals, err := l.Totals(ctx)
	must(t, err)
	if totals.Earned != 473 || totals.Settled != 373 || totals.Swept != 80 || totals.SweepFees != 20 || totals.Escrow != 20_000 {
		t.Errorf("totals %+v", totals)
	}
	for title, want := range map[[20]byte]money.Satoshis{titleA: 203, titleB: 70, titleC: 0, {1}: 100, {2}: 100} {
		shares, err := l.Shares(ctx, title, ledger.Payee)
		must(t, err)
		if len(shares) != 1 || shares[0].Payee != want {
			t.Errorf("title %x: %+v, want %v", title[:1], shares, want)
		}
	}
	c, err := l.Channel(ctx, payee(4).ID)
	must(t, err)
	if len(c.Creators) != 2 || c.Creators[0] != (ledger.CreatorAmount{Hash: creator1, Amount: 21}) {
		t.Errorf("creators %+v", c.Creators)
	}
	if o, err := l.Outgoing(ctx, id('j', 1)); err != nil || o.Purpose != ledger.Consolidation {
		t.Errorf("%+v, %v", o, err)
	}
	if at, err := l.Marked(ctx, "payout"); at != "2023-11-14T03:00:00Z" || err != nil {
		t.Errorf("mark %q, %v", at, err)
	}
}

func TestNewerLedgerIsRefused(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "money.db")
	d, err := db.Open(ctx, path, db.Options{Migrations: append(ledger.Migrations(), `CREATE TABLE later (n INTEGER) STRICT`)})
	must(t, err)
	must(t, d.Close())
	if _, err := ledger.Open(ctx, path, clock); !errors.Is(err, db.ErrNewer) {
		t.Errorf("newer ledger: %v, want ErrNewer", err)
	}
}
