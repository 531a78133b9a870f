package chain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// WaitMined asks for the status of a transaction every interval until it is
// mined, and returns that status. It ends early with the last status and an
// error when the transaction is Conflicted (a *Rejected with DoubleSpend),
// when ctx ends, or when the backend fails otherwise than with
// ErrUnavailable.
func WaitMined(ctx context.Context, b Backend, txid bsv.Txid, interval time.Duration) (Status, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last Status
	for {
		s, err := b.Status(ctx, txid)
		switch {
		case ctx.Err() != nil:
			return last, fmt.Errorf("wait for %s to be mined: %w", txid, ctx.Err())
		case errors.Is(err, ErrUnavailable):
		case err != nil:
			return last, fmt.Errorf("wait for %s to be mined: %w", txid, err)
		case s.State == Mined:
			return s, nil
		case s.State == Conflicted:
			return s, fmt.Errorf("wait for %s to be mined: %w", txid, Reject(DoubleSpend, ""))
		default:
			last = s
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
