package chain

import (
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// MaxProofDepth is the longest path of a Proof: a block of 2^32 transactions.
const MaxProofDepth = 32

// ErrProof says that a Merkle path is malformed or proves something else.
var ErrProof = errors.New("not a proof that the transaction is in the block")

// Proof is a Merkle path from a transaction to the root in its block's header.
// It is worth what the header is worth.
type Proof struct {
	// Height and Block name the block. A BUMP (BRC-74) carries the height only,
	// a TSC proof (BRC-10) the hash only; what is missing is zero.
	Height uint32
	Block  Hash
	Index  uint64 // of the transaction in its block, from 0
	Path   []Hash // the sibling on each level, from the transaction up
}

// Root returns the Merkle root that the path leads to from txid, or ErrProof
// where the index does not fit the path. A path proves nothing for a
// transaction of exactly 64 bytes, which could be an inner node of the tree.
func (p *Proof) Root(txid bsv.Txid) (Hash, error) {
	if len(p.Path) > MaxProofDepth || p.Index>>len(p.Path) != 0 {
		return Hash{}, fmt.Errorf("transaction %d at depth %d: %w", p.Index, len(p.Path), ErrProof)
	}
	node := Hash(txid)
	for level, sibling := range p.Path {
		if p.Index>>level&1 == 0 {
			node = hashPair(node, sibling)
			continue
		}
		if sibling == node {
			// The doubled last node of a level stands on the right only: on the
			// left it would give one transaction two places (CVE-2012-2459).
			return Hash{}, fmt.Errorf("doubled node on the left: %w", ErrProof)
		}
		node = hashPair(sibling, node)
	}
	return node, nil
}

// hashPair returns the node above two others.
func hashPair(left, right Hash) Hash {
	var pair [64]byte
	copy(pair[:32], left[:])
	copy(pair[32:], right[:])
	return doubleHash(pair[:])
}

// Check returns nil where the path leads from txid to the root in the header,
// and ErrProof otherwise.
func (p *Proof) Check(txid bsv.Txid, h Header) error {
	if p.Height != 0 && p.Height != h.Height || !p.Block.IsZero() && p.Block != h.Hash {
		return fmt.Errorf("a proof for block %d %s, not %d %s: %w", p.Height, p.Block, h.Height, h.Hash, ErrProof)
	}
	root, err := p.Root(txid)
	if err != nil {
		return err
	}
	if root != h.MerkleRoot {
		return fmt.Errorf("the path leads to %s, block %d has %s: %w", root, h.Height, h.MerkleRoot, ErrProof)
	}
	return nil
}

// NewProof makes the proof for the transaction at index of a block with these
// txids, in their order.
func NewProof(height uint32, block Hash, txids []bsv.Txid, index int) (*Proof, error) {
	if index < 0 || index >= len(txids) {
		return nil, fmt.Errorf("transaction %d of %d: %w", index, len(txids), ErrProof)
	}
	p := &Proof{Height: height, Block: block, Index: uint64(index)}
	level := make([]Hash, len(txids))
	for i, id := range txids {
		level[i] = Hash(id)
	}
	for len(level) > 1 {
		if len(level)%2 == 1 {
			level = append(level, level[len(level)-1])
		}
		p.Path = append(p.Path, level[index^1])
		next := make([]Hash, 0, len(level)/2)
		for i := 0; i < len(level); i += 2 {
			next = append(next, hashPair(level[i], level[i+1]))
		}
		level, index = next, index/2
	}
	return p, nil
}
