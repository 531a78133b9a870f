package headers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// batchSize is how many headers are asked for at once, singly how many are
	// asked for one by one before they are kept.
	batchSize, singly = 2000, 50
	// maxBranch bounds a branch that has not yet more work than our chain. It
	// has to be held in memory.
	maxBranch = 10_000
	// progressFrom is how many headers a Sync has to fetch to tell of it: a day
	// of them.
	progressFrom = day
)

// Sync brings the chain up to the source's, and returns the tip. What was
// checked before an error is kept, so that a Sync that is interrupted goes on
// where it was. A source that is behind, or has a branch with no more work, is
// no error.
//
// Errors are ErrAnchor while there is no beginning, ErrInvalid, ErrFuture,
// ErrDeepReorg and ErrCheckpoint for what the source has, ErrClosed, those of
// the file system, and the source's own, chain.ErrUnavailable above all. The
// tip is the one that is kept, also with an error, and zero only while there is
// no beginning.
func (c *Chain) Sync(ctx context.Context, source Source) (chain.Header, error) {
	done, err := c.enter(ctx)
	if err != nil {
		return chain.Header{}, fmt.Errorf("fetch block headers: %w", err)
	}
	defer done()
	if _, ok := c.Tip(); !ok {
		err = c.settle(ctx, source)
	}
	if err == nil {
		err = c.follow(ctx, source)
	}
	tip, _ := c.Tip()
	if err != nil {
		return tip, fmt.Errorf("fetch block headers: %w", err)
	}
	return tip, nil
}

// enter waits for its turn to change the chain.
func (c *Chain) enter(ctx context.Context) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	select {
	case c.syncing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
	}
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		<-c.syncing
		return nil, ErrClosed
	}
	return func() { <-c.syncing }, nil
}

// follow brings a chain that has a beginning up to the source's.
func (c *Chain) follow(ctx context.Context, source Source) error {
	head, err := source.Tip(ctx)
	if err != nil {
		return err
	}
	if err := c.rules.checkAlone(head); err != nil {
		return err
	}
	if own, ok := c.At(head.Height); ok && own.Hash == head.Hash {
		return nil // it has nothing that we have not
	}
	if head.Height < c.first() {
		return nil // a node that is still catching up, for one
	}
	fork, err := c.forkPoint(ctx, source, head)
	if err != nil {
		return err
	}
	b := c.branch(fork)
	total := int(int64(head.Height) - int64(fork))
	for b.tip().Height < head.Height {
		if err := c.advance(ctx, source, b, head); err != nil {
			return err
		}
		if total >= progressFrom && c.opt.Progress != nil && len(b.loose) == 0 {
			c.opt.Progress(int(b.tip().Height-fork), total)
		}
	}
	return nil
}

// first returns the height of the first header that is kept.
func (c *Chain) first() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base
}

// branch is a source's chain from the header on that it has in common with
// ours.
type branch struct {
	view  []entry        // the newest ones, up to its tip
	loose []chain.Header // above the fork; kept as soon as they have more work than ours
	fork  uint32
}

func (b *branch) tip() entry { return b.view[len(b.view)-1] }

func (c *Chain) branch(fork uint32) *branch {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := c.recent[:fork+1-c.recent[0].Height]
	return &branch{fork: fork, view: slices.Clone(view[max(0, len(view)-window):])}
}

// advance fetches the next headers of the branch, checks them and keeps what
// can be kept.
func (c *Chain) advance(ctx context.Context, source Source, b *branch, head chain.Header) error {
	from := b.tip().Height + 1
	got, fetchErr := c.fetch(ctx, source, from, int(min(head.Height-from+1, batchSize)), b.tip().Header, head)
	now := c.opt.Clock()
	var err error
	for _, h := range got {
		if h.Prev != b.tip().Hash || h.Height != b.tip().Height+1 {
			err = fmt.Errorf("block %d: %w", h.Height, ErrMoved)
			break
		}
		if err = c.rules.check(b.view[max(0, len(b.view)-window):], h, now); err != nil {
			break
		}
		if cp := c.opt.Checkpoint; !cp.IsZero() && h.Height == cp.Height && h.Hash != cp.Hash {
			err = fmt.Errorf("block %d is %s, not %s: %w", h.Height, h.Hash, cp.Hash, ErrCheckpoint)
			break
		}
		b.view = append(b.view, after(b.tip().work, h))
		b.loose = append(b.loose, h)
	}
	if n := len(b.view) - window; n > 0 {
		b.view = slices.Delete(b.view, 0, n)
	}
	err = errors.Join(err, fetchErr)
	if !c.wins(b) {
		if err == nil && len(b.loose) >= maxBranch {
			err = fmt.Errorf("%d headers with less work than those of our chain: %w", len(b.loose), ErrInvalid)
		}
		return err
	}
	if len(b.loose) > 0 {
		err = errors.Join(err, c.add(b.fork, b.loose))
		b.fork, b.loose = b.tip().Height, nil
	}
	return err
}

// wins reports whether the branch has more work than our chain, or is it. The
// works count from the same header, since the branch's begin in our chain.
func (c *Chain) wins(b *branch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.recent[len(c.recent)-1]
	return b.fork == own.Height || b.tip().work.Cmp(own.work) > 0
}

// fetch asks for up to n headers from this height on. Where some came before an
// error, both are returned.
func (c *Chain) fetch(ctx context.Context, source Source, from uint32, n int, parent, head chain.Header) ([]chain.Header, error) {
	if head.Prev == parent.Hash {
		return []chain.Header{head}, nil // no need to ask
	}
	if batch, ok := source.(Batch); ok && n > 1 {
		got, err := batch.Headers(ctx, from, n)
		switch {
		case err == nil && (len(got) == 0 || len(got) > n):
			return nil, fmt.Errorf("%d headers instead of %d: %w", len(got), n, ErrInvalid)
		case !errors.Is(err, chain.ErrUnsupported):
			return got, gone(err)
		}
	}
	var got []chain.Header
	for height := from; len(got) < min(n, singly); height++ {
		h, err := source.Header(ctx, height)
		if err != nil {
			return got, gone(err)
		}
		got = append(got, h)
	}
	return got, nil
}

// gone is for a header below the source's own tip.
func gone(err error) error {
	if errors.Is(err, chain.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrMoved, err)
	}
	return err
}

// forkPoint finds the newest header that a source with this tip shares with our
// chain. It asks for a handful of headers: first near the tip, where the fork
// always is.
func (c *Chain) forkPoint(ctx context.Context, source Source, head chain.Header) (uint32, error) {
	tip, _ := c.Tip()
	if head.Prev == tip.Hash {
		return tip.Height, nil
	}
	lowest := c.lowestFork(tip.Height)
	same := func(height uint32) (bool, error) {
		own, ok := c.At(height)
		if !ok {
			return false, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
		}
		h, err := source.Header(ctx, height)
		return err == nil && h.Hash == own.Hash, gone(err)
	}
	if head.Height < lowest {
		return 0, fmt.Errorf("block %d is %s there: %w", head.Height, head.Hash, ErrDeepReorg)
	}
	// Between low, which is the same or not yet known, and high, which is not.
	low, high := min(tip.Height, head.Height), min(tip.Height, head.Height)+1
	for step := uint32(1); ; step *= 2 {
		ok, err := same(low)
		if err != nil {
			return 0, err
		}
		if ok {
			break
		}
		if low == lowest {
			return 0, fmt.Errorf("block %d is another one there: %w", low, ErrDeepReorg)
		}
		high = low
		low -= min(step, low-lowest)
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		ok, err := same(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// lowestFork is the lowest header that a reorganisation may leave as it is. The
// difficulty rule must hold for all that it brings.
func (c *Chain) lowestFork(tip uint32) uint32 {
	c.mu.Lock()
	first := c.recent[0].Height
	c.mu.Unlock()
	if first > 0 {
		first += window - 1
	}
	if cp := c.opt.Checkpoint; !cp.IsZero() && tip >= cp.Height {
		first = max(first, cp.Height)
	}
	if depth := uint32(c.opt.MaxReorg); tip > depth {
		first = max(first, tip-depth)
	}
	return min(first, tip)
}
