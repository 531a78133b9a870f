package wallet_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// faulty is a chain of which single questions fail while an error is set.
type faulty struct {
	*memory.Chain
	broadcast, spent error
	status           error
}

func (f *faulty) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	if f.status != nil {
		return chain.Status{}, f.status
	}
	return f.Chain.Status(ctx, txid)
}

func (f *faulty) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	if f.spent != nil {
		return by, false, f.spent
	}
	return f.Chain.SpentBy(ctx, o)
}

func (f *faulty) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	if f.broadcast != nil {
		return f.broadcast
	}
	return f.Chain.Broadcast(ctx, tx, prev)
}

func (f *faulty) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	if f.spent != nil {
		return false, f.spent
	}
	return f.Chain.Spent(ctx, o)
}

// rig is a wallet with its ledger and outbox on a chain in memory. Tests that
// use it run in a bubble of synctest, where the ledger's pauses take no time.
type rig struct {
	*testing.T
	ctx    context.Context
	dir    string
	words  string
	chain  *faulty
	ledger *ledger.Ledger
	wallet *wallet.Wallet
	outbox *wallet.Outbox
	log    *bytes.Buffer
}

func bubble(t *testing.T, test func(*rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, ctx: context.Background(), dir: dir, chain: &faulty{Chain: memory.New(time.Now)}, log: new(bytes.Buffer)}
		r.chain.Mine(100)
		words, err := wallet.Create(r.ctx, dir, bsv.Regtest, entropy(1))
		r.must(err)
		r.words = words
		r.open()
		defer r.shut()
		test(r)
		r.must(r.ledger.Check(r.ctx))
	})
}

// entropy is a source of randomness that is the same each time.
func entropy(fill byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{fill}, 64)) }

func (r *rig) open() {
	r.Helper()
	var err error
	r.ledger, err = ledger.Open(r.ctx, filepath.Join(r.dir, "money.db"), time.Now)
	r.must(err)
	log := slog.New(slog.NewTextHandler(r.log, nil))
	r.outbox = wallet.NewOutbox(r.ledger, r.chain, time.Now, log)
	r.wallet, err = wallet.Open(r.ctx, r.dir, r.ledger, r.chain, wallet.Options{Clock: time.Now, Log: log, Stored: r.outbox.Kick})
	r.must(err)
}

func (r *rig) shut() {
	r.Helper()
	r.must(r.ledger.Close())
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// step makes one pass of the outbox.
func (r *rig) step() {
	r.Helper()
	_, err := r.outbox.Step(r.ctx)
	r.must(err)
}

// mine makes blocks and has everybody look.
func (r *rig) mine(n int) {
	r.Helper()
	r.chain.Mine(n)
	r.step()
	r.must(r.wallet.Refresh(r.ctx))
}

// deposit pays the wallet from outside, in a block.
func (r *rig) deposit(value money.Satoshis) bsv.Coin {
	r.Helper()
	address, err := r.wallet.ReceiveAddress(r.ctx)
	r.must(err)
	hash, err := bsv.ParseAddress(address, bsv.Regtest)
	r.must(err)
	coin := r.chain.Fund(bsv.P2PKH(hash), value)
	r.must(r.wallet.Refresh(r.ctx))
	return coin
}

func (r *rig) balance(confirmed, unconfirmed money.Satoshis) {
	r.Helper()
	c, u, err := r.wallet.Balance(r.ctx)
	r.must(err)
	if c != confirmed || u != unconfirmed {
		r.Errorf("balance %v and %v unconfirmed, want %v and %v", c, u, confirmed, unconfirmed)
	}
}

func (r *rig) outgoing(txid bsv.Txid) ledger.Outgoing {
	r.Helper()
	o, err := r.ledger.Outgoing(r.ctx, txid)
	r.must(err)
	return o
}

func (r *rig) state(txid bsv.Txid, want string) ledger.Outgoing {
	r.Helper()
	o := r.outgoing(txid)
	if o.State != want {
		r.Errorf("transaction is %s (%s), want %s", o.State, o.LastError, want)
	}
	return o
}

// key is a key of somebody else.
func key(t testing.TB, fill byte) bsv.PrivateKey {
	t.Helper()
	k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (r *rig) stranger() bsv.Hash160 { return key(r, 0x77).Public().Hash() }

// sale is a channel that paid this wallet's node, with its close.
type sale struct {
	row   ledger.Channel
	chain bsv.Channel
	close *bsv.Tx
}

const saleCapacity = 20_000

// sold makes a channel in which this node is the payee, mined and paid.
func (r *rig) sold(amount money.Satoshis) sale {
	r.Helper()
	payer := key(r, 0x55)
	index, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
	r.must(err)
	mine, err := r.wallet.Key(wallet.BranchChannel, index)
	r.must(err)
	payout, err := r.wallet.Key(wallet.BranchPayout, index)
	r.must(err)
	c := bsv.Channel{
		Payer: payer.Public(), Payee: mine.Public(), Capacity: saleCapacity, PayerHash: payer.Public().Hash(),
		PayeeHash: payout.Public().Hash(), RefundHeight: 1000, FeeRate: 100,
	}
	c.Funding = r.chain.Fund(c.Lock(), c.Capacity).Outpoint
	return r.sign(c, payer, mine, ledger.Payee, index, amount)
}

func (r *rig) sign(c bsv.Channel, payer, payee bsv.PrivateKey, role ledger.Role, index uint32, amount money.Satoshis) sale {
	r.Helper()
	a, err := c.SignCommitment(payer, amount, nil)
	r.must(err)
	b, err := c.SignCommitment(payee, amount, nil)
	r.must(err)
	tx, err := c.CompleteCommitment(amount, nil, a, b)
	r.must(err)
	row := ledger.Channel{
		ID: [32]byte{byte(index), byte(role), 1}, Role: role, State: ledger.StateOpen, Title: [20]byte{1}, TitleName: "a title",
		PeerKey: payer.Public(), KeyIndex: index, FundingTxid: c.Funding.Txid, FundingIndex: c.Funding.Index,
		Capacity: c.Capacity, RefundHeight: c.RefundHeight, Seq: 1, Bytes: 1 << 20, Payee: amount,
	}
	r.must(r.ledger.SaveChannel(r.ctx, row))
	return sale{row: row, chain: c, close: tx}
}

// settle puts the close of a sale into the outbox.
func (r *rig) settle(s sale) bsv.Txid {
	r.Helper()
	txid := s.close.Txid()
	o := ledger.Outgoing{
		Txid: txid, Raw: s.close.Bytes(), Purpose: ledger.Close, Channel: s.row.ID,
		PrevOutputs: wallet.AppendOutput(nil, bsv.Output{Value: s.chain.Capacity, Script: s.chain.Lock()}),
	}
	for i, out := range s.close.Outputs {
		if h, ok := out.Script.P2PKHHash(); ok && h == s.chain.PayeeHash {
			o.Outputs = append(o.Outputs, ledger.Coin{Txid: txid, Index: uint32(i), Value: out.Value, Script: out.Script,
				Branch: wallet.BranchPayout, KeyIndex: s.row.KeyIndex, Origin: ledger.OriginEarning})
		}
	}
	row := s.row
	row.State, row.CloseTxid = ledger.StateClosing, txid
	r.must(r.ledger.Apply(r.ctx, ledger.Batch{Channels: []ledger.Channel{row}, Outbox: []ledger.Outgoing{o}}))
	r.outbox.Kick()
	return txid
}

// earned makes n settled sales of the same amount.
func (r *rig) earned(n int, amount money.Satoshis) {
	r.Helper()
	for range n {
		r.settle(r.sold(amount))
	}
	r.step()
	r.mine(1)
}
