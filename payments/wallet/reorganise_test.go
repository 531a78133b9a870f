package wallet_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// On a real node: a payout that a reorganisation throws out is mined again, and
// one that another transaction displaces in a reorganisation is made again from
// the coins that are left. Each time the ledger and the chain agree.
func TestPayoutsOnANodeThatReorganises(t *testing.T) {
	node := regnode.ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	_, err := wallet.Create(ctx, dir, bsv.Regtest, entropy(8))
	must(err)
	l, err := ledger.Open(ctx, filepath.Join(dir, "money.db"), time.Now)
	must(err)
	t.Cleanup(func() { must(l.Close()) })
	w, err := wallet.Open(ctx, dir, l, node.Backend(), wallet.Options{})
	must(err)
	outbox := wallet.NewOutbox(l, node.Backend(), time.Now, slog.New(slog.DiscardHandler))
	state := func(txid bsv.Txid, want string) {
		t.Helper()
		outbox.Kick()
		_, err := outbox.Step(ctx)
		must(err)
		o, err := l.Outgoing(ctx, txid)
		must(err)
		if o.State != want {
			t.Fatalf("payout is %s (%s), want %s", o.State, o.LastError, want)
		}
		must(l.Check(ctx))
		report, err := wallet.CheckChain(ctx, l, node.Backend())
		must(err)
		for _, d := range report.Differences {
			t.Errorf("%s: %s", want, d)
		}
	}
	index, err := w.NextIndex(ctx, wallet.BranchChannel)
	must(err)
	key, err := w.Key(wallet.BranchPayout, index)
	must(err)
	for range 3 {
		coin, err := node.PayMined(ctx, key.Public().Hash(), 30_000)
		must(err)
		st, err := node.Backend().Status(ctx, coin.Outpoint.Txid)
		must(err)
		must(l.PutCoins(ctx, ledger.Coin{Txid: coin.Outpoint.Txid, Index: coin.Outpoint.Index, Value: coin.Output.Value,
			Script: coin.Output.Script, Branch: wallet.BranchPayout, KeyIndex: index, Height: st.Height, Origin: ledger.OriginEarning}))
	}
	p := wallet.Policy{To: bsv.Hash160{0x21}}
	plan, err := w.Sweep(ctx, p)
	must(err)
	state(plan.Txid, ledger.Seen)
	must(node.Mine(ctx, 3))
	state(plan.Txid, ledger.Mined)
	must(node.Reorganise(ctx, 3, regnode.ToMempool))
	state(plan.Txid, ledger.Seen)
	must(node.Mine(ctx, 1))
	state(plan.Txid, ledger.Mined)

	lost := plan.Coins[0]
	thief, _, err := bsv.BuildSweep([]bsv.Coin{{Outpoint: bsv.Outpoint{Txid: lost.Txid, Index: lost.Index},
		Output: bsv.Output{Value: lost.Value, Script: lost.Script}}}, []bsv.PrivateKey{key}, bsv.Hash160{0x66}, 100)
	must(err)
	must(node.Reorganise(ctx, 1, regnode.ToMempool, thief))
	state(plan.Txid, ledger.Conflicted)
	again, err := w.Sweep(ctx, p)
	must(err)
	if again.Total != 60_000 {
		t.Errorf("the second payout is of %v", again.Total)
	}
	state(again.Txid, ledger.Seen)
	must(node.Mine(ctx, 1))
	state(again.Txid, ledger.Mined)
}
