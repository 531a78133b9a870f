package whatsonchain

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// longPause is the longest that a request waits because the service asked
	// for it. Above that it fails, so that another service can be asked.
	longPause = 5 * time.Second
	// Pauses after refusals that do not say how long to wait.
	firstPause, lastPause = time.Second, time.Minute
	// maxPause bounds what the service may ask for.
	maxPause = 10 * time.Minute
)

// pace keeps the requests below a rate. One that gives up waiting leaves no
// gap, since only the first of the queue counts.
type pace struct {
	clock    func() time.Time
	interval time.Duration
	burst    int
	turn     chan struct{} // held by the first of the queue; channels are fair

	mu       sync.Mutex
	next     time.Time // when the next request is due by the rate alone
	paused   time.Time // nothing before that
	refusals int       // in a row
}

func newPace(rate float64, burst int, clock func() time.Time) *pace {
	return &pace{
		clock:    clock,
		interval: time.Duration(float64(time.Second) / rate),
		burst:    burst,
		turn:     make(chan struct{}, 1),
	}
}

// wait returns when a request may be made. Errors are ErrUnavailable: of a
// context that ends before, and of a pause that is too long.
func (p *pace) wait(ctx context.Context) error {
	// Of several ready cases, select takes any.
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
	}
	for {
		d, paused := p.take()
		switch {
		case d <= 0:
			return nil
		case paused && d > longPause:
			return fmt.Errorf("%w: it asks for a pause of %s", chain.ErrUnavailable, d.Round(time.Second))
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
		}
	}
}

// take takes a place, or returns how long there is none and whether that is
// because of a pause.
func (p *pace) take() (d time.Duration, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.clock()
	if d := p.paused.Sub(now); d > 0 {
		return d, true
	}
	if rested := now.Add(-time.Duration(p.burst-1) * p.interval); p.next.Before(rested) {
		p.next = rested
	}
	if d := p.next.Sub(now); d > 0 {
		return d, false
	}
	p.next = p.next.Add(p.interval)
	return 0, false
}

// refused notes that the service had too many requests; after is what it asked
// for, 0 where it did not say. It returns the pause.
func (p *pace) refused(after time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if after <= 0 {
		after = min(firstPause<<min(p.refusals, 16), lastPause)
	}
	after = min(after, maxPause)
	p.refusals++
	now := p.clock()
	if until := now.Add(after); until.After(p.paused) {
		p.paused = until
	}
	return p.paused.Sub(now)
}

// answered notes that the service answers again.
func (p *pace) answered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusals = 0
}
