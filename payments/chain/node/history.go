package node

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

var (
	_ chain.BulkUsed = (*Backend)(nil)
	_ chain.SpentBy  = (*Backend)(nil)
)

// UsedBulk implements chain.BulkUsed. ErrUnsupported where Unspent is, and a
// transaction above chain.MaxTxSize counts here.
func (b *Backend) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	used := make([]bool, len(scripts))
	for i, s := range scripts {
		address, err := b.address(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("past of a script: %w", err)
		}
		first, err := b.search(ctx, address, 0, 1, false)
		if err != nil {
			return nil, fmt.Errorf("past of %s: %w", address, err)
		}
		used[i] = len(first) > 0
	}
	return used, nil
}

// SpentBy implements chain.SpentBy. The spender of an output with more than a
// thousand later transactions of its script is not told, nor with bitcoin-sv.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	spent, by, err = b.spender(ctx, o, true)
	return by, spent, err
}
