package threattest

import (
	"net/netip"
	"sync"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// link is a connection between an honest buyer and the honest seller, with
// somebody in the middle who sees every message.
type link struct {
	r        *rig
	sale     paylink.Sale
	purchase paylink.Purchase
	ready    chan struct{} // closed when both are there
	tap      func(wire.Message)

	mu      sync.Mutex
	changed sync.Cond
	allowed int64
	sent    int64 // by the seller
	came    int64 // to the buyer
	failed  error
	cut     bool
}

type sellerEnd struct{ *link }
type buyerEnd struct{ *link }

func (e sellerEnd) Send(b []byte) error {
	<-e.ready
	return e.pass(b, e.purchase)
}

func (e buyerEnd) Send(b []byte) error {
	<-e.ready
	return e.pass(b, e.sale)
}

func (sellerEnd) Remote() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.3:4000") }
func (buyerEnd) Remote() netip.AddrPort  { return netip.MustParseAddrPort("127.0.0.4:4000") }

// pass hands a message on, as long as the connection stands.
func (l *link) pass(b []byte, to paylink.Session) error {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return paylink.ErrConnClosed
	}
	if m, err := wire.Decode(b); err == nil && l.tap != nil {
		l.tap(m)
	}
	to.Message(b)
	return nil
}

func (l *link) Fail(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = reason
	l.changed.Broadcast()
}

func (l *link) Allow(total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed = total
	l.changed.Broadcast()
}

func (l *link) Stop() { l.Allow(0) }

// link connects a buyer to the seller.
func (r *rig) link(b *buyer) *link { return r.tapped(b, nil) }

func (r *rig) tapped(b *buyer, tap func(wire.Message)) *link {
	l := &link{r: r, ready: make(chan struct{}), tap: tap}
	l.changed.L = &l.mu
	title := r.title
	title.Ask = 0
	l.purchase = b.Open(buyerEnd{l}, title)
	l.sale = r.seller.Open(sellerEnd{l}, r.title)
	close(l.ready)
	r.Cleanup(l.close)
	return l
}

func (l *link) close() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.sale.Close()
	l.purchase.Close()
}

// transfer moves bytes from the seller to the buyer, and has the funding mined
// as soon as they flow.
func (l *link) transfer(n int64) {
	l.r.Helper()
	l.flows()
	l.r.mine(1)
	for n > 0 {
		got := l.serve(n)
		if got == 0 {
			l.r.Fatalf("the connection failed: %v", l.failed)
		}
		n -= got
		l.arrive(got)
	}
}

// serve lets the seller send up to n bytes, and returns how many; it waits until
// it may send some.
func (l *link) serve(n int64) int64 {
	l.mu.Lock()
	for l.allowed <= l.sent && l.failed == nil {
		l.changed.Wait()
	}
	n = max(0, min(n, l.allowed-l.sent, block))
	l.sent += n
	total := l.sent
	l.mu.Unlock()
	l.sale.Sent(total)
	return n
}

// arrive tells the buyer of good bytes.
func (l *link) arrive(n int64) {
	l.mu.Lock()
	l.came += n
	total := l.came
	l.mu.Unlock()
	l.purchase.Received(total, total)
}

// hold takes all that the seller sends and passes nothing on.
func (l *link) hold() (n int64) {
	for {
		l.mu.Lock()
		more := l.allowed - l.sent
		if more > 0 {
			l.sent += more
		}
		total := l.sent
		l.mu.Unlock()
		if more <= 0 {
			return n
		}
		n += more
		l.sale.Sent(total)
	}
}

// flows waits until the seller lets something flow.
func (l *link) flows() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.allowed <= l.sent && l.failed == nil {
		l.changed.Wait()
	}
}
