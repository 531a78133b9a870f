package wallet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Defaults of a Policy.
const (
	DefaultMaxFeeShare = 50  // per mille
	DefaultMaxInputs   = 200 // 29.6 kB
)

var (
	// ErrBelowThreshold says that there is less to pay out than the owner wants
	// at a time.
	ErrBelowThreshold = errors.New("earnings are below the payout threshold")
	// ErrFeeShare says that the fee would take a larger part than the owner
	// allows.
	ErrFeeShare = errors.New("the fee is above the allowed share of the payout")
)

// Policy is how the owner wants to be paid.
type Policy struct {
	To bsv.Hash160 // of the owner's address
	// Threshold is the least that there must be to pay out.
	Threshold money.Satoshis
	// MaxFeeShare is the largest part of what is collected that may go to the
	// miner, per mille; DefaultMaxFeeShare where it is zero.
	MaxFeeShare int
	// MaxInputs is the most coins for one payout; DefaultMaxInputs where it is
	// zero.
	MaxInputs int
}

// Plan is a payout, made or only computed.
type Plan struct {
	Coins   []ledger.Coin
	Total   money.Satoshis // of the coins
	Fee     money.Satoshis
	Payout  money.Satoshis // Total - Fee
	FeeRate money.FeeRate
	Size    int // bytes, at most
	// Left is the value of further coins that are worth sweeping but above
	// MaxInputs, Dust that of coins that cost more than they are worth.
	Left, Dust money.Satoshis
	Txid       bsv.Txid // zero in a SweepPlan
}

// SweepPlan computes the payout that Sweep would make. Together with
// ErrBelowThreshold and ErrFeeShare it returns the numbers that led to that.
func (w *Wallet) SweepPlan(ctx context.Context, p Policy) (Plan, error) {
	plan, err := w.plan(ctx, p)
	if err != nil {
		return plan, fmt.Errorf("plan payout: %w", err)
	}
	return plan, nil
}

func (w *Wallet) plan(ctx context.Context, p Policy) (Plan, error) {
	if p.To.IsZero() {
		return Plan{}, errors.New("no payout address")
	}
	if p.MaxFeeShare == 0 {
		p.MaxFeeShare = DefaultMaxFeeShare
	}
	if p.MaxInputs <= 0 || p.MaxInputs > DefaultMaxInputs {
		p.MaxInputs = DefaultMaxInputs
	}
	rate, err := w.chain.FeeRate(ctx)
	if err != nil {
		return Plan{}, err
	}
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{
		States:  []string{ledger.CoinUnspent},
		Origins: []string{ledger.OriginEarning},
	})
	if err != nil {
		return Plan{}, err
	}
	plan, total, err := choose(coins, rate, p.MaxInputs)
	if err != nil {
		return Plan{}, err
	}
	if total < max(p.Threshold, 1) {
		return plan, fmt.Errorf("%s of %s: %w", total, p.Threshold, ErrBelowThreshold)
	}
	// Both sides are at most 2.1e15 × 1000, which an int64 holds.
	if int64(plan.Fee)*1000 > int64(plan.Total)*int64(p.MaxFeeShare) || plan.Fee >= plan.Total {
		return plan, fmt.Errorf("%s for %s, allowed are %d per mille: %w", plan.Fee, plan.Total, p.MaxFeeShare, ErrFeeShare)
	}
	return plan, nil
}

// choose takes the largest coins that are in a block and worth their input.
// total is the value of all that are worth it.
func choose(coins []ledger.Coin, rate money.FeeRate, most int) (plan Plan, total money.Satoshis, err error) {
	plan.FeeRate = rate
	perInput := rate.Fee(bsv.P2PKHInputSize)
	slices.SortStableFunc(coins, func(a, b ledger.Coin) int { return cmp.Compare(b.Value, a.Value) })
	for _, c := range coins {
		if c.Height == 0 {
			continue
		}
		into := &plan.Total
		switch {
		case c.Value <= perInput:
			into = &plan.Dust
		case len(plan.Coins) == most:
			into = &plan.Left
		default:
			plan.Coins = append(plan.Coins, c)
		}
		if *into, err = into.Add(c.Value); err != nil {
			return Plan{}, 0, err
		}
	}
	if total, err = plan.Total.Add(plan.Left); err != nil {
		return Plan{}, 0, err
	}
	if len(plan.Coins) > 0 {
		plan.Size = bsv.PaymentSize(len(plan.Coins), bsv.Output{Script: bsv.P2PKH(bsv.Hash160{})})
		plan.Fee = rate.Fee(plan.Size)
		plan.Payout = max(plan.Total-plan.Fee, 0)
	}
	return plan, total, nil
}

// Sweep pays earnings out: it stores the transaction, the reservation of its
// coins and the entries together, and leaves the broadcast to the Outbox.
// Errors are ErrBelowThreshold, ErrFeeShare and ledger.ErrCoinTaken where
// another payment took a coin meanwhile.
func (w *Wallet) Sweep(ctx context.Context, p Policy) (Plan, error) {
	plan, err := w.plan(ctx, p)
	if err != nil {
		return plan, fmt.Errorf("pay out: %w", err)
	}
	inputs, keys, err := w.inputs(plan.Coins)
	if err != nil {
		return Plan{}, fmt.Errorf("pay out: %w", err)
	}
	tx, fee, err := bsv.BuildSweep(inputs, keys, p.To, plan.FeeRate)
	if err != nil {
		return Plan{}, fmt.Errorf("pay out: %w", err)
	}
	plan.Fee, plan.Payout, plan.Txid = fee, tx.Outputs[0].Value, tx.Txid()
	var prev []byte
	for _, c := range inputs {
		prev = AppendOutput(prev, c.Output)
	}
	if err := w.ledger.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: outpoints(plan.Coins), By: plan.Txid}},
		Outbox:  []ledger.Outgoing{{Txid: plan.Txid, Raw: tx.Bytes(), PrevOutputs: prev, Purpose: ledger.Sweep, Fee: fee}},
	}); err != nil {
		return Plan{}, fmt.Errorf("pay out: %w", err)
	}
	w.opt.Log.Info("payout stored", "txid", plan.Txid, "amount", plan.Payout, "fee", fee, "coins", len(plan.Coins))
	w.opt.Stored()
	return plan, nil
}
