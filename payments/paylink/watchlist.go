package paylink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
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
	refund         uint64 // height
	owed           money.Satoshis
	unconfirmed    money.Satoshis // the most that is delivered before the funding is mined
	active         time.Time
	host           netip.Addr // of the payer

	// What looks at the chain have shown.
	minedAt uint32 // height of the funding's block; 0 where it is not known
	unknown bool   // no service knows the funding
	pending bool   // a look is due, and has not come about
}

func (w *watch) isExposed() bool { return w.phase == channel.Open && !w.confirmed }

// isBuried says whether the funding is so deep in the chain that only a change
// of the chain itself is a reason to look again.
func (w *watch) isBuried(height uint32) bool {
	return w.confirmed && w.minedAt > 0 && uint64(height) >= uint64(w.minedAt)+wallet.BuriedDepth-1
}

// due is a channel that needs looking at.
type due struct {
	id    wire.ChannelID
	tick  bool // the height or the time asks for something
	look  bool // the chain is to be asked
	first bool // before others
	watch
}

// watchlist holds the channels that are not settled, as they were last stored.
// Its methods want Seller.mu.
type watchlist struct {
	loaded   bool
	recent   []chain.Header // tips that were seen, the newest last
	channels map[wire.ChannelID]watch
	hinted   map[bsv.Txid]bool  // fundings of which a service has news
	unfunded map[netip.Addr]int // by host
	waiting  int                // sum of unfunded
	// exposed is what channels may deliver on fundings that are not mined.
	exposed money.Satoshis
	// admitted are channels that are about to, and how much each.
	admitted map[wire.ChannelID]money.Satoshis
}

func newWatchlist() watchlist {
	return watchlist{channels: make(map[wire.ChannelID]watch), hinted: make(map[bsv.Txid]bool), unfunded: make(map[netip.Addr]int)}
}

func (l *watchlist) put(s *channel.Payee, remote string) {
	id := s.ID()
	old, known := l.channels[id]
	l.drop(id)
	delete(l.admitted, id)
	if s.Phase == channel.Closed || s.Phase == channel.Failed {
		return
	}
	w := watch{phase: s.Phase, confirmed: s.Confirmed, funding: s.Open.FundingTxid, close: s.Close,
		closeBy: uint64(s.Open.RefundHeight) - min(uint64(s.Open.RefundHeight), uint64(s.Terms.CloseMargin)),
		refund:  uint64(s.Open.RefundHeight), owed: s.Last.Payee, unconfirmed: s.Unconfirmed(), active: s.Active,
		minedAt: old.minedAt, unknown: old.unknown, pending: old.pending || !known}
	if addr, err := netip.ParseAddrPort(remote); err == nil {
		w.host = hostOf(addr)
	}
	if w.phase == channel.Signed {
		l.unfunded[w.host]++
		l.waiting++
	}
	if w.isExposed() {
		l.exposed += w.unconfirmed
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
		l.exposed -= w.unconfirmed
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
		state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, s.cfg.Policy)
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

// found writes down what a look at a funding has shown. Nothing is due then.
func (s *Seller) found(id wire.ChannelID, minedAt uint32, unknown bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.watched.channels[id]; ok {
		w.minedAt, w.unknown, w.pending = minedAt, unknown, false
		s.watched.channels[id] = w
	}
}

// maxRecent is how many tips are remembered, to tell where a chain that has
// changed parts from the one before.
const maxRecent = 16

// dueNow collects the channels that need looking at, the most urgent first.
// Fundings are looked at with every block until they are buried, and when the
// chain has changed below them; while a payer is being served on one that is not
// mined, every time.
func (s *Seller) dueNow(tip chain.Header, changed bool, fork uint32) []due {
	now := s.cfg.Clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.watched
	n := len(l.recent)
	block := n == 0 || l.recent[n-1].Hash != tip.Hash
	if block {
		l.recent = append(l.recent[max(0, n-maxRecent+1):], tip)
	}
	var all []due
	for id, w := range l.channels {
		d := due{id: id}
		quiet := now.Sub(w.active)
		switch w.phase {
		case channel.Signed:
			d.tick = quiet >= channel.FundingTime
		case channel.Open:
			d.tick = uint64(tip.Height) >= w.closeBy || s.cfg.Policy.IdleClose > 0 && quiet >= s.cfg.Policy.IdleClose
			if changed && w.minedAt > fork {
				w.minedAt = 0
			}
			taken := w.confirmed == (w.minedAt > 0) // by the channel, what was seen last
			w.pending = w.pending || !taken || block && !w.isBuried(tip.Height) || l.hinted[w.funding]
			d.first = !w.confirmed && s.live.owner(id) != nil || l.hinted[w.funding]
			d.look = w.pending || d.first
		case channel.Closing:
			w.pending = w.pending || block || l.hinted[w.funding]
			d.look = true // in the ledger, and in the chain if that is pending
			d.first = uint64(tip.Height) >= w.closeBy
		}
		l.channels[id] = w
		if d.watch = w; d.tick || d.look {
			all = append(all, d)
		}
	}
	clear(l.hinted)
	slices.SortStableFunc(all, func(a, b due) int { return cmp.Compare(order(b), order(a)) })
	return all
}

func order(d due) int {
	switch {
	case d.tick:
		return 2
	case d.first:
		return 1
	}
	return 0
}

// Changed tells the seller that a service has news of a transaction, as a
// chain.Watcher does. If it funds a channel, the channel is looked at at once.
// It does not block.
func (s *Seller) Changed(txid bsv.Txid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watched.channels {
		if w.funding == txid {
			s.watched.hinted[txid] = true
			select {
			case s.wake <- struct{}{}:
			default:
			}
			return
		}
	}
}

// fork says whether the chain of this tip is another one than that of the tips
// before, and if so, up to which height they are the same.
func (s *Seller) fork(ctx context.Context, tip chain.Header) (changed bool, height uint32, err error) {
	s.mu.Lock()
	recent := slices.Clone(s.watched.recent)
	s.mu.Unlock()
	for i, last := range slices.Backward(recent) {
		if last.Hash == tip.Hash || last.Hash == tip.Prev {
			return i < len(recent)-1, last.Height, nil
		}
		h, err := s.cfg.Chain.Header(ctx, last.Height)
		switch {
		case errors.Is(err, chain.ErrNotFound), errors.Is(err, chain.ErrUnsupported):
		case err != nil:
			return false, 0, fmt.Errorf("look for a change of the chain: %w", err)
		case h.Hash == last.Hash:
			return i < len(recent)-1, last.Height, nil
		}
	}
	return len(recent) > 0, 0, nil
}
