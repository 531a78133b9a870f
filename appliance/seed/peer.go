package seed

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
	"github.com/bitcdn/bitcdn/payments/paylink"
)

// peer is one connection and the policy for it. As peerwire.Events it is called
// from the connection's goroutines.
type peer struct {
	server *Server
	title  *title
	conn   *peerwire.Conn
	seq    uint64
	free   bool // the title is

	// Of Server.mu.
	since   time.Time // of its handshake's end
	madeWay bool

	mu      sync.Mutex
	known   bool // whether it pays: its extended handshake has come, or none will
	sale    paylink.Sale
	counted int64 // bytes sent that the statistics have
}

// Extended opens the sale where the peer can pay. A connection that has been
// given free blocks stays unpaid: a sale counts from the connection's beginning.
func (p *peer) Extended(h peerwire.Extended) {
	pays := h.Pay != 0 && !p.free && p.server.opt.Payments != nil
	p.mu.Lock()
	first := !p.known
	p.known = p.known || !pays
	p.mu.Unlock()
	if !first || !pays || p.conn.Allowed() > 0 {
		return
	}
	sale := p.server.opt.Payments.Open(seller{p}, p.title.awake.Title)
	p.mu.Lock()
	p.sale, p.known = sale, true
	p.mu.Unlock()
	if total := p.conn.Sent(); total > 0 {
		sale.Sent(total) // reported before there was somebody to hear it
	}
}

func (p *peer) currentSale() paylink.Sale {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sale
}

// Interested is looked up when the free share is dealt out.
func (p *peer) Interested(bool) {}

// Pay hands the message to the sale.
func (p *peer) Pay(payload []byte) {
	if sale := p.currentSale(); sale != nil {
		sale.Message(payload)
	}
}

// Sent counts, and reports to the sale.
func (p *peer) Sent(total int64) {
	p.count(total)
	if sale := p.currentSale(); sale != nil {
		sale.Sent(total)
	}
}

func (p *peer) count(total int64) {
	p.mu.Lock()
	n := total - p.counted
	p.counted = total
	p.mu.Unlock()
	p.server.bytesSent.Add(n)
	p.title.sent.Add(n)
}

// Unservable reports the piece once.
func (p *peer) Unservable(piece int, err error) { p.server.unservable(p.title, piece, err) }

// close ends the payment side when the connection has ended.
func (p *peer) close() {
	total := p.conn.Sent()
	p.mu.Lock()
	sale, rest := p.sale, total > p.counted
	p.mu.Unlock()
	if rest {
		p.Sent(total)
	}
	if sale != nil {
		sale.Close()
	}
}

// unpaidWants is how many bytes a peer of the free share wants; 0 for a peer
// that is none, or wants nothing now.
func (p *peer) unpaidWants() int64 {
	p.mu.Lock()
	unpaid := p.known && p.sale == nil && !p.free
	p.mu.Unlock()
	if !unpaid {
		return 0
	}
	interested, lacking := p.conn.Wants()
	switch {
	case lacking > 0:
		return lacking
	case interested && p.conn.Allowed() == 0:
		return minGrant // still choked: it cannot ask
	}
	return 0
}

// idles reports whether the peer neither pays nor wants what it may have.
func (p *peer) idles() bool {
	if p.currentSale() != nil {
		return false
	}
	interested, _ := p.conn.Wants()
	return !interested || !p.free && p.conn.Allowed() == 0
}

// seller is what a sale sees of the connection.
type seller struct{ p *peer }

func (s seller) Send(payload []byte) error {
	switch err := s.p.conn.Send(payload); {
	case errors.Is(err, peerwire.ErrBacklog):
		return paylink.ErrBacklog
	case errors.Is(err, peerwire.ErrClosed), errors.Is(err, peerwire.ErrUnsupported):
		return paylink.ErrConnClosed
	default:
		return err
	}
}

func (s seller) Allow(total int64) { s.p.conn.SetAllowed(total) }

func (s seller) Stop() { s.p.conn.Stop() }

func (s seller) Fail(reason error) {
	r := peerwire.ReasonPayment
	errors.As(reason, &r)
	s.p.conn.Finish(r, reason) // the refusal that says why goes first
}

func (s seller) Remote() netip.AddrPort { return s.p.conn.Remote() }
