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
	since    time.Time    // of the last user's leaving, or of the failure to wake
	failed   bool         // it could not be woken
	dropped  bool         // no longer in Server.titles
	reported map[int]bool // pieces that were reported as unservable
}

const (
	// maxIdle is how many titles without a peer stay awake. Each holds its
	// metadata and hashes, and a peer that tries one title after the other must
	// not fill the memory with them.
	maxIdle = 16
	// maxWaking is how many titles are loaded at a time.
	maxWaking = 2
	// wakeAgain is how long a title that could not be woken is left alone.
	wakeAgain = 10 * time.Second
)

// wake returns the title, which the caller lets go with release.
func (s *Server) wake(ctx context.Context, ih [20]byte) (*title, error) {
	s.mu.Lock()
	t := s.titles[ih]
	if t == nil || t.failed && s.opt.Clock().Sub(t.since) >= wakeAgain {
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
	select {
	case s.waking <- struct{}{}:
		t.awake, t.err = s.opt.Catalogue.Wake(ctx, t.ih)
		<-s.waking
	case <-ctx.Done():
		t.err = ctx.Err()
	}
	if t.err != nil {
		s.mu.Lock()
		t.failed, t.since = true, s.opt.Clock()
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
	t.users--
	var asleep *title
	switch {
	case t.users > 0 || t.failed:
	case t.dropped:
		asleep = t
	default:
		t.since = s.opt.Clock()
		asleep = s.surplus()
	}
	if asleep != nil {
		s.takeOut(asleep)
	}
	s.mu.Unlock()
	if asleep != nil {
		s.opt.Catalogue.Sleep(asleep.ih, asleep.awake)
	}
}

// surplus is the title that has been without a peer for longest, where there
// are more than maxIdle. s.mu is held.
func (s *Server) surplus() *title {
	var oldest *title
	n := 0
	for _, t := range s.titles {
		if t.users > 0 || t.failed {
			continue
		}
		if n++; oldest == nil || t.since.Before(oldest.since) {
			oldest = t
		}
	}
	if n <= maxIdle {
		return nil
	}
	return oldest
}

// takeOut takes t, which has no user or will soon have none, out of the titles
// that peers find. s.mu is held.
func (s *Server) takeOut(t *title) {
	if s.titles[t.ih] == t {
		delete(s.titles, t.ih)
	}
	s.keepCount(t)
}

// Drop ends what was begun with a title that has been changed or removed: its
// connections end, and the next peer finds it as it is in the catalogue then.
func (s *Server) Drop(ih [20]byte) {
	s.mu.Lock()
	t := s.titles[ih]
	if t == nil {
		s.mu.Unlock()
		return
	}
	delete(s.titles, ih)
	t.dropped = true
	unused := t.users == 0 && !t.failed
	if unused {
		s.keepCount(t)
	}
	var peers []*peer
	for p := range s.peers {
		if p.title == t {
			peers = append(peers, p)
		}
	}
	s.mu.Unlock()
	if unused {
		s.opt.Catalogue.Sleep(ih, t.awake)
	}
	for _, p := range peers {
		p.conn.End(ReasonChanged, nil)
	}
}

// sleepIdle puts titles to sleep that have had no peer since before; all that
// have no peer where before is zero.
func (s *Server) sleepIdle(before time.Time) {
	var idle []*title
	s.mu.Lock()
	for _, t := range s.titles {
		if t.users == 0 && (before.IsZero() || !t.since.After(before)) {
			s.takeOut(t)
			if !t.failed {
				idle = append(idle, t)
			}
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
