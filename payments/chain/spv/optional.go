package spv

import (
	"context"
	"fmt"

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

// SpentBy implements chain.SpentBy.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	if s, ok := b.services.(chain.SpentBy); ok {
		return s.SpentBy(ctx, o)
	}
	return by, false, fmt.Errorf("who spends %s: %w", o, chain.ErrUnsupported)
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
