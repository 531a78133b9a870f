// Package chaintest is the conformance suite of chain.Backend. A backend that
// passes it can carry payment channels.
//
// The suite needs a chain of its own that mines when told to, and runs against
// it alone; blocks that come from elsewhere would disturb it.
package chaintest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Harness is a backend and the means to move the chain behind it. Its
// functions end the test where they cannot do their work.
type Harness struct {
	Backend chain.Backend
	// Mine makes n blocks; the first one takes the whole mempool.
	Mine func(t testing.TB, n int)
	// Fund makes a coin with this locking script and leaves it in the mempool.
	Fund func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin
	// Stop makes the service unreachable for good. The suite calls it last.
	Stop func(t testing.TB)
	// Reorganise replaces the newest depth blocks by more than as many others.
	// What the old ones held, but for their coinbases, may be in the mempool
	// afterwards, in the new ones, or forgotten. The suite passes over its part
	// about reorganisations where it is nil.
	Reorganise func(t testing.TB, depth int)

	// NoUnspent says that Unspent is ErrUnsupported.
	NoUnspent bool
	// NoProof says that the service gives no Merkle proofs.
	NoProof bool
	// OwnHeaders says that Header is answered from what the backend keeps, also
	// when the service is gone.
	OwnHeaders bool
	// NoCompeting says that the service cannot name what a conflicted
	// transaction lost against.
	NoCompeting bool
	// RefusesLowFee says that the service refuses what pays less than FeeRate,
	// and does not merely leave it unmined.
	RefusesLowFee bool
	// KeepsInvalid says that the service remembers what it found invalid, as
	// Conflicted, where others know nothing of it.
	KeepsInvalid bool
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	s := &suite{Harness: h}
	for _, part := range []struct {
		name string
		test func(*testing.T, *suite)
	}{
		{"blocks", testBlocks},
		{"life of a transaction", testLife},
		{"unconfirmed parents", testUnconfirmedParents},
		{"double spend in the mempool", testDoubleSpend},
		{"double spend of what is mined", testMinedDoubleSpend},
		{"missing inputs", testMissingInputs},
		{"invalid", testInvalid},
		{"fee", testFee},
		{"channel refund", testRefund},
		{"channel close", testClose},
		{"unspent", testUnspent},
		{"spent", testSpent},
		{"wait until mined", testWaitMined},
		{"reorganisation", testReorganise},
		{"several callers", testConcurrency},
		{"cancelled", testCancelled},
		{"unavailable", testUnavailable},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, s) })
	}
}

type suite struct {
	Harness
	keys int
}

// key returns a key that no other test of the run has used.
func (s *suite) key() bsv.PrivateKey {
	s.keys++
	k, err := bsv.NewPrivateKey(seed("key", s.keys))
	if err != nil {
		panic(err) // chance of 2^-128
	}
	return k
}

func seed(what string, n int) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "chaintest %s %d", what, n))
	return sum[:]
}

func lockOf(k bsv.PrivateKey) bsv.Script { return bsv.P2PKH(k.Public().Hash()) }

func (s *suite) fee(t *testing.T) money.FeeRate {
	t.Helper()
	r, err := s.Backend.FeeRate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *suite) tip(t *testing.T) chain.Header {
	t.Helper()
	h, err := s.Backend.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// pay spends a coin to an output, with the rest going to a key.
func (s *suite) pay(t *testing.T, coin bsv.Coin, k bsv.PrivateKey, to bsv.Script, value money.Satoshis, change bsv.PrivateKey) *bsv.Tx {
	t.Helper()
	tx, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{k},
		[]bsv.Output{{Value: value, Script: to}}, change.Public().Hash(), s.fee(t))
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// sweep spends a coin whole to a key.
func (s *suite) sweep(t *testing.T, coin bsv.Coin, k, to bsv.PrivateKey) *bsv.Tx {
	t.Helper()
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, to.Public().Hash(), s.fee(t))
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func (s *suite) broadcast(t *testing.T, tx *bsv.Tx, prev ...bsv.Output) {
	t.Helper()
	if err := s.Backend.Broadcast(t.Context(), tx, prev); err != nil {
		t.Fatalf("broadcast %s: %v", tx.Txid(), err)
	}
}

func (s *suite) refused(t *testing.T, tx *bsv.Tx, reasons ...chain.Reason) {
	t.Helper()
	err := s.Backend.Broadcast(t.Context(), tx, nil)
	rejected := new(chain.Rejected)
	if !errors.As(err, &rejected) || !slices.Contains(reasons, rejected.Reason) {
		t.Fatalf("broadcast %s: %v; want it rejected: %v", tx.Txid(), err, reasons)
	}
}

func (s *suite) status(t *testing.T, txid bsv.Txid, want chain.State) chain.Status {
	t.Helper()
	got, err := s.Backend.Status(t.Context(), txid)
	if err != nil || got.State != want {
		t.Fatalf("status of %s: %v, %v; want %v", txid, got.State, err, want)
	}
	if mined := want == chain.Mined; mined == got.Block.IsZero() || !mined && (got.Height != 0 || got.Proof != nil) {
		t.Fatalf("status %v with block %s, height %d, proof %v", want, got.Block, got.Height, got.Proof)
	}
	return got
}

// mined checks the status of a mined transaction: its block is in the best
// chain, and the proof leads there.
func (s *suite) mined(t *testing.T, txid bsv.Txid) chain.Status {
	t.Helper()
	got := s.status(t, txid, chain.Mined)
	h := s.header(t, got.Height)
	if h.Hash != got.Block {
		t.Fatalf("mined in %d %s; the chain has %s", got.Height, got.Block, h.Hash)
	}
	if s.NoProof {
		return got
	}
	if got.Proof == nil {
		t.Fatalf("mined in %d without a proof", got.Height)
	}
	if err := got.Proof.Check(txid, h); err != nil {
		t.Fatal(err)
	}
	return got
}

func (s *suite) header(t *testing.T, height uint32) chain.Header {
	t.Helper()
	h, err := s.Backend.Header(t.Context(), height)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.CheckHash(); err != nil {
		t.Fatal(err)
	}
	if h.Height != height {
		t.Fatalf("the header at %d is of %d", height, h.Height)
	}
	return h
}

func (s *suite) spent(t *testing.T, o bsv.Outpoint, want bool) {
	t.Helper()
	if got, err := s.Backend.Spent(t.Context(), o); err != nil || got != want {
		t.Fatalf("spent %s: %v, %v; want %v", o, got, err, want)
	}
}

// conflicted checks the status of a transaction that lost against winner.
func (s *suite) conflicted(t *testing.T, loser, winner *bsv.Tx) {
	t.Helper()
	got := s.status(t, loser.Txid(), chain.Conflicted)
	if s.NoCompeting && len(got.Competing) == 0 {
		return
	}
	if !slices.Equal(got.Competing, []bsv.Txid{winner.Txid()}) {
		t.Fatalf("competing: %v; want %s", got.Competing, winner.Txid())
	}
}

func output(tx *bsv.Tx, i uint32) bsv.Coin {
	return bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: i}, Output: tx.Outputs[i]}
}

func testBlocks(t *testing.T, s *suite) {
	before := s.tip(t)
	s.Mine(t, 3)
	tip := s.tip(t)
	if tip.Height != before.Height+3 || tip.Hash == before.Hash {
		t.Fatalf("tip %d after 3 blocks on %d", tip.Height, before.Height)
	}
	next := tip
	for h := tip.Height; ; h-- {
		got := s.header(t, h)
		if h == tip.Height && got != tip {
			t.Fatalf("header %d is %v, the tip %v", h, got, tip)
		}
		if h < tip.Height && next.Prev != got.Hash {
			t.Fatalf("block %d does not build on block %d", next.Height, h)
		}
		next = got
		if h == 0 || h+5 < tip.Height {
			break
		}
	}
	if first := s.header(t, 0); !first.Prev.IsZero() {
		t.Fatalf("first block: %v", first)
	}
	for _, h := range []uint32{tip.Height + 1, 1 << 31, 1<<32 - 1} {
		if _, err := s.Backend.Header(t.Context(), h); !errors.Is(err, chain.ErrNotFound) {
			t.Fatalf("header %d: %v; want ErrNotFound", h, err)
		}
	}
}

func testLife(t *testing.T, s *suite) {
	k, to, change := s.key(), s.key(), s.key()
	coin := s.Fund(t, lockOf(k), 100_000)
	s.Mine(t, 1)
	tx := s.pay(t, coin, k, lockOf(to), 60_000, change)
	txid := tx.Txid()

	s.status(t, txid, chain.Unknown)
	if _, err := s.Backend.RawTx(t.Context(), txid); !errors.Is(err, chain.ErrNotFound) {
		t.Fatalf("raw transaction before the broadcast: %v; want ErrNotFound", err)
	}
	s.spent(t, coin.Outpoint, false)

	same := func() {
		t.Helper()
		got, err := s.Backend.RawTx(t.Context(), txid)
		if err != nil || !bytes.Equal(got.Bytes(), tx.Bytes()) {
			t.Fatalf("raw transaction: %v, %v", got, err)
		}
		s.broadcast(t, tx, coin.Output) // as often as one likes
		s.spent(t, coin.Outpoint, true)
	}
	s.broadcast(t, tx, coin.Output)
	s.status(t, txid, chain.Seen)
	same()
	s.Mine(t, 1)
	tip := s.tip(t)
	for range 2 {
		got := s.mined(t, txid)
		if got.Height != tip.Height || got.Block != tip.Hash {
			t.Fatalf("mined in %d %s; want the tip %d %s", got.Height, got.Block, tip.Height, tip.Hash)
		}
		same()
		s.Mine(t, 1)
	}

	// Also when nothing of it is left.
	s.broadcast(t, s.sweep(t, output(tx, 0), to, s.key()))
	s.broadcast(t, s.sweep(t, output(tx, 1), change, s.key()))
	same()
	s.Mine(t, 1)
	same()
	s.status(t, txid, chain.Mined)
}

func testUnconfirmedParents(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 50_000)
	var chained []*bsv.Tx
	for range 5 {
		next := s.key()
		tx := s.sweep(t, coin, k, next)
		s.broadcast(t, tx, coin.Output)
		s.status(t, tx.Txid(), chain.Seen)
		chained = append(chained, tx)
		coin, k = output(tx, 0), next
	}
	s.Mine(t, 1)
	for _, tx := range chained {
		s.mined(t, tx.Txid())
	}
}

func testDoubleSpend(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	s.Mine(t, 1)
	first, second := s.sweep(t, coin, k, s.key()), s.sweep(t, coin, k, s.key())
	s.broadcast(t, first)
	s.refused(t, second, chain.DoubleSpend)
	s.conflicted(t, second, first)
	s.status(t, first.Txid(), chain.Seen)
	s.Mine(t, 1)
	s.status(t, first.Txid(), chain.Mined)
	s.refused(t, second, chain.DoubleSpend)
	s.conflicted(t, second, first)
}

func testMinedDoubleSpend(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	first, second := s.sweep(t, coin, k, s.key()), s.sweep(t, coin, k, s.key())
	s.broadcast(t, first)
	s.Mine(t, 2)
	s.status(t, second.Txid(), chain.Unknown) // never broadcast
	s.refused(t, second, chain.DoubleSpend)
	s.conflicted(t, second, first)
}

func testMissingInputs(t *testing.T, s *suite) {
	k := s.key()
	coin := bsv.Coin{
		Outpoint: bsv.Outpoint{Txid: bsv.Txid(seed("nothing", 1)), Index: 1},
		Output:   bsv.Output{Value: 1000, Script: lockOf(k)},
	}
	tx := s.sweep(t, coin, k, s.key())
	s.refused(t, tx, chain.MissingInputs)
	s.status(t, tx.Txid(), chain.Unknown)

	// The parent exists, the output does not.
	real := s.Fund(t, lockOf(k), 1000)
	coin.Outpoint = bsv.Outpoint{Txid: real.Outpoint.Txid, Index: 100}
	s.refused(t, s.sweep(t, coin, k, s.key()), chain.MissingInputs)
}

func testInvalid(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	foreign := s.sweep(t, coin, k, s.key())
	foreign.Outputs[0].Value-- // the signature is for another transaction
	s.refused(t, foreign, chain.Invalid)

	more := s.sweep(t, coin, k, s.key())
	more.Outputs[0].Value = 10_001
	if err := bsv.SignP2PKH(more, 0, coin.Output, k); err != nil {
		t.Fatal(err)
	}
	s.refused(t, more, chain.Invalid)
	want := chain.Unknown
	if s.KeepsInvalid {
		want = chain.Conflicted
	}
	for _, tx := range []*bsv.Tx{foreign, more} {
		s.status(t, tx.Txid(), want)
	}
	s.spent(t, coin.Outpoint, false)
	s.broadcast(t, s.sweep(t, coin, k, s.key()))
}

func testFee(t *testing.T, s *suite) {
	rate := s.fee(t)
	if rate <= 0 || rate > money.MaxFeeRate {
		t.Fatalf("fee rate %d", rate)
	}
	if !s.RefusesLowFee {
		return
	}
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	tx := s.sweep(t, coin, k, s.key())
	tx.Outputs[0].Value = coin.Output.Value - rate.Fee(tx.Size()) + 1
	if err := bsv.SignP2PKH(tx, 0, coin.Output, k); err != nil {
		t.Fatal(err)
	}
	s.refused(t, tx, chain.LowFee)
	s.status(t, tx.Txid(), chain.Unknown)
}

// channel funds a channel whose refund can be mined after n more blocks.
func (s *suite) channel(t *testing.T, n uint32) (c bsv.Channel, payer, payee bsv.PrivateKey) {
	t.Helper()
	payer, payee = s.key(), s.key()
	c = bsv.Channel{
		Payer: payer.Public(), Payee: payee.Public(), Capacity: 20_000,
		PayerHash: s.key().Public().Hash(), PayeeHash: s.key().Public().Hash(),
		RefundHeight: s.tip(t).Height + n, FeeRate: s.fee(t),
	}
	c.Funding = s.Fund(t, c.Lock(), c.Capacity).Outpoint
	return c, payer, payee
}

func refund(t *testing.T, c bsv.Channel, payer, payee bsv.PrivateKey) *bsv.Tx {
	t.Helper()
	a, errA := c.SignRefund(payer)
	b, errB := c.SignRefund(payee)
	tx, err := c.CompleteRefund(a, b)
	if err := errors.Join(errA, errB, err); err != nil {
		t.Fatal(err)
	}
	return tx
}

func commitment(t *testing.T, c bsv.Channel, payer, payee bsv.PrivateKey, amount money.Satoshis) *bsv.Tx {
	t.Helper()
	creators := []bsv.Royalty{{To: bsv.Hash160{1}, Amount: amount / 10}}
	a, errA := c.SignCommitment(payer, amount, creators)
	b, errB := c.SignCommitment(payee, amount, creators)
	tx, err := c.CompleteCommitment(amount, creators, a, b)
	if err := errors.Join(errA, errB, err); err != nil {
		t.Fatal(err)
	}
	return tx
}

func testRefund(t *testing.T, s *suite) {
	c, payer, payee := s.channel(t, 3)
	early := refund(t, c, payer, payee)
	for range 3 {
		s.refused(t, early, chain.NonFinal)
		s.status(t, early.Txid(), chain.Unknown)
		s.spent(t, c.Funding, false)
		s.Mine(t, 1)
	}
	s.broadcast(t, early, bsv.Output{Value: c.Capacity, Script: c.Lock()})
	s.spent(t, c.Funding, true)
	s.Mine(t, 1)
	s.status(t, early.Txid(), chain.Mined)
	last := commitment(t, c, payer, payee, 5000)
	s.refused(t, last, chain.DoubleSpend)
	s.conflicted(t, last, early)
}

func testClose(t *testing.T, s *suite) {
	c, payer, payee := s.channel(t, 3)
	early := refund(t, c, payer, payee)
	s.refused(t, early, chain.NonFinal) // and does not stand in the way of
	last := commitment(t, c, payer, payee, 5000)
	s.broadcast(t, last, bsv.Output{Value: c.Capacity, Script: c.Lock()})
	s.refused(t, commitment(t, c, payer, payee, 10), chain.DoubleSpend) // an old state
	s.Mine(t, 4)
	s.status(t, last.Txid(), chain.Mined)
	s.refused(t, early, chain.DoubleSpend)
	s.conflicted(t, early, last)
}

func testUnspent(t *testing.T, s *suite) {
	k := s.key()
	lock := lockOf(k)
	if s.NoUnspent {
		if _, err := s.Backend.Unspent(t.Context(), lock); !errors.Is(err, chain.ErrUnsupported) {
			t.Fatalf("unspent: %v; want ErrUnsupported", err)
		}
		return
	}
	check := func(lock bsv.Script, want ...chain.Coin) {
		t.Helper()
		got, err := s.Backend.Unspent(t.Context(), lock)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want, chain.Compare)
		same := slices.EqualFunc(got, want, func(a, b chain.Coin) bool {
			return a.Outpoint == b.Outpoint && a.Output.Value == b.Output.Value && a.Height == b.Height &&
				a.Coinbase == b.Coinbase && bytes.Equal(a.Output.Script, b.Output.Script)
		})
		if !same {
			t.Fatalf("unspent:\n%v\nwant\n%v", got, want)
		}
	}
	check(lock)
	a := chain.Coin{Coin: s.Fund(t, lock, 10_000)}
	check(lock, a)
	s.Mine(t, 1)
	a.Height = s.tip(t).Height
	check(lock, a)
	s.Mine(t, 2)
	b := chain.Coin{Coin: s.Fund(t, lock, 10_000)}
	check(lock, a, b)

	// Spent in the mempool, with change to the same script.
	tx := s.pay(t, a.Coin, k, lockOf(s.key()), 4000, k)
	s.broadcast(t, tx, a.Output)
	change := chain.Coin{Coin: output(tx, 1)}
	check(lock, b, change)
	s.Mine(t, 1)
	b.Height = s.tip(t).Height
	change.Height = b.Height
	check(lock, b, change)
	s.broadcast(t, s.sweep(t, change.Coin, k, s.key()), change.Output)
	check(lock, b)
	s.Mine(t, 1)
	check(lock, b)

	// More than a page of them, in the mempool and mined.
	many := s.key()
	var coins []chain.Coin
	for range 120 {
		coins = append(coins, chain.Coin{Coin: s.Fund(t, lockOf(many), 1000)})
	}
	check(lockOf(many), coins...)
	s.Mine(t, 1)
	for i := range coins {
		coins[i].Height = s.tip(t).Height
	}
	check(lockOf(many), coins...)

	c, payer, payee := s.channel(t, 10)
	check(c.Lock(), chain.Coin{Coin: bsv.Coin{
		Outpoint: c.Funding, Output: bsv.Output{Value: c.Capacity, Script: c.Lock()},
	}})
	s.broadcast(t, commitment(t, c, payer, payee, 100))
	check(c.Lock())
}

func testSpent(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	s.spent(t, coin.Outpoint, false)
	for _, o := range []bsv.Outpoint{
		{Txid: coin.Outpoint.Txid, Index: 100},
		{Txid: coin.Outpoint.Txid, Index: 1<<32 - 1},
		{Txid: bsv.Txid(seed("nothing", 2))},
	} {
		if _, err := s.Backend.Spent(t.Context(), o); !errors.Is(err, chain.ErrNotFound) {
			t.Fatalf("spent %s: %v; want ErrNotFound", o, err)
		}
	}
	next := s.key()
	tx := s.sweep(t, coin, k, next)
	s.broadcast(t, tx, coin.Output) // in the mempool, spent in the mempool
	s.spent(t, coin.Outpoint, true)
	s.spent(t, output(tx, 0).Outpoint, false)
	s.Mine(t, 1)
	s.spent(t, coin.Outpoint, true)
	s.spent(t, output(tx, 0).Outpoint, false)
	s.broadcast(t, s.sweep(t, output(tx, 0), next, s.key())) // mined, spent in the mempool
	s.spent(t, output(tx, 0).Outpoint, true)
	s.Mine(t, 1)
	s.spent(t, output(tx, 0).Outpoint, true)
}

func testWaitMined(t *testing.T, s *suite) {
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	tx := s.sweep(t, coin, k, s.key())
	s.broadcast(t, tx, coin.Output)
	s.Mine(t, 1)
	got, err := chain.WaitMined(t.Context(), s.Backend, tx.Txid(), 1)
	if err != nil || got.Confirmations(s.tip(t).Height) != 1 {
		t.Fatalf("wait: %v, %v", got, err)
	}
	other := s.sweep(t, coin, k, s.key())
	s.refused(t, other, chain.DoubleSpend)
	rejected := new(chain.Rejected)
	if _, err := chain.WaitMined(t.Context(), s.Backend, other.Txid(), 1); !errors.As(err, &rejected) {
		t.Fatalf("wait for a conflicted one: %v", err)
	}
}

// What a reorganisation undoes is told as the new chain has it.
func testReorganise(t *testing.T, s *suite) {
	if s.Reorganise == nil {
		t.Skip("this chain is not reorganised")
	}
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	s.Mine(t, 1)
	deep := s.mined(t, coin.Outpoint.Txid)
	tx := s.sweep(t, coin, k, s.key())
	s.broadcast(t, tx, coin.Output)
	s.Mine(t, 2)
	before := s.tip(t)
	shallow := s.mined(t, tx.Txid())
	kept := s.header(t, before.Height-2)

	s.Reorganise(t, 2)
	tip := s.tip(t)
	if tip.Height <= before.Height {
		t.Fatalf("tip %d after a reorganisation at %d", tip.Height, before.Height)
	}
	if s.header(t, kept.Height) != kept {
		t.Fatalf("block %d is another one", kept.Height)
	}
	prev := kept
	for height := kept.Height + 1; height <= tip.Height; height++ {
		h := s.header(t, height)
		if h.Prev != prev.Hash || h.Hash == shallow.Block || h.Hash == before.Hash {
			t.Fatalf("block %d is %s, which is not of the new chain", height, h.Hash)
		}
		prev = h
	}
	if got := s.mined(t, coin.Outpoint.Txid); got.Block != deep.Block {
		t.Fatalf("what was mined before is in %s now", got.Block)
	}
	got, err := s.Backend.Status(t.Context(), tx.Txid())
	if err != nil {
		t.Fatal(err)
	}
	if got.State == chain.Mined {
		s.mined(t, tx.Txid())
	} else if got.Proof != nil || got.Height != 0 || !got.Block.IsZero() {
		t.Fatalf("%s with block %s, height %d, proof %v", got.State, got.Block, got.Height, got.Proof)
	}
	s.broadcast(t, tx, coin.Output)
	s.Mine(t, 1)
	s.tip(t)
	if got := s.mined(t, tx.Txid()); got.Block == shallow.Block {
		t.Fatal("mined in the block that was replaced")
	}
}

func testConcurrency(t *testing.T, s *suite) {
	type payment struct {
		tx   *bsv.Tx
		coin bsv.Coin
	}
	var all []payment
	for range 12 {
		k := s.key()
		coin := s.Fund(t, lockOf(k), 10_000)
		all = append(all, payment{s.sweep(t, coin, k, s.key()), coin})
	}
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() {
			if err := s.Backend.Broadcast(t.Context(), p.tx, []bsv.Output{p.coin.Output}); err != nil {
				t.Error(err)
				return
			}
			got, err := s.Backend.Status(t.Context(), p.tx.Txid())
			if err != nil || got.State != chain.Seen {
				t.Errorf("status %v, %v", got, err)
			}
			if spent, err := s.Backend.Spent(t.Context(), p.coin.Outpoint); err != nil || !spent {
				t.Errorf("spent %v, %v", spent, err)
			}
		})
	}
	wg.Wait()
	s.Mine(t, 1)
}

// calls are all methods with parameters that the chain knows.
func (s *suite) calls(t *testing.T) map[string]func(context.Context) error {
	t.Helper()
	k := s.key()
	coin := s.Fund(t, lockOf(k), 10_000)
	tx := s.sweep(t, coin, k, s.key())
	b := s.Backend
	calls := map[string]func(context.Context) error{
		"Tip":       func(ctx context.Context) error { _, err := b.Tip(ctx); return err },
		"FeeRate":   func(ctx context.Context) error { _, err := b.FeeRate(ctx); return err },
		"Broadcast": func(ctx context.Context) error { return b.Broadcast(ctx, tx, nil) },
		"Status":    func(ctx context.Context) error { _, err := b.Status(ctx, coin.Outpoint.Txid); return err },
		"RawTx":     func(ctx context.Context) error { _, err := b.RawTx(ctx, coin.Outpoint.Txid); return err },
		"Spent":     func(ctx context.Context) error { _, err := b.Spent(ctx, coin.Outpoint); return err },
	}
	if !s.OwnHeaders {
		calls["Header"] = func(ctx context.Context) error { _, err := b.Header(ctx, 0); return err }
	}
	if !s.NoUnspent {
		calls["Unspent"] = func(ctx context.Context) error { _, err := b.Unspent(ctx, lockOf(k)); return err }
	}
	return calls
}

func testCancelled(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range s.calls(t) {
		if err := call(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, chain.ErrUnavailable) {
			t.Errorf("%s: %v; want both ErrUnavailable and context.Canceled", name, err)
		}
	}
}

func testUnavailable(t *testing.T, s *suite) {
	calls := s.calls(t)
	s.Stop(t)
	for name, call := range calls {
		if err := call(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
			t.Errorf("%s: %v; want ErrUnavailable", name, err)
		}
	}
}
