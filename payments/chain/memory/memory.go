// Package memory is a block chain in memory, for tests: it makes coins from
// nothing, mines when it is told to, and fails when it is told to.
//
// It validates as the network does what matters to a payment channel:
// version 1 only, finality, missing and spent inputs, values, signatures
// (through bsv.VerifyInput) and the fee. A transaction that passes here passes
// a node that knows the same coins, but for a rule that only this chain has:
// previous outputs handed to Broadcast must be the true ones.
//
// The chain is deterministic: the same calls and the same clock give the same
// hashes. It is safe for use by several goroutines.
package memory

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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
	blocks  []chain.Header
	forks   uint32 // makes the blocks after a reorganisation other ones
	txs     map[bsv.Txid]*entry
	arrived uint64
	spender map[bsv.Outpoint]bsv.Txid
	dropped map[bsv.Txid][]bsv.Outpoint // inputs of what was refused or evicted
	free    []bsv.Coin                  // of the mint
	faults  []error
	down    bool
	lose    bool
	changed chan struct{}
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
	c.extend([]bsv.Txid{txid})
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

// Reorganise replaces the newest depth blocks by depth + 1 empty ones. The
// transactions of the replaced blocks return to the mempool, those that are
// no longer final are dropped.
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
	root := sha256.New()
	for len(txids) > 0 {
		e := c.txs[txids[0]]
		root.Write(txids[0][:])
		txids = txids[1:]
		e.mined, e.height = true, height
		for _, in := range e.tx.Inputs {
			if parent := c.txs[in.Prev.Txid]; parent != nil && !parent.mined {
				txids = append(txids, in.Prev.Txid)
			}
		}
	}
	h := chain.Header{Height: height, Time: c.clock().UTC().Truncate(time.Second)}
	root.Sum(h.MerkleRoot[:0])
	if height > 0 {
		prev := c.blocks[height-1]
		h.Prev = prev.Hash
		// Rules of the network: the time of a block is later than the median
		// of those before it.
		if !h.Time.After(prev.Time) {
			h.Time = prev.Time.Add(time.Second)
		}
	}
	var raw []byte
	raw = append(raw, h.Prev[:]...)
	raw = append(raw, h.MerkleRoot[:]...)
	raw = binary.LittleEndian.AppendUint64(raw, uint64(h.Time.Unix()))
	raw = binary.LittleEndian.AppendUint32(raw, c.forks)
	h.Hash = sha256.Sum256(raw)
	c.blocks = append(c.blocks, h)
	c.announce()
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
	if fee := c.fee.Fee(tx.Size()); in-out < fee {
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
