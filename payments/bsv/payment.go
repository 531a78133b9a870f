package bsv

import (
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	// ErrFunds says that coins do not suffice. The error is a *FundsError.
	ErrFunds = errors.New("not enough money")
	// ErrValue says that an output's amount is not what it has to be.
	ErrValue = errors.New("wrong amount")
)

// FundsError is ErrFunds with the amount that is missing.
type FundsError struct{ Missing money.Satoshis }

// Error names the missing amount.
func (e *FundsError) Error() string { return ErrFunds.Error() + ": " + e.Missing.String() + " missing" }

// Is reports whether target is ErrFunds.
func (e *FundsError) Is(target error) bool { return target == ErrFunds }

// Sizes in bytes of parts of a payment, worst case where signatures vary.
const (
	// P2PKHInputSize is an input that spends P2PKH.
	P2PKHInputSize = OutpointSize + 1 + maxUnlockP2PKH + 4
	// P2PKHOutputSize is an output to a key's hash.
	P2PKHOutputSize = 8 + 1 + P2PKHSize
	// ChannelOutputSize is a channel's 2-of-2 output.
	ChannelOutputSize = 8 + 1 + MultisigSize
)

// PaymentSize is the largest size in bytes that a transaction with this many
// P2PKH inputs and these outputs can get by being signed.
func PaymentSize(inputs int, outs ...Output) int {
	n := 4 + varIntSize(inputs) + inputs*P2PKHInputSize + varIntSize(len(outs)) + 4
	for _, o := range outs {
		n += outputSize(len(o.Script))
	}
	return n
}

// BuildPayment spends all coins, which are P2PKH and each signed by the key at
// the same place, for the outputs and for change. The transaction is version 1
// with final sequences. Change is the last output and is left out where it
// would be less than 1 satoshi; what is left then goes to the fee. paidFee is
// at least the fee rate for the transaction's size, rounded up. Errors are
// ErrFunds (a *FundsError), ErrValue for an output below 1 satoshi, ErrInputs,
// ErrKey and ErrTemplate.
func BuildPayment(coins []Coin, keys []PrivateKey, outs []Output, change Hash160, fee money.FeeRate) (tx *Tx, paidFee money.Satoshis, err error) {
	have, err := checkCoins(coins, keys)
	if err != nil {
		return nil, 0, fmt.Errorf("build payment: %w", err)
	}
	if len(outs) == 0 || change.IsZero() {
		return nil, 0, fmt.Errorf("build payment: no outputs or no change address: %w", ErrTemplate)
	}
	for i, o := range outs {
		if o.Value < 1 {
			return nil, 0, fmt.Errorf("build payment: output %d of %d satoshis: %w", i, int64(o.Value), ErrValue)
		}
		if len(o.Script) == 0 {
			return nil, 0, fmt.Errorf("build payment: output %d without a script: %w", i, ErrTemplate)
		}
	}
	want, err := sumOutputs(outs)
	if err != nil {
		return nil, 0, fmt.Errorf("build payment: %w: %w", ErrValue, err)
	}
	tx = spendCoins(coins)
	tx.Outputs = append(make([]Output, 0, len(outs)+1), outs...)
	paidFee = fee.Fee(PaymentSize(len(coins), outs...))
	rest := have - want - paidFee
	if rest < 0 {
		return nil, 0, fmt.Errorf("build payment: %w", &FundsError{Missing: -rest})
	}
	back := Output{Script: P2PKH(change)}
	dearer := fee.Fee(PaymentSize(len(coins), append(tx.Outputs, back)...))
	if back.Value = have - want - dearer; back.Value >= 1 {
		tx.Outputs = append(tx.Outputs, back)
		paidFee = dearer
	} else {
		paidFee += rest
	}
	if err := signCoins(tx, coins, keys); err != nil {
		return nil, 0, fmt.Errorf("build payment: %w", err)
	}
	return tx, paidFee, nil
}

// BuildSweep spends all coins, which are P2PKH and each signed by the key at
// the same place, for one output. The transaction is version 1 with final
// sequences. Errors are those of BuildPayment; ErrFunds where the fee would
// leave nothing.
func BuildSweep(coins []Coin, keys []PrivateKey, to Hash160, fee money.FeeRate) (tx *Tx, paidFee money.Satoshis, err error) {
	have, err := checkCoins(coins, keys)
	if err != nil {
		return nil, 0, fmt.Errorf("build sweep: %w", err)
	}
	if to.IsZero() {
		return nil, 0, fmt.Errorf("build sweep: no address: %w", ErrTemplate)
	}
	tx = spendCoins(coins)
	tx.Outputs = []Output{{Script: P2PKH(to)}}
	paidFee = fee.Fee(PaymentSize(len(coins), tx.Outputs...))
	if have < paidFee+1 {
		return nil, 0, fmt.Errorf("build sweep: %w", &FundsError{Missing: paidFee + 1 - have})
	}
	tx.Outputs[0].Value = have - paidFee
	if err := signCoins(tx, coins, keys); err != nil {
		return nil, 0, fmt.Errorf("build sweep: %w", err)
	}
	return tx, paidFee, nil
}

func checkCoins(coins []Coin, keys []PrivateKey) (money.Satoshis, error) {
	if len(coins) == 0 {
		return 0, &FundsError{Missing: 1}
	}
	if len(coins) != len(keys) {
		return 0, fmt.Errorf("%d coins and %d keys: %w", len(coins), len(keys), ErrInputs)
	}
	var sum money.Satoshis
	var err error
	seen := make(map[Outpoint]struct{}, len(coins))
	for i := range coins {
		if _, twice := seen[coins[i].Outpoint]; twice {
			return 0, fmt.Errorf("coin %s twice: %w", coins[i].Outpoint, ErrInputs)
		}
		seen[coins[i].Outpoint] = struct{}{}
		if sum, err = sum.Add(coins[i].Output.Value); err != nil {
			return 0, fmt.Errorf("coin %s: %w", coins[i].Outpoint, err)
		}
	}
	return sum, nil
}

func spendCoins(coins []Coin) *Tx {
	tx := &Tx{Version: 1, Inputs: make([]Input, len(coins))}
	for i := range coins {
		tx.Inputs[i] = Input{Prev: coins[i].Outpoint, Sequence: FinalSequence}
	}
	return tx
}

func signCoins(tx *Tx, coins []Coin, keys []PrivateKey) error {
	lib := tx.library()
	for i := range coins {
		if err := signP2PKH(tx, i, coins[i].Output, keys[i], lib); err != nil {
			return err
		}
	}
	return nil
}
