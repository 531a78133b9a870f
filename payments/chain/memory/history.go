package memory

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

var (
	_ chain.BulkUsed = (*Chain)(nil)
	_ chain.SpentBy  = (*Chain)(nil)
)

// UsedBulk implements chain.BulkUsed.
func (c *Chain) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	paid := make(map[string]bool)
	for _, e := range c.txs {
		for _, o := range e.tx.Outputs {
			paid[string(o.Script)] = true
		}
	}
	used := make([]bool, len(scripts))
	for i, s := range scripts {
		used[i] = paid[string(s)]
	}
	return used, nil
}

// SpentBy implements chain.SpentBy.
func (c *Chain) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	if err := c.enter(ctx); err != nil {
		return bsv.Txid{}, false, err
	}
	defer c.mu.Unlock()
	if _, ok := c.output(o); !ok {
		return bsv.Txid{}, false, fmt.Errorf("output %s: %w", o, chain.ErrNotFound)
	}
	by, spent = c.spender[o]
	return by, spent, nil
}
