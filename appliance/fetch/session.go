package fetch

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"

	"github.com/anacrolix/torrent"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Messages of one peer that wait, in each direction.
const (
	inboxLen  = 64
	outboxLen = 64
)

var (
	errFlood = errors.New("peer sends payment messages faster than they are answered")
	errLied  = errors.New("peer sent data with a wrong hash")
)

// session is one connection to a peer, and its purchase if the peer speaks
// bc_pay. The client's callbacks only set flags and fill the mailboxes: they
// hold the client's lock.
type session struct {
	d     *download
	pc    *torrent.PeerConn
	conn  *dialled
	addr  netip.AddrPort
	tally *connTally

	inbox  chan []byte
	outbox chan []byte
	flush  chan chan struct{}
	closed chan struct{}

	startOnce, closeOnce, failOnce sync.Once

	// These belong to download.mu.
	choked   bool
	paying   bool
	metadata int // claimed size, bytes
}

// Send implements paylink.BuyerConn.
func (s *session) Send(payload []byte) error {
	select {
	case <-s.closed:
		return paylink.ErrConnClosed
	default:
	}
	select {
	case s.outbox <- bytes.Clone(payload):
		return nil
	default:
		return paylink.ErrBacklog
	}
}

// Fail implements paylink.BuyerConn: the peer is not dialled again.
func (s *session) Fail(reason error) {
	s.failOnce.Do(func() {
		s.d.dialer.refuse(s.addr)
		s.d.log.Info("peer dropped", "peer", s.addr, "reason", reason)
		s.hangUp()
	})
}

// Remote implements paylink.BuyerConn.
func (s *session) Remote() netip.AddrPort { return s.addr }

// Rest implements paylink.RestConn.
func (s *session) Rest() int64 {
	have, unknown := s.d.blocks.progress()
	if unknown == 0 {
		have = max(have, s.d.t.BytesCompleted()) // counts blocks of pieces that are not complete
	}
	return max(0, s.d.title.Length-have)
}

// hangUp closes the connection, from any goroutine.
func (s *session) hangUp() {
	// Closing takes the client's lock, which the caller may hold.
	s.d.spawn(func() { s.pc.Close() })
}

// pay runs the purchase until the connection ends.
func (s *session) pay() {
	select {
	case <-s.d.known:
	case <-s.closed:
		return
	}
	p := s.d.r.Payments.Open(s, s.d.title)
	if p == nil {
		return
	}
	s.d.tally.setPaying(s.tally)
	s.d.setPaying(s)
	s.d.spawn(s.send)
	defer p.Close()
	for {
		select {
		case m := <-s.inbox:
			p.Message(m)
		case <-s.tally.report:
			p.Received(s.d.tally.counts(s.tally))
		case done := <-s.flush:
			p.Received(s.d.tally.counts(s.tally))
			close(done)
		case <-s.closed:
			for {
				select {
				case m := <-s.inbox:
					p.Message(m)
					continue
				default:
				}
				break
			}
			p.Received(s.d.tally.counts(s.tally))
			return
		}
	}
}

// send writes what the purchase sends, one message at a time, so that a peer
// that does not read fills the outbox and not the memory: the client's own
// buffer has no bound.
func (s *session) send() {
	for {
		var m []byte
		select {
		case m = <-s.outbox:
		case <-s.closed:
			return
		}
		goal := int64(0)
		if s.conn != nil {
			goal = s.conn.written.Load() + int64(len(m))
		}
		if err := s.pc.WriteExtendedMessage(wire.Name, m); err != nil {
			s.d.log.Debug("payment message not sent", "peer", s.addr, "err", err)
			continue
		}
		for s.conn != nil && s.conn.written.Load() < goal {
			select {
			case <-s.conn.wrote:
			case <-s.closed:
				return
			}
		}
	}
}

// reported waits until the purchase has heard of everything received so far.
func (s *session) reported(ctx context.Context) {
	done := make(chan struct{})
	select {
	case s.flush <- done:
	case <-s.closed:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
