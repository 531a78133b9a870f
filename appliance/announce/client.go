package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	askTimeout  = 15 * time.Second // of one request over one family
	stopWait    = time.Second      // of one that says that a title stops
	resolveFor  = 5 * time.Minute
	avoidFamily = time.Hour // one that fails while the other works
	maxResolved = 1000
)

type event uint8

// The events, with BEP 15's numbers; "completed" would be 1.
const (
	none    event = 0
	started event = 2
	stopped event = 3
)

func (e event) String() string {
	return map[event]string{started: "started", stopped: "stopped"}[e]
}

// request is what a tracker is to be told of a title.
type request struct {
	*endpoint
	infoHash [20]byte
	event    event
	uploaded int64 // bytes
}

// family is of addresses.
type family uint8

const (
	ip4 family = iota
	ip6
	families
)

func (f family) network(transport string) string {
	return transport + string("46"[f])
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ip4
	}
	return ip6
}

// reach is how a host is reached.
type reach struct {
	addresses [families][]netip.Addr
	until     time.Time // when its name is resolved again
	avoid     [families]time.Time
}

// client asks trackers. It is safe for concurrent use.
type client struct {
	opt  Options
	id   uint32 // BEP 15's and BEP 3's "key": tells us from others at our address
	http [families]*http.Client
	// udpWaits is how long each sending of a packet is waited for. BEP 15 says 15 s
	// and doubling; here the schedule does the waiting.
	udpWaits []time.Duration
	timeout  time.Duration // askTimeout

	mu      sync.Mutex
	random  *rand.Rand
	reached map[string]*reach // by host
	idle    []*udpConn        // oldest first
}

func newClient(opt Options, seed [32]byte) *client {
	if opt.Dial == nil {
		opt.Dial = (&net.Dialer{}).DialContext
	}
	if opt.Lookup == nil {
		opt.Lookup = net.DefaultResolver.LookupNetIP
	}
	c := &client{opt: opt, random: rand.New(rand.NewChaCha8(seed)), reached: map[string]*reach{},
		timeout: askTimeout, udpWaits: []time.Duration{askTimeout / 3, askTimeout * 2 / 3}}
	c.id = c.random.Uint32()
	for f := range families {
		c.http[f] = c.newHTTP(f)
	}
	return c
}

func (c *client) close() {
	for f := range families {
		c.http[f].CloseIdleConnections()
	}
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, u := range idle {
		u.Close()
	}
}

// ask makes a request over each family that the tracker has. It is nil if it
// went well over one of them.
func (c *client) ask(ctx context.Context, req request) (reply, error) {
	addresses, err := c.resolve(ctx, req.endpoint)
	if err != nil {
		return reply{}, plain(err)
	}
	var best reply
	var errs [families]error
	var ok [families]bool
	for f := range families {
		if len(addresses[f]) == 0 {
			continue
		}
		r, err := c.askOver(ctx, f, addresses[f][0], req)
		if errs[f] = err; err != nil {
			continue
		}
		if !ok[ip4] || f == ip4 {
			best = r
		} else {
			best.seeders, best.leechers = max(best.seeders, r.seeders), max(best.leechers, r.leechers)
			best.interval, best.minInterval = max(best.interval, r.interval), max(best.minInterval, r.minInterval)
		}
		ok[f] = true
	}
	c.learn(req.endpoint, errs, ok)
	if ok[ip4] || ok[ip6] {
		return best, nil
	}
	// An answer, if there is one, says more than that there was none.
	var no *refusal
	if errors.As(errs[ip6], &no) || errs[ip4] == nil {
		return reply{}, plain(errs[ip6])
	}
	return reply{}, plain(errs[ip4])
}

func (c *client) askOver(ctx context.Context, f family, a netip.Addr, req request) (reply, error) {
	wait := c.timeout
	if req.event == stopped {
		wait = min(wait, stopWait)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if req.udp {
		return c.askUDP(ctx, f, a, req)
	}
	return c.askHTTP(ctx, f, req)
}

// resolve returns the addresses over which a tracker is asked.
func (c *client) resolve(ctx context.Context, e *endpoint) (out [families][]netip.Addr, err error) {
	if e.literal.IsValid() {
		out[familyOf(e.literal)] = []netip.Addr{e.literal}
		return out, nil
	}
	now := c.opt.Clock()
	c.mu.Lock()
	r := c.reached[e.host]
	c.mu.Unlock()
	if r == nil || now.After(r.until) {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		fresh := &reach{until: now.Add(resolveFor)}
		for f := range families {
			found, lookupErr := c.lookup(ctx, f, e.host)
			if lookupErr != nil {
				err = errors.Join(err, lookupErr)
			}
			fresh.addresses[f] = found
		}
		if len(fresh.addresses[ip4]) == 0 && len(fresh.addresses[ip6]) == 0 {
			if errors.Is(err, errPrivate) {
				return out, fmt.Errorf("%s %w", e.host, errPrivate)
			}
			return out, fmt.Errorf("%s cannot be resolved", e.host)
		}
		if r != nil {
			fresh.avoid = r.avoid
		}
		r = fresh
		c.mu.Lock()
		if len(c.reached) >= maxResolved {
			clear(c.reached)
		}
		c.reached[e.host] = r
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out = r.addresses
	for f := range families {
		if other := families - 1 - f; now.Before(r.avoid[f]) && len(out[other]) > 0 {
			out[f] = nil
			break
		}
	}
	return out, nil
}

// learn remembers which family to leave alone, and which host to look up anew.
func (c *client) learn(e *endpoint, errs [families]error, ok [families]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.reached[e.host]
	if r == nil {
		return
	}
	if !ok[ip4] && !ok[ip6] {
		delete(c.reached, e.host)
		return
	}
	for f := range families {
		var no *refusal
		if errs[f] != nil && !errors.As(errs[f], &no) {
			r.avoid[f] = c.opt.Clock().Add(avoidFamily)
		}
	}
}

// lookup resolves a name to those of its addresses that may be connected to.
func (c *client) lookup(ctx context.Context, f family, name string) ([]netip.Addr, error) {
	if isLocalhost(name) {
		if f == ip4 {
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
		}
		return []netip.Addr{netip.IPv6Loopback()}, nil
	}
	all, err := c.opt.Lookup(ctx, f.network("ip"), name)
	if err != nil {
		return nil, err
	}
	var found []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); familyOf(a) == f && public(a) {
			found = append(found, a)
		}
	}
	if len(found) == 0 && len(all) > 0 {
		return nil, errPrivate
	}
	return found, nil
}

// dial connects for HTTP: over one family, and to a name's public addresses
// only. Addresses in numbers have been judged where they were read.
func (c *client) dial(f family) func(ctx context.Context, _, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		name, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		var candidates []netip.Addr
		if a, err := netip.ParseAddr(name); err == nil {
			candidates = []netip.Addr{a.Unmap()}
		} else if candidates, err = c.lookup(ctx, f, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if len(candidates) == 0 || familyOf(candidates[0]) != f {
			return nil, fmt.Errorf("%s has no such address", name)
		}
		return c.opt.Dial(ctx, f.network("tcp"), net.JoinHostPort(candidates[0].String(), port))
	}
}

// word is a random one.
func (c *client) word() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.Uint32()
}

// plain takes the URL, which may hold a pass key, out of an error.
func plain(err error) error {
	var where *url.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errTimeout
	}
	var network net.Error
	if errors.As(err, &network) && network.Timeout() {
		return errTimeout
	}
	return err
}

var errTimeout = errors.New("no answer in time")

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
