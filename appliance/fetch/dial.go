package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

var errRefused = errors.New("peer was dropped for good")

// Pauses between attempts to reach an address that was given or that worked.
const (
	redialFirst = 500 * time.Millisecond
	redialMost  = time.Minute
	// redialSteady is how long a connection must have lasted to be no reason
	// for a longer pause.
	redialSteady = 10 * time.Second
	maxAddresses = 500
)

// dialer makes the client's connections, and remembers whom to dial again and
// whom not. It is the only way out of the client: nothing listens.
type dialer struct {
	net net.Dialer

	mu      sync.Mutex
	known   map[netip.AddrPort]*address
	refused map[netip.AddrPort]bool
	conns   map[string]*dialled // newest by address
}

type address struct {
	live  int // connections
	since time.Time
	next  time.Time
	pause time.Duration
}

func newDialer() *dialer {
	return &dialer{
		known:   make(map[netip.AddrPort]*address),
		refused: make(map[netip.AddrPort]bool),
		conns:   make(map[string]*dialled),
	}
}

// add makes an address one that is dialled again when it is lost.
func (d *dialer) add(a netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known[a] == nil && len(d.known) < maxAddresses {
		d.known[a] = &address{pause: redialFirst}
	}
}

// refuse ends dialling to an address.
func (d *dialer) refuse(a netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused[a] = true
	delete(d.known, a)
}

// due returns the addresses whose time for an attempt has come.
func (d *dialer) due(now time.Time) []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []netip.AddrPort
	for a, s := range d.known {
		if s.live == 0 && !now.Before(s.next) {
			out = append(out, a)
			s.next = now.Add(s.pause)
			s.pause = min(2*s.pause, redialMost)
		}
	}
	return out
}

func (d *dialer) connected(a netip.AddrPort, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.known[a]; s != nil {
		s.live++
		s.since = now
	}
}

func (d *dialer) lost(a netip.AddrPort, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.known[a]
	if s == nil {
		return
	}
	s.live--
	if now.Sub(s.since) >= redialSteady {
		s.pause = redialFirst
	}
	s.next = now.Add(s.pause)
}

// again makes an address due at once.
func (d *dialer) again(a netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.known[a]; s != nil {
		s.next, s.pause = time.Time{}, redialFirst
	}
}

// conn returns the connection that was last made to an address, or nil.
func (d *dialer) conn(addr string) *dialled {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[addr]
}

// DialerNetwork implements the client's Dialer.
func (d *dialer) DialerNetwork() string { return "tcp" }

// Dial implements the client's Dialer.
func (d *dialer) Dial(ctx context.Context, addr string) (net.Conn, error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial peer: %w", err)
	}
	d.mu.Lock()
	refused := d.refused[a]
	d.mu.Unlock()
	if refused {
		return nil, errRefused
	}
	nc, err := d.net.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &dialled{Conn: nc, d: d, addr: addr, wrote: make(chan struct{}, 1)}
	d.mu.Lock()
	d.conns[addr] = c
	d.mu.Unlock()
	return c, nil
}

// dialled is a connection that tells how much of what was written to it the
// kernel has taken, which the client does not.
type dialled struct {
	net.Conn
	d       *dialer
	addr    string
	written atomic.Int64
	wrote   chan struct{} // has a token when written has grown
}

func (c *dialled) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	select {
	case c.wrote <- struct{}{}:
	default:
	}
	return n, err
}

func (c *dialled) Close() error {
	c.d.mu.Lock()
	if c.d.conns[c.addr] == c {
		delete(c.d.conns, c.addr)
	}
	c.d.mu.Unlock()
	return c.Conn.Close()
}
