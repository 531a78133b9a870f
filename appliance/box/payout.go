package box

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// ErrNoPayout says that no payout address is set.
var ErrNoPayout = errors.New("no payout address is set")

// payoutMark is the ledger's mark of when a payout at a set time was made last.
const payoutMark = "payout"

// payouts sweeps the earnings when it is time to and there are enough of them.
func (b *Box) payouts(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if due, err := b.payoutDue(ctx); err != nil || due {
			b.payout(ctx, err)
		}
		timer.Reset(b.opt.Settings.Payout.wait(b.opt.Clock()))
	}
}

// payoutDue reports whether it is time for a payout: always, where no time of
// day is set, and else when the last one that was due was not made.
func (b *Box) payoutDue(ctx context.Context) (bool, error) {
	now := b.opt.Clock()
	due := b.opt.Settings.Payout.lastDue(now)
	if due.IsZero() {
		return true, nil
	}
	text, err := b.ledger.Marked(ctx, payoutMark)
	if err != nil {
		return false, err
	}
	last, err := time.Parse(time.RFC3339, text)
	// None was made yet, or the clock was ahead when one was made: the next one is
	// at the next set time.
	if err != nil || last.After(now) {
		return false, b.ledger.Mark(ctx, payoutMark, due.UTC().Format(time.RFC3339))
	}
	return last.Before(due), nil
}

// payout makes one, unless there was an error before, and keeps the health
// condition of it. What fails is due again.
func (b *Box) payout(ctx context.Context, err error) {
	now := b.opt.Clock()
	var made Payout
	if err == nil {
		made, err = b.Sweep(ctx, false)
	}
	for _, plan := range made.Sweeps {
		b.opt.Log.Info("earnings swept", "txid", plan.Txid, "amount", plan.Payout, "fee", plan.Fee)
	}
	switch {
	case err == nil, errors.Is(err, ErrNoPayout), errors.Is(err, wallet.ErrBelowThreshold):
		b.health.Clear("payout-failed")
		if !b.opt.Settings.Payout.lastDue(now).IsZero() {
			if err := b.ledger.Mark(ctx, payoutMark, now.UTC().Format(time.RFC3339)); err != nil {
				b.opt.Log.Warn("the time of the payout is not stored", "error", err)
			}
		}
	case ctx.Err() == nil:
		b.opt.Log.Warn("earnings not swept", "error", err)
		b.health.Raise(health.Condition{Code: "payout-failed", Severity: health.Warning,
			Title:  "The earnings could not be paid out.",
			Remedy: "It is tried again by itself. Where the fee is too high, wait for more earnings or allow a larger share.",
			Detail: err.Error()})
	}
}

// Payout is what a sweep has made, or would make.
type Payout struct {
	Sweeps []wallet.Plan
	// Joined are consolidations, which cost nothing and pay nothing out.
	Joined []wallet.Plan
}

// Sweep pays the earnings out to the owner's address, or only says what it
// would do, and joins small coins where that is free. Errors are ErrNoPayout
// and those of the wallet; what was made before an error is returned with it.
func (b *Box) Sweep(ctx context.Context, dryRun bool) (p Payout, err error) {
	s := &b.opt.Settings
	if s.Payout.Address == "" || b.seller == nil {
		return Payout{}, ErrNoPayout
	}
	to, err := bsv.ParseAddress(s.Payout.Address, s.Network)
	if err != nil {
		return Payout{}, fmt.Errorf("payout address: %w", err)
	}
	policy := wallet.Policy{To: to, Threshold: s.Payout.Threshold, MaxFeeShare: s.Payout.MaxFeeShare}
	join, pay := b.wallet.Consolidate, b.wallet.Payout
	if dryRun {
		join, pay = b.wallet.ConsolidationPlan, b.wallet.PayoutPlan
	} else {
		defer b.outbox.Kick()
	}
	// First, so that what is free to join is not swept for a fee.
	if p.Joined, err = join(ctx, policy); err != nil {
		b.opt.Log.Warn("small coins not joined", "error", err)
	}
	if p.Sweeps, err = pay(ctx, policy); err != nil && dryRun {
		p.Sweeps = nil // they only explain the error
	}
	return p, err
}

// controlSweep answers the command line.
func (b *Box) controlSweep(ctx context.Context, r SweepRequest) (SweepResponse, error) {
	p, err := b.Sweep(ctx, r.DryRun)
	if err != nil && len(p.Sweeps)+len(p.Joined) == 0 {
		return SweepResponse{}, err
	}
	if err != nil && !errors.Is(err, wallet.ErrBelowThreshold) && !errors.Is(err, wallet.ErrFeeShare) {
		return SweepResponse{}, err
	}
	answer := SweepResponse{To: b.opt.Settings.Payout.Address}
	for _, plan := range p.Joined {
		tx, err := b.sweepTransaction(ctx, plan)
		if err != nil {
			return SweepResponse{}, err
		}
		answer.Consolidations = append(answer.Consolidations, tx)
	}
	for _, plan := range p.Sweeps {
		tx, err := b.sweepTransaction(ctx, plan)
		if err != nil {
			return SweepResponse{}, err
		}
		answer.Transactions = append(answer.Transactions, tx)
		answer.Inputs += len(plan.Coins)
		// Together they are no more than there is.
		answer.Total += plan.Total
		answer.Fee += plan.Fee
		answer.Payout += plan.Payout
		answer.Left, answer.Dust = plan.Left, plan.Dust
	}
	if len(answer.Transactions) > 0 {
		answer.Txid = answer.Transactions[0].Txid
	}
	return answer, nil
}

func (b *Box) sweepTransaction(ctx context.Context, p wallet.Plan) (SweepTransaction, error) {
	tx := SweepTransaction{Total: p.Total, Fee: p.Fee, FeeShare: p.FeeShare(), FeeRate: p.FeeRate, Payout: p.Payout}
	if !p.Txid.IsZero() {
		tx.Txid = p.Txid.String()
	}
	for _, c := range p.Coins {
		titles, err := b.ledger.CoinTitles(ctx, c)
		if err != nil {
			return SweepTransaction{}, err
		}
		tx.Inputs = append(tx.Inputs, SweepInput{Coin: coinName(c), Value: c.Value, Titles: titles})
	}
	return tx, nil
}

func coinName(c ledger.Coin) string { return bsv.Outpoint{Txid: c.Txid, Index: c.Index}.String() }

// PayoutSettings say where the earnings go.
type PayoutSettings struct {
	Address     string         `toml:"address" comment:"where earnings are swept; empty keeps them in the box's wallet"`
	Threshold   money.Satoshis `toml:"threshold" comment:"satoshis from which on a sweep is made"`
	MaxFeeShare int            `toml:"max_fee_share" comment:"fee in thousandths of the amount above which no sweep is made"`
	Every       Duration       `toml:"every" comment:"how often it is looked whether a sweep is due, or again after one has failed"`
	At          string         `toml:"at" comment:"time of day of the box at which earnings are swept, as in \"03:00\"; a missed time is made up. Empty is whenever there is enough"`
	Weekday     string         `toml:"weekday" comment:"the day on which that is, as in \"monday\"; empty is every day"`
}

const timeOfDay = "15:04"

// check returns the name of a setting that cannot be used, and why.
func (p *PayoutSettings) check() (name, why string) {
	switch {
	case !p.Threshold.Valid():
		return "payout.threshold", fmt.Sprint(int64(p.Threshold))
	case p.MaxFeeShare < 1 || p.MaxFeeShare > 1000:
		return "payout.max_fee_share", fmt.Sprintf("%d is not between 1 and 1000", p.MaxFeeShare)
	case p.Every < Duration(time.Second):
		return "payout.every", "below a second"
	}
	if _, err := time.Parse(timeOfDay, p.At); err != nil && p.At != "" {
		return "payout.at", fmt.Sprintf("%q is not a time like 03:00", p.At)
	}
	if _, ok := weekday(p.Weekday); !ok && p.Weekday != "" {
		return "payout.weekday", fmt.Sprintf("%q is not a day like monday", p.Weekday)
	}
	if p.Weekday != "" && p.At == "" {
		return "payout.weekday", "without payout.at"
	}
	return "", ""
}

func weekday(name string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name == strings.ToLower(d.String()) {
			return d, true
		}
	}
	return 0, false
}

// lastDue returns the newest set time that is not after now, in now's time
// zone; zero where none is set.
func (p *PayoutSettings) lastDue(now time.Time) time.Time {
	at, err := time.Parse(timeOfDay, p.At)
	if err != nil {
		return time.Time{}
	}
	day, weekly := weekday(p.Weekday)
	for back := 0; ; back++ { // at most a week
		due := time.Date(now.Year(), now.Month(), now.Day()-back, at.Hour(), at.Minute(), 0, 0, now.Location())
		if !due.After(now) && (!weekly || due.Weekday() == day) {
			return due
		}
	}
}

// wait is how long after now it is looked again: Every, or earlier where the
// next set time comes before that.
func (p *PayoutSettings) wait(now time.Time) time.Duration {
	every := time.Duration(p.Every)
	last := p.lastDue(now)
	if last.IsZero() {
		return every
	}
	days := 1
	if p.Weekday != "" {
		days = 7
	}
	next := time.Date(last.Year(), last.Month(), last.Day()+days, last.Hour(), last.Minute(), 0, 0, last.Location())
	return min(every, max(next.Sub(now), time.Second))
}
