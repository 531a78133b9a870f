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

// ErrFunds says that the wallet's coins do not suffice. The error is a
// *bsv.FundsError, which holds the amount that is missing.
var ErrFunds = bsv.ErrFunds

// reserveTries is how often another choice of coins is made where somebody else
// has taken one in between.
const reserveTries = 5

// Funding is a signed payment whose coins are reserved.
type Funding struct {
	Tx    *bsv.Tx
	Prev  []bsv.Output // what its inputs spend, in their order
	Fee   money.Satoshis
	Coins []ledger.Outpoint // that are reserved for it
	// Change is the coin that comes back, nil where there is none.
	Change *ledger.Coin
}

// Outgoing returns the row for the ledger's outbox, purpose ledger.Funding or
// ledger.Send. Nothing may be broadcast before that row is stored.
func (f *Funding) Outgoing(purpose string) ledger.Outgoing {
	o := ledger.Outgoing{
		Txid:        f.Tx.Txid(),
		Raw:         f.Tx.Bytes(),
		PrevOutputs: AppendOutputs(nil, f.Prev),
		Purpose:     purpose,
		Fee:         f.Fee,
	}
	if f.Change != nil {
		o.Outputs = []ledger.Coin{*f.Change}
	}
	return o
}

// Fund builds and signs a payment of outs, in their order and with change last,
// and reserves its coins: those in a block first, earnings last. Either the
// Outgoing is stored then, or the coins are given back with Release. The error
// is ErrFunds where the coins do not suffice.
func (w *Wallet) Fund(ctx context.Context, outs []bsv.Output) (*Funding, error) {
	rate, err := w.chain.FeeRate(ctx)
	if err != nil {
		return nil, fmt.Errorf("fund payment: %w", err)
	}
	f, err := w.fund(ctx, outs, rate)
	if err != nil {
		return nil, fmt.Errorf("fund payment: %w", err)
	}
	return f, nil
}

func (w *Wallet) fund(ctx context.Context, outs []bsv.Output, rate money.FeeRate) (*Funding, error) {
	for try := 1; ; try++ {
		coins, err := w.spendable(ctx)
		if err != nil {
			return nil, err
		}
		if coins, err = enough(coins, outs, rate); err != nil {
			return nil, err
		}
		f, err := w.reserve(ctx, coins, outs, rate)
		if errors.Is(err, ledger.ErrCoinTaken) && try < reserveTries {
			continue
		}
		return f, err
	}
}

// reserve builds the payment and reserves its coins.
func (w *Wallet) reserve(ctx context.Context, coins []ledger.Coin, outs []bsv.Output, rate money.FeeRate) (f *Funding, err error) {
	index, err := w.changeIndex(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil || f.Change == nil {
			w.returnChange(index)
		}
	}()
	if f, err = w.build(coins, outs, index, rate); err != nil {
		return nil, err
	}
	// The change is stored now, so that it is not lost where the caller makes
	// the outbox row by himself.
	b := ledger.Batch{Reserve: []ledger.Reservation{{Coins: f.Coins, By: f.Tx.Txid()}}}
	if f.Change != nil {
		b.Coins = []ledger.Coin{*f.Change}
	}
	return f, w.ledger.Apply(ctx, b)
}

// changeIndex returns an unused index of BranchChange. Those of payments that
// came to nothing are used first: a long gap would hide coins from a Restore.
func (w *Wallet) changeIndex(ctx context.Context) (uint32, error) {
	w.mu.Lock()
	if last := len(w.spare) - 1; last >= 0 {
		index := w.spare[last]
		w.spare = w.spare[:last]
		w.mu.Unlock()
		return index, nil
	}
	w.mu.Unlock()
	return w.NextIndex(ctx, BranchChange)
}

func (w *Wallet) returnChange(index uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spare = append(w.spare, index)
}

// spendable returns the coins that a payment may use, the preferred first.
func (w *Wallet) spendable(ctx context.Context) ([]ledger.Coin, error) {
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil {
		return nil, err
	}
	usable := coins[:0]
	for _, c := range coins {
		ok, err := w.versionOne(ctx, c)
		if err != nil {
			return nil, err
		}
		if ok {
			usable = append(usable, c)
		}
	}
	class := func(c ledger.Coin) int {
		switch {
		case c.Origin == ledger.OriginEarning && c.Height == 0:
			return 3
		case c.Origin == ledger.OriginEarning:
			return 2
		case c.Height == 0:
			return 1
		}
		return 0
	}
	slices.SortStableFunc(usable, func(a, b ledger.Coin) int {
		// The largest first, for few inputs.
		return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(b.Value, a.Value))
	})
	return usable, nil
}

// versionOne reports whether nothing unconfirmed that a coin rests on can be
// of another version than 1: it is mined, or it was made by ourselves or by
// the close of one of our channels, which rest on nothing else.
func (w *Wallet) versionOne(ctx context.Context, c ledger.Coin) (bool, error) {
	if c.Height > 0 {
		return true, nil
	}
	if c.Origin == ledger.OriginChange || c.Origin == ledger.OriginRefund {
		return true, nil
	}
	_, err := w.ledger.Outgoing(ctx, c.Txid)
	if errors.Is(err, ledger.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// build makes and signs the payment that spends all of used.
func (w *Wallet) build(used []ledger.Coin, outs []bsv.Output, changeIndex uint32, rate money.FeeRate) (*Funding, error) {
	changeKey, err := w.Key(BranchChange, changeIndex)
	if err != nil {
		return nil, err
	}
	change := changeKey.Public().Hash()
	inputs, keys, err := w.inputs(used)
	if err != nil {
		return nil, err
	}
	tx, fee, err := bsv.BuildPayment(inputs, keys, outs, change, rate)
	if err != nil {
		return nil, err
	}
	f := &Funding{Tx: tx, Fee: fee, Coins: outpoints(used)}
	for _, c := range inputs {
		f.Prev = append(f.Prev, c.Output)
	}
	if last := len(tx.Outputs) - 1; last == len(outs) {
		f.Change = &ledger.Coin{
			Txid:     tx.Txid(),
			Index:    uint32(last),
			Value:    tx.Outputs[last].Value,
			Script:   tx.Outputs[last].Script,
			Branch:   BranchChange,
			KeyIndex: changeIndex,
			State:    ledger.CoinPending,
			Origin:   ledger.OriginChange,
		}
	}
	return f, nil
}

// enough returns the shortest prefix of coins that pays outs and the fee.
func enough(coins []ledger.Coin, outs []bsv.Output, rate money.FeeRate) ([]ledger.Coin, error) {
	var want, have money.Satoshis
	var err error
	for _, o := range outs {
		if want, err = want.Add(o.Value); err != nil {
			return nil, err
		}
	}
	for i, c := range coins {
		if have, err = have.Add(c.Value); err != nil {
			return nil, err
		}
		need, err := want.Add(rate.Fee(bsv.PaymentSize(i+1, outs...)))
		if err != nil {
			return nil, err
		}
		if have >= need {
			return coins[:i+1], nil
		}
	}
	need, err := want.Add(rate.Fee(bsv.PaymentSize(max(len(coins), 1), outs...)))
	if err != nil {
		return nil, err
	}
	return nil, &bsv.FundsError{Missing: need - have}
}

// inputs pairs coins with the keys that spend them.
func (w *Wallet) inputs(coins []ledger.Coin) ([]bsv.Coin, []bsv.PrivateKey, error) {
	inputs := make([]bsv.Coin, len(coins))
	keys := make([]bsv.PrivateKey, len(coins))
	for i, c := range coins {
		k, err := w.Key(c.Branch, c.KeyIndex)
		if err != nil {
			return nil, nil, err
		}
		keys[i] = k
		inputs[i] = bsv.Coin{
			Outpoint: outpoint(c.Outpoint()),
			Output:   bsv.Output{Value: c.Value, Script: c.Script},
		}
	}
	return inputs, keys, nil
}

// Release gives back the coins of a funding that was not stored. For one that
// was stored it returns ledger.ErrCoinTaken, because it may be broadcast.
func (w *Wallet) Release(ctx context.Context, f *Funding) error {
	if err := w.ledger.ReleaseCoins(ctx, f.Tx.Txid()); err != nil {
		return fmt.Errorf("release funding: %w", err)
	}
	if f.Change != nil {
		w.returnChange(f.Change.KeyIndex)
	}
	return nil
}
