package bsv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	// ErrTxSyntax says that bytes are not exactly one transaction.
	ErrTxSyntax = errors.New("not a transaction")
	// ErrTxSize says that a transaction is larger than the caller takes.
	ErrTxSize = errors.New("transaction too large")
)

// The shortest input and output in bytes: with empty scripts.
const (
	minInput  = OutpointSize + 1 + 4
	minOutput = 8 + 1
)

// ParseTx reads exactly one transaction of at most limit bytes. It has at least
// one input and one output, lengths in their shortest form, nothing behind it,
// and its outputs and their sum are amounts that can exist; so Bytes gives b
// back. Memory is at most a small multiple of len(b), whatever b claims. b is
// not kept. Errors are ErrTxSize and ErrTxSyntax.
func ParseTx(b []byte, limit int) (*Tx, error) {
	if len(b) > limit {
		return nil, fmt.Errorf("%d of at most %d bytes: %w", len(b), limit, ErrTxSize)
	}
	if !wellFormed(b) {
		return nil, fmt.Errorf("%d bytes: %w", len(b), ErrTxSyntax)
	}
	r := reader{rest: slices.Clone(b)} // the scripts are parts of this one copy
	t := &Tx{Version: r.uint32()}
	t.Inputs = make([]Input, r.count(minInput))
	for i := range t.Inputs {
		t.Inputs[i] = r.input()
	}
	t.Outputs = make([]Output, r.count(minOutput))
	for i := range t.Outputs {
		t.Outputs[i] = r.output()
	}
	t.LockTime = r.uint32()
	if r.failed { // the lengths are right, so it was an amount
		return nil, fmt.Errorf("outputs: %w: %w", ErrTxSyntax, money.ErrRange)
	}
	if _, err := t.Paid(); err != nil {
		return nil, fmt.Errorf("outputs: %w: %w", ErrTxSyntax, err)
	}
	return t, nil
}

// wellFormed walks all lengths without allocating anything.
func wellFormed(b []byte) bool {
	r := reader{rest: b}
	r.take(4)
	inputs := r.count(minInput)
	for range inputs {
		r.take(OutpointSize)
		r.script()
		r.take(4)
	}
	outputs := r.count(minOutput)
	for range outputs {
		r.take(8)
		r.script()
	}
	r.take(4)
	return !r.failed && len(r.rest) == 0 && inputs > 0 && outputs > 0
}

// reader takes bytes from the front. After the first failure it gives only
// zeros, and counts of zero, so that loops over them end.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return nil
	}
	head := r.rest[:n:n]
	r.rest = r.rest[n:]
	return head
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads a number of things of at least size bytes each; more than there
// is room for is a failure, which also keeps it within an int.
func (r *reader) count(size int) int {
	n, shortest := uint64(0), uint64(0)
	switch b := r.take(1); {
	case b == nil:
		return 0
	case b[0] < 0xfd:
		n = uint64(b[0])
	case b[0] == 0xfd:
		if b := r.take(2); b != nil {
			n, shortest = uint64(binary.LittleEndian.Uint16(b)), 0xfd
		}
	case b[0] == 0xfe:
		n, shortest = uint64(r.uint32()), 1<<16
	default:
		n, shortest = r.uint64(), 1<<32
	}
	if r.failed || n < shortest || n > uint64(len(r.rest)/size) {
		r.failed = true
		return 0
	}
	return int(n)
}

func (r *reader) script() Script { return r.take(r.count(1)) }

func (r *reader) input() Input {
	var in Input
	if b := r.take(OutpointSize); b != nil {
		in.Prev = OutpointFromBytes([OutpointSize]byte(b))
	}
	in.Script = r.script()
	in.Sequence = r.uint32()
	return in
}

// output reads an output. An amount that cannot exist is a failure.
func (r *reader) output() Output {
	value := r.uint64()
	if value > uint64(money.MaxSatoshis) {
		r.failed = true
		return Output{}
	}
	return Output{Value: money.Satoshis(value), Script: r.script()}
}
