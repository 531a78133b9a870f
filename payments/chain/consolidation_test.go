package chain_test

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/chain"
)

func TestFreeConsolidations(t *testing.T) {
	rule := chain.Consolidation{Factor: 20, Confirmations: 6, MaxScript: 150}
	coins := func(n int, height uint32) []chain.Coin {
		all := make([]chain.Coin, n)
		for i := range all {
			all[i].Height = height
		}
		return all
	}
	for name, c := range map[string]struct {
		rule    chain.Consolidation
		coins   []chain.Coin
		outputs int
		want    bool
	}{
		"just enough":        {rule, coins(20, 95), 1, true},
		"too few":            {rule, coins(19, 95), 1, false},
		"too many outputs":   {rule, coins(39, 95), 2, false},
		"two outputs":        {rule, coins(40, 95), 2, true},
		"too young":          {rule, coins(20, 96), 1, false},
		"one is too young":   {rule, append(coins(20, 1), coins(1, 99)...), 1, false},
		"unconfirmed":        {rule, append(coins(20, 1), coins(1, 0)...), 1, false},
		"above the tip":      {rule, coins(20, 101), 1, false},
		"nothing":            {rule, nil, 1, false},
		"switched off":       {chain.Consolidation{Confirmations: 6, MaxScript: 150}, coins(20, 1), 1, false},
		"scripts too long":   {chain.Consolidation{Factor: 20, MaxScript: 106}, coins(20, 1), 1, false},
		"mempool is allowed": {chain.Consolidation{Factor: 20, MaxScript: 107}, coins(20, 0), 1, true},
	} {
		if got := c.rule.Free(c.coins, c.outputs, 100); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
