package paylink_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// A channel that went on with another title is in the receipts of both, each
// with its part, and its fee in that of the first.
func TestReceiptsOfSeveralTitles(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l, err := ledger.OpenWith(ctx, filepath.Join(t.TempDir(), "money.db"), time.Now, ledger.Options{Interval: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, second := [20]byte{1}, [20]byte{2}
	c := ledger.Channel{ID: [32]byte{1}, Role: ledger.Payer, State: ledger.StateOpen, Title: first, Remote: "192.0.2.1:6881",
		Capacity: 10_000, Rate: 1000, Seq: 3, Bytes: 300, Payee: 30, Creator: 3, Fee: 28}
	save := func() {
		t.Helper()
		if err := l.SaveChannel(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	save()
	c.Title, c.Rate, c.Seq, c.Bytes, c.Payee = second, 2000, 7, 400, 50
	save()
	for title, want := range map[[20]byte]paylink.Receipt{
		first:  {Rate: 1000, Commitments: 3, Bytes: 300, Payee: 30, Creator: 3, Fee: 28},
		second: {Rate: 2000, Commitments: 4, Bytes: 100, Payee: 20},
		{3}:    {},
	} {
		got, err := paylink.Receipts(ctx, l, title)
		if err != nil {
			t.Fatal(err)
		}
		if want == (paylink.Receipt{}) {
			if len(got) != 0 {
				t.Errorf("title %x: %+v", title[:1], got)
			}
			continue
		}
		want.Seeder, want.Channel, want.State = c.Remote, c.ID, c.State
		if len(got) != 1 || got[0] != want {
			t.Errorf("title %x: %+v, want %+v", title[:1], got, want)
		}
	}
}
