package wallet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	// freeFactor is how many coins are joined at least where every transaction
	// is free.
	freeFactor = 20
	// refusedPause is how long no coins are joined after the network refused to
	// do so for nothing.
	refusedPause = 24 * time.Hour
)

// ConsolidationPlan computes the transactions that Consolidate would make; none
// where nothing can be joined for nothing.
func (w *Wallet) ConsolidationPlan(ctx context.Context, p Policy) ([]Plan, error) {
	plans, err := w.consolidations(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("plan consolidation: %w", err)
	}
	return plans, nil
}

// Consolidate joins small earnings in larger coins where the miner does that
// without a fee, so that they are worth paying out one day. A coin is small
// when to spend it would cost more than the share that the policy allows, at
// the present rate or, where that is zero, at the usual one. It returns what it
// has stored; the Outbox broadcasts it, and gives it up where it is refused.
//
// The new coin lies on the key of the largest of the old ones, so that the
// recovery words find it among the earnings.
func (w *Wallet) Consolidate(ctx context.Context, p Policy) (made []Plan, err error) {
	plans, err := w.consolidations(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("consolidate: %w", err)
	}
	for _, plan := range plans {
		if plan, err = w.consolidate(ctx, plan); err != nil {
			return made, fmt.Errorf("consolidate: %w", err)
		}
		made = append(made, plan)
	}
	return made, nil
}

func (w *Wallet) consolidate(ctx context.Context, plan Plan) (Plan, error) {
	largest := plan.Coins[len(plan.Coins)-1]
	k, err := w.Key(largest.Branch, largest.KeyIndex)
	if err != nil {
		return Plan{}, err
	}
	plan, err = w.spendAll(ctx, plan, k.Public().Hash(), ledger.Consolidation, func(tx *bsv.Tx) ledger.Coin {
		return ledger.Coin{Txid: tx.Txid(), Value: tx.Outputs[0].Value, Script: tx.Outputs[0].Script,
			Branch: largest.Branch, KeyIndex: largest.KeyIndex, Origin: ledger.OriginEarning}
	})
	if err == nil {
		w.opt.Log.Info("consolidation stored", "txid", plan.Txid, "amount", plan.Payout, "coins", len(plan.Coins))
	}
	return plan, err
}

func (w *Wallet) consolidations(ctx context.Context, p Policy) ([]Plan, error) {
	p = p.withDefaults()
	rule, rate, err := w.freeRule(ctx)
	if err != nil || rule.Factor == 0 || rule.Factor > p.MaxInputs {
		return nil, err
	}
	refused, err := w.lately(ctx)
	if err != nil || refused {
		return nil, err
	}
	tip, err := w.chain.Tip(ctx)
	if err != nil {
		return nil, err
	}
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}, Origins: []string{ledger.OriginEarning}})
	if err != nil {
		return nil, err
	}
	if rate == 0 {
		rate = chain.DefaultFeeRate
	}
	perInput := int64(rate.Fee(bsv.P2PKHInputSize))
	small := slices.DeleteFunc(coins, func(c ledger.Coin) bool {
		return c.Height == 0 || !rule.Mature(c.Height, tip.Height) || int64(c.Value)*int64(p.MaxFeeShare) >= perInput*1000 || c.Value == 0
	})
	slices.SortStableFunc(small, func(a, b ledger.Coin) int { return cmp.Compare(a.Value, b.Value) })
	var plans []Plan
	for batch := range slices.Chunk(small, p.MaxInputs) {
		inputs := make([]chain.Coin, len(batch))
		for i, c := range batch {
			inputs[i].Height = c.Height
		}
		if rule.Free(inputs, 1, tip.Height) {
			plans = append(plans, planFor(batch, 0))
		}
	}
	return plans, nil
}

// freeRule returns when joining coins is free, and the fee rate of all else.
func (w *Wallet) freeRule(ctx context.Context) (rule chain.Consolidation, rate money.FeeRate, err error) {
	if rate, err = w.chain.FeeRate(ctx); err != nil {
		return rule, 0, err
	}
	if rate == 0 {
		return chain.Consolidation{Factor: freeFactor, Confirmations: 1, MaxScript: bsv.P2PKHInputSize}, 0, nil
	}
	c, ok := w.chain.(chain.Consolidator)
	if !ok {
		return rule, rate, nil
	}
	if rule, err = c.Consolidation(ctx); errors.Is(err, chain.ErrUnsupported) {
		return chain.Consolidation{}, rate, nil
	}
	return rule, rate, err
}

// lately reports whether the network has refused a free consolidation not long
// ago.
func (w *Wallet) lately(ctx context.Context) (bool, error) {
	last, err := w.ledger.OutgoingFor(ctx, ledger.Consolidation, 1)
	if err != nil || len(last) == 0 {
		return false, err
	}
	return last[0].State == ledger.Conflicted && w.opt.Clock().Sub(last[0].Created) < refusedPause, nil
}
