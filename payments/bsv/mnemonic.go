package bsv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libsv/go-bk/bip39"
)

var (
	// ErrEntropy says that a number of random bytes makes no mnemonic.
	ErrEntropy = errors.New("entropy must be 16, 20, 24, 28 or 32 bytes")
	// ErrWord says that a word is not in the list. The message names it.
	ErrWord = errors.New("not a word of the list")
	// ErrWordsChecksum says that all words exist but do not belong together.
	ErrWordsChecksum = errors.New("the words do not belong together: one is wrong or out of place")
	// ErrWordsCount says that there are too many or too few words.
	ErrWordsCount = errors.New("there must be 12, 15, 18, 21 or 24 words")
	// ErrPassphrase says that a passphrase is not plain ASCII.
	ErrPassphrase = errors.New("the passphrase may hold plain ASCII characters only")
)

const (
	maxWords      = 1024 // characters; 24 words of 8 letters need 215
	maxPassphrase = 1024
	shownWord     = 20 // characters of a wrong word that a message repeats
)

// NewMnemonic writes entropy, which must come from a cryptographic source, as
// English words with a checksum (BIP 39): 16 bytes give 12 words. The caller's
// buffer is left as it is. ErrEntropy for other lengths than BIP 39 has.
func NewMnemonic(entropy []byte) (string, error) {
	if n := len(entropy); n < 16 || n > 32 || n%4 != 0 {
		return "", fmt.Errorf("%d bytes: %w", n, ErrEntropy)
	}
	// The library appends to what it is given.
	words, _, err := bip39.Mnemonic(slices.Clip(slices.Clone(entropy)), "")
	if err != nil {
		return "", fmt.Errorf("make mnemonic: %w", err)
	}
	return words, nil
}

// CheckMnemonic returns the words in lower case with single spaces, after
// checking their number, each of them and the checksum (BIP 39, English).
// Errors are ErrWordsCount, ErrWord, which names the first wrong word and its
// place, and ErrWordsChecksum.
func CheckMnemonic(words string) (string, error) {
	if len(words) > maxWords {
		return "", fmt.Errorf("%d characters: %w", len(words), ErrWordsCount)
	}
	list := strings.Fields(strings.ToLower(words))
	if n := len(list); n < 12 || n > 24 || n%3 != 0 {
		return "", fmt.Errorf("%d words: %w", n, ErrWordsCount)
	}
	// Each word is 11 bits; the last bits, one for every three words, are the
	// first of the others' SHA-256.
	bits := make([]byte, 0, 33)
	var acc uint32
	var held int
	for i, w := range list {
		n, found := slices.BinarySearch(bip39.English, w)
		if !found {
			return "", fmt.Errorf("word %d, %q: %w", i+1, shorten(w), ErrWord)
		}
		acc = acc<<11 | uint32(n)
		held += 11
		for held >= 8 {
			held -= 8
			bits = append(bits, byte(acc>>held))
		}
	}
	size := len(list) / 3 * 4 // bytes of entropy
	sum := byte(acc << (8 - held))
	if held == 0 { // 24 words: the checksum is the last whole byte
		sum = bits[size]
	}
	want := sha256.Sum256(bits[:size])
	check := len(list) / 3
	if (sum^want[0])>>(8-check) != 0 {
		return "", ErrWordsChecksum
	}
	return strings.Join(list, " "), nil
}

func shorten(word string) string {
	if r := []rune(word); len(r) > shownWord {
		return string(r[:shownWord]) + "…"
	}
	return word
}

// SeedOf returns the 64-byte seed of a mnemonic, which is checked as
// CheckMnemonic does (BIP 39: PBKDF2, 2048 rounds of HMAC-SHA-512). The
// passphrase may be empty; since it would have to be normalised in Unicode to
// give what other wallets give, only ASCII is taken, else ErrPassphrase.
func SeedOf(words, passphrase string) ([]byte, error) {
	if len(passphrase) > maxPassphrase || strings.IndexFunc(passphrase, func(r rune) bool { return r > 0x7e || r < 0x20 }) >= 0 {
		return nil, ErrPassphrase
	}
	words, err := CheckMnemonic(words)
	if err != nil {
		return nil, err
	}
	seed, err := bip39.MnemonicToSeed(words, passphrase)
	if err != nil {
		return nil, fmt.Errorf("seed of mnemonic: %w", err)
	}
	return seed, nil
}
