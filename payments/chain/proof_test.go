package chain_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

func txidsOf100000(t *testing.T) (ids []bsv.Txid) {
	t.Helper()
	for _, text := range []string{
		"8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
		"fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
		"6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
		"e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
	} {
		id, err := bsv.ParseTxid(text)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// The proofs of a real block lead to the root that miners wrote.
func TestProofOfARealBlock(t *testing.T) {
	header, ids := block100000(t), txidsOf100000(t)
	for i, id := range ids {
		p, err := chain.NewProof(header.Height, header.Hash, ids, i)
		if err != nil || len(p.Path) != 2 {
			t.Fatal(p, err)
		}
		if err := p.Check(id, header); err != nil {
			t.Error(err)
		}
		for j, other := range ids {
			if err := p.Check(other, header); (err == nil) != (i == j) {
				t.Errorf("the proof of %d for %d: %v", i, j, err)
			}
		}
		for name, wrong := range map[string]func(p *chain.Proof, h *chain.Header){
			"another height":      func(p *chain.Proof, _ *chain.Header) { p.Height++ },
			"another block":       func(p *chain.Proof, _ *chain.Header) { p.Block[0]++ },
			"another root":        func(_ *chain.Proof, h *chain.Header) { h.MerkleRoot[7]++ },
			"another sibling":     func(p *chain.Proof, _ *chain.Header) { p.Path[1][3]++ },
			"another index":       func(p *chain.Proof, _ *chain.Header) { p.Index ^= 1 },
			"an index too large":  func(p *chain.Proof, _ *chain.Header) { p.Index += 4 },
			"the largest index":   func(p *chain.Proof, _ *chain.Header) { p.Index = 1<<64 - 1 },
			"a short path":        func(p *chain.Proof, _ *chain.Header) { p.Path = p.Path[:1]; p.Index &= 1 },
			"no path":             func(p *chain.Proof, _ *chain.Header) { p.Path, p.Index = nil, 0 },
			"a long path":         func(p *chain.Proof, _ *chain.Header) { p.Path = append(p.Path, chain.Hash{}) },
			"a path without end":  func(p *chain.Proof, _ *chain.Header) { p.Path = make([]chain.Hash, chain.MaxProofDepth+1) },
			"a path of the limit": func(p *chain.Proof, _ *chain.Header) { p.Path = make([]chain.Hash, chain.MaxProofDepth) },
		} {
			q, h := *p, header
			q.Path = slices.Clone(p.Path)
			wrong(&q, &h)
			if err := q.Check(id, h); !errors.Is(err, chain.ErrProof) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// What a format does not carry is not asked for.
		p.Height = 0
		if err := p.Check(id, header); err != nil {
			t.Error("no height:", err)
		}
		p.Height, p.Block = header.Height, chain.Hash{}
		if err := p.Check(id, header); err != nil {
			t.Error("no block:", err)
		}
	}
}

// Blocks of every small size have one root, whichever transaction leads to it,
// and no transaction has two places.
func TestProofsOfBlocks(t *testing.T) {
	for n := 1; n <= 33; n++ {
		ids := someTxids(n)
		var root chain.Hash
		for i, id := range ids {
			p, err := chain.NewProof(7, chain.Hash{1}, ids, i)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.Root(id)
			if err != nil || i > 0 && got != root {
				t.Fatalf("%d of %d: %s, %v; the others lead to %s", i, n, got, err, root)
			}
			root = got
			for index := range uint64(1) << len(p.Path) {
				q := *p
				q.Index = index
				if again, err := q.Root(id); index != p.Index && err == nil && again == root {
					t.Errorf("transaction %d of %d is also at %d", i, n, index)
				}
			}
		}
		for _, i := range []int{-1, n, n + 5} {
			if _, err := chain.NewProof(7, chain.Hash{1}, ids, i); !errors.Is(err, chain.ErrProof) {
				t.Errorf("%d of %d: %v", i, n, err)
			}
		}
	}
	if _, err := chain.NewProof(7, chain.Hash{1}, nil, 0); !errors.Is(err, chain.ErrProof) {
		t.Error("of none:", err)
	}
}
