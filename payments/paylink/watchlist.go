package paylink

import (
	"context"
	"net/netip"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Limits to channels whose refund is signed and whose funding has not come.
// Each is a row of the ledger that cost its payer nothing.
const (
	maxUnfunded        = 1024
	maxUnfundedPerHost = 16
)

// watch is what a Seller has to know of a channel to tell whether it needs
// looking at, so that thousands of quiet ones cost no reading.
type watch struct {
	phase          channel.Phase
	confirmed      bool
	funding, close bsv.Txid
	closeBy        uint64 // height
	active         time.Time
	host           netip.Addr // of the payer
}

func (w *watch) isExposed() bool { return w.phase == channel.Open && !w.confirmed }

// due is a channel that needs looking at.
type due struct {
	id wire.ChannelID
	watch
}

// watchlist holds the channels that are not settled, as they were last stored.
// Its methods want Seller.mu.
type watchlist struct {
	loaded   bool
	tip      chain.Hash // when it was last gone through
	channels map[wire.ChannelID]watch
	unfunded map[netip.Addr]int // by host
	waiting  int                // sum of unfunded
	exposed  int                // that deliver on a funding which is not mined

	// admitted are about to deliver on one.
	admitted map[wire.ChannelID]bool
}

func newWatchlist() watchlist {
	return watchlist{channels: make(map[wire.ChannelID]watch), unfunded: make(map[netip.Addr]int)}
}

func (l *watchlist) put(s *channel.Payee, remote string) {
	id := s.ID()
	l.drop(id)
	delete(l.admitted, id)
	if s.Phase == channel.Closed || s.Phase == channel.Failed {
		return
	}
	w := watch{phase: s.Phase, confirmed: s.Confirmed, funding: s.Open.FundingTxid, close: s.Close,
		closeBy: uint64(s.Open.RefundHeight) - min(uint64(s.Open.RefundHeight), uint64(s.Terms.CloseMargin)), active: s.Active}
	if addr, err := netip.ParseAddrPort(remote); err == nil {
		w.host = hostOf(addr)
	}
	if w.phase == channel.Signed {
		l.unfunded[w.host]++
		l.waiting++
	}
	if w.isExposed() {
		l.exposed++
	}
	l.channels[id] = w
}

func (l *watchlist) drop(id wire.ChannelID) {
	w, ok := l.channels[id]
	if !ok {
		return
	}
	delete(l.channels, id)
	if w.isExposed() {
		l.exposed--
	}
	if w.phase != channel.Signed {
		return
	}
	l.waiting--
	if l.unfunded[w.host]--; l.unfunded[w.host] == 0 {
		delete(l.unfunded, w.host)
	}
}

// admits says whether a host may have one more channel without a funding.
func (l *watchlist) admits(remote netip.AddrPort) bool {
	return l.waiting < maxUnfunded && l.unfunded[hostOf(remote)] < maxUnfundedPerHost
}

// hostOf is what one party is taken to have one of: an IPv4 address, or an
// IPv6 network of 64 bits.
func hostOf(remote netip.AddrPort) netip.Addr {
	addr := remote.Addr().Unmap()
	if prefix, err := addr.Prefix(64); err == nil && addr.Is6() {
		return prefix.Addr()
	}
	return addr
}

// noted keeps the watchlist up with what was stored.
func (s *Seller) noted(state *channel.Payee, remote string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched.put(state, remote)
}

// loadWatchlist reads the channels of earlier runs, once.
func (s *Seller) loadWatchlist(ctx context.Context) error {
	s.mu.Lock()
	loaded := s.watched.loaded
	s.mu.Unlock()
	if loaded {
		return nil
	}
	rows, err := s.openRows(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, row := range rows {
		if _, stored := s.watched.channels[row.ID]; stored {
			continue // since rows were read
		}
		state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
		if err != nil {
			s.cfg.Log.Error("a channel cannot be watched over", "channel", wire.ChannelID(row.ID), "error", err)
			continue
		}
		if row.State == ledger.StateClosing {
			state.Phase = channel.Closing
		}
		s.watched.put(&state, row.Remote)
	}
	s.watched.loaded = true
	return nil
}

// dueNow collects the channels that need looking at. What waits for the chain
// is looked at with every block; while a payer is being served on an
// unconfirmed funding, every time.
func (s *Seller) dueNow(tip chain.Header) []due {
	now := s.cfg.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	block := s.watched.tip != tip.Hash
	s.watched.tip = tip.Hash
	var all []due
	for id, w := range s.watched.channels {
		quiet := now.Sub(w.active)
		look := false
		switch w.phase {
		case channel.Signed:
			look = quiet >= channel.FundingTime
		case channel.Open:
			look = uint64(tip.Height) >= w.closeBy || s.cfg.Policy.IdleClose > 0 && quiet >= s.cfg.Policy.IdleClose ||
				!w.confirmed && (block || s.live.owner(id) != nil)
		case channel.Closing:
			look = block
		}
		if look {
			all = append(all, due{id, w})
		}
	}
	return all
}
