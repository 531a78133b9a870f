package box

import (
	"context"
	"sync/atomic"
	"time"
)

// rateMeter knows how fast a total grows, as a mean over some seconds.
type rateMeter struct {
	clock func() time.Time
	rate  atomic.Int64 // a second
}

const rateInterval = 5 * time.Second

func newRateMeter(clock func() time.Time) *rateMeter { return &rateMeter{clock: clock} }

func (m *rateMeter) run(ctx context.Context, total func() int64) error {
	ticker := time.NewTicker(rateInterval)
	defer ticker.Stop()
	last, at := total(), m.clock()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n, now := total(), m.clock()
			if d := now.Sub(at).Seconds(); d > 0 {
				m.rate.Store(int64(float64(n-last) / d))
			}
			last, at = n, now
		}
	}
}
