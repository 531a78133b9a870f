package bsv

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/bitcdn/bitcdn/payments/money"
)

// Output is an amount and the script that locks it.
type Output struct {
	Value  money.Satoshis
	Script Script
}

// Input spends an output. Script is the unlocking script, empty until signed.
type Input struct {
	Prev     Outpoint
	Script   Script
	Sequence uint32
}

// FinalSequence is the sequence of an input that no lock time holds back.
const FinalSequence uint32 = 0xffffffff

// Tx is a transaction: plain data, not checked for being valid. A Tx may be
// read by several goroutines as long as none writes it.
type Tx struct {
	Version  uint32
	Inputs   []Input
	Outputs  []Output
	LockTime uint32
}

// Coin is an output that can be spent.
type Coin struct {
	Outpoint Outpoint
	Output   Output
}

// Bytes returns the serialised transaction.
func (t *Tx) Bytes() []byte { return t.append(make([]byte, 0, t.Size())) }

// AppendBinary appends the serialised transaction. The error is always nil.
func (t *Tx) AppendBinary(b []byte) ([]byte, error) { return t.append(b), nil }

func (t *Tx) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, t.Version)
	b = appendVarInt(b, len(t.Inputs))
	for i := range t.Inputs {
		b = t.Inputs[i].append(b)
	}
	b = appendVarInt(b, len(t.Outputs))
	for i := range t.Outputs {
		b = t.Outputs[i].append(b)
	}
	return binary.LittleEndian.AppendUint32(b, t.LockTime)
}

func (in *Input) append(b []byte) []byte {
	b = in.Prev.append(b)
	b = appendVarInt(b, len(in.Script))
	b = append(b, in.Script...)
	return binary.LittleEndian.AppendUint32(b, in.Sequence)
}

func (o *Output) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(o.Value))
	b = appendVarInt(b, len(o.Script))
	return append(b, o.Script...)
}

// Txid returns the transaction's id. It changes with every byte, the unlocking
// scripts included.
func (t *Tx) Txid() Txid {
	first := sha256.Sum256(t.Bytes())
	return sha256.Sum256(first[:])
}

// Size returns the length in bytes of the serialised transaction.
func (t *Tx) Size() int {
	n := 4 + varIntSize(len(t.Inputs)) + varIntSize(len(t.Outputs)) + 4
	for i := range t.Inputs {
		n += inputSize(len(t.Inputs[i].Script))
	}
	for i := range t.Outputs {
		n += outputSize(len(t.Outputs[i].Script))
	}
	return n
}

// Paid returns the sum of the outputs, or money.ErrRange.
func (t *Tx) Paid() (money.Satoshis, error) { return sumOutputs(t.Outputs) }

func sumOutputs(outs []Output) (money.Satoshis, error) {
	var sum money.Satoshis
	var err error
	for i := range outs {
		if sum, err = sum.Add(outs[i].Value); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

// lockTimeThreshold is where lock times stop being heights and become seconds.
const lockTimeThreshold = 500_000_000

// FinalAt reports whether the transaction may be mined in the block at
// nextHeight: its lock time is zero or a height below nextHeight, or all of
// its sequences are final. A lock time in seconds is taken for not reached.
func (t *Tx) FinalAt(nextHeight uint32) bool {
	if t.LockTime == 0 || t.LockTime < lockTimeThreshold && t.LockTime < nextHeight {
		return true
	}
	for i := range t.Inputs {
		if t.Inputs[i].Sequence != FinalSequence {
			return false
		}
	}
	return true
}

func inputSize(script int) int  { return OutpointSize + varIntSize(script) + script + 4 }
func outputSize(script int) int { return 8 + varIntSize(script) + script }

func varIntSize(n int) int {
	switch {
	case n < 0xfd:
		return 1
	case n <= 0xffff:
		return 3
	case uint64(n) <= 0xffffffff:
		return 5
	}
	return 9
}

func appendVarInt(b []byte, n int) []byte {
	switch varIntSize(n) {
	case 1:
		return append(b, byte(n))
	case 3:
		return binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	case 5:
		return binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xff), uint64(n))
}
