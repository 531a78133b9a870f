package bsv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/money"
)

// extendedMarker stands between the version and the inputs. Who does not know
// the format reads a transaction without inputs and outputs in it.
var extendedMarker = []byte{0, 0, 0, 0, 0, 0xef}

// minExtendedInput is the shortest input in bytes with the output that it
// spends: with empty scripts.
const minExtendedInput = minInput + minOutput

// Extended returns the transaction in the extended format (BRC-30), in which
// every input carries the output that it spends; prev holds these in the order
// of the inputs. ErrInputs where their number is another one.
func (t *Tx) Extended(prev []Output) ([]byte, error) {
	if len(prev) != len(t.Inputs) {
		return nil, fmt.Errorf("%d previous outputs for %d inputs: %w", len(prev), len(t.Inputs), ErrInputs)
	}
	size := t.Size() + len(extendedMarker)
	for i := range prev {
		size += outputSize(len(prev[i].Script))
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, size), t.Version)
	b = append(b, extendedMarker...)
	b = appendVarInt(b, len(t.Inputs))
	for i := range t.Inputs {
		b = t.Inputs[i].append(b)
		b = prev[i].append(b)
	}
	b = appendVarInt(b, len(t.Outputs))
	for i := range t.Outputs {
		b = t.Outputs[i].append(b)
	}
	return binary.LittleEndian.AppendUint32(b, t.LockTime), nil
}

// ParseExtended reads exactly one transaction of at most limit bytes in the
// extended format, and returns the outputs that its inputs spend, in their
// order. It asks the same of it as ParseTx, of the spent outputs too. That they
// are the right ones, the format does not say. Errors are ErrTxSize and
// ErrTxSyntax.
func ParseExtended(b []byte, limit int) (*Tx, []Output, error) {
	if len(b) > limit {
		return nil, nil, fmt.Errorf("%d of at most %d bytes: %w", len(b), limit, ErrTxSize)
	}
	if !wellFormedExtended(b) {
		return nil, nil, fmt.Errorf("%d bytes: %w", len(b), ErrTxSyntax)
	}
	r := reader{rest: slices.Clone(b)} // the scripts are parts of this one copy
	t := &Tx{Version: r.uint32()}
	r.take(len(extendedMarker))
	t.Inputs = make([]Input, r.count(minExtendedInput))
	prev := make([]Output, len(t.Inputs))
	for i := range t.Inputs {
		t.Inputs[i] = r.input()
		prev[i] = r.output()
	}
	t.Outputs = make([]Output, r.count(minOutput))
	for i := range t.Outputs {
		t.Outputs[i] = r.output()
	}
	t.LockTime = r.uint32()
	if r.failed { // the lengths are right, so it was an amount
		return nil, nil, fmt.Errorf("amounts: %w: %w", ErrTxSyntax, money.ErrRange)
	}
	if _, err := t.Paid(); err != nil {
		return nil, nil, fmt.Errorf("outputs: %w: %w", ErrTxSyntax, err)
	}
	if _, err := sumOutputs(prev); err != nil {
		return nil, nil, fmt.Errorf("spent outputs: %w: %w", ErrTxSyntax, err)
	}
	return t, prev, nil
}

// wellFormedExtended walks all lengths without allocating anything.
func wellFormedExtended(b []byte) bool {
	r := reader{rest: b}
	r.take(4)
	marked := bytes.Equal(r.take(len(extendedMarker)), extendedMarker)
	inputs := r.count(minExtendedInput)
	for range inputs {
		r.take(OutpointSize)
		r.script()
		r.take(4 + 8)
		r.script()
	}
	outputs := r.count(minOutput)
	for range outputs {
		r.take(8)
		r.script()
	}
	r.take(4)
	return marked && !r.failed && len(r.rest) == 0 && inputs > 0 && outputs > 0
}
