// Package seed is the box's upload side: it accepts connections, wakes the
// titles that peers come for, and decides who is served.
//
// A title without a price is served to everybody. Of any other, a peer is sent
// what its sale allows (Payments); a peer that does not pay stays choked,
// unless a free share is set, which all such peers have together.
//
// Every connection is bounded and every end is counted by its reason (Stats).
// What is not awake costs nothing but its place in the catalogue's index.
package seed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
)

// The reasons for which the server itself turns connections away, beside those
// of peerwire.
const (
	ReasonFull           peerwire.Reason = "too many connections"
	ReasonFullAddress    peerwire.Reason = "too many connections from one address"
	ReasonFullHandshakes peerwire.Reason = "too many handshakes at once"
	ReasonMadeWay        peerwire.Reason = "made way for another"
	ReasonTitle          peerwire.Reason = "title cannot be opened"
	ReasonChanged        peerwire.Reason = "title was changed or removed"
)

// tickEvery is how often connections are looked at; dealEvery how often the
// free share is dealt out, where there is one.
const (
	tickEvery = time.Second
	dealEvery = 100 * time.Millisecond
)

// idlerAfter is how long a peer that does not pay, and is not served for
// nothing, is sure of its place.
const idlerAfter = 30 * time.Second

// Stats is what a server has done since it was made.
type Stats struct {
	Conns      int   // connections beyond their handshake, now
	Handshakes int   // connections in their handshake, now
	BytesSent  int64 // block data, in all; at most 256 KiB a connection behind
	// ByReason counts the connections that have ended.
	ByReason map[peerwire.Reason]int64
	// Titles is what was sent of each title that has had a peer.
	Titles map[[20]byte]TitleStats
}

// TitleStats is a title's part of Stats.
type TitleStats struct {
	Conns     int   // now
	BytesSent int64 // as Stats.BytesSent
}

// Server is the upload side. It is safe for concurrent use.
type Server struct {
	opt   Options
	host  *peerwire.Host
	limit *limiter         // nil without Options.UploadRate
	ticks <-chan time.Time // of tests; nil for a ticker
	ends  chan<- struct{}  // of tests: a connection's end was counted; may be nil

	bytesSent atomic.Int64

	mu         sync.Mutex
	seq        uint64
	peers      map[*peer]struct{}
	titles     map[[20]byte]*title
	asleep     map[[20]byte]int64 // bytes sent of titles that sleep again
	addresses  map[netip.Addr]int // connections of each address, handshakes included
	handshakes []*arrival         // oldest first
	conns      int                // handshakes included
	reasons    map[peerwire.Reason]int64

	waking chan struct{} // holds a token for each title that is being loaded
}

// arrival is a connection in its handshake.
type arrival struct {
	nc      net.Conn
	address netip.Addr
	madeWay bool // of Server.mu: closed, because others came
}

// New returns a server; Serve starts it.
func New(opt Options) *Server {
	opt.setDefaults()
	s := &Server{
		opt: opt,
		host: peerwire.NewHost(peerwire.Config{
			PeerID:           opt.PeerID,
			Version:          opt.Version,
			HandshakeTimeout: opt.HandshakeTimeout,
			IdleTimeout:      opt.IdleTimeout,
			WriteTimeout:     opt.WriteTimeout,
		}),
		peers:     make(map[*peer]struct{}),
		titles:    make(map[[20]byte]*title),
		asleep:    make(map[[20]byte]int64),
		addresses: make(map[netip.Addr]int),
		reasons:   make(map[peerwire.Reason]int64),
		waking:    make(chan struct{}, maxWaking),
	}
	if opt.UploadRate > 0 {
		s.limit = newLimiter(opt.UploadRate, opt.Clock)
	}
	return s
}

// Serve accepts connections from l until the context ends or l fails. Before it
// returns every connection has ended, every title sleeps and l is closed. The
// end of the context is no error. A server may serve several listeners one
// after the other, not at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { s.tickLoop(ctx) })
	err := s.acceptLoop(ctx, l, &running)
	cancel()
	running.Wait()
	s.sleepIdle(time.Time{})
	l.Close()
	return err
}

func (s *Server) acceptLoop(ctx context.Context, l net.Listener, running *sync.WaitGroup) error {
	delay := time.Duration(0)
	for {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept peers: %w", err)
			}
			// Out of descriptors, or the peer was gone already: it passes.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.opt.Log.Warn("accept peers", "err", err, "again in", delay)
			t := time.NewTimer(delay)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
			continue
		}
		delay = 0
		a := &arrival{nc: nc, address: addressOf(nc)}
		if r, ok := s.admit(a); !ok {
			nc.Close()
			s.countEnd(r)
			continue
		}
		running.Go(func() {
			defer s.leave(a.address)
			s.serve(ctx, a)
		})
	}
}

// addressOf is what connections are counted by: an IPv4 address, or the /64
// that an IPv6 subscriber has for itself.
func addressOf(nc net.Conn) netip.Addr {
	tcp, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.Is6() {
		p, _ := a.Prefix(64) // 64 is a length that every IPv6 address has
		return p.Addr()
	}
	return a
}

// admit takes a connection in, and says why where it does not. Those that came
// and did nothing make way: otherwise two addresses could hold all places for
// handshakes, and a few more all places.
func (s *Server) admit(a *arrival) (r peerwire.Reason, ok bool) {
	var slowest *arrival
	var idler *peer
	s.mu.Lock()
	defer func() {
		s.mu.Unlock()
		if slowest != nil {
			slowest.nc.Close()
		}
		if idler != nil {
			idler.conn.End(ReasonMadeWay, nil)
		}
	}()
	if s.addresses[a.address] >= s.opt.MaxPerAddress {
		return ReasonFullAddress, false
	}
	if s.conns >= s.opt.MaxConns {
		if idler = s.idler(); idler == nil {
			return ReasonFull, false
		}
		idler.madeWay = true
	}
	if len(s.handshakes) >= s.opt.MaxHandshakes {
		slowest = s.handshakes[0]
		slowest.madeWay = true
		s.handshakes = slices.Delete(s.handshakes, 0, 1)
	}
	s.conns++
	s.handshakes = append(s.handshakes, a)
	s.addresses[a.address]++
	return "", true
}

// idler finds the peer that has for longest neither paid nor been served. s.mu
// is held.
func (s *Server) idler() *peer {
	var found *peer
	now := s.opt.Clock()
	for p := range s.peers {
		if (found == nil || p.seq < found.seq) && !p.madeWay && now.Sub(p.since) >= idlerAfter && p.idles() {
			found = p
		}
	}
	return found
}

// arrived takes a off the list of handshakes, and reports whether it had to make way.
func (s *Server) arrived(a *arrival) (madeWay bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.handshakes, a); i >= 0 {
		s.handshakes = slices.Delete(s.handshakes, i, i+1)
	}
	return a.madeWay
}

func (s *Server) leave(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns--
	if s.addresses[a]--; s.addresses[a] == 0 {
		delete(s.addresses, a)
	}
}

// serve is one connection's life.
func (s *Server) serve(ctx context.Context, a *arrival) {
	nc := a.nc
	hs, err := s.host.Accept(ctx, nc, s.opt.Catalogue)
	if s.arrived(a) {
		nc.Close()
		s.countEnd(ReasonFullHandshakes)
		return
	}
	if err != nil {
		s.countError(nc, err)
		return
	}
	t, err := s.wake(ctx, hs.InfoHash)
	if err != nil {
		nc.Close()
		r := ReasonTitle
		if ctx.Err() != nil {
			r = peerwire.ReasonShutdown
		}
		s.opt.Log.Warn("wake title", "info hash", fmt.Sprintf("%x", hs.InfoHash), "err", err)
		s.countEnd(r)
		return
	}
	defer s.release(t)
	p := &peer{server: s, title: t, free: t.awake.free(), known: !hs.Extended}
	p.conn = s.host.Conn(hs, t.wire, p, s.opt.Clock())
	if p.free {
		p.conn.SetAllowed(peerwire.Unlimited)
	}
	s.mu.Lock()
	s.seq++
	p.seq, p.since = s.seq, s.opt.Clock()
	s.peers[p] = struct{}{}
	dropped := t.dropped
	s.mu.Unlock()
	if dropped {
		p.conn.End(ReasonChanged, nil)
	}
	end := p.conn.Run(ctx)
	s.mu.Lock()
	delete(s.peers, p)
	s.mu.Unlock()
	p.close()
	s.countError(nc, end)
}

func (s *Server) countError(nc net.Conn, err error) {
	r := peerwire.ReasonBadHandshake
	errors.As(err, &r)
	s.opt.Log.Debug("connection ended", "peer", nc.RemoteAddr(), "err", err)
	s.countEnd(r)
}

func (s *Server) countEnd(r peerwire.Reason) {
	s.mu.Lock()
	s.reasons[r]++
	s.mu.Unlock()
	if s.ends != nil {
		s.ends <- struct{}{}
	}
}

func (s *Server) tickLoop(ctx context.Context) {
	ticks := s.ticks
	if ticks == nil {
		every := tickEvery
		if s.opt.FreeShare > 0 {
			every = dealEvery
		}
		t := time.NewTicker(every)
		defer t.Stop()
		ticks = t.C
	}
	share := freeShare{rate: s.opt.FreeShare}
	var looked time.Time
	var peers []*peer
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		now := s.opt.Clock()
		peers = s.appendPeers(peers[:0])
		if now.Sub(looked) >= tickEvery || now.Before(looked) {
			looked = now
			for _, p := range peers {
				p.conn.Tick(now)
			}
			s.sleepIdle(now.Add(-s.opt.SleepAfter))
		}
		if share.rate > 0 {
			share.deal(now, peers)
		}
		clear(peers)
	}
}

func (s *Server) appendPeers(peers []*peer) []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.peers {
		peers = append(peers, p)
	}
	return peers
}

// keepCount keeps a title's figures when it goes to sleep. s.mu is held.
func (s *Server) keepCount(t *title) {
	if n := t.sent.Load(); n > 0 {
		s.asleep[t.ih] += n
	}
}

// Stats is a snapshot.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Conns:      len(s.peers),
		Handshakes: len(s.handshakes),
		BytesSent:  s.bytesSent.Load(),
		ByReason:   maps.Clone(s.reasons),
		Titles:     make(map[[20]byte]TitleStats, len(s.titles)+len(s.asleep)),
	}
	for ih, n := range s.asleep {
		st.Titles[ih] = TitleStats{BytesSent: n}
	}
	for ih, t := range s.titles {
		sum := st.Titles[ih]
		sum.Conns = t.users
		sum.BytesSent += t.sent.Load()
		st.Titles[ih] = sum
	}
	return st
}
