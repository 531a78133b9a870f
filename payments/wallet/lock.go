package wallet

import (
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// What argon2id costs when words are locked: the second choice of RFC 9106,
// for machines with little memory. A board with 512 MB has 64 MiB to spare for
// the second or two that it takes at the start.
const (
	lockMemory  = 64 << 10 // KiB
	lockPasses  = 3
	lockThreads = 4
)

// Bounds to what a file may ask for, so that a damaged one does not take the
// machine's memory.
const (
	maxLockMemory = 1 << 20 // KiB
	maxLockPasses = 64
	lockSalt      = 16 // bytes
	// MaxPassphrase is the longest passphrase in bytes.
	MaxPassphrase = 1024
)

var (
	// ErrLocked says that the words are locked with a passphrase, and that none
	// was given.
	ErrLocked = errors.New("the wallet is locked with a passphrase")
	// ErrWrongPassphrase says that a passphrase does not open the wallet.
	ErrWrongPassphrase = errors.New("the passphrase is not the wallet's")
	// ErrPassphraseLength says that a passphrase is empty or above
	// MaxPassphrase.
	ErrPassphraseLength = errors.New("a passphrase has 1 to 1024 bytes")
)

// lockedWords are words that only a passphrase opens: XChaCha20-Poly1305 under
// a key that argon2id makes of the passphrase.
type lockedWords struct {
	KDF     string `toml:"kdf"`
	Memory  uint32 `toml:"memory" comment:"KiB"`
	Passes  uint32 `toml:"passes"`
	Threads uint8  `toml:"threads"`
	Salt    digits `toml:"salt"`
	Nonce   digits `toml:"nonce"`
	Box     digits `toml:"box"`
}

// digits are bytes that a file has in hexadecimal.
type digits []byte

// MarshalText writes hexadecimal digits.
func (d digits) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d), nil }

// UnmarshalText reads hexadecimal digits.
func (d *digits) UnmarshalText(b []byte) (err error) {
	*d, err = hex.AppendDecode(nil, b)
	return err
}

const lockKDF = "argon2id"

// lockWords locks words for a file. context is bound to them.
func lockWords(words, passphrase, context string, entropy io.Reader) (*lockedWords, error) {
	if passphrase == "" || len(passphrase) > MaxPassphrase {
		return nil, ErrPassphraseLength
	}
	l := &lockedWords{KDF: lockKDF, Memory: lockMemory, Passes: lockPasses, Threads: lockThreads,
		Salt: make(digits, lockSalt), Nonce: make(digits, chacha20poly1305.NonceSizeX)}
	for _, b := range []digits{l.Salt, l.Nonce} {
		if _, err := io.ReadFull(entropy, b); err != nil {
			return nil, fmt.Errorf("read randomness: %w", err)
		}
	}
	aead, err := l.aead(passphrase)
	if err != nil {
		return nil, err
	}
	l.Box = aead.Seal(nil, l.Nonce, []byte(words), []byte(context))
	return l, nil
}

// open returns the words. Errors are ErrFile and ErrWrongPassphrase.
func (l *lockedWords) open(passphrase, context string) (string, error) {
	if l.KDF != lockKDF || l.Memory < 8 || l.Memory > maxLockMemory || l.Passes < 1 || l.Passes > maxLockPasses ||
		l.Threads < 1 || len(l.Salt) != lockSalt || len(l.Nonce) != chacha20poly1305.NonceSizeX {
		return "", ErrFile
	}
	if passphrase == "" || len(passphrase) > MaxPassphrase {
		return "", ErrWrongPassphrase
	}
	aead, err := l.aead(passphrase)
	if err != nil {
		return "", err
	}
	words, err := aead.Open(nil, l.Nonce, l.Box, []byte(context))
	if err != nil {
		return "", ErrWrongPassphrase
	}
	return string(words), nil
}

func (l *lockedWords) aead(passphrase string) (cipher.AEAD, error) {
	key := argon2.IDKey([]byte(passphrase), l.Salt, l.Passes, l.Memory, l.Threads, chacha20poly1305.KeySize)
	// A daemon that runs for months must not hold on to what a second needed.
	debug.FreeOSMemory()
	return chacha20poly1305.NewX(key)
}
