package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// HeaderSize is the length of a block header in bytes.
const HeaderSize = 80

// ErrHeader says that bytes are no block header, or that a header does not
// have the hash that is claimed for it.
var ErrHeader = errors.New("not a block header")

// Header is a block header and where its block stands.
type Header struct {
	Height     uint32
	Hash, Prev Hash
	MerkleRoot Hash
	Time       time.Time // as the miner wrote it, whole seconds, UTC
	Version    int32
	Bits       uint32 // the target of its proof of work, in its compact form
	Nonce      uint32
}

// ParseHeader reads a header in the protocol's form. The height is the
// caller's: the bytes do not say it. ErrHeader for any other length.
func ParseHeader(raw []byte, height uint32) (Header, error) {
	if len(raw) != HeaderSize {
		return Header{}, fmt.Errorf("%d bytes: %w", len(raw), ErrHeader)
	}
	h := Header{
		Height:  height,
		Hash:    doubleHash(raw),
		Version: int32(binary.LittleEndian.Uint32(raw)),
		Time:    time.Unix(int64(binary.LittleEndian.Uint32(raw[68:])), 0).UTC(),
		Bits:    binary.LittleEndian.Uint32(raw[72:]),
		Nonce:   binary.LittleEndian.Uint32(raw[76:]),
	}
	copy(h.Prev[:], raw[4:])
	copy(h.MerkleRoot[:], raw[36:])
	return h, nil
}

// Bytes returns the header in the protocol's form.
func (h Header) Bytes() []byte {
	b := make([]byte, 0, HeaderSize)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Version))
	b = append(b, h.Prev[:]...)
	b = append(b, h.MerkleRoot[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.Time.Unix()))
	b = binary.LittleEndian.AppendUint32(b, h.Bits)
	return binary.LittleEndian.AppendUint32(b, h.Nonce)
}

// CheckHash returns ErrHeader where the header's fields do not make its Hash, or
// its Time is none that a header can hold. What a service says of a block is
// worth nothing before that.
func (h Header) CheckHash() error {
	raw := h.Bytes()
	if got := doubleHash(raw); got != h.Hash {
		return fmt.Errorf("block %s has the hash %s: %w", h.Hash, got, ErrHeader)
	}
	if stamp := binary.LittleEndian.Uint32(raw[68:]); !h.Time.Equal(time.Unix(int64(stamp), 0)) {
		return fmt.Errorf("block %s of %s: %w", h.Hash, h.Time, ErrHeader)
	}
	return nil
}

func doubleHash(b []byte) Hash {
	h := sha256.Sum256(b)
	return sha256.Sum256(h[:])
}
