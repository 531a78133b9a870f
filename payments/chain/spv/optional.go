package spv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

var (
	_ chain.BulkUnspent  = (*Backend)(nil)
	_ chain.BulkUsed     = (*Backend)(nil)
	_ chain.SpentBy      = (*Backend)(nil)
	_ chain.HeaderRange  = (*Backend)(nil)
	_ chain.Prover       = (*Backend)(nil)
	_ chain.Consolidator = (*Backend)(nil)
	_ chain.Watcher      = (*Backend)(nil)
)

// UsedBulk implements chain.BulkUsed.
func (b *Backend) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	return chain.UsedOf(ctx, b.services, scripts)
}

// SpentBy implements chain.SpentBy. ErrForged, which is chain.ErrUnavailable too,
// where what is named does not spend the output.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	s, ok := b.services.(chain.SpentBy)
	if !ok {
		return by, false, fmt.Errorf("who spends %s: %w", o, chain.ErrUnsupported)
	}
	by, spent, err = s.SpentBy(ctx, o)
	if err == nil && spent && !by.IsZero() {
		err = b.checkSpender(ctx, o, by)
	}
	if err != nil {
		return bsv.Txid{}, false, err
	}
	return by, spent, nil
}

// checkSpender returns ErrForged where a transaction does not spend an output, or
// has neither a signature that holds nor a block.
func (b *Backend) checkSpender(ctx context.Context, o bsv.Outpoint, by bsv.Txid) error {
	forged := func(why string) error {
		return fmt.Errorf("%s as the spender of %s: %s: %w: %w", by, o, why, chain.ErrUnavailable, ErrForged)
	}
	tx, err := b.RawTx(ctx, by)
	switch {
	case errors.Is(err, chain.ErrNotFound):
		return forged("nobody knows it")
	case err != nil:
		return fmt.Errorf("what spends %s: %w", o, err)
	}
	at := slices.IndexFunc(tx.Inputs, func(in bsv.Input) bool { return in.Prev == o })
	if at < 0 {
		return forged("it spends others")
	}
	made, err := b.RawTx(ctx, o.Txid)
	switch {
	case err == nil && int64(o.Index) >= int64(len(made.Outputs)):
		return forged("there is no such output")
	case err == nil && bsv.VerifyInput(tx, at, made.Outputs[o.Index]) == nil:
		return nil
	case err != nil && !errors.Is(err, chain.ErrNotFound):
		return fmt.Errorf("what made %s: %w", o, err)
	}
	// Somebody may sign in a way that is not ours.
	if s, err := b.Status(ctx, by); err != nil || s.State != chain.Mined {
		return forged("its signature does not hold, and no block has it")
	}
	return nil
}

// Consolidation implements chain.Consolidator.
func (b *Backend) Consolidation(ctx context.Context) (chain.Consolidation, error) {
	if c, ok := b.services.(chain.Consolidator); ok {
		return c.Consolidation(ctx)
	}
	return chain.Consolidation{}, fmt.Errorf("free consolidation: %w", chain.ErrUnsupported)
}

// Watch implements chain.Watcher.
func (b *Backend) Watch(ctx context.Context, changed func(bsv.Txid)) error {
	if w, ok := b.services.(chain.Watcher); ok {
		return w.Watch(ctx, changed)
	}
	return fmt.Errorf("watch transactions: %w", chain.ErrUnsupported)
}

// maxHeaders bounds an answer of Headers.
const maxHeaders = 2000

// Headers implements chain.HeaderRange from the header chain.
func (b *Backend) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	first, err := b.Header(ctx, from)
	if err != nil {
		return nil, err
	}
	hs := []chain.Header{first}
	for len(hs) < min(n, maxHeaders) {
		h, ok := b.headers.At(from + uint32(len(hs)))
		if !ok || h.Prev != hs[len(hs)-1].Hash { // the tip, or a reorganisation meanwhile
			break
		}
		hs = append(hs, h)
	}
	return hs, nil
}
