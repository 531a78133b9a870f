package wallet_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// On a real node: a deposit is found, a payment and a payout are made, mined
// and recorded, and a restored wallet finds what is left.
func TestOnANode(t *testing.T) {
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
	words, err := wallet.Create(ctx, dir, bsv.Regtest, entropy(9))
	must(err)
	open := func(dir string) (*ledger.Ledger, *wallet.Wallet) {
		l, err := ledger.Open(ctx, filepath.Join(dir, "money.db"), time.Now)
		must(err)
		t.Cleanup(func() { must(l.Close()) })
		w, err := wallet.Open(ctx, dir, l, node.Backend(), wallet.Options{})
		must(err)
		return l, w
	}
	l, w := open(dir)
	outbox := wallet.NewOutbox(l, node.Backend(), time.Now, slog.New(slog.DiscardHandler))
	step := func() {
		t.Helper()
		outbox.Kick()
		_, err := outbox.Step(ctx)
		must(err)
	}
	mined := func(txid bsv.Txid) {
		t.Helper()
		st, err := node.Backend().Status(ctx, txid)
		must(err)
		o, err := l.Outgoing(ctx, txid)
		must(err)
		if st.State != chain.Mined || o.State != ledger.Mined || o.Height != st.Height {
			t.Errorf("%s is %s at %d for the node, %s at %d (%s) in the ledger", txid, st.State, st.Height, o.State, o.Height, o.LastError)
		}
	}

	address, err := w.ReceiveAddress(ctx)
	must(err)
	hash, err := bsv.ParseAddress(address, bsv.Regtest)
	must(err)
	_, err = node.PayMined(ctx, hash, 100_000)
	must(err)
	must(w.Refresh(ctx))

	// An earning, as a close leaves it: a coin on the payout branch.
	index, err := w.NextIndex(ctx, wallet.BranchChannel)
	must(err)
	payout, err := w.Key(wallet.BranchPayout, index)
	must(err)
	earned, err := node.PayMined(ctx, payout.Public().Hash(), 30_000)
	must(err)
	st, err := node.Backend().Status(ctx, earned.Outpoint.Txid)
	must(err)
	must(l.PutCoins(ctx, ledger.Coin{Txid: earned.Outpoint.Txid, Index: earned.Outpoint.Index, Value: earned.Output.Value,
		Script: earned.Output.Script, Branch: wallet.BranchPayout, KeyIndex: index, Height: st.Height, Origin: ledger.OriginEarning}))

	owner := key(t, 0x21).Public().Hash()
	sent, err := w.Send(ctx, owner, 40_000)
	must(err)
	plan, err := w.Sweep(ctx, wallet.Policy{To: owner, Threshold: 10_000})
	must(err)
	step()
	must(node.Mine(ctx, 1))
	step()
	mined(sent)
	mined(plan.Txid)
	coins, err := node.Backend().Unspent(ctx, bsv.P2PKH(owner))
	if err != nil || len(coins) != 2 || coins[0].Output.Value+coins[1].Output.Value != 40_000+plan.Payout {
		t.Errorf("the owner has %+v, %v", coins, err)
	}
	must(w.Refresh(ctx))
	must(l.Check(ctx))
	have, _, err := w.Balance(ctx)
	must(err)

	again := t.TempDir()
	must(wallet.Restore(ctx, again, words, bsv.Regtest))
	_, restored := open(again)
	must(restored.Refresh(ctx))
	if found, _, err := restored.Balance(ctx); found != have || err != nil {
		t.Errorf("restored %v, %v; want %v", found, err, have)
	}
}
