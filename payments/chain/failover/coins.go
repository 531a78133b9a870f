package failover

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// chunk is how many scripts are asked for in one question: what a service that
// answers three requests a second can answer in time, also where each script has
// coins and others ask too, and what is asked again when it fails.
const chunk = 40

// Unspent implements chain.Backend.
func (b *Backend) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	return ask(ctx, b, "ask for unspent outputs", func(ctx context.Context, s chain.Backend) ([]chain.Coin, error) {
		coins, err := s.Unspent(ctx, script)
		if err == nil {
			err = checkCoins(coins, script)
		}
		return coins, err
	})
}

func checkCoins(coins []chain.Coin, script bsv.Script) error {
	for _, c := range coins {
		if !c.Output.Script.Equal(script) || !c.Output.Value.Valid() {
			return fmt.Errorf("coin %s of another script: %w", c.Outpoint, errLie)
		}
	}
	return nil
}

// UnspentBulk implements chain.BulkUnspent: services that have no such thing are
// asked one by one.
func (b *Backend) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	all := make([][]chain.Coin, 0, len(scripts))
	for some := range slices.Chunk(scripts, chunk) {
		question := fmt.Sprintf("ask for unspent outputs of %d scripts", len(some))
		coins, err := ask(ctx, b, question, func(ctx context.Context, s chain.Backend) ([][]chain.Coin, error) {
			coins, err := chain.UnspentOf(ctx, s, some)
			if err == nil && len(coins) != len(some) {
				err = fmt.Errorf("%d answers: %w", len(coins), errLie)
			}
			for i := range coins {
				if err == nil {
					err = checkCoins(coins[i], some[i])
				}
			}
			return coins, err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, coins...)
	}
	return all, nil
}

// UsedBulk implements chain.BulkUsed.
func (b *Backend) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	all := make([]bool, 0, len(scripts))
	for some := range slices.Chunk(scripts, chunk) {
		question := fmt.Sprintf("ask whether %d scripts were used", len(some))
		used, err := ask(ctx, b, question, func(ctx context.Context, s chain.Backend) ([]bool, error) {
			used, err := chain.UsedOf(ctx, s, some)
			if err == nil && len(used) != len(some) {
				err = fmt.Errorf("%d answers: %w", len(used), errLie)
			}
			return used, err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, used...)
	}
	return all, nil
}

// Spent implements chain.Backend.
func (b *Backend) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	return ask(ctx, b, "ask whether "+o.String()+" is spent", func(ctx context.Context, s chain.Backend) (bool, error) {
		return s.Spent(ctx, o)
	})
}

// SpentBy implements chain.SpentBy. The spender is the zero txid where the first
// service that answers cannot name it.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	type spender struct {
		by    bsv.Txid
		spent bool
	}
	answer, err := ask(ctx, b, "ask who spent "+o.String(), func(ctx context.Context, s chain.Backend) (spender, error) {
		named, ok := s.(chain.SpentBy)
		if !ok {
			return spender{}, chain.ErrUnsupported
		}
		by, spent, err := named.SpentBy(ctx, o)
		return spender{by, spent}, err
	})
	if errors.Is(err, chain.ErrUnsupported) {
		return by, false, fmt.Errorf("no service names spenders: %w", err)
	}
	return answer.by, answer.spent, err
}
