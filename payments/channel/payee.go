package channel

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Policy is what a payee decides for itself.
type Policy struct {
	// CreditShare is the part of what has been paid for that may be owed: paid
	// bytes / CreditShare, at least Terms.Credit, at most MaxCredit. 0 keeps
	// the credit at Terms.Credit.
	CreditShare int64
	// IdleClose is how long a channel stays open on which nothing is delivered
	// or paid; 0 is for ever.
	IdleClose time.Duration
}

// FundingTime is how long a payee waits for the funding of a channel whose
// refund it has signed.
const FundingTime = 24 * time.Hour

// Payee is the seeder's side. It goes Offered → Signed → Checking → Open →
// Closing; Failed from anywhere. It is a value: Step does not change its
// receiver.
type Payee struct {
	Key    bsv.PrivateKey // of Terms.Payee; not part of a snapshot
	Policy Policy         // not part of a snapshot

	InfoHash  [20]byte
	Terms     wire.Terms
	Phase     Phase
	Open      wire.Open // from Signed on
	Last      wire.Pay  // newest commitment; Seq 0 before the first
	Funding   []byte    // raw; from Open on
	Confirmed bool      // the funding is mined
	Served    int64     // bytes of block data, over the channel's life
	Forgiven  int64     // of these, lost with connections that broke
	Active    time.Time // when something was last delivered or paid
	Close     bsv.Txid  // from Closing on
}

// ID is the channel's name; it has none before Signed.
func (s Payee) ID() wire.ChannelID {
	return ID(bsv.Outpoint{Txid: s.Open.FundingTxid, Index: s.Open.FundingIndex})
}

// Template is the channel's transactions; an error before Signed.
func (s Payee) Template() (bsv.Channel, error) { return template(&s.Terms, &s.Open) }

// Credit is how many bytes the payer may owe now.
func (s Payee) Credit() int64 {
	credit := s.Terms.Credit
	if s.Policy.CreditShare > 0 {
		credit = max(credit, s.paidBytes()/s.Policy.CreditShare)
	}
	return min(credit, MaxCredit)
}

// paidBytes is what the newest commitment pays for, without what the payer
// paid ahead: credit grows with trade, not with deposits.
func (s Payee) paidBytes() int64 {
	return min(Covered(&s.Terms, s.Last.Payee, s.Last.Creator), s.Served)
}

// Allowed is how many bytes of block data the payer may be sent, over the
// channel's life.
func (s Payee) Allowed() int64 {
	if s.Phase != Open {
		return 0
	}
	covered := Covered(&s.Terms, s.Last.Payee, s.Last.Creator)
	allowed := covered
	if more := s.Credit() + s.Forgiven; allowed < math.MaxInt64-more {
		allowed += more
	}
	if !s.Confirmed {
		allowed = min(allowed, s.unconfirmedBytes())
	}
	// What is delivered beyond the capacity nobody could pay.
	if most := s.capacityBytes(); most < math.MaxInt64-s.Forgiven {
		allowed = min(allowed, most+s.Forgiven)
	}
	return allowed
}

// capacityBytes is how many bytes the channel can pay for.
func (s Payee) capacityBytes() int64 {
	c, err := s.Template()
	if err != nil {
		return 0
	}
	return affordable(&s.Terms, c.MaxSpend())
}

// unconfirmedBytes is how much is delivered at the most before the funding is
// mined.
func (s Payee) unconfirmedBytes() int64 {
	return (s.Terms.Ask + s.Terms.Royalty).Bytes(s.Terms.UnconfirmedLimit)
}

// Step is the machine. See the package comment.
func (s Payee) Step(ev Event, now time.Time) (Payee, []Effect) {
	switch ev := ev.(type) {
	case Got:
		return s.got(ev, now)
	case FundingChecked:
		return s.checked(ev, now)
	case FundingMined:
		if s.Confirmed || s.Phase != Open {
			return s, nil
		}
		s.Confirmed = true
		return s, []Effect{Store{}, Allow{s.Allowed()}, Send{s.ack()}}
	case FundingLost:
		if s.Phase != Open {
			return s, nil
		}
		s.Phase = Failed
		return s, append([]Effect{Revoke{}, Store{}}, refuse(s.ID(), wire.CodeDoubleSpend, "the funding was spent elsewhere")...)
	case Served:
		if ev.Bytes > 0 {
			s.Served += ev.Bytes
			s.Active = now
		}
		return s, nil
	case Tip:
		return s.tip(ev.Height, now)
	case CloseWanted:
		return s.close()
	}
	return s, nil
}

func (s Payee) got(ev Got, now time.Time) (Payee, []Effect) {
	switch m := ev.Msg.(type) {
	case *wire.Open:
		return s.open(m, now)
	case *wire.Funded:
		return s.funded(m)
	case *wire.Pay:
		return s.pay(m, now)
	case *wire.Resume:
		return s.resume(m, ev.Nonce, now)
	case *wire.Close:
		if m.Channel != s.ID() {
			return s, refuse(m.Channel, wire.CodeUnknownChannel, "close of another channel")
		}
		if s.Phase == Closing || s.Phase == Closed {
			return s, []Effect{Send{s.closed()}}
		}
		return s.close()
	case *wire.Refusal:
		return s, nil
	}
	return s, broken(s.ID(), wire.CodeOrder, "a seeder does not take a message of kind %d", ev.Msg.Kind())
}

func (s Payee) open(m *wire.Open, now time.Time) (Payee, []Effect) {
	t := &s.Terms
	id := ID(bsv.Outpoint{Txid: m.FundingTxid, Index: m.FundingIndex})
	switch {
	case s.Phase != Offered:
		return s, refuse(id, wire.CodeOrder, "a channel is open already")
	case now.Unix() > t.Expiry:
		return s, refuse(id, wire.CodeExpired, "the offer ended at %s", time.Unix(t.Expiry, 0).UTC().Format(time.RFC3339))
	case m.Capacity < t.MinCapacity || m.Capacity > t.MaxCapacity:
		return s, refuse(id, wire.CodeTerms, "capacity %v, offered were %v to %v", m.Capacity, t.MinCapacity, t.MaxCapacity)
	case m.FeeRate < t.FeeRate || m.FeeRate > 100*max(t.FeeRate, 1):
		return s, refuse(id, wire.CodeTerms, "fee rate %v, offered was %v", m.FeeRate, t.FeeRate)
	case m.RefundHeight < t.TipHeight+t.RefundWindow || m.RefundHeight >= maxRefundHeight:
		return s, refuse(id, wire.CodeTerms, "refund at height %d, offered was %d or later", m.RefundHeight, t.TipHeight+t.RefundWindow)
	}
	c, err := template(t, m)
	if err != nil {
		return s, refuse(id, wire.CodeTerms, "%v", err)
	}
	if c.MaxSpend() <= 0 {
		return s, refuse(id, wire.CodeTerms, "capacity %v is used up by the close's fee", m.Capacity)
	}
	sig, err := c.SignRefund(s.Key)
	if err != nil {
		return s, refuse(id, wire.CodeUnavailable, "refund not signed")
	}
	s.Open = *m
	s.Phase = Signed
	s.Active = now
	return s, []Effect{Store{}, Send{&wire.RefundSig{Channel: s.ID(), Signature: sig}}}
}

func (s Payee) funded(m *wire.Funded) (Payee, []Effect) {
	switch {
	case s.Phase == Offered || m.Channel != s.ID():
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "funding of another channel")
	case s.Phase == Open:
		return s, []Effect{Send{s.ready()}}
	case s.Phase != Signed:
		return s, refuse(m.Channel, wire.CodeOrder, "no funding is awaited")
	case m.First.Channel != m.Channel || m.First.Seq != 1 || m.First.Bytes != 0 || m.First.Payee != 0 || m.First.Creator != 0:
		return s, refuse(m.Channel, wire.CodePayment, "the first commitment gives everything back")
	}
	c, err := s.Template()
	if err != nil {
		return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
	}
	if err := c.CheckCommitment(c.Payer, 0, 0, m.First.Signature); err != nil {
		return s, refuse(m.Channel, wire.CodePayment, "first commitment: %v", err)
	}
	funding, err := bsv.ParseTx(m.Funding, wire.MaxPayload)
	if err != nil {
		return s, refuse(m.Channel, wire.CodeFunding, "%v", err)
	}
	parents := make([]*bsv.Tx, len(m.Parents))
	for i, raw := range m.Parents {
		if parents[i], err = bsv.ParseTx(raw, wire.MaxPayload); err != nil {
			return s, refuse(m.Channel, wire.CodeFunding, "parent %d: %v", i, err)
		}
	}
	s.Phase = Checking
	s.Last = m.First
	s.Funding = m.Funding
	return s, []Effect{CheckFunding{Funding: funding, Parents: parents}}
}

func (s Payee) checked(ev FundingChecked, now time.Time) (Payee, []Effect) {
	if s.Phase != Checking {
		return s, nil
	}
	refusal := ev.Refusal
	if refusal == nil && s.mustClose(ev.Height) {
		refusal = &wire.Refusal{Code: wire.CodeFunding, Text: "the refund is too near"}
	}
	if refusal != nil {
		// The payer may come back with a better funding, or when the chain
		// service answers again: the refund that was signed binds to nothing
		// of ours.
		s.Phase, s.Last, s.Funding = Signed, wire.Pay{}, nil
		refusal.Channel = s.ID()
		return s, []Effect{Send{refusal}}
	}
	s.Phase = Open
	s.Confirmed = ev.Confirmed
	s.Active = now
	return s, []Effect{Store{}, Allow{s.Allowed()}, Send{s.ready()}}
}

func (s Payee) pay(m *wire.Pay, now time.Time) (Payee, []Effect) {
	if s.Phase == Offered || m.Channel != s.ID() {
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "payment into another channel")
	}
	last := &s.Last
	switch {
	case s.Phase == Closing || s.Phase == Closed:
		return s, []Effect{Send{s.closed()}}
	case s.Phase != Open:
		return s, refuse(m.Channel, wire.CodeOrder, "the channel is not open")
	case m.Seq < last.Seq:
		return s, nil // overtaken by a later one
	case m.Seq == last.Seq:
		if m.Payee != last.Payee || m.Creator != last.Creator || m.Bytes != last.Bytes {
			return s, broken(m.Channel, wire.CodePayment, "two commitments with number %d", m.Seq)
		}
		return s, []Effect{Send{s.ack()}}
	case m.Payee < last.Payee || m.Creator < last.Creator || m.Bytes < last.Bytes:
		return s, broken(m.Channel, wire.CodePayment, "commitment %d takes something back", m.Seq)
	}
	payee, creator, err := Due(&s.Terms, m.Bytes)
	if err != nil || m.Payee < payee || m.Creator < creator {
		return s, broken(m.Channel, wire.CodePayment, "%d bytes cost %v and %v, paid were %v and %v", m.Bytes, payee, creator, m.Payee, m.Creator)
	}
	c, err := s.Template()
	if err != nil {
		return s, broken(m.Channel, wire.CodeTerms, "%v", err)
	}
	if err := c.CheckCommitment(c.Payer, m.Payee, m.Creator, m.Signature); err != nil {
		return s, broken(m.Channel, wire.CodePayment, "commitment %d: %v", m.Seq, err)
	}
	more := m.Payee > last.Payee || m.Creator > last.Creator
	if more || m.Bytes > last.Bytes {
		s.Active = now
	}
	s.Last = *m
	if s.Remaining() <= 0 {
		// One Store for the payment and the close: a crash between two would
		// leave a channel that is closing and a close that nobody broadcasts.
		return s.close()
	}
	allowed := s.Allowed()
	effects := []Effect{Allow{allowed}, Send{s.ack()}}
	if more {
		effects = append([]Effect{Store{}}, effects...)
	} // else the close stays the same, and a write would be all that it brings
	if !s.Confirmed && allowed == s.unconfirmedBytes() {
		effects = append(effects, refuse(m.Channel, wire.CodeUnconfirmed, "%v is the most before the funding is mined", s.Terms.UnconfirmedLimit)...)
	}
	return s, effects
}

// resume goes on after a broken connection. Blocks that were on their way then
// are forgiven within a budget; beyond it the channel is closed, so that
// breaking connections never pays.
func (s Payee) resume(m *wire.Resume, nonce [16]byte, now time.Time) (Payee, []Effect) {
	if s.Phase == Offered || m.Channel != s.ID() {
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "no such channel")
	}
	payer, err := bsv.ParsePublicKey(s.Open.Payer[:])
	if err != nil {
		return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
	}
	if err := bsv.VerifyDigest(payer, ResumeDigest(nonce, s.InfoHash, m.Channel), m.Proof); err != nil {
		return s, broken(m.Channel, wire.CodeUnknownChannel, "proof of the channel's key: %v", err)
	}
	resumed := &wire.Resumed{Last: s.Last, Credit: s.Credit()}
	resumed.Last.Channel = m.Channel
	switch s.Phase {
	case Signed, Checking: // a check that is under way goes on: there is one at a time
		resumed.Last = wire.Pay{Channel: m.Channel}
		return s, []Effect{Send{resumed}}
	case Closing, Closed:
		return s, []Effect{Send{s.closed()}}
	case Failed:
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "the channel has failed")
	}
	s.Active = now
	effects := []Effect{Send{resumed}, Allow{s.Allowed()}}
	lost := s.Served - s.Forgiven - Covered(&s.Terms, s.Last.Payee, s.Last.Creator)
	if lost > 0 {
		if s.Forgiven+lost > s.Credit()+s.paidBytes()/16 {
			return s.close()
		}
		s.Forgiven += lost
		effects = []Effect{Store{}, Send{resumed}, Allow{s.Allowed()}}
	}
	return s, effects
}

func (s Payee) tip(height uint32, now time.Time) (Payee, []Effect) {
	switch {
	case s.Phase == Signed && now.Sub(s.Active) >= FundingTime:
		s.Phase = Failed
		return s, []Effect{Store{}}
	case s.Phase != Open:
		return s, nil
	case s.mustClose(height):
		return s.close()
	case s.Policy.IdleClose > 0 && now.Sub(s.Active) >= s.Policy.IdleClose:
		return s.close()
	}
	return s, nil
}

// mustClose says whether the refund's height is within the close margin.
func (s Payee) mustClose(height uint32) bool {
	return uint64(height)+uint64(s.Terms.CloseMargin) >= uint64(s.Open.RefundHeight)
}

// close signs the newest commitment and gives it to the outbox.
func (s Payee) close() (Payee, []Effect) {
	if s.Phase != Open {
		return s, nil
	}
	tx, err := s.CloseTx()
	if err != nil {
		return s, []Effect{Fail{fmt.Errorf("close of channel %x: %w", s.ID(), err)}}
	}
	c, err := s.Template()
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Phase = Closing
	s.Close = tx.Txid()
	prev := []bsv.Output{{Value: c.Capacity, Script: c.Lock()}}
	return s, []Effect{Revoke{}, Store{Tx: tx, Prev: prev, Purpose: CloseTx}, Send{s.closed()}}
}

// CloseTx is the newest commitment with both signatures: what a close
// broadcasts.
func (s Payee) CloseTx() (*bsv.Tx, error) {
	c, err := s.Template()
	if err != nil {
		return nil, err
	}
	own, err := c.SignCommitment(s.Key, s.Last.Payee, s.Last.Creator)
	if err != nil {
		return nil, err
	}
	return c.CompleteCommitment(s.Last.Payee, s.Last.Creator, bytes.Clone(s.Last.Signature), own)
}

func (s Payee) ready() *wire.Ready { return &wire.Ready{Channel: s.ID(), Credit: s.Credit()} }

func (s Payee) ack() *wire.Ack {
	return &wire.Ack{Channel: s.ID(), Seq: s.Last.Seq, Credit: s.Credit()}
}

func (s Payee) closed() *wire.Closed {
	return &wire.Closed{Channel: s.ID(), Txid: s.Close, Payee: s.Last.Payee, Creator: s.Last.Creator}
}

// Remaining is what the channel can still carry.
func (s Payee) Remaining() money.Satoshis {
	c, err := s.Template()
	if err != nil {
		return 0
	}
	return c.MaxSpend() - s.Last.Payee - s.Last.Creator
}
