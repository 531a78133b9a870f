package regnode_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// branch is a node with a chain of three transactions, each of which spends the
// one before, in the three newest blocks, and one more in the mempool.
type branch struct {
	*testing.T
	node   *regnode.Node
	before chain.Header
	key    bsv.PrivateKey
	txs    [3]*bsv.Tx
	late   *bsv.Tx
}

func grow(t *testing.T) *branch {
	t.Helper()
	t.Parallel()
	b := &branch{T: t, node: regnode.ForTest(t)}
	var err error
	b.key, err = bsv.NewPrivateKey(bytes.Repeat([]byte{0x22}, bsv.PrivateKeySize))
	b.must(err)
	coin, err := b.node.PayMined(t.Context(), b.key.Public().Hash(), 100_000)
	b.must(err)
	for i := range b.txs {
		b.txs[i] = b.spend(coin, someone, 10_000)
		b.send(b.txs[i])
		b.must(b.node.Mine(t.Context(), 1))
		coin = last(b.txs[i])
	}
	b.late = b.spend(coin, someone, 10_000)
	b.send(b.late)
	b.before = b.tip()
	return b
}

func (b *branch) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *branch) tip() chain.Header {
	b.Helper()
	tip, err := b.node.Backend().Tip(b.Context())
	b.must(err)
	return tip
}

// spend pays from a coin of the branch's key; the rest is the last output.
func (b *branch) spend(coin bsv.Coin, to bsv.Hash160, amount money.Satoshis) *bsv.Tx {
	b.Helper()
	tx, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{b.key}, []bsv.Output{{Value: amount, Script: bsv.P2PKH(to)}},
		b.key.Public().Hash(), chain.DefaultFeeRate)
	b.must(err)
	return tx
}

func last(tx *bsv.Tx) bsv.Coin {
	i := len(tx.Outputs) - 1
	return bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: uint32(i)}, Output: tx.Outputs[i]}
}

func (b *branch) send(tx *bsv.Tx) {
	b.Helper()
	b.must(b.node.Backend().Broadcast(b.Context(), tx, nil))
}

// want looks at a transaction's state and how many blocks bury it.
func (b *branch) want(tx *bsv.Tx, state chain.State, confirmations uint32) {
	b.Helper()
	s, err := b.node.Backend().Status(b.Context(), tx.Txid())
	if err != nil || s.State != state || s.Confirmations(b.tip().Height) != confirmations {
		b.Errorf("%s: %v with %d confirmations, %v; want %v with %d", tx.Txid(), s.State, s.Confirmations(b.tip().Height), err, state, confirmations)
	}
}

// wantMempool looks at what waits to be mined.
func (b *branch) wantMempool(txs ...*bsv.Tx) {
	b.Helper()
	var waiting []string
	b.must(b.node.Backend().Call(b.Context(), &waiting, "getrawmempool"))
	is := make(map[string]bool)
	for _, id := range waiting {
		is[id] = true
	}
	for _, tx := range txs {
		if !is[tx.Txid().String()] {
			b.Errorf("%s is not in the mempool", tx.Txid())
		}
	}
	if len(waiting) != len(txs) {
		b.Errorf("%d transactions in the mempool, want %d", len(waiting), len(txs))
	}
}

// replaced checks that a branch of depth+1 new blocks stands on the block that
// was depth below the old tip.
func (b *branch) replaced(depth uint32) {
	b.Helper()
	now := b.tip()
	old, err := b.node.Backend().Header(b.Context(), b.before.Height)
	b.must(err)
	if now.Height != b.before.Height+1 || old.Hash == b.before.Hash {
		b.Errorf("tip %d, was %d; block %d is %s, was %s", now.Height, b.before.Height, b.before.Height, old.Hash, b.before.Hash)
	}
}

func (b *branch) goesOn() {
	b.Helper()
	b.must(b.node.Mine(b.Context(), 2))
	coin, err := b.node.PayMined(b.Context(), someone, 5_000)
	b.must(err)
	s, err := b.node.Backend().Status(b.Context(), coin.Outpoint.Txid)
	if err != nil || s.State != chain.Mined {
		b.Errorf("%v, %v", s, err)
	}
}

func TestReorganiseToMempool(t *testing.T) {
	b := grow(t)
	b.must(b.node.Reorganise(t.Context(), 2, regnode.ToMempool))
	b.replaced(2)
	b.want(b.txs[0], chain.Mined, 4)
	for _, tx := range []*bsv.Tx{b.txs[1], b.txs[2], b.late} {
		b.want(tx, chain.Seen, 0)
	}
	b.wantMempool(b.txs[1], b.txs[2], b.late)
	b.goesOn()
	b.want(b.late, chain.Mined, 3)
	b.wantMempool()
}

func TestReorganiseMinedAgain(t *testing.T) {
	b := grow(t)
	b.must(b.node.Reorganise(t.Context(), 3, regnode.MinedAgain))
	b.replaced(3)
	for _, tx := range b.txs {
		b.want(tx, chain.Mined, 4) // in the first of the new blocks
	}
	b.want(b.late, chain.Seen, 0)
	b.wantMempool(b.late)
	b.goesOn()
}

// A transaction that spends the same coin takes the place of another one, and
// of all that builds on it.
func TestReorganiseReplaces(t *testing.T) {
	for _, fate := range []regnode.Fate{regnode.ToMempool, regnode.MinedAgain} {
		t.Run([]string{"to mempool", "mined again"}[fate], func(t *testing.T) {
			b := grow(t)
			other, err := b.node.Pay(t.Context(), someone, 7_000) // has nothing to do with it
			b.must(err)
			instead := b.spend(last(b.txs[0]), someone, 20_000)
			b.must(b.node.Reorganise(t.Context(), 2, fate, instead))
			b.replaced(2)
			b.want(b.txs[0], chain.Mined, 4)
			b.want(instead, chain.Mined, 3)
			for _, tx := range []*bsv.Tx{b.txs[1], b.txs[2], b.late} {
				if s, err := b.node.Backend().Status(t.Context(), tx.Txid()); err != nil || s.State == chain.Mined || s.State == chain.Seen {
					t.Errorf("%s: %v, %v", tx.Txid(), s, err)
				}
			}
			tx, err := b.node.Backend().RawTx(t.Context(), other.Outpoint.Txid)
			b.must(err)
			b.wantMempool(tx)
			b.goesOn()
		})
	}
}

func TestReorganiseRefuses(t *testing.T) {
	b := grow(t)
	for _, depth := range []int{-1, 0, 100, int(b.before.Height)} {
		if err := b.node.Reorganise(t.Context(), depth, regnode.ToMempool); !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
	bad := b.spend(last(b.txs[0]), someone, 20_000)
	bad.Outputs[0].Value++ // the signature is for another amount
	if err := b.node.Reorganise(t.Context(), 2, regnode.ToMempool, bad); !errors.Is(err, regnode.ErrBlock) {
		t.Errorf("%v", err)
	}
	if now := b.tip(); now.Hash != b.before.Hash {
		t.Errorf("the tip is %d, was %d", now.Height, b.before.Height)
	}
	b.want(b.txs[2], chain.Mined, 1)
}

// Reorganisations on one another, of deep branches too.
func TestReorganiseAgain(t *testing.T) {
	b := grow(t)
	for _, depth := range []int{1, 3, 10, 99} {
		b.before = b.tip()
		b.must(b.node.Reorganise(t.Context(), depth, regnode.MinedAgain))
		b.replaced(uint32(depth))
		for _, tx := range b.txs {
			if s, err := b.node.Backend().Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Mined {
				t.Errorf("depth %d: %v, %v", depth, s, err)
			}
		}
		b.goesOn()
	}
}

func TestRestart(t *testing.T) {
	b := grow(t)
	url, ended := b.node.URL(), b.node.Done()
	b.must(b.node.Restart(t.Context()))
	<-ended
	if now := b.tip(); now.Hash != b.before.Hash || b.node.URL() != url {
		t.Errorf("the tip is %d %s, was %d %s", now.Height, now.Hash, b.before.Height, b.before.Hash)
	}
	b.want(b.txs[2], chain.Mined, 1)
	b.wantMempool()
	b.send(b.late)
	b.goesOn()
	b.want(b.late, chain.Mined, 3)
}
