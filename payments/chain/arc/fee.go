package arc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	freshPolicy = time.Minute    // a policy of this age is not asked for again
	oldPolicy   = 24 * time.Hour // one of this age is not used, whatever happens
)

// FeeRate implements chain.Backend: what the service's policy says, rounded up,
// within Options.FeeFloor and FeeCeiling. A policy is kept for a minute, and for a
// day where the service does not answer.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("ask ARC for its fee: %w: %w", chain.ErrUnavailable, err)
	}
	now := b.clock()
	b.mu.Lock()
	rate, age := b.rate, now.Sub(b.asked)
	b.mu.Unlock()
	if rate != 0 && age >= 0 && age < freshPolicy {
		return b.bounded(rate), nil
	}
	fresh, err := b.policy(ctx)
	if err != nil {
		if rate != 0 && age >= 0 && age < oldPolicy && ctx.Err() == nil {
			return b.bounded(rate), nil
		}
		return 0, fmt.Errorf("ask ARC for its fee: %w", err)
	}
	b.mu.Lock()
	b.rate, b.asked = fresh, now
	b.mu.Unlock()
	return b.bounded(fresh), nil
}

func (b *Backend) bounded(rate money.FeeRate) money.FeeRate {
	if b.most > 0 {
		rate = min(rate, b.most)
	}
	return max(rate, b.floor)
}

// policy asks for the fee, at least 1.
func (b *Backend) policy(ctx context.Context) (money.FeeRate, error) {
	a, err := b.call(ctx, request{path: "/policy"})
	if errors.Is(err, errGone) {
		return chain.DefaultFeeRate, nil // an Arcade without a policy
	}
	if err != nil {
		return 0, err
	}
	if a.code != 200 {
		return 0, fmt.Errorf("%s: %w", codeText(a.code), ErrProtocol)
	}
	return parsePolicy(a)
}

func parsePolicy(a answer) (money.FeeRate, error) {
	var body struct {
		Policy *struct {
			MiningFee *struct{ Satoshis, Bytes uint64 }
		}
	}
	if err := a.decode(&body); err != nil {
		return 0, err
	}
	if body.Policy == nil {
		return 0, fmt.Errorf("a policy without a policy: %w", ErrProtocol)
	}
	fee := body.Policy.MiningFee
	// Nobody mines for nothing; who asks for nothing does not say.
	if fee == nil || fee.Satoshis == 0 {
		return chain.DefaultFeeRate, nil
	}
	const most = uint64(money.MaxFeeRate)
	if fee.Bytes == 0 || fee.Satoshis > most || fee.Bytes > 1<<32 {
		return 0, fmt.Errorf("a fee of %d satoshis for %d bytes: %w", fee.Satoshis, fee.Bytes, ErrProtocol)
	}
	rate := (fee.Satoshis*1000 + fee.Bytes - 1) / fee.Bytes
	if rate > most {
		return 0, fmt.Errorf("a fee of %d satoshis for %d bytes: %w", fee.Satoshis, fee.Bytes, ErrProtocol)
	}
	return money.FeeRate(rate), nil
}
