package seed

import (
	"context"
	"time"
)

// limiter spaces what all connections send to a rate. They take turns in the
// order of asking, and one that leaves while it waits has used nothing up.
type limiter struct {
	rate  int64 // bytes a second, above zero
	clock func() time.Time

	turn chan struct{} // holds a token while somebody has its turn
	next time.Time     // when all that was sent has had its time; who has the turn owns it
}

// burst is how long a limiter that was not used may make up for.
const burst = 100 * time.Millisecond

func newLimiter(rate int64, clock func() time.Time) *limiter {
	return &limiter{rate: rate, clock: clock, turn: make(chan struct{}, 1)}
}

// Wait returns when n bytes may be sent, or with the context's error.
func (l *limiter) Wait(ctx context.Context, n int) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	now := l.clock()
	if earliest := now.Add(-burst); l.next.Before(earliest) {
		l.next = earliest
	}
	if wait := l.next.Sub(now); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return nil
}
