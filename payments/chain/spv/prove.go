package spv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// ambiguousSize is the size of a transaction in bytes that could as well be two
// hashes of a Merkle tree.
const ambiguousSize = 64

var (
	errNoProof = errors.New("the service gives no proof")
	errNoBlock = errors.New("the proof's block is not in the chain")
	errSize    = errors.New("a transaction of 64 bytes proves nothing")
)

// Status implements chain.Backend.
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	if err := ctx.Err(); err != nil {
		return chain.Status{}, fmt.Errorf("status of %s: %w: %w", txid, chain.ErrUnavailable, err)
	}
	if p := b.holds(txid); p != nil {
		return minedBy(p.proof), nil
	}
	s, err := b.services.Status(ctx, txid)
	if err != nil {
		return chain.Status{}, err
	}
	if s.State != chain.Mined {
		b.forget(txid)
		return chain.Status{State: s.State, Competing: s.Competing}, nil
	}
	p, _, err := b.prove(ctx, txid, s)
	switch {
	case err == nil:
		return minedBy(p.proof), nil
	case ctx.Err() != nil:
		return chain.Status{}, fmt.Errorf("proof of %s: %w: %w", txid, chain.ErrUnavailable, ctx.Err())
	}
	b.doubt(txid, err)
	return chain.Status{State: chain.Seen}, nil
}

// Proof implements chain.Prover: a proof that holds, or chain.ErrNotFound.
func (b *Backend) Proof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	s, err := b.Status(ctx, txid)
	if err != nil {
		return nil, err
	}
	if s.State != chain.Mined {
		return nil, fmt.Errorf("proof of %s: %w", txid, chain.ErrNotFound)
	}
	return s.Proof, nil
}

func minedBy(p *chain.Proof) chain.Status {
	own := *p
	own.Path = slices.Clone(p.Path)
	return chain.Status{State: chain.Mined, Height: p.Height, Block: p.Block, Proof: &own}
}

// holds returns what is remembered of a transaction whose block is in the best
// chain.
func (b *Backend) holds(txid bsv.Txid) *proven {
	b.mu.Lock()
	p := b.proven[txid]
	b.mu.Unlock()
	if p == nil {
		return nil
	}
	// A block from before the header chain's beginning is not replaced.
	if h, ok := b.headers.At(p.proof.Height); ok && h.Hash != p.proof.Block || b.isAboveTip(p.proof.Height) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.proven[txid] == p {
			delete(b.proven, txid)
		}
		return nil
	}
	return p
}

func (b *Backend) isAboveTip(height uint32) bool {
	tip, ok := b.headers.Tip()
	return !ok || height > tip.Height
}

// prove checks what a service calls mined, asking for the proof where claim has
// none. What holds is remembered. tx is the transaction where it had to be
// fetched, and else nil.
func (b *Backend) prove(ctx context.Context, txid bsv.Txid, claim chain.Status) (p *proven, tx *bsv.Tx, err error) {
	proof := claim.Proof
	if proof == nil {
		if proof, err = b.askProof(ctx, txid); err != nil {
			return nil, nil, err
		}
	}
	header, err := b.anchor(ctx, txid, proof, claim)
	if err != nil {
		return nil, nil, err
	}
	b.mu.Lock()
	sized := b.sized[txid]
	b.mu.Unlock()
	if !sized {
		if tx, err = b.RawTx(ctx, txid); err != nil {
			return nil, nil, fmt.Errorf("its bytes: %w", err)
		}
		if tx.Size() == ambiguousSize {
			return nil, nil, errSize
		}
	}
	own := *proof
	own.Path = slices.Clone(proof.Path)
	own.Height, own.Block = header.Height, header.Hash
	p = &proven{proof: &own, outputs: make(map[uint32][32]byte)}
	b.mu.Lock()
	defer b.mu.Unlock()
	makeRoom(b.proven, b.opt.Proofs)
	b.proven[txid] = p
	delete(b.unproven, txid)
	return p, tx, nil
}

func (b *Backend) askProof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	prover, ok := b.services.(chain.Prover)
	if !ok {
		return nil, errNoProof
	}
	proof, err := prover.Proof(ctx, txid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoProof, err)
	}
	if proof == nil {
		return nil, errNoProof
	}
	return proof, nil
}

// anchor returns the header that the proof ends in. The header chain is
// brought up to date where it does not have it yet.
func (b *Backend) anchor(ctx context.Context, txid bsv.Txid, proof *chain.Proof, claim chain.Status) (chain.Header, error) {
	if _, err := proof.Root(txid); err != nil {
		return chain.Header{}, err // no header can help it
	}
	header, err := b.match(txid, proof, claim)
	if err == nil {
		return header, nil
	}
	old := false
	for _, height := range heightsOf(proof, claim) {
		if _, ok := b.headers.At(height); ok || b.isAboveTip(height) {
			continue
		}
		old = true
		if header, err = b.headers.Old(ctx, b.services, height); err == nil {
			err = proof.Check(txid, header)
		}
		if err == nil {
			return header, nil
		}
	}
	if old {
		return chain.Header{}, err
	}
	if _, syncErr := b.look(ctx); syncErr != nil {
		return chain.Header{}, errors.Join(err, syncErr)
	}
	return b.match(txid, proof, claim)
}

// match looks for the header among those that the header chain has: by the
// block's hash, and by the heights that are said.
func (b *Backend) match(txid bsv.Txid, proof *chain.Proof, claim chain.Status) (chain.Header, error) {
	err := errNoBlock
	for _, hash := range []chain.Hash{proof.Block, claim.Block} {
		if h, ok := b.headers.Find(hash); ok {
			if err = proof.Check(txid, h); err == nil {
				return h, nil
			}
		}
	}
	for _, height := range heightsOf(proof, claim) {
		h, ok := b.headers.At(height)
		if !ok || !proof.Block.IsZero() && proof.Block != h.Hash {
			continue
		}
		if err = proof.Check(txid, h); err == nil {
			return h, nil
		}
	}
	return chain.Header{}, err
}

// heightsOf are the heights that the proof and the service name.
func heightsOf(proof *chain.Proof, claim chain.Status) (heights []uint32) {
	if proof.Height != 0 {
		heights = append(heights, proof.Height)
	}
	if claim.Height != 0 && claim.Height != proof.Height {
		heights = append(heights, claim.Height)
	}
	return heights
}

// doubt remembers and logs a transaction whose proof does not hold.
func (b *Backend) doubt(txid bsv.Txid, why error) {
	reason := why.Error()
	reason = reason[:min(len(reason), chain.MaxRejectText)]
	b.mu.Lock()
	before, again := b.unproven[txid]
	if !again {
		makeRoom(b.unproven, maxNotes)
	}
	b.unproven[txid] = failure{reason: reason, at: b.opt.Clock(), times: before.times + 1}
	b.last = reason
	b.mu.Unlock()
	if before.reason != reason {
		b.opt.Log.Warn("called mined without a proof that holds", "txid", txid, "reason", reason)
	}
}

// forget is for a transaction that is not called mined any more.
func (b *Backend) forget(txid bsv.Txid) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.unproven, txid)
}
