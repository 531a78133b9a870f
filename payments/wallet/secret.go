package wallet

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// SecretSize is the length of a Secret in bytes.
const SecretSize = 32

// secretSalt keeps what is derived here apart from the key tree of BIP 32.
const secretSalt = "BitCDN secrets 1"

// Secret is what words give for a purpose that is not a payment, such as the key
// of backups: HKDF-SHA256 over the BIP 39 seed. No secret tells anything of
// another one, or of a key. Errors are those of bsv.CheckMnemonic.
func Secret(words, purpose string) ([SecretSize]byte, error) {
	seed, err := bsv.SeedOf(words, "")
	if err != nil {
		return [SecretSize]byte{}, err
	}
	root, err := secretRoot(seed)
	if err != nil {
		return [SecretSize]byte{}, err
	}
	return expand(root, purpose)
}

// Secret is the secret of the wallet's words for a purpose; see the function
// Secret.
func (w *Wallet) Secret(purpose string) ([SecretSize]byte, error) { return expand(w.secrets, purpose) }

func secretRoot(seed []byte) ([]byte, error) {
	return hkdf.Extract(sha256.New, seed, []byte(secretSalt))
}

func expand(root []byte, purpose string) (s [SecretSize]byte, err error) {
	b, err := hkdf.Expand(sha256.New, root, purpose, len(s))
	if err != nil {
		return s, fmt.Errorf("secret for %s: %w", purpose, err)
	}
	copy(s[:], b)
	return s, nil
}
