package regnode

import (
	"context"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// feeRate is what the miner's own payments pay.
const feeRate = chain.DefaultFeeRate

// Mine makes count blocks; the first takes the whole mempool.
func (n *Node) Mine(ctx context.Context, count int) error {
	if count <= 0 {
		return nil
	}
	if err := n.backend.Call(ctx, nil, "generate", count); err != nil {
		return fmt.Errorf("mine %d blocks: %w", count, err)
	}
	return nil
}

// MineTo makes blocks until the tip has this height.
func (n *Node) MineTo(ctx context.Context, height uint32) error {
	tip, err := n.backend.Tip(ctx)
	if err != nil {
		return err
	}
	return n.Mine(ctx, int(int64(height)-int64(tip.Height)))
}

// Pay gives amount to a key and leaves the payment in the mempool. The first
// 20 payments, and more as blocks are mined, have mined parents only.
func (n *Node) Pay(ctx context.Context, to bsv.Hash160, amount money.Satoshis) (bsv.Coin, error) {
	return n.Fund(ctx, bsv.P2PKH(to), amount)
}

// PayMined gives amount to a key and mines a block with the payment.
func (n *Node) PayMined(ctx context.Context, to bsv.Hash160, amount money.Satoshis) (bsv.Coin, error) {
	coin, err := n.Pay(ctx, to, amount)
	if err != nil {
		return bsv.Coin{}, err
	}
	return coin, n.Mine(ctx, 1)
}

// Fund makes a coin with this locking script and leaves it in the mempool.
func (n *Node) Fund(ctx context.Context, script bsv.Script, amount money.Satoshis) (bsv.Coin, error) {
	tx, err := n.Send(ctx, bsv.Output{Value: amount, Script: script})
	if err != nil {
		return bsv.Coin{}, err
	}
	return bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid()}, Output: tx.Outputs[0]}, nil
}

// Send pays the outputs from the miner's coins in one transaction, in their
// order and with change behind them, and leaves it in the mempool.
func (n *Node) Send(ctx context.Context, outs ...bsv.Output) (*bsv.Tx, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	need := feeRate.Fee(chain.MaxTxSize / 8) // far more than a few inputs and outputs cost
	var err error
	for _, o := range outs {
		if need, err = need.Add(o.Value); err != nil {
			return nil, fmt.Errorf("pay from the miner: %w", err)
		}
	}
	var from []bsv.Coin
	var keys []bsv.PrivateKey
	for have := money.Satoshis(0); have < need; {
		if err := n.replenish(ctx, len(from)); err != nil {
			return nil, fmt.Errorf("pay from the miner: %w", err)
		}
		c := n.coins[len(from)]
		from, keys = append(from, c), append(keys, n.miner)
		have += c.Output.Value
	}
	tx, _, err := bsv.BuildPayment(from, keys, outs, n.miner.Public().Hash(), feeRate)
	if err != nil {
		return nil, fmt.Errorf("pay from the miner: %w", err)
	}
	prev := make([]bsv.Output, len(from))
	for i, c := range from {
		prev[i] = c.Output
	}
	if err := n.backend.Broadcast(ctx, tx, prev); err != nil {
		return nil, fmt.Errorf("pay from the miner: %w", err)
	}
	n.coins = n.coins[len(from):]
	if last := len(tx.Outputs) - 1; last == len(outs) {
		n.coins = append(n.coins, bsv.Coin{
			Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: uint32(last)},
			Output:   tx.Outputs[last],
		})
	}
	return tx, nil
}

// replenish makes sure that more than have coins are at hand. Coins of mature
// blocks come before change, so that payments do not build on one another
// without need.
func (n *Node) replenish(ctx context.Context, have int) error {
	tip, err := n.backend.Tip(ctx)
	if err != nil {
		return err
	}
	var fresh []bsv.Coin
	for ; n.next+chain.CoinbaseMaturity <= tip.Height+1; n.next++ {
		txids, err := n.blockTxids(ctx, n.next)
		if err != nil {
			return err
		}
		tx, err := n.backend.RawTx(ctx, txids[0])
		if err != nil {
			return err
		}
		fresh = append(fresh, bsv.Coin{Outpoint: bsv.Outpoint{Txid: txids[0]}, Output: tx.Outputs[0]})
	}
	n.coins = append(fresh, n.coins...)
	if len(n.coins) <= have {
		return fmt.Errorf("the miner has no coin left at height %d: %w", tip.Height, bsv.ErrFunds)
	}
	return nil
}
