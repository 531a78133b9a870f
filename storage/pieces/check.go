package pieces

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"sync"
	"time"
)

// recheckAfter is how long a piece that was found corrupt or missing is taken
// for that without looking again, so that nobody can keep the disk busy with it.
const recheckAfter = 30 * time.Second

// checks is what this process knows of a title's pieces.
type checks struct {
	mu      sync.Mutex
	good    []uint64            // a bit for each piece: has its hash
	bad     map[int]finding     // what was wrong with it
	running map[int]*checkState // being hashed now
}

type finding struct {
	at  time.Time
	err error
}

type checkState struct {
	done chan struct{}
	// stale is set where the piece was written to in the meantime.
	stale bool
	err   error
}

func (c *checks) init(pieces int) {
	c.good = make([]uint64, (pieces+63)/64)
	c.bad = make(map[int]finding)
	c.running = make(map[int]*checkState)
}

func (c *checks) isGood(piece int) bool { return c.good[piece/64]&(1<<(piece%64)) != 0 }

// forget drops what is known of the pieces first to last.
func (c *checks) forget(first, last int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := first; i <= last; i++ {
		c.good[i/64] &^= 1 << (i % 64)
		delete(c.bad, i)
		if r := c.running[i]; r != nil {
			r.stale = true
		}
	}
}

// Good reports whether this process has seen the piece with its hash, and not
// written to it since. It never reads the disk.
func (s *Store) Good(piece int) bool {
	if piece < 0 || piece >= s.layout.NumPieces() {
		return false
	}
	s.checks.mu.Lock()
	defer s.checks.mu.Unlock()
	return s.checks.isGood(piece)
}

// Ready reports whether Check would return nil at once. It never reads the
// disk.
func (s *Store) Ready(piece int) bool {
	return s.Good(piece) || !s.opt.Verify && piece >= 0 && piece < s.layout.NumPieces()
}

// Forget makes the next Check of the piece look at the disk again. It is for
// a reader that found less there than a check had promised.
func (s *Store) Forget(piece int) {
	if piece >= 0 && piece < s.layout.NumPieces() {
		s.checks.forget(piece, piece)
	}
}

// Check reads the piece and compares its hash, unless it is known to be good.
// Callers that ask for the same piece at once wait for the same read. Errors
// are ErrCorrupt and ErrMissing (remembered for half a minute), ErrRange, the
// context's, and those of the file system. Where Options.Verify is not set it
// only says ErrRange.
func (s *Store) Check(ctx context.Context, piece int) error {
	if piece < 0 || piece >= s.layout.NumPieces() {
		return ErrRange
	}
	if !s.opt.Verify {
		return nil
	}
	c := &s.checks
	for {
		c.mu.Lock()
		if c.isGood(piece) {
			c.mu.Unlock()
			return nil
		}
		if bad, ok := c.bad[piece]; ok {
			if age := s.opt.Clock().Sub(bad.at); age >= 0 && age < recheckAfter {
				c.mu.Unlock()
				return bad.err
			}
			delete(c.bad, piece)
		}
		r := c.running[piece]
		if r == nil {
			r = &checkState{done: make(chan struct{})}
			c.running[piece] = r
			c.mu.Unlock()
			return s.lead(ctx, piece, r)
		}
		c.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		// The one who read it may have been called off, or overtaken by a
		// write: then it is not known yet, and the next one reads.
		if r.err != nil && !r.stale && !errors.Is(r.err, context.Canceled) && !errors.Is(r.err, context.DeadlineExceeded) {
			return r.err
		}
	}
}

// lead hashes the piece for itself and all who wait for r.
func (s *Store) lead(ctx context.Context, piece int, r *checkState) error {
	ok, err := s.hashIs(ctx, piece)
	c := &s.checks
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && !ok {
		err = fmt.Errorf("piece %d of %s: %w", piece, s.layout.Name, ErrCorrupt)
	}
	if !r.stale && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrMissing)) {
		c.bad[piece] = finding{s.opt.Clock(), err}
	}
	if err == nil && !r.stale {
		c.good[piece/64] |= 1 << (piece % 64)
	}
	r.err = err
	delete(c.running, piece)
	close(r.done)
	return err
}

func (s *Store) hashIs(ctx context.Context, piece int) (bool, error) {
	select {
	case s.files.hashing <- struct{}{}:
		defer func() { <-s.files.hashing }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	buf := s.files.buffers.Get().(*[]byte)
	defer s.files.buffers.Put(buf)
	h := sha1.New()
	off := int64(piece) * s.layout.PieceLength
	for left := s.layout.PieceSize(piece); left > 0; {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		p := (*buf)[:min(left, hashBuffer)]
		if _, err := s.ReadAt(p, off); err != nil {
			return false, err
		}
		h.Write(p)
		off += int64(len(p))
		left -= int64(len(p))
	}
	var sum [HashSize]byte
	h.Sum(sum[:0])
	return sum == [HashSize]byte(s.layout.Hashes[piece*HashSize:]), nil
}
