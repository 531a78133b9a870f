package bsv

import (
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	// ErrVersion says that a transaction is not version 1.
	ErrVersion = errors.New("not a transaction of version 1")
	// ErrNotFinal says that a transaction cannot be mined in the next block.
	ErrNotFinal = errors.New("the transaction is not final")
	// ErrFee says that a transaction pays less than the fee rate.
	ErrFee = errors.New("the fee is too low")
	// ErrFunding says that a transaction is not the one that was announced.
	ErrFunding = errors.New("not the funding that was announced")
)

// Limits of a funding that a payee looks at, and so of one that a payer makes.
// They bound what checking one costs, which grows with the square of the number
// of inputs and with the product of the two numbers.
const (
	MaxFundingInputs  = 128
	MaxFundingOutputs = 64
	MaxFundingSize    = 64_000 // bytes
)

// CheckFunding is what a payee checks of a funding before it counts on it: it
// is the announced one with the channel's 2-of-2 and value; version 1, since
// third parties can change the id of others; final at nextHeight, the height of
// the next block; every input spends P2PKH and is signed, by the previous
// outputs that prev gives in the inputs' order; and it pays at least feeRate.
// That the previous outputs exist and are unspent is the caller's to find out,
// and so are the ancestors; see CheckAncestor. Cheap checks come first.
//
// Errors are ErrTxSize, ErrVersion, ErrNotFinal, ErrFunding, ErrTemplate,
// ErrValue, ErrInputs, ErrFee and ErrSignature.
func (c Channel) CheckFunding(tx *Tx, prev []Output, feeRate money.FeeRate, nextHeight uint32) error {
	if err := c.checkFunding(tx, prev, feeRate, nextHeight); err != nil {
		return fmt.Errorf("check funding: %w", err)
	}
	return nil
}

func (c Channel) checkFunding(tx *Tx, prev []Output, feeRate money.FeeRate, nextHeight uint32) error {
	size := tx.Size()
	if len(tx.Inputs) > MaxFundingInputs || len(tx.Outputs) > MaxFundingOutputs || size > MaxFundingSize {
		return fmt.Errorf("%d inputs, %d outputs, %d bytes: %w", len(tx.Inputs), len(tx.Outputs), size, ErrTxSize)
	}
	if err := CheckAncestor(tx, nextHeight); err != nil {
		return err
	}
	if tx.Txid() != c.Funding.Txid {
		return fmt.Errorf("transaction id: %w", ErrFunding)
	}
	if uint64(c.Funding.Index) >= uint64(len(tx.Outputs)) {
		return fmt.Errorf("output %d of %d: %w", c.Funding.Index, len(tx.Outputs), ErrFunding)
	}
	out := tx.Outputs[c.Funding.Index]
	if !out.Script.Equal(c.Lock()) {
		return fmt.Errorf("output %d: %w", c.Funding.Index, ErrTemplate)
	}
	if out.Value != c.Capacity {
		return fmt.Errorf("output of %s for a capacity of %s: %w", out.Value, c.Capacity, ErrValue)
	}
	if len(tx.Inputs) == 0 || len(prev) != len(tx.Inputs) {
		return fmt.Errorf("%d inputs and %d previous outputs: %w", len(tx.Inputs), len(prev), ErrInputs)
	}
	seen := make(map[Outpoint]struct{}, len(tx.Inputs))
	for i := range tx.Inputs {
		if _, twice := seen[tx.Inputs[i].Prev]; twice {
			return fmt.Errorf("%s twice: %w", tx.Inputs[i].Prev, ErrInputs)
		}
		seen[tx.Inputs[i].Prev] = struct{}{}
		if _, ok := prev[i].Script.P2PKHHash(); !ok {
			return fmt.Errorf("input %d: %w", i, ErrTemplate)
		}
	}
	fee, err := feeOf(tx, prev)
	if err != nil {
		return err
	}
	if want := feeRate.Fee(size); fee < want {
		return fmt.Errorf("%s of %s: %w", fee, want, ErrFee)
	}
	return VerifyInputs(tx, prev)
}

// CheckAncestor checks what a payee wants of a funding's unconfirmed ancestors:
// version 1, or ErrVersion, and final at nextHeight, or ErrNotFinal.
func CheckAncestor(tx *Tx, nextHeight uint32) error {
	if tx.Version != 1 {
		return fmt.Errorf("version %d: %w", tx.Version, ErrVersion)
	}
	if !tx.FinalAt(nextHeight) {
		return fmt.Errorf("lock time %d at height %d: %w", tx.LockTime, nextHeight, ErrNotFinal)
	}
	return nil
}

// feeOf is what a transaction leaves of its previous outputs.
func feeOf(tx *Tx, prev []Output) (money.Satoshis, error) {
	in, err := sumOutputs(prev)
	if err != nil {
		return 0, fmt.Errorf("previous outputs: %w: %w", ErrValue, err)
	}
	out, err := sumOutputs(tx.Outputs)
	if err != nil {
		return 0, fmt.Errorf("outputs: %w: %w", ErrValue, err)
	}
	fee, err := in.Sub(out)
	if err != nil {
		return 0, fmt.Errorf("outputs above inputs: %w: %w", ErrValue, err)
	}
	return fee, nil
}
