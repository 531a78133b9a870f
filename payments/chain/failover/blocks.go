package failover

import (
	"context"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Tip implements chain.Backend: what the first service says that answers, even
// where it is behind the others.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	return ask(ctx, b, "ask for the tip", func(ctx context.Context, s chain.Backend) (chain.Header, error) {
		return s.Tip(ctx)
	})
}

// Header implements chain.Backend.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	question := fmt.Sprintf("ask for block %d", height)
	return ask(ctx, b, question, func(ctx context.Context, s chain.Backend) (chain.Header, error) {
		h, err := s.Header(ctx, height)
		if err == nil && h.Height != height {
			err = fmt.Errorf("it sent block %d: %w", h.Height, errLie)
		}
		return h, err
	})
}

// errLie says that an answer contradicts itself or the question.
var errLie = fmt.Errorf("a wrong answer: %w", chain.ErrUnavailable)

// Headers implements chain.HeaderRange. A service that does not hand out many at
// once is asked for one.
func (b *Backend) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	if n <= 0 {
		return nil, nil
	}
	question := fmt.Sprintf("ask for %d blocks from %d on", n, from)
	return ask(ctx, b, question, func(ctx context.Context, s chain.Backend) ([]chain.Header, error) {
		headers, err := headersOf(ctx, s, from, n)
		if err == nil && (len(headers) > n || len(headers) == 0) {
			err = fmt.Errorf("it sent %d headers: %w", len(headers), errLie)
		}
		for i, h := range headers {
			if err == nil && uint64(h.Height) != uint64(from)+uint64(i) {
				err = fmt.Errorf("it sent block %d: %w", h.Height, errLie)
			}
		}
		return headers, err
	})
}

func headersOf(ctx context.Context, s chain.Backend, from uint32, n int) ([]chain.Header, error) {
	if many, ok := s.(chain.HeaderRange); ok {
		headers, err := many.Headers(ctx, from, n)
		if !errors.Is(err, chain.ErrUnsupported) {
			return headers, err
		}
	}
	h, err := s.Header(ctx, from)
	return []chain.Header{h}, err
}

// FeeRate implements chain.Backend.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	const question = "ask for the fee"
	silent := false
	rate, err := ask(ctx, b, question, func(ctx context.Context, s chain.Backend) (money.FeeRate, error) {
		rate, err := s.FeeRate(ctx)
		if err == nil && (rate <= 0 || rate > money.MaxFeeRate) {
			err = fmt.Errorf("%d satoshis per kilobyte: %w", rate, errLie)
		}
		silent = silent || errors.Is(err, chain.ErrUnsupported)
		return rate, err
	})
	if err != nil && silent && ctx.Err() == nil {
		return chain.DefaultFeeRate, nil // one of them broadcasts without telling what it wants
	}
	return rate, err
}

// Consolidation implements chain.Consolidator.
func (b *Backend) Consolidation(ctx context.Context) (chain.Consolidation, error) {
	const question = "ask for the rule of free consolidations"
	return ask(ctx, b, question, func(ctx context.Context, s chain.Backend) (chain.Consolidation, error) {
		c, ok := s.(chain.Consolidator)
		if !ok {
			return chain.Consolidation{}, chain.ErrUnsupported
		}
		return c.Consolidation(ctx)
	})
}
