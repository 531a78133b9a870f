package bsv

import (
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	// ErrCapacity says that a channel cannot pay that much.
	ErrCapacity = errors.New("beyond the channel's capacity")
	// ErrRoyalty says that creators are not such as a close can pay: too many of
	// them, one twice, or one without an address.
	ErrRoyalty = errors.New("royalties that no close pays")
	// ErrChannel says that a channel's numbers describe no channel.
	ErrChannel = errors.New("not a channel")
)

// MaxCreators is how many creators a close pays at the most.
const MaxCreators = 8

// Royalty is what a close pays to one creator.
type Royalty struct {
	To     Hash160
	Amount money.Satoshis
}

// Channel is what both sides of a payment channel agree on at its opening.
// From these numbers each of them rebuilds the same transactions to the byte,
// so that only amounts and signatures ever travel. A Channel is plain data and
// may be copied.
type Channel struct {
	Payer, Payee         PublicKey // keys of the 2-of-2, in this order
	Funding              Outpoint
	Capacity             money.Satoshis // value of the funding output
	PayerHash, PayeeHash Hash160        // change and refund; earnings
	RefundHeight         uint32         // lock time of the refund, 1 to 499,999,999
	FeeRate              money.FeeRate  // of the refund and the close
}

// The parts of a channel's transactions that never vary, in bytes, the
// unlocking script at its longest.
const channelTxSize = 4 + 1 + (OutpointSize + 1 + maxUnlockMultisig + 4) + 1 + 4

// CommitmentSize is the largest size in bytes of a channel's close, or refund,
// with this many outputs.
func CommitmentSize(outputs int) int { return channelTxSize + outputs*P2PKHOutputSize }

// Validate checks everything that can be checked without the chain: both keys
// are points and differ, the hashes are there, amounts and height are within
// their ranges, and the capacity pays for the refund's and a close's fees with
// at least 1 satoshi left. Errors are ErrChannel, ErrPublicKey, ErrCapacity.
func (c Channel) Validate() error {
	for _, k := range []PublicKey{c.Payer, c.Payee} {
		if _, err := k.point(); err != nil {
			return fmt.Errorf("channel: %w", err)
		}
	}
	switch {
	case c.Payer == c.Payee:
		return fmt.Errorf("one key for both sides: %w", ErrChannel)
	case c.PayerHash.IsZero() || c.PayeeHash.IsZero():
		return fmt.Errorf("an address is missing: %w", ErrChannel)
	case c.Funding.Txid.IsZero():
		return fmt.Errorf("no funding: %w", ErrChannel)
	}
	if _, err := c.Refund(); err != nil {
		return err
	}
	if c.MaxSpend(0) < 1 {
		return fmt.Errorf("nothing is left after the fee: %w", ErrCapacity)
	}
	return nil
}

// Lock returns the funding output's script.
func (c Channel) Lock() Script { return Multisig(c.Payer, c.Payee) }

func (c Channel) funding() Output { return Output{Value: c.Capacity, Script: c.Lock()} }

func (c Channel) checkNumbers() error {
	switch {
	case !c.Capacity.Valid():
		return fmt.Errorf("capacity of %d: %w", int64(c.Capacity), ErrChannel)
	case c.FeeRate < 0 || c.FeeRate > money.MaxFeeRate:
		return fmt.Errorf("fee rate of %d: %w", int64(c.FeeRate), ErrChannel)
	}
	return nil
}

// Refund returns the unsigned transaction that gives everything back to the
// payer from RefundHeight on: version 1, one input of sequence 0, one output.
// Errors are ErrChannel and ErrCapacity.
func (c Channel) Refund() (*Tx, error) {
	if err := c.checkNumbers(); err != nil {
		return nil, fmt.Errorf("refund: %w", err)
	}
	if c.RefundHeight == 0 || c.RefundHeight >= lockTimeThreshold {
		return nil, fmt.Errorf("refund at height %d: %w", c.RefundHeight, ErrChannel)
	}
	value := c.Capacity - c.FeeRate.Fee(CommitmentSize(1))
	if value < 1 {
		return nil, fmt.Errorf("refund of %s: %w", c.Capacity, ErrCapacity)
	}
	return &Tx{
		Version:  1,
		Inputs:   []Input{{Prev: c.Funding, Sequence: 0}},
		Outputs:  []Output{{Value: value, Script: P2PKH(c.PayerHash)}},
		LockTime: c.RefundHeight,
	}, nil
}

// Commitment returns the unsigned close that pays the cumulative amounts:
// version 1, one input of final sequence, then the payee, the creators in the
// order given, and change to the payer; outputs of zero are left out. No
// creator comes twice, and at most MaxCreators do. The fee is for the size with
// a change output, so that it does not depend on whether there is one. Errors
// are ErrCapacity, ErrRoyalty, ErrChannel and money.ErrRange.
func (c Channel) Commitment(payee money.Satoshis, creators []Royalty) (*Tx, error) {
	if err := c.checkNumbers(); err != nil {
		return nil, fmt.Errorf("commitment: %w", err)
	}
	if err := checkRoyalties(creators); err != nil {
		return nil, fmt.Errorf("commitment: %w", err)
	}
	outs := make([]Output, 0, len(creators)+2)
	spent, err := payee.Add(0)
	if payee > 0 {
		outs = append(outs, Output{Value: payee, Script: P2PKH(c.PayeeHash)})
	}
	for _, r := range creators {
		if err == nil {
			spent, err = spent.Add(r.Amount)
		}
		if r.Amount > 0 {
			outs = append(outs, Output{Value: r.Amount, Script: P2PKH(r.To)})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("commitment: %w", err)
	}
	change := c.Capacity - c.FeeRate.Fee(CommitmentSize(len(outs)+1)) - spent
	if change < 0 || change == 0 && len(outs) == 0 {
		return nil, fmt.Errorf("commitment of %s in a channel of %s: %w", spent, c.Capacity, ErrCapacity)
	}
	if change > 0 {
		outs = append(outs, Output{Value: change, Script: P2PKH(c.PayerHash)})
	}
	return &Tx{
		Version: 1,
		Inputs:  []Input{{Prev: c.Funding, Sequence: FinalSequence}},
		Outputs: outs,
	}, nil
}

func checkRoyalties(creators []Royalty) error {
	if len(creators) > MaxCreators {
		return fmt.Errorf("%d creators: %w", len(creators), ErrRoyalty)
	}
	for i, r := range creators {
		if r.To.IsZero() {
			return fmt.Errorf("creator without an address: %w", ErrRoyalty)
		}
		for _, other := range creators[:i] {
			if r.To == other.To {
				return fmt.Errorf("creator %x twice: %w", r.To[:], ErrRoyalty)
			}
		}
	}
	return nil
}

// MaxSpend is the largest sum that Commitment takes with a payee and this many
// creators, all of them above zero; zero where it takes none. It rests on
// Capacity and FeeRate only.
func (c Channel) MaxSpend(creators int) money.Satoshis {
	if c.checkNumbers() != nil {
		return 0
	}
	return max(0, c.Capacity-c.FeeRate.Fee(CommitmentSize(creators+2)))
}

// SignRefund signs the refund with the key of either side. The signature
// carries its hash type. ErrKey for any other key, and the errors of Refund.
func (c Channel) SignRefund(k PrivateKey) (Signature, error) {
	t, err := c.Refund()
	if err != nil {
		return nil, err
	}
	return c.sign(t, k)
}

// CheckRefund checks one side's signature of the refund. Errors are
// ErrSignature, ErrKey where pub is neither side's, and those of Refund.
func (c Channel) CheckRefund(pub PublicKey, s Signature) error {
	t, err := c.Refund()
	if err != nil {
		return err
	}
	return c.check(t, pub, s)
}

// SignCommitment signs a commitment with the key of either side. The signature
// carries its hash type. ErrKey for any other key, and the errors of
// Commitment.
func (c Channel) SignCommitment(k PrivateKey, payee money.Satoshis, creators []Royalty) (Signature, error) {
	t, err := c.Commitment(payee, creators)
	if err != nil {
		return nil, err
	}
	return c.sign(t, k)
}

// CheckCommitment checks one side's signature of a commitment. Errors are
// ErrSignature, ErrKey where pub is neither side's, and those of Commitment.
func (c Channel) CheckCommitment(pub PublicKey, payee money.Satoshis, creators []Royalty, s Signature) error {
	t, err := c.Commitment(payee, creators)
	if err != nil {
		return err
	}
	return c.check(t, pub, s)
}

// CompleteRefund returns the refund with both signatures, verified as nodes
// would verify it.
func (c Channel) CompleteRefund(payerSig, payeeSig Signature) (*Tx, error) {
	t, err := c.Refund()
	if err != nil {
		return nil, err
	}
	return c.complete(t, payerSig, payeeSig)
}

// CompleteCommitment returns the close with both signatures, verified as nodes
// would verify it.
func (c Channel) CompleteCommitment(payee money.Satoshis, creators []Royalty, payerSig, payeeSig Signature) (*Tx, error) {
	t, err := c.Commitment(payee, creators)
	if err != nil {
		return nil, err
	}
	return c.complete(t, payerSig, payeeSig)
}

func (c Channel) sign(t *Tx, k PrivateKey) (Signature, error) {
	if k.IsZero() || k.Public() != c.Payer && k.Public() != c.Payee {
		return nil, fmt.Errorf("sign for the channel: %w", ErrKey)
	}
	d, err := digest(t.library(), 0, c.funding())
	if err != nil {
		return nil, err
	}
	return k.signInput(d)
}

func (c Channel) check(t *Tx, pub PublicKey, s Signature) error {
	if pub != c.Payer && pub != c.Payee {
		return fmt.Errorf("check for the channel: %w", ErrKey)
	}
	d, err := digest(t.library(), 0, c.funding())
	if err != nil {
		return err
	}
	return verifyInput(pub, d, s)
}

func (c Channel) complete(t *Tx, payerSig, payeeSig Signature) (*Tx, error) {
	if len(payerSig) > MaxSignature || len(payeeSig) > MaxSignature {
		return nil, fmt.Errorf("complete: %w", ErrSignature)
	}
	t.Inputs[0].Script = unlockMultisig(payerSig, payeeSig)
	if err := VerifyInput(t, 0, c.funding()); err != nil {
		return nil, fmt.Errorf("complete: %w", err)
	}
	return t, nil
}
