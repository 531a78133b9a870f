package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// enter locks the chain for one Backend call, or returns the error that the
// call has to fail with.
func (c *Chain) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory chain: %w: %w", chain.ErrUnavailable, err)
	}
	c.mu.Lock()
	if c.down {
		c.mu.Unlock()
		return fmt.Errorf("memory chain is down: %w", chain.ErrUnavailable)
	}
	if len(c.faults) > 0 {
		err := c.faults[0]
		c.faults = c.faults[1:]
		c.mu.Unlock()
		return err
	}
	return nil
}

// Tip implements chain.Backend.
func (c *Chain) Tip(ctx context.Context) (chain.Header, error) {
	if err := c.enter(ctx); err != nil {
		return chain.Header{}, err
	}
	defer c.mu.Unlock()
	return c.blocks[len(c.blocks)-1].Header, nil
}

// Header implements chain.Backend.
func (c *Chain) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if err := c.enter(ctx); err != nil {
		return chain.Header{}, err
	}
	defer c.mu.Unlock()
	if uint64(height) >= uint64(len(c.blocks)) {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	return c.blocks[height].Header, nil
}

// FeeRate implements chain.Backend.
func (c *Chain) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if err := c.enter(ctx); err != nil {
		return 0, err
	}
	defer c.mu.Unlock()
	return c.fee, nil
}

// Broadcast implements chain.Backend.
func (c *Chain) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	if err := c.enter(ctx); err != nil {
		return err
	}
	defer c.mu.Unlock()
	if c.txs[tx.Txid()] == nil {
		if err := c.check(tx, prev); err != nil {
			c.remember(tx)
			return err
		}
		c.accept(tx)
	}
	if c.lose {
		c.lose = false
		return fmt.Errorf("memory chain lost the answer: %w", chain.ErrUnavailable)
	}
	return nil
}

// Status implements chain.Backend.
func (c *Chain) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	if err := c.enter(ctx); err != nil {
		return chain.Status{}, err
	}
	defer c.mu.Unlock()
	return c.status(txid), nil
}

func (c *Chain) status(txid bsv.Txid) chain.Status {
	if e := c.txs[txid]; e != nil {
		if !e.mined {
			return chain.Status{State: chain.Seen}
		}
		b := c.blocks[e.height]
		s := chain.Status{State: chain.Mined, Height: e.height, Block: b.Hash}
		if at := slices.Index(b.txids, txid); at >= 0 {
			s.Proof, _ = chain.NewProof(e.height, b.Hash, b.txids, at) // at is in range
		}
		return s
	}
	var s chain.Status
	for _, o := range c.dropped[txid] {
		by := c.status(o.Txid).Competing // the parent has lost already
		if winner, ok := c.spender[o]; ok {
			by = []bsv.Txid{winner}
		}
		for _, id := range by {
			if !slices.Contains(s.Competing, id) {
				s.State, s.Competing = chain.Conflicted, append(s.Competing, id)
			}
		}
	}
	return s
}

// RawTx implements chain.Backend.
func (c *Chain) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	e := c.txs[txid]
	if e == nil {
		return nil, fmt.Errorf("transaction %s: %w", txid, chain.ErrNotFound)
	}
	return clone(e.tx), nil
}

// Unspent implements chain.Backend.
func (c *Chain) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	var coins []chain.Coin
	for txid, e := range c.txs {
		for i, o := range e.tx.Outputs {
			at := bsv.Outpoint{Txid: txid, Index: uint32(i)}
			if _, spent := c.spender[at]; !spent && bytes.Equal(o.Script, script) {
				o.Script = slices.Clone(o.Script)
				coins = append(coins, chain.Coin{Coin: bsv.Coin{Outpoint: at, Output: o}, Height: e.height})
			}
		}
	}
	slices.SortFunc(coins, chain.Compare)
	return coins, nil
}

// Spent implements chain.Backend.
func (c *Chain) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	if err := c.enter(ctx); err != nil {
		return false, err
	}
	defer c.mu.Unlock()
	if _, ok := c.output(o); !ok {
		return false, fmt.Errorf("output %s: %w", o, chain.ErrNotFound)
	}
	_, spent := c.spender[o]
	return spent, nil
}
