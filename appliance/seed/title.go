package seed

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
)

// title is one that is awake, or being woken.
type title struct {
	ih    [20]byte
	ready chan struct{} // closed when awake or err is set
	awake *Awake
	err   error
	wire  peerwire.Title
	sent  atomic.Int64

	// Of Server.mu.
	users    int
	since    time.Time    // of the last user's leaving
	reported map[int]bool // pieces that were reported as unservable
}

// wake returns the title, which the caller lets go with release.
func (s *Server) wake(ctx context.Context, ih [20]byte) (*title, error) {
	s.mu.Lock()
	t := s.titles[ih]
	if t == nil {
		t = &title{ih: ih, ready: make(chan struct{}), users: 1}
		s.titles[ih] = t
		s.mu.Unlock()
		s.load(ctx, t)
	} else {
		t.users++
		s.mu.Unlock()
		select {
		case <-t.ready:
		case <-ctx.Done():
			s.release(t)
			return nil, ctx.Err()
		}
	}
	if t.err != nil {
		s.release(t)
		return nil, t.err
	}
	return t, nil
}

func (s *Server) load(ctx context.Context, t *title) {
	defer close(t.ready)
	if t.awake, t.err = s.opt.Catalogue.Wake(ctx, t.ih); t.err != nil {
		s.mu.Lock()
		delete(s.titles, t.ih) // the next peer tries again
		s.mu.Unlock()
		return
	}
	l := t.awake.Store.Layout()
	t.wire = peerwire.Title{
		InfoHash:    t.ih,
		Length:      t.awake.Store.Length(),
		PieceLength: l.PieceLength,
		Info:        t.awake.Info,
		Have:        t.awake.Store.Have(),
		Source:      t.awake.Store,
		Pay:         s.opt.Payments != nil && !t.awake.free(),
	}
	if s.limit != nil {
		t.wire.Limit = s.limit
	}
}

func (s *Server) release(t *title) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.users--
	t.since = s.opt.Clock()
}

// sleepIdle puts titles to sleep that have had no peer since before; all that
// have no peer where before is zero.
func (s *Server) sleepIdle(before time.Time) {
	var idle []*title
	s.mu.Lock()
	for ih, t := range s.titles {
		if t.users == 0 && (before.IsZero() || !t.since.After(before)) {
			delete(s.titles, ih)
			idle = append(idle, t)
			s.keepCount(t)
		}
	}
	s.mu.Unlock()
	for _, t := range idle {
		s.opt.Catalogue.Sleep(t.ih, t.awake)
	}
}

// maxReported bounds the list of a title's pieces that cannot be sent.
const maxReported = 1024

func (s *Server) unservable(t *title, piece int, err error) {
	s.mu.Lock()
	known := t.reported[piece] || len(t.reported) >= maxReported
	if !known {
		if t.reported == nil {
			t.reported = make(map[int]bool)
		}
		t.reported[piece] = true
	}
	s.mu.Unlock()
	if known {
		return
	}
	s.opt.Log.Warn("piece cannot be served", "title", t.awake.Title.Name, "piece", piece, "err", err)
	if s.opt.Unservable != nil {
		s.opt.Unservable(t.ih, piece, err)
	}
}
