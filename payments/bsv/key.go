package bsv

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/libsv/go-bk/bec"
	"github.com/libsv/go-bk/crypto"
)

var (
	// ErrPublicKey says that bytes are not a compressed public key.
	ErrPublicKey = errors.New("not a compressed public key")
	// ErrPrivateKey says that bytes are not a private key.
	ErrPrivateKey = errors.New("not a private key")
	// ErrKey says that a key is not the one that a script or a channel names.
	ErrKey = errors.New("the key does not belong here")
)

// PublicKeySize and PrivateKeySize are lengths in bytes.
const (
	PublicKeySize  = 33
	PrivateKeySize = 32
)

// PublicKey is a point of secp256k1 in compressed form (SEC 1, 2.3.3). A value
// that did not come from ParsePublicKey or PrivateKey.Public may be no point.
type PublicKey [PublicKeySize]byte

// ParsePublicKey reads 33 bytes that begin with 02 or 03 and are the
// coordinate of a point on the curve, below the field's prime; otherwise
// ErrPublicKey. Uncompressed and hybrid forms are refused.
func ParsePublicKey(b []byte) (PublicKey, error) {
	if len(b) != PublicKeySize {
		return PublicKey{}, fmt.Errorf("%d bytes: %w", len(b), ErrPublicKey)
	}
	k := PublicKey(b)
	if _, err := k.point(); err != nil {
		return PublicKey{}, err
	}
	return k, nil
}

// point is the key in the library's form.
func (k PublicKey) point() (*bec.PublicKey, error) {
	if k[0] != 0x02 && k[0] != 0x03 {
		return nil, fmt.Errorf("first byte %02x: %w", k[0], ErrPublicKey)
	}
	// The library does not look whether a compressed coordinate is below the
	// prime, so that a point would have two names.
	if bytes.Compare(k[1:], fieldPrime[:]) >= 0 {
		return nil, fmt.Errorf("coordinate above the field's prime: %w", ErrPublicKey)
	}
	p, err := bec.ParsePubKey(k[:], bec.S256())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPublicKey, err)
	}
	return p, nil
}

// Hash returns the key's hash, RIPEMD-160 of SHA-256.
func (k PublicKey) Hash() Hash160 { return Hash160(crypto.Hash160(k[:])) }

// IsZero reports whether k is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String returns 66 hexadecimal digits.
func (k PublicKey) String() string { return hex.EncodeToString(k[:]) }

// PrivateKey is a secret number from 1 to N-1 with its public key. It is
// immutable and may be used by several goroutines. The zero value is no key:
// it signs nothing. No form of printing shows the number.
type PrivateKey struct {
	key    *bec.PrivateKey
	public PublicKey
}

// NewPrivateKey reads a key of 32 bytes, big endian, from 1 to N-1 where N is
// the order of secp256k1; otherwise ErrPrivateKey. b is not kept.
func NewPrivateKey(b []byte) (PrivateKey, error) {
	if len(b) != PrivateKeySize {
		return PrivateKey{}, fmt.Errorf("%d bytes: %w", len(b), ErrPrivateKey)
	}
	if bytes.Equal(b, make([]byte, PrivateKeySize)) || bytes.Compare(b, groupOrder[:]) >= 0 {
		return PrivateKey{}, fmt.Errorf("number out of range: %w", ErrPrivateKey)
	}
	key, public := bec.PrivKeyFromBytes(bec.S256(), b)
	return PrivateKey{key: key, public: PublicKey(public.SerialiseCompressed())}, nil
}

// Public returns the public key; the zero key for the zero value.
func (k PrivateKey) Public() PublicKey { return k.public }

// IsZero reports whether k is no key.
func (k PrivateKey) IsZero() bool { return k.key == nil }

// String names the key by its public key.
func (k PrivateKey) String() string {
	if k.IsZero() {
		return "no private key"
	}
	return "private key of " + k.public.String()
}

// Format writes what String returns, whatever the verb, so that no printing
// shows the key.
func (k PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// The prime of the field and the order of the group, SEC 2, 2.4.1.
var (
	fieldPrime = [32]byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xfc, 0x2f,
	}
	groupOrder = [32]byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
		0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
	}
)
