package headers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"

	"github.com/bitcdn/bitcdn/payments/chain"
)

// depthOfAnchor is how far below the services' tip the chain begins, so that it
// does not begin in a block that is about to be replaced.
const depthOfAnchor = 6

// beginning is an anchor and what has been fetched of the headers under it, the
// highest first. It outlasts a Sync that is interrupted.
type beginning struct {
	anchor chain.Header
	under  []chain.Header
}

// settle finds the anchor, fetches what is under it and begins the chain.
func (c *Chain) settle(ctx context.Context, source Source) error {
	if c.pending == nil {
		anchor, err := c.findAnchor(ctx, source)
		if err != nil {
			return err
		}
		c.pending = &beginning{anchor: anchor}
	}
	// The links to the anchor prove what comes, whoever gives it.
	var errs []error
	for _, s := range append([]Source{source}, c.opt.Sources...) {
		err := c.fetchUnder(ctx, s, c.pending)
		if err == nil {
			under := slices.Clone(c.pending.under)
			slices.Reverse(under)
			if err = c.begin(c.pending.anchor, under); err == nil {
				c.pending = nil
			}
			return err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if !slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, ErrInvalid) }) {
		c.pending = nil // all have another chain by now: its anchor was replaced
	}
	return errors.Join(errs...)
}

func (c *Chain) findAnchor(ctx context.Context, source Source) (chain.Header, error) {
	cp := c.opt.Checkpoint
	if cp.IsZero() {
		return c.agreeOnAnchor(ctx)
	}
	var errs []error
	for _, s := range append([]Source{source}, c.opt.Sources...) {
		h, err := s.Header(ctx, cp.Height)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case h.Hash != cp.Hash || h.Height != cp.Height:
			errs = append(errs, fmt.Errorf("block %d is %s, not %s: %w", cp.Height, h.Hash, cp.Hash, ErrCheckpoint))
			continue
		}
		if err := c.rules.checkAlone(h); err != nil {
			errs = append(errs, err)
			continue
		}
		return h, nil
	}
	return chain.Header{}, errors.Join(errs...)
}

// agreeOnAnchor asks the Sources for the header six below the highest tip that
// enough of them have.
func (c *Chain) agreeOnAnchor(ctx context.Context) (chain.Header, error) {
	tips, errs := c.ask(ctx, func(s Source) (chain.Header, error) { return s.Tip(ctx) })
	if len(tips) < c.opt.Agree {
		return chain.Header{}, fmt.Errorf("%d of %d services give their tip, %d are needed: %w", len(tips), len(c.opt.Sources), c.opt.Agree, errors.Join(append(errs, ErrAnchor)...))
	}
	slices.SortFunc(tips, func(a, b chain.Header) int { return cmp.Compare(b.Height, a.Height) })
	height := tips[c.opt.Agree-1].Height
	if height < depthOfAnchor || c.rules.difficulty && height-depthOfAnchor <= c.rules.since {
		return chain.Header{}, fmt.Errorf("the services are at block %d: %w", height, ErrAnchor)
	}
	h, err := c.agreeOn(ctx, height-depthOfAnchor)
	if err == nil {
		if err = c.rules.checkAnchor(h); err != nil {
			err = fmt.Errorf("%w: %w", err, ErrAnchor)
		}
	}
	return h, err
}

// agreeOn returns the header at height that all Sources give that know it,
// where these are enough.
func (c *Chain) agreeOn(ctx context.Context, height uint32) (chain.Header, error) {
	hs, errs := c.ask(ctx, func(s Source) (chain.Header, error) {
		h, err := s.Header(ctx, height)
		if err == nil && h.Height != height {
			err = fmt.Errorf("block %d instead of %d: %w", h.Height, height, ErrInvalid)
		}
		return h, err
	})
	for _, h := range hs {
		if h.Hash != hs[0].Hash {
			return chain.Header{}, fmt.Errorf("block %d is %s and %s: %w", height, hs[0].Hash, h.Hash, ErrAnchor)
		}
	}
	if len(hs) < c.opt.Agree {
		return chain.Header{}, fmt.Errorf("%d of %d services have block %d, %d are needed: %w", len(hs), len(c.opt.Sources), height, c.opt.Agree, errors.Join(append(errs, ErrAnchor)...))
	}
	return hs[0], nil
}

// ask asks all Sources at once. A header that has no work is an error.
func (c *Chain) ask(ctx context.Context, question func(Source) (chain.Header, error)) (hs []chain.Header, errs []error) {
	answers := make([]chain.Header, len(c.opt.Sources))
	failed := make([]error, len(c.opt.Sources))
	var wg sync.WaitGroup
	for i, s := range c.opt.Sources {
		wg.Go(func() {
			answers[i], failed[i] = question(s)
			if failed[i] == nil {
				failed[i] = c.rules.checkAlone(answers[i])
			}
		})
	}
	wg.Wait()
	for i, err := range failed {
		if err != nil {
			errs = append(errs, err)
		} else {
			hs = append(hs, answers[i])
		}
	}
	return hs, errs
}

// fetchUnder goes down from the anchor, link by link.
func (c *Chain) fetchUnder(ctx context.Context, source Source, b *beginning) error {
	want := int(min(below, b.anchor.Height))
	batch, many := source.(Batch)
	most := batchSize
	for len(b.under) < want {
		next := b.anchor
		if n := len(b.under); n > 0 {
			next = b.under[n-1]
		}
		n := min(most, want-len(b.under))
		var got []chain.Header
		err := chain.ErrUnsupported
		if many {
			got, err = batch.Headers(ctx, next.Height-uint32(n), n)
		}
		if errors.Is(err, chain.ErrUnsupported) {
			many = false
			got = make([]chain.Header, 1)
			got[0], err = source.Header(ctx, next.Height-1)
		}
		if err != nil {
			return gone(err)
		}
		if len(got) == 0 || len(got) > n {
			return fmt.Errorf("%d headers instead of %d: %w", len(got), n, ErrInvalid)
		}
		if len(got) < n && got[len(got)-1].Height+1 != next.Height { // its own limit is lower
			most = len(got)
			continue
		}
		for _, h := range slices.Backward(got) {
			if h.Hash != next.Prev || h.Height+1 != next.Height {
				return fmt.Errorf("block %d is not below block %d %s: %w", h.Height, next.Height, next.Hash, ErrInvalid)
			}
			if err := c.rules.checkAlone(h); err != nil {
				return err
			}
			b.under = append(b.under, h)
			next = h
		}
		if c.opt.Progress != nil {
			c.opt.Progress(len(b.under), want)
		}
	}
	return nil
}

// Old returns a header from below what is kept, for proofs of what was mined
// before the chain began: a wallet that is restored has such coins. It is taken
// where it links to a known one above it, or where as many Sources as have to
// agree give the same and its work is at least a sixteenth of the anchor's. The
// newest 1,024 are remembered. A header that is kept is returned as At does.
//
// Errors are chain.ErrNotFound above the tip, ErrAnchor where there is no
// beginning or no agreement, ErrInvalid and those of the source.
func (c *Chain) Old(ctx context.Context, source Source, height uint32) (chain.Header, error) {
	if h, ok := c.known(height); ok {
		return h, nil
	}
	tip, ok := c.Tip()
	if !ok {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, ErrAnchor)
	}
	if height > tip.Height {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	h, err := c.fetchOld(ctx, source, height)
	if err != nil {
		return chain.Header{}, fmt.Errorf("header of block %d, before the chain's first: %w", height, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.old[height]; !ok {
		if len(c.oldest) == maxOld {
			delete(c.old, c.oldest[0])
			c.oldest = slices.Delete(c.oldest, 0, 1)
		}
		c.old[height] = h
		c.oldest = append(c.oldest, height)
	}
	return h, nil
}

// known is At, and Old as far as it remembers.
func (c *Chain) known(height uint32) (chain.Header, bool) {
	c.mu.Lock()
	h, ok := c.old[height]
	c.mu.Unlock()
	if ok {
		return h, true
	}
	return c.At(height)
}

func (c *Chain) fetchOld(ctx context.Context, source Source, height uint32) (chain.Header, error) {
	if upper, ok := c.known(height + 1); ok {
		return c.fetchLower(ctx, source, upper)
	}
	h, err := c.agreeOn(ctx, height)
	if err != nil {
		return chain.Header{}, err
	}
	if c.rules.easyGaps {
		return h, nil // any of its blocks may be easy
	}
	anchor, _ := c.Anchor()
	easiest := new(big.Int).Mul(targetOf(anchor.Bits), big.NewInt(oldRatio))
	if targetOf(h.Bits).Cmp(easiest) > 0 {
		return chain.Header{}, fmt.Errorf("bits %08x after %08x in the anchor: %w", h.Bits, anchor.Bits, ErrInvalid)
	}
	return h, nil
}

// fetchLower returns the header below a known one, whose link proves it, from
// the first that has it.
func (c *Chain) fetchLower(ctx context.Context, source Source, upper chain.Header) (chain.Header, error) {
	var errs []error
	for _, s := range append([]Source{source}, c.opt.Sources...) {
		h, err := s.Header(ctx, upper.Height-1)
		if err == nil && (h.Hash != upper.Prev || h.Height+1 != upper.Height) {
			err = fmt.Errorf("%s is not below block %d: %w", h.Hash, upper.Height, ErrInvalid)
		}
		if err == nil {
			err = c.rules.checkAlone(h)
		}
		if err == nil {
			return h, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return chain.Header{}, errors.Join(errs...)
}
