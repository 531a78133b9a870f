package channel

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Why a payer does not take a seeder's terms.
var (
	ErrNetwork   = errors.New("the seeder is on another network")
	ErrPrice     = errors.New("the price is above the limit")
	ErrExpired   = errors.New("the offer has run out")
	ErrRoyalty   = errors.New("the royalty is not the manifest's")
	ErrWindow    = errors.New("the refund comes too late or too early")
	ErrCredit    = errors.New("the credit is too small to work with")
	ErrFeeRate   = errors.New("the close's fee rate is too high")
	ErrSignature = errors.New("the terms are not signed by the seeder")
)

// MinCredit is the least number of bytes that a seeder must let owe: less
// would mean a payment every few blocks.
const MinCredit = 256 << 10

// Limits are what a payer accepts.
type Limits struct {
	Network  bsv.Network
	MaxPrice money.Rate // ask and royalty together
	// MaxWindow is how many blocks the money may be locked if the seeder goes
	// away.
	MaxWindow  uint32
	MaxFeeRate money.FeeRate
	// Royalty and CreatorHash are the manifest's; zero without one.
	Royalty     money.Rate
	CreatorHash bsv.Hash160
}

// CheckTerms says why terms for a title are not acceptable, or nil. tip is the
// payer's own view of the chain's height.
func CheckTerms(t *wire.Terms, infoHash [20]byte, l Limits, tip uint32, now time.Time) error {
	price := t.Ask + t.Royalty // both at most MaxRate
	switch {
	case t.Network != byte(l.Network):
		return ErrNetwork
	case price > l.MaxPrice:
		return fmt.Errorf("%v asked, %v at the most: %w", price, l.MaxPrice, ErrPrice)
	case now.Unix() > t.Expiry:
		return ErrExpired
	case t.Royalty != l.Royalty || l.Royalty > 0 && t.CreatorHash != l.CreatorHash:
		return ErrRoyalty
	case t.RefundWindow > l.MaxWindow || t.CloseMargin >= t.RefundWindow || t.TipHeight > tip+6 || t.TipHeight+l.MaxWindow < tip:
		return fmt.Errorf("%d blocks from height %d, here %d: %w", t.RefundWindow, t.TipHeight, tip, ErrWindow)
	case t.Credit < MinCredit:
		return ErrCredit
	case t.FeeRate > l.MaxFeeRate:
		return fmt.Errorf("%v: %w", t.FeeRate, ErrFeeRate)
	}
	identity, err := bsv.ParsePublicKey(t.Identity[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	digest, err := TermsDigest(t, infoHash)
	if err != nil {
		return err
	}
	if err := bsv.VerifyDigest(identity, digest, t.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// Payer is the downloader's side. It goes Proposed → Signed → Funded → Open →
// Closing → Closed, or to Refunding when the seeder does not close; Failed only
// while nothing has been broadcast. It is a value: Step does not change its
// receiver.
type Payer struct {
	Key bsv.PrivateKey // of Open.Payer; not part of a snapshot
	// Exposure is how many bytes may be paid for before they are verified, so
	// that pieces longer than the credit can complete; not part of a snapshot.
	Exposure int64
	// Prev are the outputs that the funding spends; not part of a snapshot,
	// and needed until Funded only.
	Prev []bsv.Output

	Terms   wire.Terms // of the opening
	Leg     Leg
	Past    Past
	Phase   Phase
	Open    wire.Open
	Last    wire.Pay // newest commitment; Seq 0 before the first
	Funding []byte   // raw
	Refund  []byte   // raw, fully signed; from Signed on
	Credit  int64    // bytes that the seeder lets us owe
	Acked   uint64   // newest commitment that the seeder has stored
	Wire    int64    // bytes received in this leg, as the seeder counts them
	Payable int64    // of these, verified
	// Forgone is by how many bytes the exposure has grown in this leg because
	// bytes were paid for on connections that broke before they were verified.
	Forgone int64
	// Refused says that the seeder does not know the channel: nothing but the
	// refund comes of it.
	Refused bool
	Close   bsv.Txid // as the seeder says; from Closed on
}

// forgoneShare is the part of what was verified, a 64th, that may be forgone
// besides one Exposure.
const forgoneShare = 64

// NewPayer makes the state after a funding transaction has been built for
// terms that CheckTerms took, and the effects that begin the channel.
func NewPayer(key bsv.PrivateKey, title [20]byte, t *wire.Terms, open wire.Open, funding *bsv.Tx, prev []bsv.Output) (Payer, []Effect, error) {
	s := Payer{Key: key, Leg: LegOf(title, t), Terms: *t, Open: open, Prev: prev,
		Phase: Proposed, Funding: funding.Bytes(), Credit: t.Credit}
	if err := checkNew(t, &open, s.Leg); err != nil {
		return Payer{}, nil, err
	}
	return s, []Effect{Store{}, Send{&open}}, nil
}

// ID is the channel's name.
func (s Payer) ID() wire.ChannelID {
	return ID(bsv.Outpoint{Txid: s.Open.FundingTxid, Index: s.Open.FundingIndex})
}

// Template is the channel's transactions.
func (s Payer) Template() (bsv.Channel, error) { return template(&s.Terms, &s.Open) }

// Spent is what the newest commitment gives away.
func (s Payer) Spent() money.Satoshis { return spent(&s.Last) }

// Covered is how many bytes of the current leg are paid for.
func (s Payer) Covered() int64 { return s.Leg.covered(&s.Past, &s.Last) }

// CapacityBytes is how many bytes of the current leg the channel can pay for in
// all. It falls only when another leg begins.
func (s Payer) CapacityBytes() int64 { return s.affordable(money.MaxSatoshis) }

// affordable is CapacityBytes within a limit to what is spent on the channel.
func (s Payer) affordable(limit money.Satoshis) int64 {
	return s.Leg.capacityBytes(&s.Open, &s.Past, s.Last.Creators, limit)
}

// Left is what the channel can still pay.
func (s Payer) Left() money.Satoshis { return max(0, s.maxSpend()-s.Spent()) }

func (s Payer) maxSpend() money.Satoshis {
	return maxSpend(&s.Open, s.Leg.creators(s.Last.Creators))
}

// Settled says whether everything owed is paid and on the seeder's disk.
func (s Payer) Settled() bool { return s.Last.Bytes >= s.Payable && s.Acked == s.Last.Seq }

// Commitment is the newest commitment without its signatures: the close, if the
// seeder does what it says.
func (s Payer) Commitment() (*bsv.Tx, error) {
	c, err := s.Template()
	if err != nil {
		return nil, err
	}
	return c.Commitment(s.Last.Payee, toClose(s.Last.Creators))
}

// CanMove says why the channel cannot go on with the title of these terms, of
// which CheckTerms is not asked here; nil where it can. ErrCreators says that
// the title needs a channel of its own.
func (s Payer) CanMove(title [20]byte, t *wire.Terms) error {
	return checkMove(&s.Terms, t, LegOf(title, t), s.Last.Creators)
}

// Step is the machine. See the package comment.
func (s Payer) Step(ev Event, now time.Time) (Payer, []Effect) {
	switch ev := ev.(type) {
	case Got:
		return s.got(ev)
	case Delivered:
		return s.delivered(ev)
	case FundingReady:
		return s.fundingReady(ev)
	case Abandon:
		if s.Phase != Proposed && s.Phase != Signed {
			return s, nil
		}
		s.Phase = Failed
		return s, []Effect{Store{}, Send{&wire.Close{Channel: s.ID()}}}
	case CloseWanted:
		if s.Phase == Open {
			s.Phase = Closing
			return s, []Effect{Store{}, Send{&wire.Close{Channel: s.ID()}}}
		}
		if s.Phase == Closing {
			return s, []Effect{Send{&wire.Close{Channel: s.ID()}}}
		}
		return s, nil
	case Tip:
		return s.tip(ev)
	}
	return s, nil
}

func (s Payer) got(ev Got) (Payer, []Effect) {
	switch m := ev.Msg.(type) {
	case *wire.RefundSig:
		return s.refundSig(m)
	case *wire.Ready:
		if s.Phase != Funded || m.Channel != s.ID() {
			return s, nil
		}
		s.Phase = Open
		s.Acked = s.Last.Seq
		s.Credit = clampCredit(m.Credit)
		return s, []Effect{Store{}}
	case *wire.Ack:
		if m.Channel == s.ID() && m.Seq == s.Last.Seq {
			s.Acked = m.Seq
			s.Credit = clampCredit(m.Credit)
		}
		return s, nil
	case *wire.Resumed:
		return s.resumed(m, ev)
	case *wire.Closed:
		if m.Channel != s.ID() || s.Phase != Funded && s.Phase != Open && s.Phase != Closing {
			return s, nil
		}
		if signed := s.Last.Royalties(); m.Payee > s.Last.Payee || m.Creator > signed {
			// It cannot have taken what was never signed.
			return s, broken(s.ID(), wire.CodePayment, "closed with %v and %v, signed were %v and %v", m.Payee, m.Creator, s.Last.Payee, signed)
		}
		s.Phase = Closed
		s.Close = m.Txid
		return s, []Effect{Store{}}
	case *wire.Refusal:
		if (s.Phase == Proposed || s.Phase == Signed) && m.Channel == s.ID() {
			s.Phase = Failed
			return s, []Effect{Store{}}
		}
		if m.Channel == s.ID() && m.Code == wire.CodeUnknownChannel && !s.Refused {
			s.Refused = true
			return s, []Effect{Store{}}
		}
		return s, nil
	case *wire.Terms:
		return s, nil
	}
	return s, broken(s.ID(), wire.CodeOrder, "a downloader does not take a message of kind %d", ev.Msg.Kind())
}

// refundSig keeps the refund: only from now on can the money come back without
// the seeder. The funding leaves when all channels of it have come so far.
func (s Payer) refundSig(m *wire.RefundSig) (Payer, []Effect) {
	if s.Phase != Proposed || m.Channel != s.ID() {
		return s, nil
	}
	fail := func(err error) (Payer, []Effect) {
		s.Phase = Failed
		return s, append([]Effect{Store{}}, broken(s.ID(), wire.CodeTerms, "refund: %v", err)...)
	}
	c, err := s.Template()
	if err != nil {
		return fail(err)
	}
	if err := c.CheckRefund(c.Payee, m.Signature); err != nil {
		return fail(err)
	}
	own, err := c.SignRefund(s.Key)
	if err != nil {
		return fail(err)
	}
	refund, err := c.CompleteRefund(own, m.Signature)
	if err != nil {
		return fail(err)
	}
	s.Refund = refund.Bytes()
	s.Phase = Signed
	return s, []Effect{Store{}}
}

// fundingReady gives the funding to the outbox.
func (s Payer) fundingReady(ev FundingReady) (Payer, []Effect) {
	if s.Phase != Signed {
		return s, nil
	}
	funding, err := bsv.ParseTx(s.Funding, wire.MaxPayload)
	if err != nil {
		return s, []Effect{Fail{fmt.Errorf("stored funding: %w", err)}}
	}
	first, err := s.commit(wire.Pay{Seq: 1, Leg: 1, Title: s.Leg.Title})
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Last = first
	s.Phase = Funded
	st := Store{Tx: funding, Prev: s.Prev, Purpose: FundingTx}
	if ev.Stored {
		st = Store{}
	}
	return s, []Effect{st, Send{s.funded()}}
}

func (s Payer) funded() *wire.Funded {
	return &wire.Funded{Channel: s.ID(), Funding: s.Funding, First: s.Last}
}

// commit signs a commitment.
func (s Payer) commit(p wire.Pay) (wire.Pay, error) {
	c, err := s.Template()
	if err != nil {
		return wire.Pay{}, err
	}
	p.Channel = s.ID()
	p.Signature, err = c.SignCommitment(s.Key, p.Payee, toClose(p.Creators))
	return p, err
}

// resumed brings both sides to the newest commitment that either of them holds,
// and to this connection's title.
func (s Payer) resumed(m *wire.Resumed, ev Got) (Payer, []Effect) {
	last := m.Last
	if last.Channel != s.ID() || ev.Terms == nil || s.Phase != Funded && s.Phase != Open && s.Phase != Closing {
		return s, nil
	}
	moves := ev.Title != s.Leg.Title
	if moves {
		if err := s.CanMove(ev.Title, ev.Terms); err != nil {
			return s, []Effect{Fail{err}} // whoever asked to resume has looked
		}
	}
	if last.Seq > wire.MaxSeq/2 {
		return s, broken(s.ID(), wire.CodePayment, "commitment %d", last.Seq) // there must be room for ours
	}
	if last.Seq == 0 {
		return s.forgotten(m, ev, moves)
	}
	s.Credit = clampCredit(m.Credit)
	if last.Leg != s.Last.Leg || last.Title != s.Last.Title {
		// One side knows a leg that the other does not: a new one begins, from
		// the larger amounts.
		merged, err := s.merge(last)
		if err != nil {
			return s, broken(s.ID(), wire.CodePayment, "commitment %d: %v", last.Seq, err)
		}
		seq := max(last.Seq, s.Last.Seq) + 1
		next, effects := merged.move(seq, ev)
		if next.Last.Seq != seq { // the amounts of both do not fit into one close
			return s, effects
		}
		return next, effects
	}
	effects := []Effect{Store{}}
	switch {
	case last.Seq > s.Last.Seq:
		next, err := s.adopt(last)
		if err != nil {
			return s, broken(s.ID(), wire.CodePayment, "commitment %d: %v", last.Seq, err)
		}
		s = next
	case last.Seq == s.Last.Seq:
		if !sameAmounts(&last, &s.Last) {
			return s, broken(s.ID(), wire.CodePayment, "two commitments with number %d", last.Seq)
		}
		s.Acked = last.Seq
	case !moves:
		newest := s.Last
		effects = append(effects, Send{&newest})
	}
	if moves {
		return s.move(s.Last.Seq+1, ev)
	}
	// What was paid for and not verified will not be verified any more, and
	// would take up the exposure for good. To a seeder that breaks connections
	// this is worth no more than its budget.
	s.Forgone = max(s.Forgone, min(s.Last.Bytes-s.Payable, s.forgonable()))
	// The seeder forgives what was on its way, so that what is covered is what
	// has come, as it counts.
	s.Wire = max(s.Payable, min(s.Covered(), maxCount))
	if s.Phase == Closing {
		return s, append(effects, Send{&wire.Close{Channel: s.ID()}})
	}
	s.Phase = Open
	return s, effects
}

// forgotten sends the funding again to a seeder that has not got it. Nothing
// was delivered then, so that the first leg may be of any title.
func (s Payer) forgotten(m *wire.Resumed, ev Got, moves bool) (Payer, []Effect) {
	if s.Last.Seq > 1 {
		return s, broken(s.ID(), wire.CodePayment, "the seeder has forgotten %d commitments", s.Last.Seq)
	}
	if moves && s.Wire > 0 {
		// What it has delivered of one title is not owed at the price of another.
		return s, broken(s.ID(), wire.CodePayment, "the seeder has forgotten what it delivered")
	}
	s.Credit = clampCredit(m.Credit)
	s.Phase = Funded
	if moves {
		s.Leg = LegOf(ev.Title, ev.Terms)
		s.Last.Title = ev.Title
		return s, []Effect{Store{}, Send{s.funded()}}
	}
	return s, []Effect{Send{s.funded()}}
}

// move begins a leg for this connection's title with commitment seq, which
// repeats the newest amounts. What was paid for and not verified is lost to the
// finished leg.
func (s Payer) move(seq uint64, ev Got) (Payer, []Effect) {
	price := s.Leg.Price()
	past := Past{
		Payee:    s.Last.Payee,
		Creators: s.Last.Creators,
		Bytes:    s.Past.Bytes + s.Last.Bytes,
		Verified: s.Past.Verified + fineOf(price, s.Payable),
		Lost:     s.Past.Lost + fineOf(price, s.Last.Bytes-s.Payable),
	}
	pay, err := s.commit(wire.Pay{Seq: seq, Leg: seq, Title: ev.Title, Payee: s.Last.Payee, Creators: s.Last.Creators})
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Past, s.Leg, s.Last = past, LegOf(ev.Title, ev.Terms), pay
	s.Wire, s.Payable, s.Forgone = 0, 0, 0
	effects := []Effect{Store{}, Send{&pay}}
	if s.Phase == Closing {
		return s, append(effects, Send{&wire.Close{Channel: s.ID()}})
	}
	s.Phase = Open
	return s, effects
}

// maxCount bounds counts of bytes, over all legs too, so that sums of them do
// not overflow.
const maxCount = 1 << 60

// adopt takes over a commitment of this leg that was signed before this side
// lost its newest state. Its amounts are proved by our own signature. Its number
// of bytes is only the seeder's word, and may not be more than the amounts buy.
func (s Payer) adopt(last wire.Pay) (Payer, error) {
	if last.Bytes < s.Last.Bytes {
		return s, fmt.Errorf("less than commitment %d", s.Last.Seq)
	}
	if last.Bytes > maxCount-s.Past.Bytes {
		return s, fmt.Errorf("%d bytes", last.Bytes)
	}
	if err := follows(&last, &s.Last); err != nil {
		return s, err
	}
	if covered := s.Leg.covered(&s.Past, &last); last.Bytes > covered {
		return s, fmt.Errorf("%d bytes, and the amounts buy %d", last.Bytes, covered)
	}
	if err := s.isOurs(&last); err != nil {
		return s, err
	}
	if !sameAmounts(&last, &s.Last) {
		// What it pays for had come, which was forgotten too. With equal amounts
		// nothing proves that anything more was ever signed.
		s.Payable = max(s.Payable, last.Bytes-s.Forgone)
	}
	s.Last = last
	s.Acked = last.Seq
	return s, nil
}

// merge takes the larger ones of the amounts that we know we signed and those
// that the seeder shows we signed.
func (s Payer) merge(last wire.Pay) (Payer, error) {
	if err := follows(&last, &wire.Pay{}); err != nil {
		return s, err
	}
	payee, creators := max(s.Last.Payee, last.Payee), last.Creators
	for _, r := range s.Last.Creators {
		creators = raise(creators, r.To, r.Amount)
	}
	if payee != s.Last.Payee || !slices.Equal(creators, s.Last.Creators) {
		if err := s.isOurs(&last); err != nil {
			return s, err
		}
	}
	s.Last.Payee, s.Last.Creators = payee, creators
	return s, nil
}

// isOurs checks our own signature.
func (s Payer) isOurs(p *wire.Pay) error {
	c, err := s.Template()
	if err != nil {
		return err
	}
	if err := c.CheckCommitment(c.Payer, p.Payee, toClose(p.Creators), p.Signature); err != nil {
		return fmt.Errorf("not ours: %w", err)
	}
	return nil
}

// forgonable is the most that Forgone comes to.
func (s Payer) forgonable() int64 {
	price := s.Leg.Price()
	return s.Exposure + s.Payable/forgoneShare + (s.Past.Verified / forgoneShare).bytesAt(price) - s.Past.Lost.bytesAt(price)
}

// ahead is how many bytes may be paid for that are not verified. What finished
// legs lost beyond the budget is taken off the exposure.
func (s Payer) ahead() int64 {
	return s.Forgone + max(0, s.Exposure+min(0, s.forgonable()))
}

// delivered decides whether to pay. The seeder counts what it has sent against
// what is covered, so that is what half of the credit is measured by; what is
// paid for is what has been verified.
func (s Payer) delivered(ev Delivered) (Payer, []Effect) {
	s.Wire = max(s.Wire, ev.Wire)
	s.Payable = max(s.Payable, min(ev.Payable, s.Wire))
	if s.Phase != Open {
		return s, nil
	}
	full := s.full()
	target := s.Payable
	if !ev.Flush {
		owed := s.Wire - s.Covered()
		if owed < s.Credit/2 && !full {
			return s, nil
		}
		if owed >= s.Credit*3/4 || full {
			target = max(target, min(s.Wire, target+s.ahead()))
		}
	}
	var effects []Effect
	if full && max(target, s.Last.Bytes) >= s.Wire {
		effects = append(effects, UsedUp{})
	}
	if target <= s.Last.Bytes {
		return s, effects
	}
	if most := s.affordable(ev.Limit); target > most {
		target, effects = most, nil
		if ev.Limit < s.maxSpend() {
			effects = append(effects, OverLimit{})
		} else {
			effects = append(effects, UsedUp{})
		}
	}
	if target <= s.Last.Bytes {
		return s, effects
	}
	next, err := s.payFor(target)
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	if !ev.Flush && !full && sameAmounts(&next, &s.Last) {
		return s, effects
	}
	if next, err = s.commit(next); err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Last = next
	return s, append([]Effect{Store{}, Send{&next}}, effects...)
}

// payFor is the commitment, unsigned, that pays for so many bytes of the leg.
func (s Payer) payFor(n int64) (wire.Pay, error) {
	payee, creator, err := s.Leg.owed(&s.Past, n)
	if err != nil {
		return wire.Pay{}, err
	}
	// A state from another program may have paid more than was due.
	return wire.Pay{Seq: s.Last.Seq + 1, Leg: s.Last.Leg, Title: s.Leg.Title, Bytes: n,
		Payee: max(payee, s.Last.Payee), Creators: raise(s.Last.Creators, s.Leg.Creator, creator)}, nil
}

// maxBlock is the longest block that a peer asks for, in bytes.
const maxBlock = 128 << 10

// full says whether the seeder, which delivers no more than the channel can pay
// for, may have stopped for that. What is left is less than a block.
func (s Payer) full() bool { return s.Wire > s.CapacityBytes()-maxBlock }

// tip broadcasts the refund when its time has come. Of a channel that the
// seeder called closed it is broadcast only when the chain knows better; and so
// of one whose funding never left, as far as this state knows, which may be an
// old one.
func (s Payer) tip(ev Tip) (Payer, []Effect) {
	if len(s.Refund) == 0 || s.Phase == Refunding || ev.Height < s.Open.RefundHeight {
		return s, nil
	}
	if (s.Phase == Closed || s.Phase == Signed || s.Phase == Failed) && !ev.Unspent {
		return s, nil
	}
	refund, err := bsv.ParseTx(s.Refund, wire.MaxPayload)
	if err != nil {
		return s, []Effect{Fail{fmt.Errorf("stored refund: %w", err)}}
	}
	c, err := s.Template()
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Phase = Refunding
	return s, []Effect{Store{Tx: refund, Prev: []bsv.Output{{Value: c.Capacity, Script: c.Lock()}}, Purpose: RefundTx}}
}

func clampCredit(n int64) int64 { return min(max(n, MinCredit), MaxCredit) }
