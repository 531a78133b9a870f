package node_test

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// The past of scripts, and who spent an output, in the mempool and in blocks.
func TestHistory(t *testing.T) {
	n := regnode.ForTest(t)
	ctx, b := t.Context(), n.Backend()
	var keys []bsv.PrivateKey
	for i := range 3 {
		k, err := bsv.NewPrivateKey(append(make([]byte, 31), byte(3+i)))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	emptied, holds, never := keys[0], keys[1], keys[2]
	// A channel's 2-of-2 is what SpentBy is asked for most.
	c := bsv.Channel{Payer: emptied.Public(), Payee: never.Public(), Capacity: 20_000, PayerHash: emptied.Public().Hash(),
		PayeeHash: holds.Public().Hash(), RefundHeight: 1000, FeeRate: 100}
	funded, err := n.Fund(ctx, c.Lock(), c.Capacity)
	if err != nil {
		t.Fatal(err)
	}
	c.Funding = funded.Outpoint
	if by, spent, err := b.SpentBy(ctx, c.Funding); spent || !by.IsZero() || err != nil {
		t.Error(by, spent, err)
	}
	payer, err := c.SignCommitment(emptied, 5000, nil)
	if err != nil {
		t.Fatal(err)
	}
	payee, err := c.SignCommitment(never, 5000, nil)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := c.CompleteCommitment(5000, nil, payer, payee)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Broadcast(ctx, tx, nil); err != nil {
		t.Fatal(err)
	}
	scripts := []bsv.Script{bsv.P2PKH(emptied.Public().Hash()), bsv.P2PKH(holds.Public().Hash()), bsv.P2PKH(bsv.Hash160{9})}
	for _, where := range []string{"mempool", "block", "under blocks"} {
		if by, spent, err := b.SpentBy(ctx, c.Funding); !spent || by != tx.Txid() || err != nil {
			t.Errorf("%s: %v, %v, %v; want %v", where, by, spent, err, tx.Txid())
		}
		used, err := chain.UsedOf(ctx, b, scripts)
		if err != nil || len(used) != 3 || !used[0] || !used[1] || used[2] {
			t.Errorf("%s: %v, %v", where, used, err)
		}
		if err := n.Mine(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.SpentBy(ctx, bsv.Outpoint{Txid: tx.Txid(), Index: 7}); !errors.Is(err, chain.ErrNotFound) {
		t.Error(err)
	}
}
