package bsv

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrTxid says that a text is not a transaction id.
	ErrTxid = errors.New("not a transaction id of 64 hexadecimal digits")
	// ErrOutpoint says that a text is not an outpoint.
	ErrOutpoint = errors.New("not an outpoint of the form txid:index")
)

// Txid is a transaction id in internal byte order, as it stands in a
// transaction. Text is in display order, which is the reverse.
type Txid [32]byte

// ParseTxid reads 64 hexadecimal digits in display order, or returns ErrTxid.
func ParseTxid(text string) (Txid, error) {
	var t Txid
	if len(text) != 2*len(t) {
		return Txid{}, fmt.Errorf("%d characters: %w", len(text), ErrTxid)
	}
	if _, err := hex.Decode(t[:], []byte(text)); err != nil {
		return Txid{}, fmt.Errorf("%q: %w", text, ErrTxid)
	}
	slices.Reverse(t[:])
	return t, nil
}

// String returns the id in display order.
func (t Txid) String() string {
	slices.Reverse(t[:])
	return hex.EncodeToString(t[:])
}

// IsZero reports whether t is no id.
func (t Txid) IsZero() bool { return t == Txid{} }

// MarshalText writes the id in display order.
func (t Txid) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what ParseTxid reads.
func (t *Txid) UnmarshalText(text []byte) error {
	id, err := ParseTxid(string(text))
	if err != nil {
		return err
	}
	*t = id
	return nil
}

// OutpointSize is the length in bytes of an outpoint's wire form.
const OutpointSize = 36

// Outpoint names one output of one transaction.
type Outpoint struct {
	Txid  Txid
	Index uint32
}

// ParseOutpoint reads "txid:index", the index in decimal without a sign or
// leading zeros, or returns ErrOutpoint.
func ParseOutpoint(text string) (Outpoint, error) {
	id, number, found := strings.Cut(text, ":")
	if !found || len(number) > 10 {
		return Outpoint{}, fmt.Errorf("%.80q: %w", text, ErrOutpoint)
	}
	txid, err := ParseTxid(id)
	if err != nil {
		return Outpoint{}, fmt.Errorf("%w: %w", ErrOutpoint, err)
	}
	index, err := strconv.ParseUint(number, 10, 32)
	if err != nil || number != strconv.FormatUint(index, 10) {
		return Outpoint{}, fmt.Errorf("index %q: %w", number, ErrOutpoint)
	}
	return Outpoint{Txid: txid, Index: uint32(index)}, nil
}

// OutpointFromBytes reads the wire form.
func OutpointFromBytes(b [OutpointSize]byte) Outpoint {
	return Outpoint{Txid: Txid(b[:32]), Index: binary.LittleEndian.Uint32(b[32:])}
}

// Bytes returns the wire form: the id in internal order, the index in little
// endian.
func (o Outpoint) Bytes() [OutpointSize]byte {
	var b [OutpointSize]byte
	copy(b[:], o.Txid[:])
	binary.LittleEndian.PutUint32(b[32:], o.Index)
	return b
}

// AppendBinary appends the wire form. The error is always nil.
func (o Outpoint) AppendBinary(b []byte) ([]byte, error) { return o.append(b), nil }

func (o Outpoint) append(b []byte) []byte {
	b = append(b, o.Txid[:]...)
	return binary.LittleEndian.AppendUint32(b, o.Index)
}

// String returns "txid:index".
func (o Outpoint) String() string {
	return o.Txid.String() + ":" + strconv.FormatUint(uint64(o.Index), 10)
}

// IsZero reports whether o names nothing.
func (o Outpoint) IsZero() bool { return o == Outpoint{} }

// MarshalText writes "txid:index".
func (o Outpoint) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what ParseOutpoint reads.
func (o *Outpoint) UnmarshalText(text []byte) error {
	p, err := ParseOutpoint(string(text))
	if err != nil {
		return err
	}
	*o = p
	return nil
}
