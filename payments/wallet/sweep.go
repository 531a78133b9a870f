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
	// MaxInputs is the most coins for one transaction; DefaultMaxInputs where it
	// is zero or more than that.
	MaxInputs int
}

// withDefaults fills in what is left out.
func (p Policy) withDefaults() Policy {
	if p.MaxFeeShare == 0 {
		p.MaxFeeShare = DefaultMaxFeeShare
	}
	if p.MaxInputs <= 0 || p.MaxInputs > DefaultMaxInputs {
		p.MaxInputs = DefaultMaxInputs
	}
	return p
}

// Plan is one transaction of a payout, made or only computed.
type Plan struct {
	Coins   []ledger.Coin
	Total   money.Satoshis // of the coins
	Fee     money.Satoshis
	Payout  money.Satoshis // Total - Fee
	FeeRate money.FeeRate
	Size    int // bytes, at most
	// Left is the value of further coins that are worth sweeping but above
	// MaxInputs, Dust that of coins that cost more than they are worth: they
	// wait until it is free to join them.
	Left, Dust money.Satoshis
	Txid       bsv.Txid // zero while it is only computed
}

// FeeShare returns the fee's part of the total per mille, rounded up.
func (p *Plan) FeeShare() int {
	if p.Total <= 0 {
		return 0
	}
	return int((int64(p.Fee)*1000 + int64(p.Total) - 1) / int64(p.Total))
}

// SweepPlan computes the payout that Sweep would make. Together with
// ErrBelowThreshold and ErrFeeShare it returns the numbers that led to that.
func (w *Wallet) SweepPlan(ctx context.Context, p Policy) (Plan, error) {
	plans, err := w.plans(ctx, p)
	if err != nil {
		return first(plans), fmt.Errorf("plan payout: %w", err)
	}
	return plans[0], nil
}

// PayoutPlan computes the transactions that Payout would make. Errors are those
// of SweepPlan, with one plan that holds the numbers.
func (w *Wallet) PayoutPlan(ctx context.Context, p Policy) ([]Plan, error) {
	plans, err := w.plans(ctx, p)
	if err != nil {
		return plans, fmt.Errorf("plan payout: %w", err)
	}
	return plans, nil
}

func first(plans []Plan) Plan {
	if len(plans) == 0 {
		return Plan{}
	}
	return plans[0]
}

// plans computes a payout: at least one transaction, or an error and, where
// there is one, the plan that it is about.
func (w *Wallet) plans(ctx context.Context, p Policy) ([]Plan, error) {
	if p.To.IsZero() {
		return nil, errors.New("no payout address")
	}
	p = p.withDefaults()
	rate, err := w.chain.FeeRate(ctx)
	if err != nil {
		return nil, err
	}
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{
		States:  []string{ledger.CoinUnspent},
		Origins: []string{ledger.OriginEarning},
	})
	if err != nil {
		return nil, err
	}
	worth, total, dust, err := worthSweeping(coins, rate)
	if err != nil {
		return nil, err
	}
	var plans []Plan
	left := total
	for batch := range slices.Chunk(worth, p.MaxInputs) {
		plan := planFor(batch, rate)
		left -= plan.Total
		plan.Left, plan.Dust = left, dust
		// Both sides are at most 2.1e15 × 1000, which an int64 holds. The largest
		// coins come first: what follows costs no smaller share.
		if int64(plan.Fee)*1000 > int64(plan.Total)*int64(p.MaxFeeShare) || plan.Fee >= plan.Total {
			if len(plans) == 0 {
				err = fmt.Errorf("%s for %s, allowed are %d per mille: %w", plan.Fee, plan.Total, p.MaxFeeShare, ErrFeeShare)
				plans = append(plans, plan)
			}
			break
		}
		plans = append(plans, plan)
	}
	if total < max(p.Threshold, 1) {
		if len(plans) == 0 {
			plans = []Plan{{FeeRate: rate, Dust: dust}}
		}
		return plans[:1], fmt.Errorf("%s of %s: %w", total, p.Threshold, ErrBelowThreshold)
	}
	return plans, err
}

// worthSweeping returns the coins that are in a block and worth their input,
// the largest first, and their sum; dust is that of the others.
func worthSweeping(coins []ledger.Coin, rate money.FeeRate) (worth []ledger.Coin, total, dust money.Satoshis, err error) {
	perInput := rate.Fee(bsv.P2PKHInputSize)
	for _, c := range coins {
		if c.Height == 0 {
			continue
		}
		into := &dust
		if c.Value > perInput {
			worth = append(worth, c)
			into = &total
		}
		if *into, err = into.Add(c.Value); err != nil {
			return nil, 0, 0, err
		}
	}
	slices.SortStableFunc(worth, func(a, b ledger.Coin) int { return cmp.Compare(b.Value, a.Value) })
	return worth, total, dust, nil
}

// planFor is the transaction that spends all of coins for one output.
func planFor(coins []ledger.Coin, rate money.FeeRate) Plan {
	plan := Plan{Coins: coins, FeeRate: rate, Size: bsv.PaymentSize(len(coins), bsv.Output{Script: bsv.P2PKH(bsv.Hash160{})})}
	for _, c := range coins {
		plan.Total += c.Value
	}
	plan.Fee = rate.Fee(plan.Size)
	plan.Payout = max(plan.Total-plan.Fee, 0)
	return plan
}

// Sweep pays earnings out with one transaction: it stores the transaction, the
// reservation of its coins and the entries together, and leaves the broadcast
// to the Outbox. Errors are ErrBelowThreshold, ErrFeeShare and
// ledger.ErrCoinTaken where another payment took a coin meanwhile.
func (w *Wallet) Sweep(ctx context.Context, p Policy) (Plan, error) {
	plan, err := w.SweepPlan(ctx, p)
	if err == nil {
		plan, err = w.sweep(ctx, plan, p)
	}
	if err != nil {
		return plan, fmt.Errorf("pay out: %w", err)
	}
	return plan, nil
}

// Payout pays all earnings out that the policy allows, with as many
// transactions as that takes, each as Sweep makes it. It returns those that
// were made, with an error too.
func (w *Wallet) Payout(ctx context.Context, p Policy) (made []Plan, err error) {
	plans, err := w.PayoutPlan(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("pay out: %w", err)
	}
	for _, plan := range plans {
		if plan, err = w.sweep(ctx, plan, p); err != nil {
			return made, fmt.Errorf("pay out: %w", err)
		}
		made = append(made, plan)
	}
	return made, nil
}

func (w *Wallet) sweep(ctx context.Context, plan Plan, p Policy) (Plan, error) {
	plan, err := w.spendAll(ctx, plan, p.To, ledger.Sweep, nil)
	if err == nil {
		w.opt.Log.Info("payout stored", "txid", plan.Txid, "amount", plan.Payout, "fee", plan.Fee, "coins", len(plan.Coins))
	}
	return plan, err
}

// spendAll stores the transaction of a plan. ours, where it is set, makes the
// coin that its output is to this wallet.
func (w *Wallet) spendAll(ctx context.Context, plan Plan, to bsv.Hash160, purpose string, ours func(*bsv.Tx) ledger.Coin) (Plan, error) {
	inputs, keys, err := w.inputs(plan.Coins)
	if err != nil {
		return Plan{}, err
	}
	tx, fee, err := bsv.BuildSweep(inputs, keys, to, plan.FeeRate)
	if err != nil {
		return Plan{}, err
	}
	plan.Fee, plan.Payout, plan.Txid = fee, tx.Outputs[0].Value, tx.Txid()
	o := ledger.Outgoing{Txid: plan.Txid, Raw: tx.Bytes(), Purpose: purpose, Fee: fee}
	for _, c := range inputs {
		o.PrevOutputs = AppendOutput(o.PrevOutputs, c.Output)
	}
	if ours != nil {
		o.Outputs = []ledger.Coin{ours(tx)}
	}
	if err := w.ledger.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: outpoints(plan.Coins), By: plan.Txid}},
		Outbox:  []ledger.Outgoing{o},
	}); err != nil {
		return Plan{}, err
	}
	w.opt.Stored()
	return plan, nil
}
