package paylink

import (
	"context"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// A payer that proves the key of a settled channel may owe more in its next one:
// what it has paid stands for it. One history stands for one channel at a time,
// and for no other after one that was left unpaid, until the seller starts anew.

// backed is the channel that a settled one stands for, or zero.
func (s *Seller) backed(history wire.ChannelID) wire.ChannelID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history[history]
}

// back makes a settled channel stand for another one than before, or says that
// somebody else has been faster.
func (s *Seller) back(history, before, now wire.ChannelID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.history[history] != before {
		return false
	}
	if s.history == nil {
		s.history = make(map[wire.ChannelID]wire.ChannelID)
	}
	s.history[history] = now
	return true
}

// paidUp says whether a channel was settled on the chain, by a close of a mined
// funding, and nothing was left unpaid that had not been forgiven.
func (s *Seller) paidUp(ctx context.Context, st *channel.Payee) (bool, error) {
	if st.Phase != channel.Closing && st.Phase != channel.Closed || owes(st) {
		return false, nil
	}
	out, err := s.cfg.Ledger.Outgoing(ctx, st.Close)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look up a close: %w", err)
	}
	return out.State == ledger.Mined || out.State == ledger.Seen && st.Confirmed, nil
}
