package memory

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

var _ chain.Consolidator = (*Chain)(nil)

// SetConsolidation sets the rule for transactions that cost nothing; nil, as it
// is at first, is a chain that does not know of such.
func (c *Chain) SetConsolidation(rule *chain.Consolidation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consolidation = rule
}

// Consolidation implements chain.Consolidator.
func (c *Chain) Consolidation(ctx context.Context) (chain.Consolidation, error) {
	if err := c.enter(ctx); err != nil {
		return chain.Consolidation{}, err
	}
	defer c.mu.Unlock()
	if c.consolidation == nil {
		return chain.Consolidation{}, fmt.Errorf("memory chain: free consolidations: %w", chain.ErrUnsupported)
	}
	return *c.consolidation, nil
}

// feeless reports whether a transaction, whose inputs are there, needs no fee.
func (c *Chain) feeless(tx *bsv.Tx) bool {
	if c.consolidation == nil {
		return false
	}
	coins := make([]chain.Coin, len(tx.Inputs))
	for i, in := range tx.Inputs {
		if e := c.txs[in.Prev.Txid]; e.mined {
			coins[i].Height = e.height
		}
	}
	return c.consolidation.Free(coins, len(tx.Outputs), uint32(len(c.blocks)-1))
}
