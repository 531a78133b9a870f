// Package announce tells trackers which titles a box seeds, so that downloaders
// find it: one scheduler for all titles, over HTTP, HTTPS (BEP 3, 7, 23, 24)
// and UDP (BEP 15, 41).
//
// # Which tracker is told
//
// A title is announced to one tracker at a time (BEP 12): the first of its
// tiers that works. The order within a tier is shuffled once, and a tracker
// that answered moves to the front of its tier; titles with the same trackers
// share that order. "started" goes to every tracker that has not heard of the
// title, "stopped" to the one that knows it when the title is removed and when
// Run ends. "completed" is never sent: a box announces what it has. A tracker
// that has both an IPv4 and an IPv6 address is told over both, as it learns
// only the address that it is asked from (BEP 7).
//
// # How often
//
// As the tracker says, its interval and its min interval, but no more often than every
// MinInterval and no less often than every MaxInterval; up to a tenth
// later, so that the titles do not stay in step. A host is asked one thing at a time until it has answered,
// then at most two, at least Spacing apart, and at most MaxOpen requests are
// under way in all. Titles that are due wait in their host's queue in the order
// in which they became due.
//
// Trackers fail as a whole: what times out, refuses the connection or talks
// nonsense costs one request and is then left alone, for 30 seconds at first
// and up to an hour, more or less a quarter by chance; meanwhile all its titles
// turn to their next tracker, and then one request finds out whether it is
// back. A "failure reason" is the tracker's answer about one title, which turns
// to its next tracker alone, and begins anew after half an hour or when the
// tracker says (BEP 31).
//
// # Trackers are hostile
//
// Their URLs come from torrents of strangers, and their answers from anybody.
// Answers are bounded in bytes and in time, redirects in number, and peers in
// them are counted and thrown away. Nothing is sent into the box's own network
// on a tracker's or a name server's word: a name that has private or loopback
// addresses only, and a redirect to such an address, count as failed. Only a
// URL that itself names such an address (or localhost) is followed, whether its torrent is
// private or not, as that flag is the stranger's word too; over HTTP its path must begin with
// "/announce" then, so that a torrent cannot press the buttons of a router's
// page. A tracker at home that is known by a name only is therefore not asked.
//
// What is logged and kept of a tracker is its host: the rest of the URL may be
// the owner's pass key.
package announce

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// What trackers are asked, and how often.
const (
	MinInterval     = 5 * time.Minute
	MaxInterval     = 3 * time.Hour
	DefaultInterval = 30 * time.Minute // where a tracker names none
	Spacing         = 100 * time.Millisecond
	MaxOpen         = 8 // requests under way
	// MaxTrackers is how many of a title's trackers are used.
	MaxTrackers = 32
	// StopTimeout is how long Run takes at most, after its context has ended,
	// to tell the trackers.
	StopTimeout = 3 * time.Second
)

// Options of an Announcer. PeerID, Port and Random are needed.
type Options struct {
	Port      uint16   // TCP port on which peers reach the box
	PeerID    [20]byte // BEP 20
	UserAgent string   // to HTTP trackers; "BitCDN"

	// Uploaded, where set, is asked for the bytes of a title that were sent.
	// It must not block.
	Uploaded func(infoHash [20]byte) int64

	// Random seeds orders, delays and transaction ids; 32 bytes are read.
	Random io.Reader
	Clock  func() time.Time // time.Now
	Log    *slog.Logger     // silent

	// Dial connects, over "tcp4", "tcp6", "udp4" or "udp6" and to an address in
	// numbers; a net.Dialer's where it is nil. Proxies are not used: a tracker
	// would take one for the box.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Lookup resolves names; the system's where it is nil.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// TLS configures HTTPS; nil is the system's certificates.
	TLS *tls.Config
}

// Stats is what is known of a title.
type Stats struct {
	Seeders, Leechers int        // as the tracker counts them; -1: not known
	Tracker           string     // host of the one that knows us; empty: none
	External          netip.Addr // ours, by that tracker's word (BEP 24); invalid: not told
	LastOK            time.Time  // last answer; zero: none yet
	LastError         string     // why it did not work since; empty: it did
	Next              time.Time  // next request; zero while one is under way
}

// Announcer announces titles. It is safe for concurrent use.
type Announcer struct {
	opt    Options
	client *client
	kick   chan struct{}

	mu       sync.Mutex
	schedule *schedule
}

// New returns an Announcer without titles; Run sets it going.
func New(opt Options) (*Announcer, error) {
	if opt.Port == 0 {
		return nil, errors.New("announce: no port")
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "BitCDN"
	}
	var seed [32]byte
	if _, err := io.ReadFull(opt.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("announce: seed: %w", err)
	}
	random := rand.New(rand.NewChaCha8(seed))
	a := &Announcer{opt: opt, kick: make(chan struct{}, 1)}
	a.client = newClient(opt, [32]byte(randomBytes(random, 32)))
	a.schedule = newSchedule(random)
	return a, nil
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// Add announces a title from now on, to trackers by tier (BEP 12). URLs that
// cannot be used are left out; a title that has no other is not kept. Adding a
// title again gives it other trackers, and does nothing where they are the same.
func (a *Announcer) Add(infoHash [20]byte, trackers [][]string) {
	tiers := make([][]*endpoint, 0, len(trackers))
	n := 0
	for _, tier := range trackers {
		var usable []*endpoint
		for _, raw := range tier {
			if n == MaxTrackers {
				break
			}
			e, err := parseEndpoint(raw)
			if err != nil {
				a.opt.Log.Debug("tracker cannot be used", "title", fmt.Sprintf("%x", infoHash), "err", err)
				continue
			}
			usable = append(usable, e)
			n++
		}
		if len(usable) > 0 {
			tiers = append(tiers, usable)
		}
	}
	a.mu.Lock()
	a.schedule.add(infoHash, tiers, a.opt.Clock().UnixNano())
	a.mu.Unlock()
	a.wake()
}

// Remove announces a title no longer, and tells its tracker once. It is
// forgotten at once; a title that is not known does nothing.
func (a *Announcer) Remove(infoHash [20]byte) {
	a.mu.Lock()
	a.schedule.remove(infoHash, a.opt.Clock().UnixNano())
	a.mu.Unlock()
	a.wake()
}

// Len is the number of titles that are announced.
func (a *Announcer) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.schedule.announced
}

// Stats says what is known of a title. It is false for one that is not
// announced, as those without usable trackers.
func (a *Announcer) Stats(infoHash [20]byte) (Stats, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.schedule.titles[infoHash]
	if t == nil || t.leaving {
		return Stats{}, false
	}
	s := Stats{Seeders: int(t.seeders), Leechers: int(t.leechers), LastError: t.reason()}
	if t.at != nil {
		s.Tracker, s.External = t.at.host.address, t.at.host.external
	}
	if t.lastOK != 0 {
		s.LastOK = time.Unix(0, t.lastOK)
	}
	if !t.flying {
		s.Next = time.Unix(0, t.due)
	}
	return s, true
}

func (a *Announcer) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// Run announces until ctx ends; then it tells the trackers that the box stops,
// for at most StopTimeout, and returns nil. It may run once.
func (a *Announcer) Run(ctx context.Context) error {
	defer a.client.close()
	var running sync.WaitGroup
	for ctx.Err() == nil {
		for {
			j, ok := a.begin()
			if !ok {
				break
			}
			running.Go(func() {
				r, err := a.client.ask(ctx, j.request)
				if ctx.Err() != nil {
					err = errInterrupted
				}
				a.finish(j, r, err)
				a.wake()
			})
		}
		// A host that becomes free, or a new title, kicks.
		wait := time.Hour
		if next, ok := a.next(); ok {
			wait = min(max(next.Sub(a.opt.Clock()), 0), wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-a.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
	running.Wait()
	a.stop(context.WithoutCancel(ctx))
	return nil
}

// begin takes the next request that may be made now.
func (a *Announcer) begin() (job, bool) {
	a.mu.Lock()
	j, ok := a.schedule.begin(a.opt.Clock().UnixNano())
	a.mu.Unlock()
	if ok && a.opt.Uploaded != nil {
		j.uploaded = max(a.opt.Uploaded(j.infoHash), 0)
	}
	return j, ok
}

// finish takes in how it went.
func (a *Announcer) finish(j job, r reply, err error) {
	now := a.opt.Clock().UnixNano()
	a.mu.Lock()
	was := j.tracker.failing()
	a.schedule.finish(j, r, err, now)
	is := j.tracker.failing()
	a.mu.Unlock()
	switch {
	case is && !was:
		a.opt.Log.Warn("tracker does not work", "tracker", j.tracker.host.address, "err", err)
	case was && !is:
		a.opt.Log.Info("tracker works again", "tracker", j.tracker.host.address)
	case err != nil && !errors.Is(err, errInterrupted):
		a.opt.Log.Debug("announce", "tracker", j.tracker.host.address, "title", fmt.Sprintf("%x", j.infoHash), "err", err)
	}
}

// next is when begin has something again, if nothing else happens.
func (a *Announcer) next() (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, ok := a.schedule.next()
	return time.Unix(0, at), ok
}

// stopSpacing keeps the last words from overrunning a router's queue.
const stopSpacing = 2 * time.Millisecond

// stop tells the trackers, the most wanted titles first: those that are not
// told keep downloaders trying until the tracker forgets us.
func (a *Announcer) stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, StopTimeout)
	defer cancel()
	a.mu.Lock()
	hosts := a.schedule.drain()
	a.mu.Unlock()
	slots := make(chan struct{}, MaxOpen)
	var running sync.WaitGroup
	for _, jobs := range hosts {
		running.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			a.stopHost(ctx, jobs)
		})
	}
	running.Wait()
}

func (a *Announcer) stopHost(ctx context.Context, jobs []job) {
	tick := time.NewTicker(stopSpacing)
	defer tick.Stop()
	for i, j := range jobs {
		if a.opt.Uploaded != nil {
			j.uploaded = max(a.opt.Uploaded(j.infoHash), 0)
		}
		if _, err := a.client.ask(ctx, j.request); err != nil {
			var no *refusal
			if !errors.As(err, &no) {
				a.opt.Log.Debug("tracker was not told that titles stop", "tracker", j.tracker.host.address, "titles", len(jobs)-i, "err", err)
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
