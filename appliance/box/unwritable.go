package box

import (
	"context"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
)

const (
	ledgerUnwritable = "ledger-unwritable"
	// ledgerRetry is how often it is looked whether a ledger can be written again
	// that could not.
	ledgerRetry = 2 * time.Second
)

// ledgerWrote keeps the condition of a ledger that cannot be written.
func (b *Box) ledgerWrote(err error) {
	b.unwritable.Store(err != nil)
	if err == nil {
		b.health.Clear(ledgerUnwritable)
		return
	}
	b.health.Raise(health.Condition{Code: ledgerUnwritable, Severity: health.Failure,
		Title:  "The disk does not take what the ledger has to keep, so nothing is sold.",
		Remedy: "Free some space on the disk with the data folder. If there is enough, the disk may be failing: copy the folder while it can be read. Selling goes on by itself.",
		Detail: err.Error()})
}

// retryLedger finds out when a ledger can be written again: a box from which
// nobody buys would not hear of it.
func (b *Box) retryLedger(ctx context.Context) error {
	ticker := time.NewTicker(ledgerRetry)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if b.unwritable.Load() {
			_ = b.ledger.TryWrite(ctx) // ledgerWrote is told
		}
	}
}
