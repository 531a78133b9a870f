package channel

import (
	"errors"
	"fmt"
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

// Payer is the downloader's side. It goes Proposed → Signed → Open → Closing →
// Closed, or to Refunding when the seeder does not close; Failed only while
// nothing has been broadcast. It is a value: Step does not change its receiver.
type Payer struct {
	Key bsv.PrivateKey // of Open.Payer; not part of a snapshot
	// Exposure is how many bytes may be paid for before they are verified, so
	// that pieces longer than the credit can complete; not part of a snapshot.
	Exposure int64
	// Prev are the outputs that the funding spends; not part of a snapshot,
	// and needed until Signed only.
	Prev []bsv.Output

	InfoHash [20]byte
	Terms    wire.Terms
	Phase    Phase
	Open     wire.Open
	Last     wire.Pay // newest commitment; Seq 0 before the first
	Funding  []byte   // raw
	Refund   []byte   // raw, fully signed; from Signed on
	Credit   int64    // bytes that the seeder lets us owe
	Acked    uint64   // newest commitment that the seeder has stored
	Wire     int64    // bytes received, over the channel's life, as the seeder counts them
	Payable  int64    // of these, verified
	// Forgone is by how many bytes the exposure has grown because bytes were
	// paid for on connections that broke before they were verified.
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
func NewPayer(key bsv.PrivateKey, infoHash [20]byte, t *wire.Terms, open wire.Open, funding *bsv.Tx, prev []bsv.Output) (Payer, []Effect, error) {
	s := Payer{Key: key, InfoHash: infoHash, Terms: *t, Open: open, Prev: prev,
		Phase: Proposed, Funding: funding.Bytes(), Credit: t.Credit}
	c, err := s.Template()
	if err != nil {
		return Payer{}, nil, err
	}
	if c.MaxSpend() <= 0 {
		return Payer{}, nil, fmt.Errorf("capacity %v is used up by the close's fee", open.Capacity)
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
func (s Payer) Spent() money.Satoshis { return s.Last.Payee + s.Last.Creator }

// Settled says whether everything owed is paid and on the seeder's disk.
func (s Payer) Settled() bool { return s.Last.Bytes >= s.Payable && s.Acked == s.Last.Seq }

// Step is the machine. See the package comment.
func (s Payer) Step(ev Event, now time.Time) (Payer, []Effect) {
	switch ev := ev.(type) {
	case Got:
		return s.got(ev.Msg)
	case Delivered:
		return s.delivered(ev)
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

func (s Payer) got(m wire.Message) (Payer, []Effect) {
	switch m := m.(type) {
	case *wire.RefundSig:
		return s.refundSig(m)
	case *wire.Ready:
		if s.Phase != Signed || m.Channel != s.ID() {
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
		return s.resumed(m)
	case *wire.Closed:
		if m.Channel != s.ID() || s.Phase != Signed && s.Phase != Open && s.Phase != Closing {
			return s, nil
		}
		if m.Payee > s.Last.Payee || m.Creator > s.Last.Creator {
			// It cannot have taken what was never signed.
			return s, broken(s.ID(), wire.CodePayment, "closed with %v and %v, signed were %v and %v", m.Payee, m.Creator, s.Last.Payee, s.Last.Creator)
		}
		s.Phase = Closed
		s.Close = m.Txid
		return s, []Effect{Store{}}
	case *wire.Refusal:
		if s.Phase == Proposed && m.Channel == s.ID() {
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
	return s, broken(s.ID(), wire.CodeOrder, "a downloader does not take a message of kind %d", m.Kind())
}

// refundSig: only now may the funding leave the house, because only now can
// the money come back without the seeder.
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
	funding, err := bsv.ParseTx(s.Funding, wire.MaxPayload)
	if err != nil {
		return fail(err)
	}
	first, err := s.commit(1, 0, 0, 0)
	if err != nil {
		return fail(err)
	}
	s.Refund = refund.Bytes()
	s.Last = first
	s.Phase = Signed
	return s, []Effect{Store{Tx: funding, Prev: s.Prev, Purpose: FundingTx}, Send{s.funded()}}
}

func (s Payer) funded() *wire.Funded {
	return &wire.Funded{Channel: s.ID(), Funding: s.Funding, First: s.Last}
}

// commit signs a commitment.
func (s Payer) commit(seq uint64, n int64, payee, creator money.Satoshis) (wire.Pay, error) {
	c, err := s.Template()
	if err != nil {
		return wire.Pay{}, err
	}
	sig, err := c.SignCommitment(s.Key, payee, creator)
	if err != nil {
		return wire.Pay{}, err
	}
	return wire.Pay{Channel: s.ID(), Seq: seq, Bytes: n, Payee: payee, Creator: creator, Signature: sig}, nil
}

// resumed brings both sides to the newest commitment that either of them holds.
func (s Payer) resumed(m *wire.Resumed) (Payer, []Effect) {
	last := m.Last
	if last.Channel != s.ID() || s.Phase != Signed && s.Phase != Open && s.Phase != Closing {
		return s, nil
	}
	s.Credit = clampCredit(m.Credit)
	if last.Seq == 0 {
		if s.Last.Seq > 1 {
			return s, broken(s.ID(), wire.CodePayment, "the seeder has forgotten %d commitments", s.Last.Seq)
		}
		s.Phase = Signed
		return s, []Effect{Send{s.funded()}}
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
		if last.Payee != s.Last.Payee || last.Creator != s.Last.Creator {
			return s, broken(s.ID(), wire.CodePayment, "two commitments with number %d", last.Seq)
		}
		s.Acked = last.Seq
	default:
		newest := s.Last
		effects = append(effects, Send{&newest})
	}
	// What was paid for and not verified will not be verified any more, and
	// would take up the exposure for good. To a seeder that breaks connections
	// this is worth no more than its budget.
	s.Forgone = max(s.Forgone, min(s.Last.Bytes-s.Payable, s.Exposure+s.Payable/forgoneShare))
	// The seeder forgives what was on its way, so that what is covered is what
	// has come, as it counts.
	s.Wire = max(s.Payable, min(Covered(&s.Terms, s.Last.Payee, s.Last.Creator), maxCount))
	if s.Phase == Closing {
		return s, append(effects, Send{&wire.Close{Channel: s.ID()}})
	}
	s.Phase = Open
	return s, effects
}

// maxCount bounds counts of bytes, so that sums of them do not overflow.
const maxCount = 1 << 60

// adopt takes over a commitment that was signed before this side lost its
// newest state. Its amounts are proved by our own signature. Its number of
// bytes is only the seeder's word, and may not be more than the amounts buy.
func (s Payer) adopt(last wire.Pay) (Payer, error) {
	if last.Payee < s.Last.Payee || last.Creator < s.Last.Creator || last.Bytes < s.Last.Bytes {
		return s, fmt.Errorf("less than commitment %d", s.Last.Seq)
	}
	if last.Bytes > Covered(&s.Terms, last.Payee, last.Creator) {
		return s, fmt.Errorf("%d bytes are more than %v and %v buy", last.Bytes, last.Payee, last.Creator)
	}
	c, err := s.Template()
	if err != nil {
		return s, err
	}
	if err := c.CheckCommitment(c.Payer, last.Payee, last.Creator, last.Signature); err != nil {
		return s, fmt.Errorf("not ours: %w", err)
	}
	if last.Payee > s.Last.Payee || last.Creator > s.Last.Creator {
		// What it pays for had come, which was forgotten too. With equal amounts
		// nothing proves that anything more was ever signed.
		s.Payable = max(s.Payable, last.Bytes-s.Forgone)
	}
	s.Last = last
	s.Acked = last.Seq
	return s, nil
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
	full, err := s.full()
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	target := s.Payable
	if !ev.Flush {
		owed := s.Wire - Covered(&s.Terms, s.Last.Payee, s.Last.Creator)
		if owed < s.Credit/2 && !full {
			return s, nil
		}
		if owed >= s.Credit*3/4 || full {
			target = max(target, min(s.Wire, target+s.Forgone+s.Exposure))
		}
	}
	var effects []Effect
	if full && max(target, s.Last.Bytes) >= s.Wire {
		effects = append(effects, UsedUp{})
	}
	if target <= s.Last.Bytes {
		return s, effects
	}
	c, err := s.Template()
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	capacity := c.MaxSpend()
	if most := affordable(&s.Terms, min(capacity, ev.Limit)); target > most {
		target, effects = most, nil
		if ev.Limit < capacity {
			effects = append(effects, OverLimit{})
		} else {
			effects = append(effects, UsedUp{})
		}
	}
	if target <= s.Last.Bytes {
		return s, effects
	}
	payee, creator, err := Due(&s.Terms, target)
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	// A state from another program may have paid more than was due.
	payee, creator = max(payee, s.Last.Payee), max(creator, s.Last.Creator)
	if !ev.Flush && !full && payee == s.Last.Payee && creator == s.Last.Creator {
		return s, effects
	}
	pay, err := s.commit(s.Last.Seq+1, target, payee, creator)
	if err != nil {
		return s, []Effect{Fail{err}}
	}
	s.Last = pay
	return s, append([]Effect{Store{}, Send{&pay}}, effects...)
}

// maxBlock is the longest block that a peer asks for, in bytes.
const maxBlock = 128 << 10

// full says whether the seeder, which delivers no more than the channel can pay
// for, may have stopped for that. What is left is less than a block.
func (s Payer) full() (bool, error) {
	price := s.Terms.Ask + s.Terms.Royalty
	if s.Wire < price.Bytes(s.Open.Capacity/2) { // far from it, and cheap to say
		return false, nil
	}
	c, err := s.Template()
	if err != nil {
		return false, err
	}
	return s.Wire > affordable(&s.Terms, c.MaxSpend())-maxBlock, nil
}

// affordable is the largest number of bytes whose two parts together cost at
// most limit. Each part is rounded up, so the sum of the rates may promise one
// satoshi too much.
func affordable(t *wire.Terms, limit money.Satoshis) int64 {
	price := t.Ask + t.Royalty
	for try := limit; try >= 0; try-- {
		n := price.Bytes(try)
		payee, creator, err := Due(t, n)
		if err == nil && payee+creator <= limit {
			return n
		}
	}
	return 0
}

// tip broadcasts the refund when its time has come. Of a channel that the
// seeder called closed it is broadcast only when the chain knows better.
func (s Payer) tip(ev Tip) (Payer, []Effect) {
	if len(s.Refund) == 0 || s.Phase == Closed && !ev.Unspent || s.Phase == Refunding || ev.Height < s.Open.RefundHeight {
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
