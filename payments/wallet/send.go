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

// MaxSendInputs is the most coins that PrepareAll takes for one payment, which
// has 300 kB then.
const MaxSendInputs = 2000

// ErrFeeRate says that a fee rate is below what the miner wants.
var ErrFeeRate = errors.New("the miner takes nothing for that fee rate")

// Send pays amount to an address's hash and returns the txid once the payment
// is in the outbox.
func (w *Wallet) Send(ctx context.Context, to bsv.Hash160, amount money.Satoshis) (bsv.Txid, error) {
	f, err := w.Fund(ctx, []bsv.Output{{Value: amount, Script: bsv.P2PKH(to)}})
	if err != nil {
		return bsv.Txid{}, err
	}
	return w.Pay(ctx, f)
}

// Prepare makes a payment to an address's hash without storing it: it is made
// by Pay, or its coins are given back by Release. rate is the fee; zero is what
// the miner wants. Errors are those of Fund, and ErrFeeRate.
func (w *Wallet) Prepare(ctx context.Context, to bsv.Hash160, amount money.Satoshis, rate money.FeeRate) (*Funding, error) {
	rate, err := w.feeRate(ctx, rate)
	if err != nil {
		return nil, fmt.Errorf("prepare payment: %w", err)
	}
	f, err := w.fund(ctx, []bsv.Output{{Value: amount, Script: bsv.P2PKH(to)}}, rate)
	if err != nil {
		return nil, fmt.Errorf("prepare payment: %w", err)
	}
	return f, nil
}

// PrepareAll is Prepare with all that the wallet can spend and that is worth
// it, less the fee; of more than MaxSendInputs coins the most valuable ones.
func (w *Wallet) PrepareAll(ctx context.Context, to bsv.Hash160, rate money.FeeRate) (*Funding, error) {
	f, err := w.prepareAll(ctx, to, rate)
	if err != nil {
		return nil, fmt.Errorf("prepare payment: %w", err)
	}
	return f, nil
}

func (w *Wallet) prepareAll(ctx context.Context, to bsv.Hash160, rate money.FeeRate) (*Funding, error) {
	rate, err := w.feeRate(ctx, rate)
	if err != nil {
		return nil, err
	}
	coins, err := w.spendable(ctx)
	if err != nil {
		return nil, err
	}
	coins, err = mostValuable(coins, rate, MaxSendInputs)
	if err != nil {
		return nil, err
	}
	inputs, keys, err := w.inputs(coins)
	if err != nil {
		return nil, err
	}
	tx, fee, err := bsv.BuildSweep(inputs, keys, to, rate)
	if err != nil {
		return nil, err
	}
	f := &Funding{Tx: tx, Fee: fee, Coins: outpoints(coins)}
	for _, c := range inputs {
		f.Prev = append(f.Prev, c.Output)
	}
	return f, w.ledger.ReserveCoins(ctx, f.Coins, tx.Txid())
}

// mostValuable returns the n most valuable coins that are worth their input.
func mostValuable(coins []ledger.Coin, rate money.FeeRate, n int) ([]ledger.Coin, error) {
	perInput := rate.Fee(bsv.P2PKHInputSize)
	coins = slices.DeleteFunc(coins, func(c ledger.Coin) bool { return c.Value <= perInput })
	if len(coins) == 0 {
		return nil, &bsv.FundsError{Missing: perInput + 1}
	}
	slices.SortStableFunc(coins, func(a, b ledger.Coin) int { return cmp.Compare(b.Value, a.Value) })
	return coins[:min(n, len(coins))], nil
}

// feeRate returns the rate to pay: the one that is asked for, where the miner
// takes it.
func (w *Wallet) feeRate(ctx context.Context, asked money.FeeRate) (money.FeeRate, error) {
	wanted, err := w.chain.FeeRate(ctx)
	switch {
	case err != nil:
		return 0, err
	case asked == 0:
		return wanted, nil
	case asked < wanted:
		return 0, fmt.Errorf("%v, it wants %v: %w", asked, wanted, ErrFeeRate)
	case asked > money.MaxFeeRate:
		return 0, fmt.Errorf("%v: %w", asked, money.ErrRange)
	}
	return asked, nil
}

// Pay stores a prepared payment in the outbox and returns its txid. From then
// on it will be made, whatever happens to the program.
func (w *Wallet) Pay(ctx context.Context, f *Funding) (bsv.Txid, error) {
	if err := w.ledger.PutOutgoing(ctx, f.Outgoing(ledger.Send)); err != nil {
		return bsv.Txid{}, errors.Join(fmt.Errorf("send: %w", err), w.Release(context.WithoutCancel(ctx), f))
	}
	w.opt.Stored()
	return f.Tx.Txid(), nil
}
