package ledger_test

import (
	"context"
	_ "embed"
	"errors"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/storage/db"
)

//go:embed testdata/v1.sql
var versionOne string

// A ledger of version 1 opens with its money in it, and becomes one of the
// same schema as a new one.
func TestVersionOneOpens(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "money.db")
	d, err := db.Open(ctx, path, db.Options{Migrations: []string{versionOne}})
	must(t, err)
	must(t, d.Close())
	l, err := ledger.OpenFast(ctx, path, clock)
	must(t, err)
	defer l.Close()
	check(t, l)

	want, err := fast(t).Schema(ctx)
	must(t, err)
	if got, err := l.Schema(ctx); got != want || err != nil {
		t.Errorf("%v; its schema is\n%s\nand that of a new one\n%s\nA released step may not be changed; add one.", err, got, want)
	}
	totals, err := l.Totals(ctx)
	must(t, err)
	if totals.Earned != 200 || totals.Settled != 100 || totals.Swept != 80 || totals.SweepFees != 20 || totals.Escrow != 20_000 {
		t.Errorf("totals %+v", totals)
	}
	c, err := l.Channel(ctx, payee(2).ID)
	must(t, err)
	if c.Payee != 100 || c.TitleName != "a title" || string(c.Snapshot) != "machine" || c.Created != epoch {
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
