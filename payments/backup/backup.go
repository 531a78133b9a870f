// Package backup copies out of the ledger what the chain and the recovery words
// do not hold, and brings it back on another machine.
//
// The newest commitments of open channels live in the ledger alone. A Keeper
// writes them to a second disk, at most a minute old, and with the words such a
// file is enough to close every channel in it (Recover). Backups open with the
// words alone, whatever passphrase the wallet's file has.
//
// # Kinds
//
//   - State: the channels that are not settled, the transactions that are not
//     buried, the key counters, the payout address. Small, and written all the
//     time.
//   - History: the whole ledger, as a database file. Once a day.
//
// # File
//
// A header of 64 bytes, then chunks. Numbers are big endian.
//
//	 0   8  "BCDNBKUP"
//	 8   2  version, 1
//	10   1  kind: 1 state, 2 history
//	11   1  network: 0 main, 1 test, 2 regtest
//	12   8  fingerprint of the wallet
//	20   8  seconds since 1970 when it was made
//	28  19  random
//	47  17  zero
//
// Each chunk is up to 65,536 bytes under XChaCha20-Poly1305, with the header as
// additional data. Its nonce is the 19 random bytes, the chunk's number in four,
// and one byte that is 1 for the last chunk and 0 for the others; so no chunk
// can be changed, moved, left out or come from another file, and a file that
// ends early is noticed. All chunks but the last are full. Key and fingerprint
// are wallet.Secret of the words. What is encrypted is compressed with gzip.
package backup

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"golang.org/x/crypto/chacha20poly1305"
)

// Kind says what a backup holds.
type Kind uint8

// The kinds.
const (
	State   Kind = 1
	History Kind = 2
)

// String is "state" or "history".
func (k Kind) String() string {
	switch k {
	case State:
		return "state"
	case History:
		return "history"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

var (
	// ErrFormat says that a file is no backup.
	ErrFormat = errors.New("not a backup")
	// ErrNewer says that a backup was written by a newer program.
	ErrNewer = errors.New("the backup was written by a newer version of this program")
	// ErrOtherWallet says that a backup belongs to other words.
	ErrOtherWallet = errors.New("the backup belongs to another wallet: these words do not open it")
	// ErrOtherNetwork says that a backup is of another network.
	ErrOtherNetwork = errors.New("the backup is of another network")
	// ErrDamaged says that a backup was changed or is cut short.
	ErrDamaged = errors.New("the backup is damaged or cut short")
)

const (
	magic      = "BCDNBKUP"
	version    = 1
	headerSize = 64
	chunkSize  = 64 << 10
	nonceSize  = chacha20poly1305.NonceSizeX - 5 // the random part
)

// FingerprintSize is the length of a Fingerprint in bytes.
const FingerprintSize = 8

// Fingerprint tells the backups of one wallet from those of others, and nothing
// else of it.
type Fingerprint [FingerprintSize]byte

// Key opens and makes the backups of one wallet.
type Key struct {
	net         bsv.Network
	aead        cipher.AEAD
	fingerprint Fingerprint
}

// Purposes of wallet.Secret.
const (
	keyPurpose         = "backup key 1"
	fingerprintPurpose = "backup fingerprint 1"
)

// NewKey makes the key from a function that derives secrets: that of a wallet.
func NewKey(net bsv.Network, secret func(purpose string) ([wallet.SecretSize]byte, error)) (*Key, error) {
	key, err := secret(keyPurpose)
	if err != nil {
		return nil, fmt.Errorf("backup key: %w", err)
	}
	print, err := secret(fingerprintPurpose)
	if err != nil {
		return nil, fmt.Errorf("backup key: %w", err)
	}
	k := &Key{net: net, fingerprint: Fingerprint(print[:FingerprintSize])}
	if k.aead, err = chacha20poly1305.NewX(key[:]); err != nil {
		return nil, fmt.Errorf("backup key: %w", err)
	}
	return k, nil
}

// KeyOf is the key of words. Errors are those of bsv.CheckMnemonic.
func KeyOf(words string, net bsv.Network) (*Key, error) {
	return NewKey(net, func(purpose string) ([wallet.SecretSize]byte, error) { return wallet.Secret(words, purpose) })
}

// Fingerprint is the wallet's.
func (k *Key) Fingerprint() Fingerprint { return k.fingerprint }

// Header is what a backup says of itself before it is opened. It is
// authenticated together with each chunk.
type Header struct {
	Kind        Kind
	Network     bsv.Network
	Fingerprint Fingerprint
	Made        time.Time // whole seconds
	random      [nonceSize]byte
}

func (h *Header) bytes() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = append(b, byte(h.Kind), byte(h.Network))
	b = append(b, h.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Made.Unix()))
	b = append(b, h.random[:]...)
	return append(b, make([]byte, headerSize-len(b))...)
}

// ReadHeader reads a backup's header. Errors are ErrFormat, ErrNewer and those
// of r.
func ReadHeader(r io.Reader) (Header, error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return Header{}, ErrFormat
		}
		return Header{}, fmt.Errorf("read backup: %w", err)
	}
	if string(b[:8]) != magic {
		return Header{}, ErrFormat
	}
	if v := binary.BigEndian.Uint16(b[8:]); v != version {
		if v < version {
			return Header{}, ErrFormat
		}
		return Header{}, fmt.Errorf("version %d: %w", v, ErrNewer)
	}
	made := binary.BigEndian.Uint64(b[20:])
	h := Header{Kind: Kind(b[10]), Network: bsv.Network(b[11]), Fingerprint: Fingerprint(b[12:20]), random: [nonceSize]byte(b[28:47])}
	if made > math.MaxUint32 || h.Kind != State && h.Kind != History || h.Network > bsv.Regtest || !bytes.Equal(b[47:], make([]byte, headerSize-47)) {
		return Header{}, ErrFormat
	}
	h.Made = time.Unix(int64(made), 0).UTC()
	return h, nil
}

// nonce of a chunk.
func (h *Header) nonce(number uint32, last bool) []byte {
	n := make([]byte, 0, chacha20poly1305.NonceSizeX)
	n = append(n, h.random[:]...)
	n = binary.BigEndian.AppendUint32(n, number)
	if last {
		return append(n, 1)
	}
	return append(n, 0)
}

// encrypter writes chunks. The last one is written by Close.
type encrypter struct {
	to     io.Writer
	key    *Key
	head   Header
	ad     []byte
	plain  []byte
	sealed []byte
	number uint32
	err    error
}

// errTooLong: 2^32 chunks are 256 TiB.
var errTooLong = errors.New("the backup has too many chunks")

// encrypt begins a backup: it writes the header.
func encrypt(to io.Writer, k *Key, kind Kind, made time.Time, random io.Reader) (*encrypter, error) {
	e := &encrypter{to: to, key: k, head: Header{Kind: kind, Network: k.net, Fingerprint: k.fingerprint, Made: made},
		plain: make([]byte, 0, chunkSize)}
	if _, err := io.ReadFull(random, e.head.random[:]); err != nil {
		return nil, fmt.Errorf("read randomness: %w", err)
	}
	e.ad = e.head.bytes()
	_, err := to.Write(e.ad)
	return e, err
}

// Write implements io.Writer.
func (e *encrypter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if len(e.plain) == chunkSize {
			if err := e.flush(false); err != nil {
				return n, err
			}
		}
		m := copy(e.plain[len(e.plain):chunkSize], b)
		e.plain = e.plain[:len(e.plain)+m]
		b, n = b[m:], n+m
	}
	return n, nil
}

// Close writes the last chunk; it does not close what is written to.
func (e *encrypter) Close() error { return e.flush(true) }

func (e *encrypter) flush(last bool) error {
	if e.err != nil {
		return e.err
	}
	e.sealed = e.key.aead.Seal(e.sealed[:0], e.head.nonce(e.number, last), e.plain, e.ad)
	e.plain = e.plain[:0]
	if e.number++; e.number == 0 {
		e.err = errTooLong
		return e.err
	}
	_, e.err = e.to.Write(e.sealed)
	return e.err
}

// decrypter reads what an encrypter has written.
type decrypter struct {
	from   io.Reader
	key    *Key
	head   Header
	ad     []byte
	sealed []byte // one chunk and the first byte of the next
	have   int
	plain  []byte // that was not read yet
	number uint32
	done   bool
}

// decrypt opens a backup. Errors are those of ReadHeader, ErrOtherWallet and
// ErrOtherNetwork. What is read later is authentic, and io.EOF comes only at the
// true end; everything else is ErrDamaged.
func decrypt(from io.Reader, k *Key) (*decrypter, error) {
	h, err := ReadHeader(from)
	switch {
	case err != nil:
		return nil, err
	case h.Network != k.net:
		return nil, fmt.Errorf("%w: it is of %v, wanted is %v", ErrOtherNetwork, h.Network, k.net)
	case h.Fingerprint != k.fingerprint:
		return nil, ErrOtherWallet
	}
	return &decrypter{from: from, key: k, head: h, ad: h.bytes(), sealed: make([]byte, chunkSize+k.aead.Overhead()+1)}, nil
}

// Read implements io.Reader.
func (d *decrypter) Read(b []byte) (int, error) {
	if len(d.plain) == 0 && !d.done {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	if len(d.plain) == 0 {
		return 0, io.EOF
	}
	n := copy(b, d.plain)
	d.plain = d.plain[n:]
	return n, nil
}

// next opens one chunk. Whether it is the last one is told by what follows it.
func (d *decrypter) next() error {
	n, err := io.ReadFull(d.from, d.sealed[d.have:])
	n += d.have
	last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !last {
		return fmt.Errorf("read backup: %w", err)
	}
	size := n
	if !last {
		size = n - 1
	}
	plain, err := d.key.aead.Open(nil, d.head.nonce(d.number, last), d.sealed[:size], d.ad)
	if err != nil {
		return ErrDamaged
	}
	if d.number++; d.number == 0 || last && len(plain) == 0 && d.number > 1 {
		return ErrDamaged
	}
	d.plain, d.done = plain, last
	if !last {
		d.sealed[0] = d.sealed[n-1]
		d.have = 1
	}
	return nil
}
