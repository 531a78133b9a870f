package bsv

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/libsv/go-bk/base58"
	"github.com/libsv/go-bk/crypto"
)

// Errors of ParseAddress. None of their messages repeats the text, which may
// be a private key that was pasted into the wrong field.
var (
	// ErrAddressSyntax says that a text is no address at all.
	ErrAddressSyntax = errors.New("not an address")
	// ErrAddressChecksum says that an address is mistyped.
	ErrAddressChecksum = errors.New("the address is mistyped: its checksum is wrong")
	// ErrAddressNetwork says that an address is for another network.
	ErrAddressNetwork = errors.New("the address is for another network")
	// ErrAddressKind says that an address is of a kind that cannot be paid to.
	ErrAddressKind = errors.New("not an address of the kind that is supported (P2PKH)")
)

// Version bytes of addresses.
const (
	versionMain    = 0x00
	versionTest    = 0x6f
	versionP2SH    = 0x05
	versionTestSH  = 0xc4
	maxAddress     = 40 // characters; a P2PKH address has at most 34
	addressPayload = 1 + 20 + 4
)

// Hash160 is RIPEMD-160 of SHA-256 of a public key.
type Hash160 [20]byte

// IsZero reports whether h is no hash.
func (h Hash160) IsZero() bool { return h == Hash160{} }

// String returns 40 hexadecimal digits. It is not an address.
func (h Hash160) String() string { return hex.EncodeToString(h[:]) }

// Address returns the P2PKH address in base58 with checksum. Test and Regtest
// addresses are the same.
func (h Hash160) Address(net Network) string {
	b := make([]byte, 0, addressPayload)
	b = append(b, net.version())
	b = append(b, h[:]...)
	sum := crypto.Sha256d(b)
	return base58.Encode(append(b, sum[:4]...))
}

func (n Network) version() byte {
	if n == Main {
		return versionMain
	}
	return versionTest
}

// ParseAddress reads a P2PKH address of the network; white space around it is
// ignored. Errors are ErrAddressSyntax, ErrAddressChecksum, ErrAddressNetwork
// (the message names the network that the address is for) and ErrAddressKind.
func ParseAddress(text string, net Network) (Hash160, error) {
	if len(text) > 2*maxAddress {
		return Hash160{}, fmt.Errorf("%d characters: %w", len(text), ErrAddressSyntax)
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return Hash160{}, fmt.Errorf("empty: %w", ErrAddressSyntax)
	case strings.Contains(text, "@"):
		return Hash160{}, fmt.Errorf("a paymail handle: %w", ErrAddressKind)
	case strings.Contains(text, ":"):
		return Hash160{}, fmt.Errorf("an address with a prefix: %w", ErrAddressKind)
	case len(text) > maxAddress:
		return Hash160{}, fmt.Errorf("%d characters: %w", len(text), ErrAddressSyntax)
	}
	if i := strings.IndexFunc(text, notBase58); i >= 0 {
		return Hash160{}, fmt.Errorf("character %d is none that addresses have: %w", i+1, ErrAddressSyntax)
	}
	// Every leading 1 is a zero byte, so one too many makes the length wrong.
	b := base58.Decode(text)
	if len(b) != addressPayload {
		return Hash160{}, fmt.Errorf("too long or too short: %w", ErrAddressSyntax)
	}
	if sum := crypto.Sha256d(b[:21]); string(sum[:4]) != string(b[21:]) {
		return Hash160{}, ErrAddressChecksum
	}
	switch b[0] {
	case net.version():
		return Hash160(b[1:21]), nil
	case versionMain:
		return Hash160{}, fmt.Errorf("%w: it is for main, not %s", ErrAddressNetwork, net)
	case versionTest:
		return Hash160{}, fmt.Errorf("%w: it is for test or regtest, not %s", ErrAddressNetwork, net)
	case versionP2SH, versionTestSH:
		return Hash160{}, fmt.Errorf("a script hash (P2SH), which can no longer be paid to: %w", ErrAddressKind)
	}
	return Hash160{}, fmt.Errorf("version %d: %w", b[0], ErrAddressKind)
}

func notBase58(r rune) bool {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	return !strings.ContainsRune(alphabet, r)
}
