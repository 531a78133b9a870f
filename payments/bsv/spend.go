package bsv

import (
	"errors"
	"fmt"
	"slices"

	"github.com/libsv/go-bt/v2"
	"github.com/libsv/go-bt/v2/bscript"
	"github.com/libsv/go-bt/v2/bscript/interpreter"
	"github.com/libsv/go-bt/v2/bscript/interpreter/scriptflag"
	"github.com/libsv/go-bt/v2/sighash"
)

// ErrInputs says that inputs, keys and previous outputs do not fit together.
var ErrInputs = errors.New("inputs do not fit together")

// strict are the rules by which nodes take a version 1 transaction that spends
// an output made after the Genesis upgrade. The library's defaults take
// signatures that nodes refuse.
const strict = scriptflag.EnableSighashForkID | scriptflag.VerifyBip143SigHash |
	scriptflag.VerifyStrictEncoding | scriptflag.VerifyDERSignatures | scriptflag.VerifyLowS |
	scriptflag.VerifyNullFail | scriptflag.StrictMultiSig | scriptflag.VerifyMinimalData |
	scriptflag.VerifyMinimalIf | scriptflag.VerifySigPushOnly | scriptflag.Bip16 |
	scriptflag.VerifyCleanStack | scriptflag.UTXOAfterGenesis

// SignP2PKH signs input i, which spends prev, with ALL|FORKID and sets its
// unlocking script. The other inputs' scripts do not matter to the signature;
// every other part of t does. Errors are ErrInputs, ErrTemplate where prev is
// not P2PKH, ErrKey where k is not its key.
func SignP2PKH(t *Tx, i int, prev Output, k PrivateKey) error {
	if i < 0 || i >= len(t.Inputs) {
		return fmt.Errorf("sign input %d of %d: %w", i, len(t.Inputs), ErrInputs)
	}
	return signP2PKH(t, i, prev, k, t.library())
}

// signP2PKH works on the library's form of t, made once for all inputs.
func signP2PKH(t *Tx, i int, prev Output, k PrivateKey, lib *bt.Tx) error {
	hash, ok := prev.Script.P2PKHHash()
	if !ok {
		return fmt.Errorf("sign input %d: %w", i, ErrTemplate)
	}
	if k.IsZero() || k.Public().Hash() != hash {
		return fmt.Errorf("sign input %d: %w", i, ErrKey)
	}
	d, err := digest(lib, i, prev)
	if err != nil {
		return fmt.Errorf("sign input %d: %w", i, err)
	}
	sig, err := k.signInput(d)
	if err != nil {
		return fmt.Errorf("sign input %d: %w", i, err)
	}
	t.Inputs[i].Script = unlockP2PKH(sig, k.Public())
	return nil
}

// VerifyInput checks that input i may spend prev as nodes would check it for a
// version 1 transaction. Only P2PKH and the channel's 2-of-2 are run, and only
// with an unlocking script of exactly the template's form and hash type; all
// else is ErrTemplate or ErrSignature without being run. t is not changed.
// Its cost grows with the size of t.
func VerifyInput(t *Tx, i int, prev Output) error {
	if i < 0 || i >= len(t.Inputs) || len(t.Outputs) == 0 {
		return fmt.Errorf("verify input %d of %d: %w", i, len(t.Inputs), ErrInputs)
	}
	return verifyWith(t, i, prev, t.library())
}

// VerifyInputs does what VerifyInput does for every input; prev holds the
// outputs that they spend, in their order. ErrInputs where the numbers differ.
func VerifyInputs(t *Tx, prev []Output) error {
	if len(t.Inputs) == 0 || len(prev) != len(t.Inputs) || len(t.Outputs) == 0 {
		return fmt.Errorf("verify %d inputs with %d previous outputs: %w", len(t.Inputs), len(prev), ErrInputs)
	}
	lib := t.library()
	for i := range t.Inputs {
		if err := verifyWith(t, i, prev[i], lib); err != nil {
			return err
		}
	}
	return nil
}

// verifyWith works on the library's form of t, made once for all inputs.
func verifyWith(t *Tx, i int, prev Output, lib *bt.Tx) error {
	unlock := t.Inputs[i].Script
	if err := checkUnlock(prev.Script, unlock); err != nil {
		return fmt.Errorf("verify input %d: %w", i, err)
	}
	// The interpreter copies the transaction for every signature and the digest
	// covers no unlocking script: the others stay out.
	lib.Inputs[i].UnlockingScript = (*bscript.Script)(&unlock)
	defer func() { lib.Inputs[i].UnlockingScript = &bscript.Script{} }()
	err := interpreter.NewEngine().Execute(
		interpreter.WithTx(lib, i, &bt.Output{Satoshis: uint64(prev.Value), LockingScript: (*bscript.Script)(&prev.Script)}),
		interpreter.WithFlags(strict))
	if err != nil {
		return fmt.Errorf("verify input %d: %w: %w", i, ErrSignature, err)
	}
	return nil
}

// library gives t in the library's form, without its unlocking scripts. The
// scripts are shared: nothing that is done with it writes them.
func (t *Tx) library() *bt.Tx {
	lib := &bt.Tx{
		Version:  t.Version,
		LockTime: t.LockTime,
		Inputs:   make([]*bt.Input, len(t.Inputs)),
		Outputs:  make([]*bt.Output, len(t.Outputs)),
	}
	inputs := make([]bt.Input, len(t.Inputs))
	ids := make([]byte, 32*len(t.Inputs))
	none := &bscript.Script{}
	for i := range t.Inputs {
		id := ids[32*i : 32*i+32 : 32*i+32]
		copy(id, t.Inputs[i].Prev.Txid[:])
		slices.Reverse(id)
		in := &inputs[i]
		in.PreviousTxOutIndex = t.Inputs[i].Prev.Index
		in.SequenceNumber = t.Inputs[i].Sequence
		in.UnlockingScript = none
		in.PreviousTxScript = none
		_ = in.PreviousTxIDAdd(id) // fails for other lengths than 32 only
		lib.Inputs[i] = in
	}
	outputs := make([]bt.Output, len(t.Outputs))
	for i := range t.Outputs {
		outputs[i].Satoshis = uint64(t.Outputs[i].Value)
		outputs[i].LockingScript = (*bscript.Script)(&t.Outputs[i].Script)
		lib.Outputs[i] = &outputs[i]
	}
	return lib
}

// digest is what an ALL|FORKID signature of input i signs: BIP 143 with the
// hash type of BSV's replay protection.
func digest(lib *bt.Tx, i int, prev Output) ([32]byte, error) {
	in := lib.Inputs[i]
	in.PreviousTxScript = (*bscript.Script)(&prev.Script)
	in.PreviousTxSatoshis = uint64(prev.Value)
	h, err := lib.CalcInputSignatureHash(uint32(i), sighash.AllForkID)
	if err != nil {
		return [32]byte{}, fmt.Errorf("signature hash: %w", err)
	}
	return [32]byte(h), nil
}

// SignatureHash returns what an ALL|FORKID signature of input i, which spends
// prev, signs. ErrInputs where there is no such input.
func (t *Tx) SignatureHash(i int, prev Output) ([32]byte, error) {
	if i < 0 || i >= len(t.Inputs) {
		return [32]byte{}, fmt.Errorf("signature hash of input %d of %d: %w", i, len(t.Inputs), ErrInputs)
	}
	return digest(t.library(), i, prev)
}
