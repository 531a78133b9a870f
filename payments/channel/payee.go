package channel

import (
	"bytes"
	"errors"
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
	// Trust is what this payer has paid in earlier channels. A CreditShare of it
	// may be owed from the beginning, and a trustShare of it is delivered before
	// the funding is mined beyond Terms.UnconfirmedLimit, up to MaxUnconfirmed
	// in all.
	Trust          money.Satoshis
	MaxUnconfirmed money.Satoshis
}

// trustShare is the part of Policy.Trust, a quarter, that a payer could take
// with it by spending its funding elsewhere.
const trustShare = 4

// FundingTime is how long a payee waits for the funding of a channel whose
// refund it has signed.
const FundingTime = 24 * time.Hour

// Payee is the seeder's side. It goes Offered → Signed → Checking → Open →
// Closing; Failed from anywhere. It is a value: Step does not change its
// receiver.
type Payee struct {
	Key    bsv.PrivateKey // of Terms.Payee; not part of a snapshot
	Policy Policy         // not part of a snapshot

	Terms     wire.Terms // of the opening
	Leg       Leg
	Past      Past
	Phase     Phase
	Open      wire.Open // from Signed on
	Last      wire.Pay  // newest commitment; Seq 0 before the first
	Funding   []byte    // raw; from Open on
	Confirmed bool      // the funding is mined
	Doubted   bool      // another transaction competes with it; false once it is mined
	Served    int64     // bytes of block data, over the channel's life
	Forgiven  int64     // of these in this leg, lost with connections that broke
	Active    time.Time // when something was last delivered or paid
	Close     bsv.Txid  // from Closing on

	// moving says that the connection is one of another title than the leg, and
	// that nothing is delivered on it before the payer's commitment begins a leg
	// for that; not part of a snapshot.
	moving bool
}

// NewPayee makes the state of an offer: terms with a fresh key, signed for a
// title.
func NewPayee(key bsv.PrivateKey, policy Policy, title [20]byte, t *wire.Terms) Payee {
	return Payee{Key: key, Policy: policy, Terms: *t, Leg: LegOf(title, t)}
}

// ID is the channel's name; it has none before Signed.
func (s Payee) ID() wire.ChannelID {
	return ID(bsv.Outpoint{Txid: s.Open.FundingTxid, Index: s.Open.FundingIndex})
}

// Template is the channel's transactions; an error before Signed.
func (s Payee) Template() (bsv.Channel, error) { return template(&s.Terms, &s.Open) }

// Covered is how many bytes of the current leg are paid for.
func (s Payee) Covered() int64 { return s.Leg.covered(&s.Past, &s.Last) }

// Credit is how many bytes the payer may owe now. It grows by worth and not by
// bytes: those of a cheap title buy no credit for a dear one.
func (s Payee) Credit() int64 {
	credit := s.Leg.Credit
	if share := s.Policy.CreditShare; share > 0 {
		before := (s.Past.Earned + fine(s.Policy.Trust)*fineUnit) / fine(share)
		credit = max(credit, sum(s.paidBytes()/share, before.bytesAt(s.Leg.Price())))
	}
	return min(credit, MaxCredit)
}

// legServed is how many bytes of the current leg were served.
func (s Payee) legServed() int64 { return s.Served - s.Past.Served }

// paidBytes is what of the leg is paid for, without what the payer paid ahead:
// credit grows with trade, not with deposits.
func (s Payee) paidBytes() int64 { return min(s.Covered(), s.legServed()) }

// Allowed is how many bytes of block data the payer may be sent, over the
// channel's life.
func (s Payee) Allowed() int64 {
	if s.Phase != Open || s.Doubted || s.moving {
		return 0
	}
	allowed := sum(s.Covered(), s.Credit(), s.Forgiven)
	if !s.Confirmed {
		allowed = min(allowed, s.unconfirmedBytes())
	}
	// What is delivered beyond the capacity nobody could pay.
	allowed = min(allowed, sum(s.CapacityBytes(), s.Forgiven))
	return sum(s.Past.Served, allowed)
}

// allow lets the payer have what it may have.
func (s Payee) allow() Effect {
	if s.Doubted || s.moving {
		return Revoke{}
	}
	return Allow{s.Allowed()}
}

// CapacityBytes is how many bytes of the current leg the channel can pay for in
// all. It falls only when another leg begins.
func (s Payee) CapacityBytes() int64 {
	return s.Leg.capacityBytes(&s.Open, &s.Past, s.Last.Creators, money.MaxSatoshis)
}

// Unconfirmed is the most that is delivered before the funding is mined.
func (s Payee) Unconfirmed() money.Satoshis {
	limit := s.Terms.UnconfirmedLimit
	return max(limit, min(limit+s.Policy.Trust/trustShare, s.Policy.MaxUnconfirmed))
}

// unconfirmedBytes is how much of this leg is delivered at the most before the
// funding is mined.
func (s Payee) unconfirmedBytes() int64 {
	price := s.Leg.Price()
	if price == 0 {
		return math.MaxInt64
	}
	return (fine(s.Unconfirmed())*fineUnit - s.Past.Worth).bytesAt(price)
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
		s.Confirmed, s.Doubted = true, false
		return s, []Effect{Store{}, s.allow(), Send{s.ack()}}
	case FundingUnmined:
		if !s.Confirmed || s.Phase != Open {
			return s, nil
		}
		s.Confirmed = false
		return s, append([]Effect{Store{}, s.allow()}, s.refuse(wire.CodeUnconfirmed, "a reorganisation took the funding out of its block")...)
	case FundingDoubted:
		if s.Confirmed || s.Doubted || s.Phase != Open {
			return s, nil
		}
		s.Doubted = true
		return s, append([]Effect{Revoke{}, Store{}}, s.refuseDoubted()...)
	case FundingLost:
		next, effects := s.settle() // if the chain changes its mind, the close is there
		if s.Phase == Open {
			effects = append(effects, s.refuse(wire.CodeDoubleSpend, "the funding was spent elsewhere")...)
		}
		return next, effects
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
		return s.funded(m, ev)
	case *wire.Pay:
		return s.pay(m, ev, now)
	case *wire.Resume:
		return s.resume(m, ev, now)
	case *wire.Close:
		if m.Channel != s.ID() {
			return s, refuse(m.Channel, wire.CodeUnknownChannel, "close of another channel")
		}
		switch s.Phase {
		case Closing, Closed:
			return s, []Effect{Send{s.closed()}}
		case Signed: // the payer gives the channel up before it was funded
			s.Phase = Failed
			return s, []Effect{Store{}}
		case Checking:
			return s, refuse(m.Channel, wire.CodeOrder, "the funding is being looked at")
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
	if err := checkNew(t, m, s.Leg); err != nil {
		return s, refuse(id, wire.CodeTerms, "%v", err)
	}
	c, err := template(t, m)
	if err != nil {
		return s, refuse(id, wire.CodeTerms, "%v", err)
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

func (s Payee) funded(m *wire.Funded, ev Got) (Payee, []Effect) {
	first := &m.First
	switch {
	case s.Phase == Offered || m.Channel != s.ID():
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "funding of another channel")
	case s.Phase == Open:
		return s, []Effect{Send{s.ready()}}
	case s.Phase != Signed:
		return s, refuse(m.Channel, wire.CodeOrder, "no funding is awaited")
	case first.Channel != m.Channel || first.Seq != 1 || first.Leg != 1 || first.Bytes != 0 || first.Payee != 0 || len(first.Creators) != 0:
		return s, refuse(m.Channel, wire.CodePayment, "the first commitment gives everything back")
	}
	if first.Title != s.Leg.Title || first.Title != ev.Title { // nothing was delivered yet: this connection's title comes first
		leg, err := s.legHere(first, ev)
		if err != nil {
			return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
		}
		s.Leg = leg
	}
	c, err := s.Template()
	if err != nil {
		return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
	}
	if err := c.CheckCommitment(c.Payer, 0, nil, first.Signature); err != nil {
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

// legHere is the leg that a commitment begins on this connection.
func (s Payee) legHere(m *wire.Pay, ev Got) (Leg, error) {
	if ev.Terms == nil || m.Title != ev.Title {
		return Leg{}, errors.New("a payment for a title of another connection")
	}
	leg := LegOf(ev.Title, ev.Terms)
	return leg, checkMove(&s.Terms, ev.Terms, leg, m.Creators)
}

func (s Payee) pay(m *wire.Pay, ev Got, now time.Time) (Payee, []Effect) {
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
		if !sameAmounts(m, last) || m.Bytes != last.Bytes || m.Leg != last.Leg || m.Title != last.Title {
			return s, broken(m.Channel, wire.CodePayment, "two commitments with number %d", m.Seq)
		}
		return s, []Effect{Send{s.ack()}}
	case m.Leg == m.Seq:
		return s.begin(m, ev, now)
	case m.Leg != last.Leg || m.Title != last.Title:
		// Of a leg whose beginning never came, as from a connection before.
		return s, refuse(m.Channel, wire.CodePayment, "commitment %d is of another leg", m.Seq)
	case m.Title != ev.Title:
		// What this connection delivers has another price and another creator.
		return s, refuse(m.Channel, wire.CodePayment, "commitment %d is of another connection's title", m.Seq)
	case m.Bytes < last.Bytes:
		return s, broken(m.Channel, wire.CodePayment, "commitment %d takes something back", m.Seq)
	case m.Bytes > maxCount-s.Past.Bytes:
		return s, broken(m.Channel, wire.CodePayment, "commitment %d is for more bytes than there are", m.Seq)
	}
	payee, creator, err := s.Leg.owed(&s.Past, m.Bytes)
	if err != nil || m.Payee < payee || amountTo(m.Creators, s.Leg.Creator) < creator {
		return s, broken(m.Channel, wire.CodePayment, "%d bytes cost %v and %v, paid were %v and %v", m.Bytes, payee, creator, m.Payee, m.Royalties())
	}
	if err := s.checkPay(m); err != nil {
		return s, broken(m.Channel, wire.CodePayment, "%v", err)
	}
	return s.took(m, false, now)
}

// checkPay says why a commitment cannot follow the newest one.
func (s Payee) checkPay(m *wire.Pay) error {
	if err := follows(m, &s.Last); err != nil {
		return err
	}
	c, err := s.Template()
	if err != nil {
		return err
	}
	if err := c.CheckCommitment(c.Payer, m.Payee, toClose(m.Creators), m.Signature); err != nil {
		return fmt.Errorf("commitment %d: %w", m.Seq, err)
	}
	return nil
}

// took takes over a commitment that was found good. changed says that there is
// something to store besides its amounts.
func (s Payee) took(m *wire.Pay, changed bool, now time.Time) (Payee, []Effect) {
	changed = changed || !sameAmounts(m, &s.Last)
	if changed || m.Bytes > s.Last.Bytes {
		s.Active = now
	}
	s.Last = *m
	if s.Remaining() <= 0 {
		// One Store for the payment and the close: a crash between two would
		// leave a channel that is closing and a close that nobody broadcasts.
		return s.close()
	}
	effects := []Effect{s.allow(), Send{s.ack()}}
	if changed {
		effects = append([]Effect{Store{}}, effects...)
	} // else the close stays the same, and a write would be all that it brings
	switch {
	case s.Doubted:
		effects = append(effects, s.refuseDoubted()...)
	case !s.Confirmed && s.Allowed() == sum(s.Past.Served, s.unconfirmedBytes()):
		effects = append(effects, s.refuse(wire.CodeUnconfirmed, "%v is the most before the funding is mined", s.Unconfirmed())...)
	}
	return s, effects
}

// begin makes the move to this connection's title. What the finished leg leaves
// unpaid is forgiven as with a broken connection, or the channel is closed.
func (s Payee) begin(m *wire.Pay, ev Got, now time.Time) (Payee, []Effect) {
	leg, err := s.legHere(m, ev)
	if err != nil || m.Bytes != 0 {
		return s, refuse(m.Channel, wire.CodePayment, "commitment %d begins no leg here: %v", m.Seq, err)
	}
	if err := s.checkPay(m); err != nil {
		return s, broken(m.Channel, wire.CodePayment, "%v", err)
	}
	left := s // what the commitment pays beyond the last one is for the finished leg
	left.Last.Payee, left.Last.Creators = m.Payee, m.Creators
	left, good := left.forgive()
	if !good {
		s.Last = *m
		return s.close()
	}
	// Of a leg without trade nothing has to be remembered, not even that it was.
	changed := leg != s.Leg || s.legServed() > 0 || s.Last.Bytes > 0
	price := s.Leg.Price()
	s.Past = Past{
		Payee:    m.Payee,
		Creators: m.Creators,
		Bytes:    s.Past.Bytes + s.Last.Bytes,
		Served:   s.Served,
		Worth:    s.Past.Worth + fineOf(price, s.legServed()),
		Earned:   s.Past.Earned + fineOf(price, left.paidBytes()),
		Forgiven: s.Past.Forgiven + fineOf(price, left.Forgiven),
	}
	s.Forgiven, s.Leg, s.moving = 0, leg, false
	return s.took(m, changed, now)
}

// forgive strikes what was served and is not paid for, or says that this would
// pass the budget, so that neither breaking connections nor moving to other
// titles ever pays.
func (s Payee) forgive() (Payee, bool) {
	lost := s.legServed() - s.Forgiven - s.Covered()
	if lost <= 0 {
		return s, true
	}
	price := s.Leg.Price()
	budget := sum(s.Credit(), s.paidBytes()/forgivenShare, (s.Past.Earned / forgivenShare).bytesAt(price))
	if sum(s.Forgiven, lost, s.Past.Forgiven.bytesAt(price)) > budget {
		return s, false
	}
	s.Forgiven += lost
	return s, true
}

// forgivenShare is the part of what was paid for, a 16th, that may be lost with
// broken connections besides one credit.
const forgivenShare = 16

// resume goes on after a broken connection. Blocks that were on their way then
// are forgiven within a budget; beyond it the channel is closed.
func (s Payee) resume(m *wire.Resume, ev Got, now time.Time) (Payee, []Effect) {
	if s.Phase == Offered || m.Channel != s.ID() || ev.Terms == nil {
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "no such channel")
	}
	payer, err := bsv.ParsePublicKey(s.Open.Payer[:])
	if err != nil {
		return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
	}
	if err := bsv.VerifyDigest(payer, ResumeDigest(ev.Terms.Nonce, ev.Title, m.Channel), m.Proof); err != nil {
		return s, broken(m.Channel, wire.CodeUnknownChannel, "proof of the channel's key: %v", err)
	}
	resumed := &wire.Resumed{Last: s.Last, Credit: s.Credit()}
	switch s.Phase {
	case Signed, Checking: // a check that is under way goes on: there is one at a time
		if ev.Title != s.Leg.Title { // nothing was delivered yet: the first leg may be of any title
			leg := LegOf(ev.Title, ev.Terms)
			if err := checkMove(&s.Terms, ev.Terms, leg, nil); err != nil {
				return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
			}
			s.Leg, s.Last.Title = leg, ev.Title
		}
		resumed.Last = wire.Pay{Channel: m.Channel}
		return s, []Effect{Send{resumed}}
	case Closing, Closed:
		return s, []Effect{Send{s.closed()}}
	case Failed:
		return s, refuse(m.Channel, wire.CodeUnknownChannel, "the channel has failed")
	}
	if ev.Title != s.Leg.Title {
		if err := checkMove(&s.Terms, ev.Terms, LegOf(ev.Title, ev.Terms), s.Last.Creators); err != nil {
			return s, refuse(m.Channel, wire.CodeTerms, "%v", err)
		}
		s.moving = true
		return s, []Effect{Revoke{}, Send{resumed}}
	}
	s.Active, s.moving = now, false
	forgiven := s.Forgiven
	s, good := s.forgive()
	if !good {
		return s.close()
	}
	effects := []Effect{Send{resumed}, s.allow()}
	if s.Forgiven > forgiven {
		effects = append([]Effect{Store{}}, effects...)
	}
	if s.Doubted {
		effects = append(effects, s.refuseDoubted()...)
	}
	return s, effects
}

func (s Payee) tip(height uint32, now time.Time) (Payee, []Effect) {
	if s.Active.After(now) { // the clock was set back
		s.Active = now
	}
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

// close settles the channel and tells the payer.
func (s Payee) close() (Payee, []Effect) {
	next, effects := s.settle()
	if next.Phase != s.Phase {
		effects = append(effects, Send{next.closed()})
	}
	return next, effects
}

// settle signs the newest commitment and gives it to the outbox.
func (s Payee) settle() (Payee, []Effect) {
	if s.Phase != Open {
		return s, nil
	}
	tx, err := s.CloseTx()
	if err != nil {
		return s, []Effect{Revoke{}, Fail{fmt.Errorf("close of channel %x: %w", s.ID(), err)}}
	}
	c, err := s.Template()
	if err != nil {
		return s, []Effect{Revoke{}, Fail{err}}
	}
	s.Phase = Closing
	s.Close = tx.Txid()
	prev := []bsv.Output{{Value: c.Capacity, Script: c.Lock()}}
	return s, []Effect{Revoke{}, Store{Tx: tx, Prev: prev, Purpose: CloseTx}}
}

// CloseTx is the newest commitment with both signatures: what a close
// broadcasts.
func (s Payee) CloseTx() (*bsv.Tx, error) {
	c, err := s.Template()
	if err != nil {
		return nil, err
	}
	creators := toClose(s.Last.Creators)
	own, err := c.SignCommitment(s.Key, s.Last.Payee, creators)
	if err != nil {
		return nil, err
	}
	return c.CompleteCommitment(s.Last.Payee, creators, bytes.Clone(s.Last.Signature), own)
}

func (s Payee) refuse(code wire.Code, format string, args ...any) []Effect {
	return refuse(s.ID(), code, format, args...)
}

func (s Payee) refuseDoubted() []Effect {
	return s.refuse(wire.CodeDoubleSpend, "nothing more until the funding is mined")
}

func (s Payee) ready() *wire.Ready { return &wire.Ready{Channel: s.ID(), Credit: s.Credit()} }

func (s Payee) ack() *wire.Ack {
	return &wire.Ack{Channel: s.ID(), Seq: s.Last.Seq, Credit: s.Credit()}
}

func (s Payee) closed() *wire.Closed {
	return &wire.Closed{Channel: s.ID(), Txid: s.Close, Payee: s.Last.Payee, Creator: s.Last.Royalties()}
}

// Remaining is what the channel can still carry.
func (s Payee) Remaining() money.Satoshis {
	return maxSpend(&s.Open, s.Leg.creators(s.Last.Creators)) - spent(&s.Last)
}
