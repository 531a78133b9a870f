package bsv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrTemplate says that a script is not one of those that the program makes
// and understands.
var ErrTemplate = errors.New("not a script of a known form")

// Script is a locking or unlocking script. Only two locking scripts are known,
// P2PKH and the channel's 2-of-2, and both are recognised byte by byte: nothing
// is ever interpreted to learn what it is.
type Script []byte

// Opcodes of the templates.
const (
	op0             = 0x00
	op2             = 0x52
	opDup           = 0x76
	opHash160       = 0xa9
	opEqualVerify   = 0x88
	opCheckSig      = 0xac
	opCheckMultisig = 0xae
)

// Lengths of the two locking scripts in bytes.
const (
	P2PKHSize    = 25
	MultisigSize = 71
)

// P2PKH returns the script that pays to a key's hash:
// OP_DUP OP_HASH160 <hash> OP_EQUALVERIFY OP_CHECKSIG.
func P2PKH(h Hash160) Script {
	s := make(Script, 0, P2PKHSize)
	s = append(s, opDup, opHash160, byte(len(h)))
	s = append(s, h[:]...)
	return append(s, opEqualVerify, opCheckSig)
}

// Multisig returns the channel's bare 2-of-2:
// OP_2 <payer> <payee> OP_2 OP_CHECKMULTISIG.
func Multisig(payer, payee PublicKey) Script {
	s := make(Script, 0, MultisigSize)
	s = append(s, op2, PublicKeySize)
	s = append(s, payer[:]...)
	s = append(s, PublicKeySize)
	s = append(s, payee[:]...)
	return append(s, op2, opCheckMultisig)
}

// P2PKHHash returns the hash that a P2PKH script pays to, and whether s is one.
func (s Script) P2PKHHash() (Hash160, bool) {
	if len(s) != P2PKHSize || s[0] != opDup || s[1] != opHash160 || s[2] != 20 ||
		s[23] != opEqualVerify || s[24] != opCheckSig {
		return Hash160{}, false
	}
	return Hash160(s[3:23]), true
}

// MultisigKeys returns the two keys of the channel's 2-of-2, and whether s is
// one. The keys may be no points of the curve.
func (s Script) MultisigKeys() (payer, payee PublicKey, ok bool) {
	if len(s) != MultisigSize || s[0] != op2 || s[1] != PublicKeySize || s[35] != PublicKeySize ||
		s[69] != op2 || s[70] != opCheckMultisig {
		return PublicKey{}, PublicKey{}, false
	}
	return PublicKey(s[2:35]), PublicKey(s[36:69]), true
}

// Equal reports whether two scripts are the same bytes.
func (s Script) Equal(t Script) bool { return bytes.Equal(s, t) }

// String returns the script in hexadecimal.
func (s Script) String() string { return hex.EncodeToString(s) }

// Unlocking scripts. The worst cases are with signatures of maxDER bytes.
const (
	maxUnlockP2PKH    = 1 + maxDER + 1 + 1 + PublicKeySize // 106 + 1 for the hash type
	maxUnlockMultisig = 1 + 2*(1+maxDER+1)
)

func unlockP2PKH(sig Signature, pub PublicKey) Script {
	s := make(Script, 0, 1+len(sig)+1+len(pub))
	s = append(s, byte(len(sig)))
	s = append(s, sig...)
	s = append(s, byte(len(pub)))
	return append(s, pub[:]...)
}

// unlockMultisig puts the empty element that OP_CHECKMULTISIG takes too much
// before the signatures, which stand in the order of the keys.
func unlockMultisig(payer, payee Signature) Script {
	s := make(Script, 0, 1+1+len(payer)+1+len(payee))
	s = append(s, op0, byte(len(payer)))
	s = append(s, payer...)
	s = append(s, byte(len(payee)))
	return append(s, payee...)
}

// takeSignature splits a push of a signature from the front of an unlocking
// script. A direct push of a signature's length is the only one taken.
func takeSignature(s Script) (Signature, Script, error) {
	if len(s) == 0 || int(s[0]) > maxDER+1 || len(s) < 1+int(s[0]) {
		return nil, nil, fmt.Errorf("unlocking script: %w", ErrTemplate)
	}
	n := 1 + int(s[0])
	return Signature(s[1:n]), s[n:], nil
}

// checkUnlock refuses an unlocking script that is not exactly the template's:
// direct pushes, strict signatures with the one hash type, a compressed key.
func checkUnlock(lock, unlock Script) error {
	var sigs [2]Signature
	var err error
	rest := unlock
	n := 1
	if _, ok := lock.P2PKHHash(); ok {
		if sigs[0], rest, err = takeSignature(rest); err != nil {
			return err
		}
		if len(rest) != 1+PublicKeySize || rest[0] != PublicKeySize {
			return fmt.Errorf("unlocking script: %w", ErrTemplate)
		}
		if _, err := ParsePublicKey(rest[1:]); err != nil {
			return fmt.Errorf("unlocking script: %w", err)
		}
	} else if _, _, ok := lock.MultisigKeys(); ok {
		n = 2
		if len(rest) == 0 || rest[0] != op0 {
			return fmt.Errorf("unlocking script: %w", ErrTemplate)
		}
		rest = rest[1:]
		for i := range sigs {
			if sigs[i], rest, err = takeSignature(rest); err != nil {
				return err
			}
		}
		if len(rest) != 0 {
			return fmt.Errorf("unlocking script: %w", ErrTemplate)
		}
	} else {
		return fmt.Errorf("locking script: %w", ErrTemplate)
	}
	for _, sig := range sigs[:n] {
		der, err := sig.split()
		if err != nil {
			return fmt.Errorf("unlocking script: %w", err)
		}
		if _, err := parseDER(der); err != nil {
			return fmt.Errorf("unlocking script: %w", err)
		}
	}
	return nil
}
