// Package wire is the bc_pay extension: the messages by which a downloader
// (the payer) and a seeder (the payee) open, use and close a payment channel
// inside a BitTorrent connection.
//
// Each payload travels in one BEP 10 extended message under the name bc_pay. A
// payload is a kind byte followed by fixed-width big-endian fields; the few
// fields of variable length carry their length before them. Every message has
// its own file with its layout, its cap and its checks of range. Decode reads
// nothing beyond the payload, allocates no more than the payload's own length,
// and refuses trailing bytes, so that one value has one encoding.
//
// A peer ignores kinds that it does not know (ErrKind): later versions add
// kinds and never change the layout of these.
//
// The package is pure, and knows transactions and signatures as bytes only: who
// receives them hands them to payments/bsv, which checks them.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	// Name is the extension's name in the m dictionary of the extended
	// handshake (BEP 10).
	Name = "bc_pay"
	// Version is the protocol's version, sent in Terms.
	Version = 1
	// MaxPayload is the longest payload in bytes, below what common clients
	// take in one extended message.
	MaxPayload = 65_000
	// MaxSignature is the longest signature in bytes, hash type included.
	MaxSignature = 73
	// MaxSeq is the largest number of a commitment, so that every number that
	// was taken can be stored and has a next one.
	MaxSeq = 1 << 62
)

var (
	// ErrKind says that the payload is of a kind that this version lacks.
	ErrKind = errors.New("unknown kind of payment message")
	// ErrMalformed says that a payload is not what its kind promises.
	ErrMalformed = errors.New("malformed payment message")
	// ErrTooLong says that a payload or one of its fields passes its cap.
	ErrTooLong = errors.New("payment message too long")
)

// Kind is the first byte of a payload.
type Kind byte

// The kinds. S is the seeder (payee), L the leecher (payer).
const (
	KindTerms     Kind = 1  // S→L
	KindOpen      Kind = 2  // L→S
	KindRefundSig Kind = 3  // S→L
	KindFunded    Kind = 4  // L→S
	KindReady     Kind = 5  // S→L
	KindPay       Kind = 6  // L→S
	KindAck       Kind = 7  // S→L
	KindResume    Kind = 8  // L→S
	KindResumed   Kind = 9  // S→L
	KindClose     Kind = 10 // L→S
	KindClosed    Kind = 11 // S→L
	KindRefusal   Kind = 12 // both
)

// Message is one of this package's message types, by pointer.
type Message interface {
	Kind() Kind
	encode(*encoder)
	decode(*decoder)
}

// ChannelID names a channel: the double SHA-256 of its funding outpoint.
type ChannelID [32]byte

// Encode returns m's payload, or ErrTooLong where a field passes its cap.
func Encode(m Message) ([]byte, error) {
	e := encoder{b: make([]byte, 0, 256)}
	e.u8(byte(m.Kind()))
	m.encode(&e)
	if e.err == nil && len(e.b) > MaxPayload {
		e.err = ErrTooLong
	}
	if e.err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, e.err)
	}
	return e.b, nil
}

// Decode reads one payload. Errors are ErrKind, ErrTooLong and ErrMalformed.
// The message shares no memory with the payload.
func Decode(payload []byte) (Message, error) {
	if len(payload) > MaxPayload {
		return nil, ErrTooLong
	}
	if len(payload) == 0 {
		return nil, fmt.Errorf("empty payload: %w", ErrMalformed)
	}
	m := newMessage(Kind(payload[0]))
	if m == nil {
		return nil, fmt.Errorf("kind %d: %w", payload[0], ErrKind)
	}
	d := decoder{b: payload[1:]}
	m.decode(&d)
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes too many: %w", len(d.b), ErrMalformed)
	}
	if d.err != nil {
		return nil, fmt.Errorf("decode %T: %w", m, d.err)
	}
	return m, nil
}

func newMessage(k Kind) Message {
	switch k {
	case KindTerms:
		return new(Terms)
	case KindOpen:
		return new(Open)
	case KindRefundSig:
		return new(RefundSig)
	case KindFunded:
		return new(Funded)
	case KindReady:
		return new(Ready)
	case KindPay:
		return new(Pay)
	case KindAck:
		return new(Ack)
	case KindResume:
		return new(Resume)
	case KindResumed:
		return new(Resumed)
	case KindClose:
		return new(Close)
	case KindClosed:
		return new(Closed)
	case KindRefusal:
		return new(Refusal)
	}
	return nil
}

// encoder appends fields; the first error sticks.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) u8(v byte)               { e.b = append(e.b, v) }
func (e *encoder) u16(v uint16)            { e.b = binary.BigEndian.AppendUint16(e.b, v) }
func (e *encoder) u32(v uint32)            { e.b = binary.BigEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64)            { e.b = binary.BigEndian.AppendUint64(e.b, v) }
func (e *encoder) raw(v []byte)            { e.b = append(e.b, v...) }
func (e *encoder) count(v int64)           { e.ranged(v, 1<<62) }
func (e *encoder) seq(v uint64)            { e.ranged(int64(min(v, math.MaxInt64)), MaxSeq) }
func (e *encoder) sat(v money.Satoshis)    { e.ranged(int64(v), int64(money.MaxSatoshis)) }
func (e *encoder) rate(v money.Rate)       { e.ranged(int64(v), int64(money.MaxRate)) }
func (e *encoder) feeRate(v money.FeeRate) { e.ranged(int64(v), int64(money.MaxFeeRate)) }

func (e *encoder) ranged(v, most int64) {
	if v < 0 || v > most {
		e.fail(fmt.Errorf("%d: %w", v, money.ErrRange))
	}
	e.u64(uint64(v))
}

// bytes writes a 16-bit length and the bytes.
func (e *encoder) bytes(v []byte, most int) {
	if len(v) > most {
		e.fail(ErrTooLong)
		return
	}
	e.u16(uint16(len(v)))
	e.raw(v)
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// decoder takes fields from the front; after the first error every field is
// zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.b) {
		d.err = fmt.Errorf("ends early: %w", ErrMalformed)
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) raw(dst []byte)         { copy(dst, d.take(len(dst))) }
func (d *decoder) count() int64           { return d.ranged(1 << 62) }
func (d *decoder) seq() uint64            { return uint64(d.ranged(MaxSeq)) }
func (d *decoder) sat() money.Satoshis    { return money.Satoshis(d.ranged(int64(money.MaxSatoshis))) }
func (d *decoder) rate() money.Rate       { return money.Rate(d.ranged(int64(money.MaxRate))) }
func (d *decoder) feeRate() money.FeeRate { return money.FeeRate(d.ranged(int64(money.MaxFeeRate))) }

func (d *decoder) ranged(most int64) int64 {
	v := d.u64()
	if v > uint64(most) {
		d.fail(fmt.Errorf("%d is out of range: %w", v, ErrMalformed))
		return 0
	}
	return int64(v)
}

func (d *decoder) bytes(most int) []byte {
	n := int(d.u16())
	if n > most {
		d.fail(ErrTooLong)
		return nil
	}
	if b := d.take(n); len(b) > 0 {
		return append([]byte(nil), b...)
	}
	return nil
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}
