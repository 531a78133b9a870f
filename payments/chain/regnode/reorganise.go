package regnode

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Fate is what a reorganisation makes of the transactions in the blocks that it
// throws out.
type Fate uint8

const (
	// ToMempool lets them wait for the next block that is mined.
	ToMempool Fate = iota
	// MinedAgain puts them into the first block of the new branch.
	MinedAgain
)

// maxDepth keeps a reorganisation away from coinbases that can be spent.
const maxDepth = chain.CoinbaseMaturity - 1

// ErrBlock says that the node did not take a block that was made for it.
var ErrBlock = errors.New("bsvd refused a block")

// Reorganise replaces the newest depth blocks, 1 to 99, by depth+1 others, as
// miners do who did not know of them. The first of those takes the transactions
// in instead, in their order; a transaction must come after those that it
// spends. They need not be known to the node, and may spend again what
// transactions of the old blocks or of the mempool spend: these are lost then,
// with all that builds on them. Of the others in the old blocks becomes what
// fate says. ErrBlock where the node does not take the new branch; it keeps the
// old one then.
func (n *Node) Reorganise(ctx context.Context, depth int, fate Fate, instead ...*bsv.Tx) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.reorganise(ctx, depth, fate, instead); err != nil {
		return fmt.Errorf("reorganise %d blocks: %w", depth, err)
	}
	return nil
}

func (n *Node) reorganise(ctx context.Context, depth int, fate Fate, instead []*bsv.Tx) error {
	tip, err := n.backend.Tip(ctx)
	if err != nil {
		return err
	}
	if depth < 1 || depth > maxDepth || int64(depth) >= int64(tip.Height) {
		return fmt.Errorf("at height %d: %w", tip.Height, chain.ErrNotFound)
	}
	base := tip.Height - uint32(depth)
	txs := instead
	if fate == MinedAgain {
		old, err := n.transactions(ctx, base+1, tip.Height)
		if err != nil {
			return err
		}
		txs = append(txs, compatible(old, instead)...)
	}
	parent, err := n.wholeHeader(ctx, base)
	if err != nil {
		return err
	}
	n.branches++
	for range depth + 1 {
		if parent, err = n.submit(ctx, parent, txs); err != nil {
			return err
		}
		txs = nil
	}
	now, err := n.backend.Tip(ctx)
	if err != nil {
		return err
	}
	if now.Hash != parent.Hash {
		return fmt.Errorf("the tip is %s, not %s: %w", now.Hash, parent.Hash, ErrBlock)
	}
	return n.keepCoins(ctx)
}

// compatible are the old transactions that go with the new ones: none of them is
// among these, spends what they spend, or builds on one that does.
func compatible(old, instead []*bsv.Tx) []*bsv.Tx {
	spent, gone := make(map[bsv.Outpoint]bool), make(map[bsv.Txid]bool)
	for _, tx := range instead {
		gone[tx.Txid()] = true
		for _, in := range tx.Inputs {
			spent[in.Prev] = true
		}
	}
	replaced := make(map[bsv.Txid]bool)
	var left []*bsv.Tx
	for _, tx := range old {
		id := tx.Txid()
		if gone[id] {
			continue
		}
		lost := false
		for _, in := range tx.Inputs {
			lost = lost || spent[in.Prev] || replaced[in.Prev.Txid]
		}
		if lost {
			replaced[id] = true
			continue
		}
		left = append(left, tx)
	}
	return left
}

// transactions are those of the blocks from one height to another, without the
// coinbases.
func (n *Node) transactions(ctx context.Context, from, to uint32) (all []*bsv.Tx, err error) {
	for height := from; height <= to; height++ {
		txids, err := n.blockTxids(ctx, height)
		if err != nil {
			return nil, err
		}
		for _, id := range txids[1:] {
			tx, err := n.backend.RawTx(ctx, id)
			if err != nil {
				return nil, err
			}
			all = append(all, tx)
		}
	}
	return all, nil
}

// blockTxids are the transactions of a block, the coinbase first.
func (n *Node) blockTxids(ctx context.Context, height uint32) ([]bsv.Txid, error) {
	header, err := n.backend.Header(ctx, height)
	if err != nil {
		return nil, err
	}
	var block struct{ Tx []string }
	if err := n.backend.Call(ctx, &block, "getblock", header.Hash.String(), 1); err != nil {
		return nil, err
	}
	if len(block.Tx) == 0 {
		return nil, fmt.Errorf("block %d is empty: %w", height, chain.ErrNotFound)
	}
	txids := make([]bsv.Txid, len(block.Tx))
	for i, text := range block.Tx {
		if txids[i], err = bsv.ParseTxid(text); err != nil {
			return nil, err
		}
	}
	return txids, nil
}

// wholeHeader has all fields, which a view of the chain may leave out.
func (n *Node) wholeHeader(ctx context.Context, height uint32) (chain.Header, error) {
	header, err := n.backend.Header(ctx, height)
	if err != nil {
		return chain.Header{}, err
	}
	var text string
	if err := n.backend.Call(ctx, &text, "getblockheader", header.Hash.String(), false); err != nil {
		return chain.Header{}, err
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return chain.Header{}, err
	}
	return chain.ParseHeader(raw, height)
}

// submit makes a block on parent and hands it to the node.
func (n *Node) submit(ctx context.Context, parent chain.Header, txs []*bsv.Tx) (chain.Header, error) {
	height := parent.Height + 1
	block := append([]*bsv.Tx{n.coinbase(height)}, txs...)
	txids := make([]bsv.Txid, len(block))
	var body []byte
	for i, tx := range block {
		txids[i] = tx.Txid()
		body = append(body, tx.Bytes()...)
	}
	if len(block) > 0xffff {
		return chain.Header{}, fmt.Errorf("%d transactions: %w", len(block), ErrBlock)
	}
	proof, err := chain.NewProof(height, chain.Hash{}, txids, 0)
	if err != nil {
		return chain.Header{}, err
	}
	header := chain.Header{Height: height, Prev: parent.Hash, Version: parent.Version, Bits: parent.Bits, Time: time.Now().Truncate(time.Second)}
	if !header.Time.After(parent.Time) { // and so after the median of those before
		header.Time = parent.Time.Add(time.Second)
	}
	if header.MerkleRoot, err = proof.Root(txids[0]); err != nil {
		return chain.Header{}, err
	}
	if header, err = work(header); err != nil {
		return chain.Header{}, err
	}
	raw := append(header.Bytes(), 0xfd)
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(block)))
	if len(block) < 0xfd {
		raw = append(header.Bytes(), byte(len(block)))
	}
	return header, n.submitRaw(ctx, append(raw, body...))
}

func (n *Node) submitRaw(ctx context.Context, block []byte) error {
	var refusal string
	if err := n.backend.Call(ctx, &refusal, "submitblock", hex.EncodeToString(block)); err != nil {
		return fmt.Errorf("hand over a block: %w", err)
	}
	if refusal != "" {
		return fmt.Errorf("%w: %s", ErrBlock, refusal)
	}
	return nil
}

// coinbase pays the miner the subsidy and no fees. The input names height and
// branch, so that no two are the same.
func (n *Node) coinbase(height uint32) *bsv.Tx {
	script := binary.LittleEndian.AppendUint32([]byte{8}, height)
	script = binary.LittleEndian.AppendUint32(script, n.branches)
	const subsidy, halving = money.Satoshis(50_00000000), 150 // the network's rule
	return &bsv.Tx{
		Version: 1,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Index: 0xffffffff}, Script: script, Sequence: bsv.FinalSequence}},
		Outputs: []bsv.Output{{Value: subsidy >> min(height/halving, 62), Script: bsv.P2PKH(n.miner.Public().Hash())}},
	}
}

// work finds a nonce; every second one will do on this network.
func work(h chain.Header) (chain.Header, error) {
	exponent, mantissa := h.Bits>>24, h.Bits&0x7fffff
	target := new(big.Int).Lsh(big.NewInt(int64(mantissa)), 8*uint(max(exponent, 3)-3))
	for ; h.Nonce < 1<<20; h.Nonce++ {
		found, err := chain.ParseHeader(h.Bytes(), h.Height)
		if err != nil {
			return chain.Header{}, err
		}
		digits, err := hex.DecodeString(found.Hash.String()) // display order: the largest first
		if err != nil {
			return chain.Header{}, err
		}
		if new(big.Int).SetBytes(digits).Cmp(target) <= 0 {
			return found, nil
		}
	}
	return chain.Header{}, fmt.Errorf("no proof of work below %08x: %w", h.Bits, ErrBlock)
}

// keepCoins forgets coins of the miner that a new branch has spent or undone.
func (n *Node) keepCoins(ctx context.Context) error {
	var left []bsv.Coin
	for _, c := range n.coins {
		spent, err := n.backend.Spent(ctx, c.Outpoint)
		if err != nil && !errors.Is(err, chain.ErrNotFound) {
			return err
		}
		if err == nil && !spent {
			left = append(left, c)
		}
	}
	n.coins = left
	return nil
}

// Restart ends the node as a power cut would and starts it again at the same
// URL, with its chain and without its mempool. Calls that come meanwhile fail.
func (n *Node) Restart(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.restart(ctx); err != nil {
		return fmt.Errorf("restart bsvd: %w", err)
	}
	return nil
}

func (n *Node) restart(ctx context.Context) error {
	tip, err := n.backend.Tip(ctx)
	if err != nil {
		return err
	}
	// In this mode bsvd always begins anew, so it is told its chain again.
	blocks := make([]string, tip.Height)
	for i := range blocks {
		header, err := n.backend.Header(ctx, uint32(i)+1)
		if err != nil {
			return err
		}
		if err := n.backend.Call(ctx, &blocks[i], "getblock", header.Hash.String(), 0); err != nil {
			return err
		}
	}
	if err := n.running().Kill(); err != nil {
		return err
	}
	if err := n.launch(ctx); err != nil {
		return err
	}
	for _, text := range blocks {
		raw, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		if err := n.submitRaw(ctx, raw); err != nil {
			return err
		}
	}
	return n.keepCoins(ctx)
}
