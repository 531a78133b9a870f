package node

import (
	"context"
	"encoding/json"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

func Satoshis(text string, up bool) (money.Satoshis, error) { return satoshis(json.Number(text), up) }

func Classify(e *Error) (chain.Reason, bool) { return classify(e) }

// Remembered returns how many transactions the backend can tell conflicts of.
func (b *Backend) Remembered() int { return b.sent.Len() }

// Txids returns the txids of a block, remembered or asked for.
func (b *Backend) Txids(ctx context.Context, block chain.Hash) ([]bsv.Txid, error) {
	return b.txids(ctx, block)
}
