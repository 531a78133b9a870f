package bsv

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/libsv/go-bk/bec"
)

// ErrSignature says that bytes are not a signature in its only accepted form,
// or that it does not belong to the key and the message.
var ErrSignature = errors.New("not a valid signature")

// Signature is an ECDSA signature in DER. Those of transactions carry one more
// byte, the hash type.
type Signature []byte

const (
	// MaxSignature is the largest length in bytes that a signature with its
	// hash type may claim, for message formats to cap.
	MaxSignature = 73
	// SigHashAllForkID is the hash type of every signature in a transaction:
	// all inputs, all outputs, the digest of BIP 143 as BSV replays it.
	SigHashAllForkID = 0x41

	minDER = 8
	// r may need a 33rd byte; s, being low, never does.
	maxDER = 71
)

// SignDigest signs a 32-byte digest: RFC 6979 nonce, low S, DER, no hash type.
// The same key and digest give the same signature. ErrPrivateKey for the zero
// key.
func (k PrivateKey) SignDigest(d [32]byte) (Signature, error) { return k.sign(d, 0) }

// sign leaves room behind the signature for extra bytes.
func (k PrivateKey) sign(d [32]byte, extra int) (Signature, error) {
	if k.IsZero() {
		return nil, fmt.Errorf("sign: %w", ErrPrivateKey)
	}
	s, err := k.key.Sign(d[:])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	der := s.Serialise()
	if extra == 0 {
		return der, nil
	}
	return append(make(Signature, 0, len(der)+extra), der...), nil
}

// VerifyDigest checks a signature without hash type. It must be the one
// encoding that SignDigest makes: strict DER with nothing before or behind,
// both numbers from 1 to N-1, low S. Errors are ErrSignature and ErrPublicKey.
func VerifyDigest(pub PublicKey, d [32]byte, sig Signature) error {
	s, err := parseDER(sig)
	if err != nil {
		return err
	}
	p, err := pub.point()
	if err != nil {
		return err
	}
	if !s.Verify(d[:], p) {
		return fmt.Errorf("wrong key or message: %w", ErrSignature)
	}
	return nil
}

func parseDER(sig []byte) (*bec.Signature, error) {
	if len(sig) < minDER || len(sig) > maxDER {
		return nil, fmt.Errorf("%d bytes: %w", len(sig), ErrSignature)
	}
	s, err := bec.ParseDERSignature(sig, bec.S256())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	// The library takes bytes behind the signature and a high S; what it writes
	// has neither, so only what it would write itself is taken.
	if !bytes.Equal(s.Serialise(), sig) {
		return nil, fmt.Errorf("not in canonical form: %w", ErrSignature)
	}
	return s, nil
}

// signInput signs a transaction's digest and appends the hash type.
func (k PrivateKey) signInput(digest [32]byte) (Signature, error) {
	s, err := k.sign(digest, 1)
	if err != nil {
		return nil, err
	}
	return append(s, SigHashAllForkID), nil
}

// split takes the hash type off a transaction's signature; no other type than
// ALL|FORKID is taken.
func (s Signature) split() (Signature, error) {
	if len(s) <= minDER || len(s) > MaxSignature {
		return nil, fmt.Errorf("%d bytes: %w", len(s), ErrSignature)
	}
	if t := s[len(s)-1]; t != SigHashAllForkID {
		return nil, fmt.Errorf("hash type %02x: %w", t, ErrSignature)
	}
	return s[:len(s)-1], nil
}

func verifyInput(pub PublicKey, digest [32]byte, sig Signature) error {
	der, err := sig.split()
	if err != nil {
		return err
	}
	return VerifyDigest(pub, digest, der)
}
