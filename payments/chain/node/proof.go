package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// keptBlocks is of how many blocks the txids are kept: the status of what
	// was mined last is asked for again and again.
	keptBlocks = 8
	// keptTxids is the most of one block that is kept, 3.2 MB.
	keptTxids = 100_000
)

type blockTxids struct {
	hash  chain.Hash
	txids []bsv.Txid
}

// proof returns the path of a transaction that the node has in this block, and
// nil where the node does not give what is needed for it.
func (b *Backend) proof(ctx context.Context, txid bsv.Txid, at chain.Status) (*chain.Proof, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return nil, err
	}
	var p *chain.Proof
	if d == bitcoinSV {
		p, err = b.merkleProof(ctx, txid, at.Block)
	} else {
		p, err = b.proofFromBlock(ctx, txid, at.Block)
	}
	refused := new(Error)
	switch {
	case err == nil:
		p.Height, p.Block = at.Height, at.Block
		return p, nil
	case errors.As(err, &refused), errors.Is(err, errTooLarge):
		return nil, nil
	}
	return nil, fmt.Errorf("proof of %s: %w", txid, err)
}

// merkleProof asks bitcoin-sv.
func (b *Backend) merkleProof(ctx context.Context, txid bsv.Txid, block chain.Hash) (*chain.Proof, error) {
	var answer json.RawMessage
	if err := b.rpc.call(ctx, &answer, "getmerkleproof2", block.String(), txid.String(), false, "hash"); err != nil {
		return nil, err
	}
	p, err := chain.ParseTSC(answer, txid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if p.Block != block {
		return nil, fmt.Errorf("it leads to block %s, not to %s: %w", p.Block, block, ErrProtocol)
	}
	return p, nil
}

// proofFromBlock makes the path from all txids of the block.
func (b *Backend) proofFromBlock(ctx context.Context, txid bsv.Txid, block chain.Hash) (*chain.Proof, error) {
	txids, err := b.txids(ctx, block)
	if err != nil {
		return nil, err
	}
	at := slices.Index(txids, txid)
	if at < 0 {
		return nil, fmt.Errorf("it is not in block %s: %w", block, ErrProtocol)
	}
	return chain.NewProof(0, block, txids, at)
}

// txids returns the txids of a block in their order.
func (b *Backend) txids(ctx context.Context, block chain.Hash) ([]bsv.Txid, error) {
	b.mu.Lock()
	at := slices.IndexFunc(b.blocks, func(k blockTxids) bool { return k.hash == block })
	if at >= 0 {
		kept := b.blocks[at]
		b.blocks = slices.Insert(slices.Delete(b.blocks, at, at+1), 0, kept)
		b.mu.Unlock()
		return kept.txids, nil
	}
	b.mu.Unlock()
	var answer struct{ Tx []string }
	if err := b.rpc.call(ctx, &answer, "getblock", block.String(), 1); err != nil {
		return nil, err
	}
	txids := make([]bsv.Txid, len(answer.Tx))
	for i, text := range answer.Tx {
		var err error
		if txids[i], err = bsv.ParseTxid(text); err != nil {
			return nil, fmt.Errorf("block %s: %w: %w", block, ErrProtocol, err)
		}
	}
	if len(txids) <= keptTxids {
		b.mu.Lock()
		b.blocks = slices.Insert(b.blocks, 0, blockTxids{block, txids})
		b.blocks = b.blocks[:min(len(b.blocks), keptBlocks)]
		b.mu.Unlock()
	}
	return txids, nil
}
