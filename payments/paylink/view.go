package paylink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// questionsPerSecond bounds what the watching asks of the chain: public services
// answer three questions a second, which the wallet and new channels share. What
// finds no room in one round waits for the next.
//
// In an hour of six blocks and 240 rounds that is, as TestQuestionsInAnHour
// counts: 246 questions (the tip, and the fee rate with each block) where no
// channel is open, or all are buried. Ten fundings, each asked for with the five
// blocks from its own on, add 50; a thousand 5,000. Each payer that is served
// on a funding that is not mined adds 240 until it is. All of it together is
// never more than 7,446.
const questionsPerSecond = 2

// leastQuestions are asked in a round however short it is.
const leastQuestions = 16

// questions is how many there are in one round.
func (s *Seller) questions() int {
	return max(leastQuestions, int(questionsPerSecond*s.cfg.Poll/time.Second))
}

// errLater says that a round has no question left.
var errLater = errors.New("too many questions for now")

// view is what one round has seen of fundings, of which several channels may
// have the same.
type view struct {
	seller *Seller
	seen   map[bsv.Txid]sight
	left   int // questions
}

// sight is what a look at a funding has shown.
type sight struct {
	state     chain.State
	minedAt   uint32
	competing bool
	unknown   bool // and the network does not take it
	lost      bool // something else has spent what it spends
	sent      bool // it was given to the network again
	err       error
}

// event is what a channel is to be told, nil for nothing.
func (s sight) event(confirmed bool) channel.Event {
	switch {
	case s.lost || s.state == chain.Conflicted:
		return channel.FundingLost{}
	case s.state == chain.Mined && !confirmed:
		return channel.FundingMined{}
	case s.state != chain.Mined && confirmed:
		return channel.FundingUnmined{}
	case s.competing:
		return channel.FundingDoubted{}
	}
	return nil
}

// look asks the chain what has become of a channel's funding, once in a round.
func (v *view) look(ctx context.Context, funding bsv.Txid, id wire.ChannelID) (sight, error) {
	if seen, ok := v.seen[funding]; ok {
		return seen, seen.err
	}
	if v.left <= 0 {
		return sight{}, errLater
	}
	v.left--
	seen := v.ask(ctx, funding, id)
	v.seen[funding] = seen
	return seen, seen.err
}

func (v *view) ask(ctx context.Context, funding bsv.Txid, id wire.ChannelID) sight {
	status, err := v.seller.cfg.Chain.Status(ctx, funding)
	if err != nil {
		return sight{err: fmt.Errorf("status of the funding: %w", err)}
	}
	seen := sight{state: status.State}
	switch status.State {
	case chain.Mined:
		seen.minedAt = status.Height
	case chain.Seen:
		seen.competing = len(status.Competing) > 0
	case chain.Unknown:
		// Forgotten or never heard of: we have it, so we tell the network again.
		v.left--
		seen.sent = true
		seen.unknown, seen.lost, seen.err = v.seller.rebroadcast(ctx, id)
	}
	return seen
}

// Danger is a channel whose money may be lost.
type Danger struct {
	Channel wire.ChannelID
	Reason  DangerReason
	Amount  money.Satoshis // that it owes us
	Blocks  uint32         // until the payer can take everything back; 0 when it can
}

// DangerReason says what keeps a channel from being settled.
type DangerReason uint8

// The reasons.
const (
	// CloseLate says that the close is not on the network although two thirds
	// of the margin that was kept for it are gone.
	CloseLate DangerReason = iota + 1
	// FundingUnknown says that no service knows the funding or takes it again.
	FundingUnknown
)

// tellDangers reports the channels in danger, if they are others than last time.
func (s *Seller) tellDangers(height uint32) {
	if s.cfg.Endangered == nil {
		return
	}
	s.mu.Lock()
	var all []Danger
	for id, w := range s.watched.channels {
		if reason := w.danger(height); reason != 0 {
			left := w.refund - min(w.refund, uint64(height))
			all = append(all, Danger{Channel: id, Reason: reason, Amount: w.owed, Blocks: uint32(left)})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b Danger) int { return slices.Compare(a.Channel[:], b.Channel[:]) })
	if !slices.Equal(all, s.dangers) {
		s.dangers = all
		s.cfg.Endangered(slices.Clone(all))
	}
}

// danger says what is wrong with a channel that owes us something; 0 is nothing.
func (w *watch) danger(height uint32) DangerReason {
	switch {
	case w.phase != channel.Open && w.phase != channel.Closing || w.owed == 0:
		return 0
	case 3*(w.refund-min(w.refund, uint64(height))) < w.refund-w.closeBy:
		return CloseLate
	case w.unknown:
		return FundingUnknown
	}
	return 0
}
