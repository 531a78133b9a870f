// Package memory is a block chain in memory, for tests: it makes coins from
// nothing, mines when it is told to, and fails when it is told to.
//
// It validates as the network does what matters to a payment channel:
// version 1 only, finality, missing and spent inputs, values, signatures
// (through bsv.VerifyInput) and the fee. A transaction that passes here passes
// a node that knows the same coins, but for a rule that only this chain has:
// previous outputs handed to Broadcast must be the true ones.
//
// Its blocks are those of the regression test network: the first one has that
// network's header, the others a coinbase, a Merkle root and proof of work. The
// coins of the mint count as mined in the first block, whose header does not
// know of them: there is no proof for them.
//
// The chain is deterministic: the same calls and the same clock give the same
// hashes. It is safe for use by several goroutines.
package memory

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var _ chain.Backend = (*Chain)(nil)

// Chain is a block chain with its mempool. Use New.
type Chain struct {
	clock func() time.Time
	mint  bsv.PrivateKey

	mu      sync.Mutex
	fee     money.FeeRate
	blocks  []block
	forks   uint32 // makes the blocks after a reorganisation other ones
	txs     map[bsv.Txid]*entry
	arrived uint64
	spender map[bsv.Outpoint]bsv.Txid
	dropped map[bsv.Txid][]bsv.Outpoint // inputs of what was refused or evicted
	free    []bsv.Coin                  // of the mint
	faults  []error
	down    bool
	lose    bool
	// consolidation is the rule for what is free; nil is none.
	consolidation *chain.Consolidation
	changed       chan struct{}
}

// block is a header and what is below its Merkle root: the coinbase, then the
// transactions in the order in which they came.
type block struct {
	chain.Header
	txids []bsv.Txid
}

type entry struct {
	tx      *bsv.Tx
	height  uint32 // 0 while in the mempool
	mined   bool
	arrived uint64
}

const (
	mintCoins          = 256
	mintCoin           = money.MaxSatoshis / mintCoins
	onlyVersion uint32 = 1
)

// New returns a chain whose tip is its first block, at height 0. The clock
// gives the time of the blocks.
// Its time should be later than that block's, which is of February 2011.
func New(clock func() time.Time) *Chain {
	key, err := bsv.NewPrivateKey(append(make([]byte, 31), 1))
	if err != nil {
		panic(err) // 1 is a private key
	}
	c := &Chain{
		clock:   clock,
		mint:    key,
		fee:     chain.DefaultFeeRate,
		txs:     make(map[bsv.Txid]*entry),
		spender: make(map[bsv.Outpoint]bsv.Txid),
		dropped: make(map[bsv.Txid][]bsv.Outpoint),
		changed: make(chan struct{}),
	}
	lock := bsv.P2PKH(key.Public().Hash())
	all := &bsv.Tx{
		Version: onlyVersion,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Index: bsv.FinalSequence}, Script: bsv.Script("the mint"), Sequence: bsv.FinalSequence}},
	}
	for range mintCoins {
		all.Outputs = append(all.Outputs, bsv.Output{Value: mintCoin, Script: lock})
	}
	txid := all.Txid()
	c.txs[txid] = &entry{tx: all, mined: true}
	for i, o := range all.Outputs {
		c.free = append(c.free, bsv.Coin{Outpoint: bsv.Outpoint{Txid: txid, Index: uint32(i)}, Output: o})
	}
	c.blocks = []block{genesis()}
	return c
}

// SetFeeRate sets the rate that FeeRate answers and Broadcast asks for; it is
// chain.DefaultFeeRate at first.
func (c *Chain) SetFeeRate(r money.FeeRate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fee = r
}

// FailNext makes the next call of a Backend method return err and do nothing
// else. Several calls of FailNext queue up.
func (c *Chain) FailNext(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, err)
}

// LoseAnswer makes the next Broadcast that succeeds return ErrUnavailable: the
// network has the transaction, and the caller cannot know.
func (c *Chain) LoseAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose = true
}

// SetDown makes every Backend method return ErrUnavailable until it is called
// with false.
func (c *Chain) SetDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

// Changed returns a channel that is closed at the next change of the chain or
// the mempool, so that a test can wait for what another goroutine broadcasts:
// take the channel first, then look.
func (c *Chain) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// WaitState waits until the transaction is in this state, or until ctx ends.
func (c *Chain) WaitState(ctx context.Context, txid bsv.Txid, want chain.State) error {
	for {
		changed := c.Changed()
		c.mu.Lock()
		have := c.status(txid).State
		c.mu.Unlock()
		if have == want {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is %s (it is %s): %w", txid, want, have, ctx.Err())
		}
	}
}

// Fund makes a coin with this locking script and mines it into a block of its
// own. The value is 1 to 8,203,125,000,000 less a fee.
func (c *Chain) Fund(script bsv.Script, value money.Satoshis) bsv.Coin {
	coin := c.FundUnconfirmed(script, value)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.extend([]bsv.Txid{coin.Outpoint.Txid})
	return coin
}

// FundUnconfirmed makes a coin with this locking script and leaves it in the
// mempool. Its transaction has mined parents only for the first 256 coins
// that are not mined.
func (c *Chain) FundUnconfirmed(script bsv.Script, value money.Satoshis) bsv.Coin {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.free) == 0 {
		panic("memory chain: the mint is used up")
	}
	from := c.free[0]
	tx, _, err := bsv.BuildPayment([]bsv.Coin{from}, []bsv.PrivateKey{c.mint},
		[]bsv.Output{{Value: value, Script: script}}, c.mint.Public().Hash(), c.fee)
	if err != nil {
		panic(fmt.Sprintf("memory chain: fund %d sat: %v", value, err))
	}
	if err := c.check(tx, nil); err != nil {
		panic(fmt.Sprintf("memory chain: fund %d sat: %v", value, err))
	}
	c.accept(tx)
	c.free = c.free[1:]
	txid := tx.Txid()
	if len(tx.Outputs) > 1 {
		c.free = append(c.free, bsv.Coin{Outpoint: bsv.Outpoint{Txid: txid, Index: 1}, Output: tx.Outputs[1]})
	}
	return bsv.Coin{Outpoint: bsv.Outpoint{Txid: txid}, Output: tx.Outputs[0]}
}

// Mine makes n blocks; the first takes everything in the mempool.
func (c *Chain) Mine(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.extend(c.mempool())
	}
}

// MineTo makes blocks until the tip has this height.
func (c *Chain) MineTo(height uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uint32(len(c.blocks)) <= height {
		c.extend(c.mempool())
	}
}

// MineConflict mines tx alone into a block, as a miner does who was given it
// before the network saw what spends the same coins. Those transactions and
// all that build on them leave the mempool and become Conflicted. The error is
// the *chain.Rejected of a transaction that no miner could take.
func (c *Chain) MineConflict(tx *bsv.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := tx.Txid()
	if c.txs[own] == nil {
		for _, in := range tx.Inputs {
			if e := c.txs[c.spender[in.Prev]]; e != nil && !e.mined {
				c.evict(c.spender[in.Prev])
			}
		}
		if err := c.check(tx, nil); err != nil {
			return err
		}
		c.accept(tx)
	}
	c.extend([]bsv.Txid{own})
	return nil
}

// Reorganise replaces the newest depth blocks by depth + 1 empty ones; the
// first block stays. The transactions of the replaced blocks return to the
// mempool, those that are no longer final are dropped.
func (c *Chain) Reorganise(depth int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := len(c.blocks) - depth
	if depth < 1 || keep < 1 {
		panic(fmt.Sprintf("memory chain: reorganise %d of %d blocks", depth, len(c.blocks)))
	}
	c.blocks = c.blocks[:keep]
	c.forks++
	for _, e := range c.txs {
		if e.mined && e.height >= uint32(keep) {
			e.mined, e.height = false, 0
		}
	}
	for range depth + 1 {
		c.extend(nil)
	}
	for _, txid := range c.mempool() {
		if e := c.txs[txid]; e != nil && !e.tx.FinalAt(uint32(len(c.blocks))) {
			c.evict(txid)
		}
	}
}

// Mempool returns the transactions that wait to be mined, in the order in
// which they came.
func (c *Chain) Mempool() []*bsv.Tx {
	c.mu.Lock()
	defer c.mu.Unlock()
	var txs []*bsv.Tx
	for _, txid := range c.mempool() {
		txs = append(txs, clone(c.txs[txid].tx))
	}
	return txs
}

func (c *Chain) mempool() []bsv.Txid {
	var ids []bsv.Txid
	for id, e := range c.txs {
		if !e.mined {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b bsv.Txid) int {
		return int(int64(c.txs[a].arrived) - int64(c.txs[b].arrived))
	})
	return ids
}

// extend adds a block. An unconfirmed parent of what is mined is mined too.
func (c *Chain) extend(txids []bsv.Txid) {
	height := uint32(len(c.blocks))
	var mined []bsv.Txid
	for len(txids) > 0 {
		txid := txids[0]
		e := c.txs[txid]
		txids = txids[1:]
		if e.mined { // as another one's parent
			continue
		}
		e.mined, e.height = true, height
		mined = append(mined, txid)
		for _, in := range e.tx.Inputs {
			if parent := c.txs[in.Prev.Txid]; parent != nil && !parent.mined {
				txids = append(txids, in.Prev.Txid)
			}
		}
	}
	slices.SortFunc(mined, func(a, b bsv.Txid) int { return cmp.Compare(c.txs[a].arrived, c.txs[b].arrived) })
	b := block{txids: append([]bsv.Txid{coinbase(height, c.forks)}, mined...)}
	b.Header = mine(chain.Header{
		Height:     height,
		Prev:       c.blocks[height-1].Hash,
		MerkleRoot: root(b.txids),
		Time:       c.blockTime(),
		Version:    blockVersion,
		Bits:       blockBits,
	})
	c.blocks = append(c.blocks, b)
	c.announce()
}

// blockTime is the clock's, or what the network asks for where the clock
// stands still: later than the median of the eleven blocks before.
func (c *Chain) blockTime() time.Time {
	var times []time.Time
	for _, b := range c.blocks[max(0, len(c.blocks)-11):] {
		times = append(times, b.Time)
	}
	slices.SortFunc(times, time.Time.Compare)
	now := c.clock().UTC().Truncate(time.Second)
	if median := times[len(times)/2]; !now.After(median) {
		return median.Add(time.Second)
	}
	return now
}

const (
	blockVersion = 0x20000000
	blockBits    = 0x207fffff // every other hash meets it
	genesisBytes = "01000000" +
		"0000000000000000000000000000000000000000000000000000000000000000" +
		"3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a" +
		"dae5494dffff7f2002000000"
)

var blockTarget = new(big.Int).Lsh(big.NewInt(0x7fffff), 8*(0x20-3))

// genesis is the first block of the regression test network. Its one
// transaction cannot be spent and is left out.
func genesis() block {
	raw, err := hex.DecodeString(genesisBytes)
	if err != nil {
		panic(err) // of a constant
	}
	h, err := chain.ParseHeader(raw, 0)
	if err != nil {
		panic(err) // it has 80 bytes
	}
	return block{Header: h}
}

// coinbase is the txid of a block's first transaction, which pays nobody and
// is not kept.
func coinbase(height, fork uint32) bsv.Txid {
	text := binary.LittleEndian.AppendUint32([]byte{4}, height)
	text = binary.LittleEndian.AppendUint32(append(text, 4), fork)
	tx := &bsv.Tx{
		Version: onlyVersion,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Index: bsv.FinalSequence}, Script: text, Sequence: bsv.FinalSequence}},
		Outputs: []bsv.Output{{Script: bsv.Script{0x00, 0x6a}}},
	}
	return tx.Txid()
}

func root(txids []bsv.Txid) chain.Hash {
	p, err := chain.NewProof(0, chain.Hash{}, txids, 0)
	if err != nil {
		panic(err) // there is a coinbase
	}
	r, err := p.Root(txids[0])
	if err != nil {
		panic(err) // the path is NewProof's
	}
	return r
}

// mine tries nonces until the hash meets the target.
func mine(h chain.Header) chain.Header {
	for {
		sealed, err := chain.ParseHeader(h.Bytes(), h.Height)
		if err != nil {
			panic(err) // it has 80 bytes
		}
		display := sealed.Hash
		slices.Reverse(display[:])
		if new(big.Int).SetBytes(display[:]).Cmp(blockTarget) <= 0 {
			return sealed
		}
		h.Nonce++
	}
}

func (c *Chain) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// check returns a *chain.Rejected, or nil for a transaction that may enter the
// mempool.
func (c *Chain) check(tx *bsv.Tx, prev []bsv.Output) error {
	if tx.Version != onlyVersion {
		return chain.Reject(chain.Invalid, fmt.Sprintf("version %d", tx.Version))
	}
	if len(tx.Inputs) == 0 || len(tx.Outputs) == 0 || tx.Size() > chain.MaxTxSize {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d inputs, %d outputs, %d bytes",
			len(tx.Inputs), len(tx.Outputs), tx.Size()))
	}
	if prev != nil && len(prev) != len(tx.Inputs) {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d previous outputs for %d inputs", len(prev), len(tx.Inputs)))
	}
	if !tx.FinalAt(uint32(len(c.blocks))) {
		return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, next block %d", tx.LockTime, len(c.blocks)))
	}
	var in money.Satoshis
	seen := make(map[bsv.Outpoint]bool)
	spent := make([]bsv.Output, len(tx.Inputs))
	for i, input := range tx.Inputs {
		o, ok := c.output(input.Prev)
		if !ok {
			return chain.Reject(chain.MissingInputs, input.Prev.String())
		}
		if by, taken := c.spender[input.Prev]; taken {
			return chain.Reject(chain.DoubleSpend, fmt.Sprintf("%s is spent by %s", input.Prev, by))
		}
		if seen[input.Prev] {
			return chain.Reject(chain.Invalid, fmt.Sprintf("%s is spent twice", input.Prev))
		}
		seen[input.Prev] = true
		if prev != nil && (prev[i].Value != o.Value || string(prev[i].Script) != string(o.Script)) {
			return chain.Reject(chain.Invalid, fmt.Sprintf("the previous output of input %d is another one", i))
		}
		spent[i] = o
		in += o.Value // no more than the mint has ever made
	}
	var out money.Satoshis
	for _, o := range tx.Outputs {
		sum, err := out.Add(o.Value)
		if err != nil {
			return chain.Reject(chain.Invalid, err.Error())
		}
		out = sum
	}
	if out > in {
		return chain.Reject(chain.Invalid, fmt.Sprintf("spends %d of %d", out, in))
	}
	for i := range tx.Inputs {
		if err := bsv.VerifyInput(tx, i, spent[i]); err != nil {
			return chain.Reject(chain.Invalid, err.Error())
		}
	}
	if fee := c.fee.Fee(tx.Size()); in-out < fee && !c.feeless(tx) {
		return chain.Reject(chain.LowFee, fmt.Sprintf("fee %d, wanted %d", in-out, fee))
	}
	return nil
}

func (c *Chain) accept(tx *bsv.Tx) {
	txid := tx.Txid()
	c.arrived++
	c.txs[txid] = &entry{tx: clone(tx), arrived: c.arrived}
	for _, in := range tx.Inputs {
		c.spender[in.Prev] = txid
	}
	delete(c.dropped, txid)
	c.announce()
}

// evict takes an unconfirmed transaction and all that build on it out of the
// mempool.
func (c *Chain) evict(txid bsv.Txid) {
	e := c.txs[txid]
	for i := range e.tx.Outputs {
		if by, ok := c.spender[bsv.Outpoint{Txid: txid, Index: uint32(i)}]; ok {
			c.evict(by)
		}
	}
	for _, in := range e.tx.Inputs {
		delete(c.spender, in.Prev)
	}
	c.free = slices.DeleteFunc(c.free, func(f bsv.Coin) bool { return f.Outpoint.Txid == txid })
	c.remember(e.tx)
	delete(c.txs, txid)
}

func (c *Chain) remember(tx *bsv.Tx) {
	var inputs []bsv.Outpoint
	for _, in := range tx.Inputs {
		inputs = append(inputs, in.Prev)
	}
	c.dropped[tx.Txid()] = inputs
}

func (c *Chain) output(o bsv.Outpoint) (bsv.Output, bool) {
	e := c.txs[o.Txid]
	if e == nil || uint64(o.Index) >= uint64(len(e.tx.Outputs)) {
		return bsv.Output{}, false
	}
	return e.tx.Outputs[o.Index], true
}

func clone(tx *bsv.Tx) *bsv.Tx {
	t := *tx
	t.Inputs = slices.Clone(tx.Inputs)
	for i := range t.Inputs {
		t.Inputs[i].Script = slices.Clone(t.Inputs[i].Script)
	}
	t.Outputs = slices.Clone(tx.Outputs)
	for i := range t.Outputs {
		t.Outputs[i].Script = slices.Clone(t.Outputs[i].Script)
	}
	return &t
}
