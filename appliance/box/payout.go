package box

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// ErrNoPayout says that no payout address is set.
var ErrNoPayout = errors.New("no payout address is set")

// payouts sweeps the earnings when there are enough of them.
func (b *Box) payouts(ctx context.Context) error {
	ticker := time.NewTicker(time.Duration(b.opt.Settings.Payout.Every))
	defer ticker.Stop()
	for {
		plan, err := b.Sweep(ctx, false)
		switch {
		case err == nil:
			b.opt.Log.Info("earnings swept", "txid", plan.Txid, "amount", plan.Payout, "fee", plan.Fee)
			b.health.Clear("payout-failed")
		case errors.Is(err, ErrNoPayout), errors.Is(err, wallet.ErrBelowThreshold):
			b.health.Clear("payout-failed")
		case ctx.Err() == nil:
			b.opt.Log.Warn("earnings not swept", "error", err)
			b.health.Raise(health.Condition{Code: "payout-failed", Severity: health.Warning,
				Title:  "The earnings could not be paid out.",
				Remedy: "It is tried again by itself. Where the fee is too high, wait for more earnings or allow a larger share.",
				Detail: err.Error()})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep pays the earnings out to the owner's address, or only says what it
// would do. Errors are ErrNoPayout and those of the wallet.
func (b *Box) Sweep(ctx context.Context, dryRun bool) (wallet.Plan, error) {
	s := &b.opt.Settings
	if s.Payout.Address == "" || b.seller == nil {
		return wallet.Plan{}, ErrNoPayout
	}
	to, err := bsv.ParseAddress(s.Payout.Address, s.Network)
	if err != nil {
		return wallet.Plan{}, fmt.Errorf("payout address: %w", err)
	}
	policy := wallet.Policy{To: to, Threshold: s.Payout.Threshold, MaxFeeShare: s.Payout.MaxFeeShare, MaxInputs: 200}
	if dryRun {
		return b.wallet.SweepPlan(ctx, policy)
	}
	plan, err := b.wallet.Sweep(ctx, policy)
	if err == nil {
		b.outbox.Kick()
	}
	return plan, err
}
