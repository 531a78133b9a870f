package wallet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// ErrOutputs says that bytes are not a list of outputs.
var ErrOutputs = errors.New("not a list of outputs")

// AppendOutput appends an output as the ledger keeps those that an outgoing
// transaction spends: 8 bytes value and 4 bytes length of the script, little
// endian, then the script.
func AppendOutput(b []byte, o bsv.Output) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(o.Value))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(o.Script)))
	return append(b, o.Script...)
}

// AppendOutputs appends several.
func AppendOutputs(b []byte, outs []bsv.Output) []byte {
	for _, o := range outs {
		b = AppendOutput(b, o)
	}
	return b
}

// ParseOutputs reads what AppendOutput has written, or returns ErrOutputs.
func ParseOutputs(b []byte) ([]bsv.Output, error) {
	const head = 12
	var outs []bsv.Output
	for len(b) > 0 {
		if len(b) < head {
			return nil, fmt.Errorf("%d bytes left: %w", len(b), ErrOutputs)
		}
		value := binary.LittleEndian.Uint64(b)
		size := binary.LittleEndian.Uint32(b[8:])
		b = b[head:]
		if value > uint64(money.MaxSatoshis) || uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("%d satoshis, script of %d bytes: %w", value, size, ErrOutputs)
		}
		outs = append(outs, bsv.Output{Value: money.Satoshis(value), Script: bsv.Script(b[:size:size])})
		b = b[size:]
	}
	return outs, nil
}

func outpoint(o ledger.Outpoint) bsv.Outpoint { return bsv.Outpoint{Txid: o.Txid, Index: o.Index} }

func outpoints(coins []ledger.Coin) []ledger.Outpoint {
	all := make([]ledger.Outpoint, len(coins))
	for i := range coins {
		all[i] = coins[i].Outpoint()
	}
	return all
}
