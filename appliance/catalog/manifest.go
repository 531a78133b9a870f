package catalog

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// ManifestVersion is the version of manifests that this package reads and writes.
const ManifestVersion = 1

// Limits of a manifest.
const (
	MaxManifest = 2048 // bytes, bencoded
	MaxTitle    = 200  // runes of a title's name
)

const (
	manifestKey = "bitcdn"
	manifestTag = "BitCDN manifest v1"
)

var (
	// ErrManifestSyntax says that a manifest, or the info dict around it, is
	// not canonical bencode, misses a field, has one too many, or holds a
	// value that cannot be.
	ErrManifestSyntax = errors.New("malformed manifest")
	// ErrManifestSignature says that the manifest was not signed by its
	// creator over this info dict: one of the two was changed.
	ErrManifestSignature = errors.New("manifest not signed by its creator")
	// ErrManifestVersion says that the manifest is of a version that this
	// program is too old, or too new, for.
	ErrManifestVersion = errors.New("unknown manifest version")
)

// Manifest is a creator's signed terms for one title.
//
// It stands in the info dict under the key "bitcdn" as a dict with exactly the
// keys "address" (where the royalty goes, as address text; empty where there
// is none), "creator" (33 bytes), "network" ("main", "test" or "regtest"),
// "royalty" (satoshis per GiB), "sig" (strict DER, low S), "title" (UTF-8) and
// "v" (1). As part of the info dict it travels with the metadata of a magnet
// (BEP 9) and is covered by the info hash.
//
// The signature is the creator key's over SHA-256(SHA-256(tag ‖ info)), where
// tag is "BitCDN manifest v1" and info the whole info dict without the entry
// "sig". So it binds names, sizes and piece hashes too: terms cannot be moved
// to other content. Info dicts with a manifest are canonical bencode throughout
// (sorted keys, each once), so that there is one way only to write what is signed.
type Manifest struct {
	Version   int // ManifestVersion
	Creator   bsv.PublicKey
	Royalty   money.Rate  // the creator's part, on top of the seeder's price; 0 to money.MaxRate
	RoyaltyTo bsv.Hash160 // P2PKH; zero only where Royalty is 0
	Network   bsv.Network // the chain that RoyaltyTo lies on
	Title     string      // at most MaxTitle runes, no control characters; may be empty
}

// ReadManifest reads and verifies the manifest of a bencoded info dict of at
// most MaxTorrent bytes. It returns nil and no error where the dict has none.
// Errors are ErrManifestSyntax, ErrManifestVersion and ErrManifestSignature.
func ReadManifest(info []byte) (*Manifest, error) {
	if len(info) > MaxTorrent {
		return nil, fmt.Errorf("info dict of %d bytes: %w", len(info), ErrManifestSyntax)
	}
	var found *entry
	w := walker{text: info}
	err := w.whole(func(e entry) error {
		if string(e.key) != manifestKey {
			return nil
		}
		if found != nil {
			return fmt.Errorf("two manifests: %w", errBencode)
		}
		found = &e
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrManifestSyntax, err)
	case found == nil:
		return nil, nil
	case w.unsorted:
		return nil, fmt.Errorf("%w: keys of the info dict are not in order", ErrManifestSyntax)
	case len(found.value) > MaxManifest:
		return nil, fmt.Errorf("%w: %d bytes", ErrManifestSyntax, len(found.value))
	}
	m, sig, err := parseManifest(found.value)
	if err != nil {
		return nil, err
	}
	offset := found.end - len(found.value)
	digest := manifestDigest(info[:offset+sig.start], info[offset+sig.end:])
	der, err := str(sig.value)
	if err != nil || len(der) > bsv.MaxSignature {
		return nil, fmt.Errorf("%w: signature of %d bytes", ErrManifestSyntax, len(der))
	}
	if err := bsv.VerifyDigest(m.Creator, digest, bsv.Signature(der)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifestSignature, err)
	}
	return m, nil
}

// parseManifest reads the manifest's own dict. The signature is returned with
// its place and not verified.
func parseManifest(dict []byte) (m *Manifest, sig entry, err error) {
	fields := make(map[string]entry, len(manifestFields))
	w := walker{text: dict}
	if err := w.whole(func(e entry) error {
		fields[string(e.key)] = e // at most MaxManifest bytes: few
		return nil
	}); err != nil {
		return nil, entry{}, fmt.Errorf("%w: %w", ErrManifestSyntax, err)
	}
	bad := func(field string, err error) (*Manifest, entry, error) {
		return nil, entry{}, fmt.Errorf("%w: %s: %w", ErrManifestSyntax, field, err)
	}
	version, err := integer(fields["v"].value)
	if err != nil {
		return bad("v", err)
	}
	if version != ManifestVersion {
		return nil, entry{}, fmt.Errorf("%w: %d", ErrManifestVersion, version)
	}
	if len(fields) != len(manifestFields) {
		return nil, entry{}, fmt.Errorf("%w: %d fields, want %d", ErrManifestSyntax, len(fields), len(manifestFields))
	}
	texts := map[string][]byte{}
	for _, name := range manifestFields {
		e, ok := fields[name]
		if !ok {
			return nil, entry{}, fmt.Errorf("%w: no %q", ErrManifestSyntax, name)
		}
		if name == "royalty" || name == "v" {
			continue
		}
		if texts[name], err = str(e.value); err != nil {
			return bad(name, err)
		}
	}
	m = &Manifest{Version: ManifestVersion, Title: string(texts["title"])}
	royalty, err := integer(fields["royalty"].value)
	if err != nil {
		return bad("royalty", err)
	}
	m.Royalty = money.Rate(royalty)
	if m.Network, err = bsv.ParseNetwork(string(texts["network"])); err != nil || m.Network.String() != string(texts["network"]) {
		return nil, entry{}, fmt.Errorf("%w: network %q", ErrManifestSyntax, texts["network"])
	}
	if m.Creator, err = bsv.ParsePublicKey(texts["creator"]); err != nil {
		return bad("creator", err)
	}
	if address := string(texts["address"]); address != "" {
		if m.RoyaltyTo, err = bsv.ParseAddress(address, m.Network); err != nil {
			return bad("address", err)
		}
		if m.RoyaltyTo.Address(m.Network) != address {
			return nil, entry{}, fmt.Errorf("%w: address %q is written in an unusual way", ErrManifestSyntax, address)
		}
	}
	if err := m.check(); err != nil {
		return nil, entry{}, err
	}
	return m, fields["sig"], nil
}

var manifestFields = [...]string{"address", "creator", "network", "royalty", "sig", "title", "v"}

func (m *Manifest) check() error {
	switch {
	case !m.Royalty.Valid():
		return fmt.Errorf("%w: royalty of %d", ErrManifestSyntax, int64(m.Royalty))
	case m.Royalty > 0 && m.RoyaltyTo.IsZero():
		return fmt.Errorf("%w: a royalty but no address for it", ErrManifestSyntax)
	}
	return CheckTitle(m.Title)
}

// CheckTitle says, by an ErrManifestSyntax that names the reason, whether a
// title's name can stand in a manifest: valid UTF-8, at most MaxTitle runes,
// and nothing in it that moves the text around it.
func CheckTitle(title string) error {
	if !utf8.ValidString(title) {
		return fmt.Errorf("%w: title is not UTF-8", ErrManifestSyntax)
	}
	if n := utf8.RuneCountInString(title); n > MaxTitle {
		return fmt.Errorf("%w: title of %d characters, at most %d", ErrManifestSyntax, n, MaxTitle)
	}
	for _, r := range title {
		// Bidirectional overrides are no control characters to Unicode, yet
		// they let one title be shown as another.
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("%w: character %U in the title", ErrManifestSyntax, r)
		}
	}
	return nil
}

// SignManifest returns the bencoded info dict with m in it, signed with key. It
// sets m's version and creator. The dict must be canonical and without a
// manifest, and m must be valid, else the error is ErrManifestSyntax.
func SignManifest(info []byte, m Manifest, key bsv.PrivateKey) ([]byte, error) {
	m.Version, m.Creator = ManifestVersion, key.Public()
	if err := m.check(); err != nil {
		return nil, err
	}
	at := 1 // where the entry belongs: before the first greater key
	w := walker{text: info}
	err := w.whole(func(e entry) error {
		switch bytes.Compare(e.key, []byte(manifestKey)) {
		case -1:
			at = e.end
		case 0:
			return fmt.Errorf("there is a manifest already: %w", errBencode)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifestSyntax, err)
	}
	if w.unsorted {
		return nil, fmt.Errorf("%w: keys of the info dict are not in order", ErrManifestSyntax)
	}
	var address string
	if !m.RoyaltyTo.IsZero() {
		address = m.RoyaltyTo.Address(m.Network)
	}
	before := append(appendString(nil, manifestKey), 'd')
	before = appendString(appendString(before, "address"), address)
	before = appendString(appendString(before, "creator"), m.Creator[:])
	before = appendString(appendString(before, "network"), m.Network.String())
	before = appendInteger(appendString(before, "royalty"), int64(m.Royalty))
	after := appendString(appendString(nil, "title"), m.Title)
	after = append(appendInteger(appendString(after, "v"), ManifestVersion), 'e')

	sig, err := key.SignDigest(manifestDigest(info[:at], before, after, info[at:]))
	if err != nil {
		return nil, fmt.Errorf("sign manifest: %w", err)
	}
	sigEntry := appendString(appendString(nil, "sig"), sig)
	return slices.Concat(info[:at], before, sigEntry, after, info[at:]), nil
}

func manifestDigest(parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(manifestTag))
	for _, p := range parts {
		h.Write(p)
	}
	return sha256.Sum256(h.Sum(nil))
}
