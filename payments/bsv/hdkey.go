package bsv

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/libsv/go-bk/bip32"
	"github.com/libsv/go-bk/chaincfg"
)

var (
	// ErrSeed says that a seed is too short, too long, or one of the practically
	// impossible ones that give no key.
	ErrSeed = errors.New("not a usable seed")
	// ErrPath says that a text is no derivation path, or that it leads to one of
	// the practically impossible places without a key.
	ErrPath = errors.New("not a usable derivation path")
)

const (
	minSeed = 16 // bytes
	maxSeed = 64
	maxPath = 120 // characters
)

// HDKey is a key from which others are derived (BIP 32). It is immutable and
// may be used by several goroutines. No form of printing shows it.
type HDKey struct{ key *bip32.ExtendedKey }

// NewMaster makes the master key of a seed of 16 to 64 bytes, or returns
// ErrSeed. seed is not kept.
func NewMaster(seed []byte) (HDKey, error) {
	if len(seed) < minSeed || len(seed) > maxSeed {
		return HDKey{}, fmt.Errorf("%d bytes: %w", len(seed), ErrSeed)
	}
	k, err := bip32.NewMaster(seed, &chaincfg.MainNet)
	if err != nil {
		return HDKey{}, fmt.Errorf("%w: %w", ErrSeed, err)
	}
	return HDKey{key: k}, nil
}

// Branch returns the key at a path below k: numbers from 0 to 2^31-1 with
// slashes between them, each with an apostrophe where it is hardened, as in
// "44'/236'/0'". The empty path is k. Keeping a branch saves deriving the way
// to it for each of its keys. ErrPath otherwise.
func (k HDKey) Branch(path string) (HDKey, error) {
	if k.key == nil {
		return HDKey{}, fmt.Errorf("derive from no key: %w", ErrPath)
	}
	if len(path) > maxPath {
		return HDKey{}, fmt.Errorf("%d characters: %w", len(path), ErrPath)
	}
	if path == "" {
		return k, nil
	}
	for step := range strings.SplitSeq(path, "/") {
		digits, hardened := strings.CutSuffix(step, "'")
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || digits != strconv.FormatUint(n, 10) {
			return HDKey{}, fmt.Errorf("%q: %w", path, ErrPath)
		}
		if hardened {
			n += bip32.HardenedKeyStart
		}
		if k, err = k.child(uint32(n)); err != nil {
			return HDKey{}, fmt.Errorf("%q: %w", path, err)
		}
	}
	return k, nil
}

// child takes one step. The library drops leading zeros of the new key and
// then derives wrong keys from it; its own text form has them again.
func (k HDKey) child(n uint32) (HDKey, error) {
	c, err := k.key.Child(n)
	if err != nil {
		return HDKey{}, fmt.Errorf("%w: %w", ErrPath, err)
	}
	if c, err = bip32.NewKeyFromString(c.String()); err != nil {
		return HDKey{}, fmt.Errorf("%w: %w", ErrPath, err)
	}
	return HDKey{key: c}, nil
}

// Derive returns the private key at a path below k; see Branch.
func (k HDKey) Derive(path string) (PrivateKey, error) {
	c, err := k.Branch(path)
	if err != nil {
		return PrivateKey{}, err
	}
	p, err := c.key.ECPrivKey()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%q: %w: %w", path, ErrPath, err)
	}
	return NewPrivateKey(p.Serialise())
}

// String says only whether there is a key.
func (k HDKey) String() string {
	if k.key == nil {
		return "no HD key"
	}
	return "HD key"
}

// Format writes what String returns, whatever the verb.
func (k HDKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }
