package memory_test

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
)

func TestHistory(t *testing.T) {
	c := memory.New(clock)
	emptied, holds, never := key(t, 3), key(t, 4), key(t, 5)
	coin := c.Fund(bsv.P2PKH(emptied.Public().Hash()), 5000)
	c.Mine(1)
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{emptied}, holds.Public().Hash(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if by, spent, err := chain.SpenderOf(t.Context(), c, coin.Outpoint); spent || !by.IsZero() || err != nil {
		t.Error(by, spent, err)
	}
	if err := c.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	if by, spent, err := chain.SpenderOf(t.Context(), c, coin.Outpoint); !spent || by != tx.Txid() || err != nil {
		t.Error(by, spent, err)
	}
	if _, _, err := chain.SpenderOf(t.Context(), c, bsv.Outpoint{Txid: tx.Txid(), Index: 7}); !errors.Is(err, chain.ErrNotFound) {
		t.Error(err)
	}
	var scripts []bsv.Script
	for _, k := range []bsv.PrivateKey{emptied, never, holds} {
		scripts = append(scripts, bsv.P2PKH(k.Public().Hash()))
	}
	used, err := chain.UsedOf(t.Context(), c, scripts)
	if err != nil || len(used) != 3 || !used[0] || used[1] || !used[2] {
		t.Error(used, err)
	}
	coins, err := chain.UnspentOf(t.Context(), c, scripts)
	if err != nil || len(coins) != 3 || len(coins[0]) != 0 || len(coins[1]) != 0 || len(coins[2]) != 1 {
		t.Error(coins, err)
	}
}
