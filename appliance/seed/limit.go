package seed

import (
	"context"
	"sync"
	"time"
)

// limiter spaces what all connections send to a rate. Everybody gets a time of
// its own in the order of asking.
type limiter struct {
	rate  int64 // bytes a second, above zero
	clock func() time.Time

	mu   sync.Mutex
	next time.Time // when all that was granted has had its time
}

// burst is how long a limiter that was not used may make up for.
const burst = 100 * time.Millisecond

// reserve takes n bytes and returns how long to wait before sending them.
func (l *limiter) reserve(n int) time.Duration {
	now := l.clock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if earliest := now.Add(-burst); l.next.Before(earliest) {
		l.next = earliest
	}
	wait := l.next.Sub(now)
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return wait
}

// Wait returns when n bytes may be sent, or with the context's error.
func (l *limiter) Wait(ctx context.Context, n int) error {
	wait := l.reserve(n)
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
