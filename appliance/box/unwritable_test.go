package box

import (
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/storage/db"
)

func TestLedgerCannotBeWritten(t *testing.T) {
	b := &Box{health: health.NewSet(time.Now)}
	b.ledgerWrote(nil)
	if got := b.health.List(); len(got) != 0 || b.unwritable.Load() {
		t.Errorf("%+v", got)
	}
	b.ledgerWrote(db.ErrFull)
	got := b.health.List()
	if len(got) != 1 || got[0].Code != "ledger-unwritable" || got[0].Severity != health.Failure || got[0].Detail != db.ErrFull.Error() || !b.unwritable.Load() {
		t.Errorf("%+v", got)
	}
	b.ledgerWrote(nil)
	if got := b.health.List(); len(got) != 0 || b.unwritable.Load() {
		t.Errorf("%+v", got)
	}
}
