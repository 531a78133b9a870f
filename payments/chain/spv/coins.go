package spv

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Unspent implements chain.Backend. A wallet's first look at many coins asks up
// to two questions for each transaction; what ctx does not leave time for
// begins where it ended, since the proofs are remembered.
func (b *Backend) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	coins, err := b.services.Unspent(ctx, script)
	if err != nil {
		return nil, err
	}
	return b.checkCoins(ctx, coins)
}

// UnspentBulk implements chain.BulkUnspent.
func (b *Backend) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	bulk, ok := b.services.(chain.BulkUnspent)
	if !ok {
		return nil, fmt.Errorf("unspent outputs of many scripts: %w", chain.ErrUnsupported)
	}
	all, err := bulk.UnspentBulk(ctx, scripts)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i], err = b.checkCoins(ctx, all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

const (
	// maxFailures is how many proofs may fail before those of the other coins of
	// an answer are not asked for: a service that names coins without end would
	// keep its caller for days.
	maxFailures = 16
	// maxUnproven is how many coins without a proof are taken from an answer.
	maxUnproven = 1000
)

// checkCoins replaces heights by proven ones and leaves out what cannot be.
func (b *Backend) checkCoins(ctx context.Context, coins []chain.Coin) ([]chain.Coin, error) {
	var checked []chain.Coin
	failures, unproven := 0, 0
	for _, c := range coins {
		if failures >= maxFailures && b.holds(c.Outpoint.Txid) == nil {
			c.Height = 0
		}
		asked := c.Height != 0 && !b.triedLately(c.Outpoint.Txid)
		height, err := b.checkCoin(ctx, c)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("proof of %s: %w: %w", c.Outpoint, chain.ErrUnavailable, ctx.Err())
		}
		if errors.Is(err, ErrForged) {
			b.opt.Log.Warn("the chain service names a coin that does not exist", "outpoint", c.Outpoint)
			continue
		}
		c.Height = height
		if asked && height == 0 {
			failures++
		}
		if height == 0 {
			if unproven++; c.Coinbase || unproven > maxUnproven {
				continue
			}
		}
		checked = append(checked, c)
	}
	slices.SortFunc(checked, chain.Compare)
	return checked, nil
}

// checkCoin returns the proven height of a coin, or 0. ErrForged where its
// transaction has no such output.
func (b *Backend) checkCoin(ctx context.Context, c chain.Coin) (uint32, error) {
	txid := c.Outpoint.Txid
	p := b.holds(txid)
	var tx *bsv.Tx
	if p == nil {
		if c.Height == 0 {
			return 0, nil
		}
		if b.triedLately(txid) {
			return 0, nil
		}
		var err error
		if p, tx, err = b.proveCoin(ctx, c); err != nil {
			if ctx.Err() == nil {
				b.doubt(txid, err)
			}
			return 0, nil
		}
	}
	digest := digestOf(c.Output)
	b.mu.Lock()
	known, ok := p.outputs[c.Outpoint.Index]
	b.mu.Unlock()
	if ok && known == digest {
		return p.proof.Height, nil
	}
	if tx == nil {
		var err error
		if tx, err = b.RawTx(ctx, txid); err != nil {
			return 0, nil
		}
	}
	if int64(c.Outpoint.Index) >= int64(len(tx.Outputs)) || digestOf(tx.Outputs[c.Outpoint.Index]) != digest {
		return 0, fmt.Errorf("output %s: %w", c.Outpoint, ErrForged)
	}
	b.mu.Lock()
	p.outputs[c.Outpoint.Index] = digest
	b.mu.Unlock()
	return p.proof.Height, nil
}

// proveCoin asks for the proof alone where that can be done.
func (b *Backend) proveCoin(ctx context.Context, c chain.Coin) (*proven, *bsv.Tx, error) {
	claim := chain.Status{State: chain.Mined, Height: c.Height}
	proof, err := b.askProof(ctx, c.Outpoint.Txid)
	if err == nil {
		claim.Proof = proof
		return b.prove(ctx, c.Outpoint.Txid, claim)
	}
	if !errors.Is(err, chain.ErrUnsupported) && err != errNoProof {
		return nil, nil, err
	}
	said, err := b.services.Status(ctx, c.Outpoint.Txid)
	if err != nil {
		return nil, nil, err
	}
	if said.State != chain.Mined || said.Proof == nil {
		return nil, nil, errNoProof
	}
	return b.prove(ctx, c.Outpoint.Txid, said)
}

// triedLately reports whether a proof has just failed. A wallet looks at its
// coins often, and one whose proof never comes must not keep others waiting.
func (b *Backend) triedLately(txid bsv.Txid) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.unproven[txid]
	since := b.opt.Clock().Sub(f.at)
	return ok && since >= 0 && since < min(retry<<min(f.times-1, 16), lastRetry)
}

func digestOf(o bsv.Output) [32]byte {
	return sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, uint64(o.Value)), o.Script...))
}
