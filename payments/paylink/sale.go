package paylink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// payeeRun steps one channel of the payee and carries out its effects. Its
// owner is the one goroutine that uses it.
type payeeRun struct {
	seller   *Seller
	owner    *sale
	state    channel.Payee
	keyIndex uint32
	payout   bsv.Hash160
	row      ledger.Channel // what does not change with payments
	conn     bool           // the channel began on its owner's connection
	flows    bool           // the machine lets the payer have something
	allowed  int64          // of the channel's life, as it said last
}

// step applies an event. An error means that the ledger did not take the new
// state; the run is then as it was before.
func (r *payeeRun) step(ctx context.Context, ev channel.Event) error {
	before := r.state
	var effects []channel.Effect
	r.state, effects = r.state.Step(ev, r.seller.cfg.Clock())
	for _, e := range effects {
		if st, ok := e.(channel.Store); ok {
			if err := r.store(ctx, st); err != nil {
				refused := &wire.Refusal{Channel: r.state.ID(), Code: wire.CodeUnavailable, Text: "the ledger cannot be written"}
				r.state = before
				r.owner.send(refused)
				return fmt.Errorf("store channel: %w", err)
			}
			continue
		}
		r.owner.perform(ctx, r, e)
	}
	return nil
}

func (r *payeeRun) store(ctx context.Context, st channel.Store) error {
	snapshot, err := r.state.Snapshot()
	if err != nil {
		return err
	}
	row := r.row
	s := &r.state
	row.ID, row.Role, row.PeerKey, row.KeyIndex = s.ID(), ledger.Payee, s.Open.Payer, r.keyIndex
	describe(&row, &r.owner.title, s.Phase, &s.Open, &s.Leg, &s.Past, &s.Last)
	row.Snapshot, row.CloseTxid = snapshot, s.Close
	batch := ledger.Batch{Channels: []ledger.Channel{row}}
	if st.Tx != nil {
		coins := coinsPaidTo(st.Tx, r.payout, r.keyIndex, ledger.OriginEarning)
		batch.Outbox = []ledger.Outgoing{outgoing(st, row.ID, coins)}
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := r.seller.cfg.Ledger.Apply(ctx, batch); err != nil {
		return err
	}
	r.seller.noted(s, row.Remote)
	if st.Tx != nil {
		r.seller.cfg.Outbox.Kick()
	}
	return nil
}

// sale is the payment side of one upload connection. Without a connection
// (conn nil) it is only the owner of a channel that is being watched over.
type sale struct {
	seller *Seller
	conn   SellerConn
	title  Title
	log    *slog.Logger

	mail      chan letter
	wake      chan struct{} // bytes were served
	sent      atomic.Int64  // block data on this connection
	closeOnce sync.Once
	closed    chan struct{}
	done      chan struct{}

	gate    sync.Mutex
	leaving bool // nothing that is told is heard any more

	// Below: the goroutine of run only.
	nonce    [16]byte
	terms    *wire.Terms     // of this connection's newest offer
	offered  *payeeRun       // that offer, until it becomes a channel; may be nil
	payees   []*payeeRun     // the channels that this sale owns, in the order in which bytes count
	counted  int64           // of sent, what the channels know
	offers   int             // that came to no channel, or to one that paid little
	unsigned []uint32        // key indexes of offers that have come to nothing so far
	refused  int             // fundings
	history  *wire.ChannelID // settled channel that the payer has proved, if it counts
	backs    wire.ChannelID  // what it stood for last; zero where for none
	trust    money.Satoshis  // that a new channel begins with
}

const (
	// maxOffers bounds the channels of one connection that are not used up.
	maxOffers = 16
	// maxAtOnce is how many channels a connection has at one time: one that is
	// being used up, and one that takes its place.
	maxAtOnce = 2
	// maxRefused is how many fundings may be refused on one connection; to look
	// at one may take hundreds of questions to the chain.
	maxRefused = 3
)

// letter is what comes into a sale's mailbox: a message of the peer, or an
// event about one channel, which may not be the sale's any more.
type letter struct {
	ev    channel.Event
	about wire.ChannelID // zero for messages
}

// Message is part of Session.
func (s *sale) Message(payload []byte) {
	msg, err := wire.Decode(payload)
	switch {
	case errors.Is(err, wire.ErrKind):
		return
	case err != nil:
		s.conn.Fail(err)
		return
	}
	s.post(letter{ev: channel.Got{Msg: msg}})
}

// tell queues an event about a channel, or says that it will not be heard.
func (s *sale) tell(id wire.ChannelID, ev channel.Event) bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.leaving {
		return false
	}
	select {
	case s.mail <- letter{ev, id}:
		return true
	default:
		return false
	}
}

// ends says whether the sale is letting go of its channels, or has.
func (s *sale) ends() bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	return s.leaving
}

// rest takes what is left in the mailbox, into which nothing is told any more.
func (s *sale) rest() (left []letter) {
	s.gate.Lock()
	s.leaving = true
	s.gate.Unlock()
	for {
		select {
		case l := <-s.mail:
			left = append(left, l)
		default:
			return left
		}
	}
}

// hearOut reads what came before the end: what was told is heard, and a payment
// that is here is taken, though its payer is gone.
func (s *sale) hearOut(ctx context.Context) {
	for _, l := range s.rest() {
		got, isMessage := l.ev.(channel.Got)
		if _, isPay := got.Msg.(*wire.Pay); isMessage && !isPay {
			continue
		}
		s.count(ctx)
		if err := s.take(ctx, l); err != nil {
			s.log.Error("payment not taken", "error", err)
			return
		}
	}
}

// post queues a letter; who floods loses the connection.
func (s *sale) post(l letter) {
	select {
	case s.mail <- l:
	case <-s.done:
	default:
		if s.conn != nil {
			s.conn.Fail(ErrFlood)
		}
	}
}

// Sent is part of Sale.
func (s *sale) Sent(total int64) {
	s.sent.Store(total)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close is part of Session.
func (s *sale) Close() { s.closeOnce.Do(func() { close(s.closed) }) }

func (s *sale) run(ctx context.Context) {
	defer close(s.done)
	defer s.detach(ctx)
	if _, err := io.ReadFull(s.seller.cfg.Random, s.nonce[:]); err != nil {
		s.conn.Fail(fmt.Errorf("nonce: %w", err))
		return
	}
	for {
		err := s.offer(ctx)
		if err == nil {
			break
		}
		s.log.Warn("no terms for a payer", "error", err)
		s.send(&wire.Refusal{Code: wire.CodeUnavailable, Text: "no terms now"})
		retry := time.NewTimer(s.seller.cfg.Poll)
		select {
		case <-ctx.Done():
		case <-s.closed:
		case <-retry.C:
			continue
		}
		retry.Stop()
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		case <-s.wake:
			s.count(ctx)
			s.offerMore(ctx)
		case l := <-s.mail:
			s.count(ctx)
			if err := s.take(ctx, l); err != nil {
				s.log.Error("payment not taken", "error", err)
				s.conn.Stop()
				s.conn.Fail(fmt.Errorf("payments: %w", err))
				s.rest() // the ledger takes nothing now
				return
			}
		}
	}
}

// offer sends terms with a key that never signed anything.
func (s *sale) offer(ctx context.Context) error {
	if s.offers == maxOffers {
		return fmt.Errorf("%d channels on one connection: %w", maxOffers, channel.ErrProtocol)
	}
	index, err := s.seller.takeIndex(ctx)
	if err != nil {
		return fmt.Errorf("new channel key: %w", err)
	}
	s.unsigned = append(s.unsigned, index)
	if err := s.offerWith(ctx, index); err != nil {
		return err
	}
	s.offers++
	return nil
}

// offerWith sends terms with the key of an index.
func (s *sale) offerWith(ctx context.Context, index uint32) error {
	cfg := &s.seller.cfg
	height := s.seller.Height()
	if height == 0 {
		tip, err := cfg.Chain.Tip(ctx)
		if err != nil {
			return fmt.Errorf("ask for the tip: %w", err)
		}
		height = tip.Height
		s.seller.height.CompareAndSwap(0, height)
	}
	feeRate := money.FeeRate(s.seller.feeRate.Load())
	if feeRate == 0 {
		var err error
		if feeRate, err = cfg.Chain.FeeRate(ctx); err != nil {
			return fmt.Errorf("ask for the fee rate: %w", err)
		}
		s.seller.feeRate.CompareAndSwap(0, int64(feeRate))
	}
	key, payout, err := channelKeys(cfg.Wallet, index)
	if err != nil {
		return err
	}
	t := wire.Terms{
		Network:          byte(cfg.Wallet.Network()),
		Nonce:            s.nonce,
		Identity:         s.seller.identity.Public(),
		Payee:            key.Public(),
		PayeeHash:        payout,
		Ask:              s.title.Ask,
		MinCapacity:      cfg.Offer.MinCapacity,
		MaxCapacity:      cfg.Offer.MaxCapacity,
		FeeRate:          feeRate,
		TipHeight:        height,
		RefundWindow:     cfg.Offer.RefundWindow,
		CloseMargin:      cfg.Offer.CloseMargin,
		UnconfirmedLimit: cfg.Offer.UnconfirmedLimit,
		Credit:           s.credit(),
		Expiry:           cfg.Clock().Add(cfg.Offer.Validity).Unix(),
	}
	if r := s.title.Royalty; r != nil {
		t.Royalty, t.CreatorHash = r.Rate, r.To
	}
	digest, err := channel.TermsDigest(&t, s.title.InfoHash)
	if err != nil {
		return err
	}
	if t.Signature, err = s.seller.identity.SignDigest(digest); err != nil {
		return fmt.Errorf("sign terms: %w", err)
	}
	s.terms = &t
	s.offered = &payeeRun{seller: s.seller, owner: s, keyIndex: index, payout: payout,
		state: channel.NewPayee(key, cfg.Policy, s.title.InfoHash, &t),
		row:   ledger.Channel{Remote: s.conn.Remote().String()}}
	s.send(&t)
	return nil
}

// offerMore makes an offer when the channel is half used, so that another one
// is open when it has come to its end, and makes it again when it has run out.
func (s *sale) offerMore(ctx context.Context) {
	var err error
	switch {
	case s.offered != nil:
		if s.seller.cfg.Clock().Unix() <= s.offered.state.Terms.Expiry {
			return
		}
		err = s.offerWith(ctx, s.offered.keyIndex)
	case len(s.payees) == 1 && s.payees[0].halfUsed():
		if s.offers == maxOffers {
			return
		}
		err = s.offer(ctx)
	}
	if err != nil {
		s.log.Warn("no terms for another channel", "error", err)
	}
}

// halfUsed says whether less than half of an open channel's bytes are left.
func (r *payeeRun) halfUsed() bool {
	return r.state.Phase == channel.Open && 2*r.room() < r.state.CapacityBytes()
}

// room is how many more bytes the channel can pay for, as far as it goes by
// what was served.
func (r *payeeRun) room() int64 {
	s := &r.state
	return max(0, s.CapacityBytes()+s.Forgiven+s.Past.Served-s.Served)
}

// credit is what a new payer may owe, in bytes.
func (s *sale) credit() int64 {
	offer := &s.seller.cfg.Offer
	price := s.title.Ask
	if r := s.title.Royalty; r != nil {
		price += r.Rate
	}
	credit := min(offer.Credit, price.Bytes(offer.CreditWorth))
	return min(max(credit, 2*s.title.PieceLength, channel.MinCredit), channel.MaxCredit)
}

// take handles one letter of the mailbox.
func (s *sale) take(ctx context.Context, l letter) error {
	got, isMessage := l.ev.(channel.Got)
	if !isMessage {
		if r := s.payee(l.about); r != nil {
			return s.step(ctx, r, l.ev)
		}
		return nil // about a channel that this connection had before
	}
	got.Title, got.Terms = s.title.InfoHash, s.terms
	switch m := got.Msg.(type) {
	case *wire.Resume:
		if s.payee(m.Channel) == nil {
			return s.resume(ctx, got, m)
		}
	case *wire.Open:
		if s.offered != nil {
			return s.begin(ctx, got, m)
		}
	}
	r := s.payee(about(got.Msg))
	switch {
	case r != nil:
	case s.offered != nil:
		r = s.offered
	case len(s.payees) > 0:
		r = s.payees[0]
	default:
		return nil
	}
	return s.step(ctx, r, got)
}

// payee is the channel of this connection with a name, or nil.
func (s *sale) payee(id wire.ChannelID) *payeeRun {
	for _, r := range s.payees {
		if r.state.ID() == id {
			return r
		}
	}
	return nil
}

// step applies an event to a channel, or to the offer.
func (s *sale) step(ctx context.Context, r *payeeRun, ev channel.Event) error {
	before := r.state.Phase
	checked, ok := ev.(channel.FundingChecked)
	if ok && checked.Refusal == nil && !checked.Confirmed {
		// Decided here and not by the check: many of them may end at one time.
		id := r.state.ID()
		if s.seller.admit(id, r.state.Unconfirmed()) {
			defer s.seller.dismiss(id)
		} else {
			checked.Refusal = &wire.Refusal{Code: wire.CodeUnavailable, Text: "too much rests on fundings that are not mined; wait for the next block"}
			ev = checked
		}
	}
	if err := r.step(ctx, ev); err != nil {
		return err
	}
	if ok && checked.Refusal != nil && checked.Refusal.Code.OfFunding() {
		if s.refused++; s.refused == maxRefused {
			s.conn.Fail(fmt.Errorf("%d fundings refused: %w", maxRefused, channel.ErrProtocol))
		}
	}
	if r == s.offered {
		return nil
	}
	switch r.state.Phase {
	case channel.Closing:
		// Settled, but the peer is still here: it may want another channel.
		if r.halfUsedInTheEnd() {
			s.offers-- // trade, however much of it, has no end
		}
		s.leave(r)
		return s.offerNext(ctx)
	case channel.Failed:
		if got, ok := ev.(channel.Got); ok && before == channel.Signed && got.Msg.Kind() == wire.KindClose {
			// Given up before it was funded; another offer, with a fresh key.
			s.leave(r)
			return s.offerNext(ctx)
		}
		s.conn.Fail(errChannelFailed)
	}
	return nil
}

// offerNext makes an offer where there is neither one nor a channel.
func (s *sale) offerNext(ctx context.Context) error {
	if s.offered != nil || len(s.payees) > 0 {
		return nil
	}
	return s.offer(ctx)
}

// halfUsedInTheEnd says whether a settled channel has paid more than half of
// what it could.
func (r *payeeRun) halfUsedInTheEnd() bool {
	s := &r.state
	return s.Remaining() < s.Last.Payee+s.Last.Royalties()
}

var errChannelFailed = errors.New("the channel has failed")

// begin turns the offer into a channel, which from its first Store on must
// have one owner.
func (s *sale) begin(ctx context.Context, ev channel.Event, m *wire.Open) error {
	id := channel.ID(bsv.Outpoint{Txid: m.FundingTxid, Index: m.FundingIndex})
	s.seller.mu.Lock()
	admitted := s.seller.watched.admits(s.conn.Remote())
	s.seller.mu.Unlock()
	if !admitted {
		s.send(&wire.Refusal{Channel: id, Code: wire.CodeUnavailable, Text: "too many channels wait for their fundings"})
		return nil
	}
	if len(s.payees) == maxAtOnce {
		s.send(&wire.Refusal{Channel: id, Code: wire.CodeOrder, Text: "a connection has two channels at the most"})
		return nil
	}
	if !s.seller.live.claim(id, s) {
		s.send(&wire.Refusal{Channel: id, Code: wire.CodeTerms, Text: "another channel has this funding"})
		return nil
	}
	r := s.offered
	s.back(id)
	r.state.Policy.Trust = s.trust
	err := r.step(ctx, ev)
	if err != nil || r.state.Phase != channel.Offered {
		s.unsigned = slices.DeleteFunc(s.unsigned, func(index uint32) bool { return index == r.keyIndex })
	}
	if r.state.Phase == channel.Offered {
		s.seller.live.release(id, s)
		return err
	}
	s.offered = nil
	r.conn = true
	s.join(r)
	return err
}

// resume goes on with a channel of an earlier connection. Where that has come
// to its end, the answer says so. The offer, which nobody has used, stands.
func (s *sale) resume(ctx context.Context, ev channel.Event, m *wire.Resume) error {
	if len(s.payees) == maxAtOnce {
		s.send(&wire.Refusal{Channel: m.Channel, Code: wire.CodeOrder, Text: "a connection has two channels at the most"})
		return nil
	}
	run, err := s.find(ctx, m)
	if err != nil || run == nil {
		return err
	}
	s.join(run)
	if err := run.step(ctx, ev); err != nil {
		return err
	}
	switch run.state.Phase {
	case channel.Closing, channel.Closed:
		s.leave(run)
		return s.believe(ctx, run)
	case channel.Failed:
		s.leave(run)
	}
	return nil
}

// believe lets what a payer has paid in a settled channel count for a new one.
func (s *sale) believe(ctx context.Context, r *payeeRun) error {
	id := r.state.ID()
	if s.history != nil {
		return nil
	}
	good, err := s.seller.paidUp(ctx, &r.state)
	if err != nil || !good {
		return err
	}
	backs := s.seller.backed(id)
	if backs != (wire.ChannelID{}) {
		row, err := s.seller.cfg.Ledger.Channel(ctx, backs)
		if err != nil {
			return fmt.Errorf("look up channel: %w", err)
		}
		state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
		if err != nil {
			return err
		}
		if good, err := s.seller.paidUp(ctx, &state); err != nil || !good {
			return err
		}
	}
	s.history, s.backs, s.trust = &id, backs, max(s.trust, r.state.Last.Payee)
	return nil
}

// back makes the history stand for a channel that begins, unless it has come to
// stand for another one meanwhile.
func (s *sale) back(id wire.ChannelID) {
	if s.history == nil {
		return
	}
	if !s.seller.back(*s.history, s.backs, id) {
		s.history, s.trust = nil, 0
		return
	}
	s.backs = id
}

// owes says whether more was served on a channel than is paid or forgiven.
func owes(st *channel.Payee) bool { return st.Served-st.Past.Served-st.Forgiven > st.Covered() }

// distrust ends what a payer's history is worth, if it leaves a channel unpaid.
func (s *sale) distrust(r *payeeRun) bool {
	if !owes(&r.state) {
		return false
	}
	if s.trust = 0; s.history != nil {
		s.seller.back(*s.history, s.backs, r.state.ID())
		s.backs = r.state.ID()
	}
	return true
}

// trusted is what a payer has earned once a channel of this connection is over.
func (r *payeeRun) trusted() money.Satoshis {
	trust := r.state.Policy.Trust
	if r.state.Confirmed { // else it could still take back what it has paid
		trust += r.state.Last.Payee
	}
	return trust
}

// find loads the channel that a payer wants to go on with; nil where there is
// none, which was said to the peer. The proof is looked at here as well as in
// the machine, so that nobody else's connection can be ended by naming a
// channel.
func (s *sale) find(ctx context.Context, m *wire.Resume) (*payeeRun, error) {
	row, err := s.seller.cfg.Ledger.Channel(ctx, m.Channel)
	unknown := errors.Is(err, ledger.ErrNotFound) || err == nil && row.Role != ledger.Payee
	if unknown {
		s.send(&wire.Refusal{Channel: m.Channel, Code: wire.CodeUnknownChannel, Text: "no such channel"})
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up channel: %w", err)
	}
	payer, err := bsv.ParsePublicKey(row.PeerKey[:])
	if err == nil {
		err = bsv.VerifyDigest(payer, channel.ResumeDigest(s.terms.Nonce, s.title.InfoHash, m.Channel), m.Proof)
	}
	if err != nil {
		s.send(&wire.Refusal{Channel: m.Channel, Code: wire.CodeUnknownChannel, Text: "no proof of the channel's key"})
		s.conn.Fail(fmt.Errorf("resume: %w", err))
		return nil, nil
	}
	for !s.seller.live.claim(m.Channel, s) {
		if err := s.seller.takeOver(ctx, m.Channel); err != nil {
			return nil, err
		}
	}
	if row, err = s.seller.cfg.Ledger.Channel(ctx, m.Channel); err == nil {
		var run *payeeRun
		if run, err = s.seller.restore(row, s); err == nil {
			run.row.Remote = s.conn.Remote().String()
			return run, nil
		}
	}
	s.seller.live.release(m.Channel, s)
	return nil, fmt.Errorf("load channel: %w", err)
}

// join makes a channel count what is served from now on.
func (s *sale) join(r *payeeRun) { s.payees = append(s.payees, r) }

// leave lets go of a channel. What it held back of the next one's allowance is
// free then.
func (s *sale) leave(r *payeeRun) {
	s.payees = slices.DeleteFunc(s.payees, func(x *payeeRun) bool { return x == r })
	s.seller.live.release(r.state.ID(), s)
	if r.conn && !s.distrust(r) {
		s.trust = max(s.trust, r.trusted())
		for _, next := range s.payees { // takes its place, and inherits
			next.state.Policy.Trust = max(next.state.Policy.Trust, s.trust)
		}
	}
	if total, flows := s.allowance(); flows {
		s.conn.Allow(total)
	}
}

// count tells the channels what was served since they were last told: it counts
// to the first one as far as that can pay, and then to the next.
func (s *sale) count(ctx context.Context) {
	more := s.sent.Load() - s.counted
	if more <= 0 {
		return
	}
	s.counted += more
	for i, r := range s.payees {
		n := more
		if i < len(s.payees)-1 && s.payees[i+1].state.Phase == channel.Open {
			n = min(n, r.room())
		}
		if n > 0 {
			// Served has no effects that could fail.
			_ = r.step(ctx, channel.Served{Bytes: n})
		}
		more -= n
	}
}

// allowance is what the peer may be sent by all channels together, counted from
// the beginning of the connection, and whether any lets it have something.
// What the first one is owed when it is used up is taken off what the next one
// lets owe, so that all of it together is one credit.
func (s *sale) allowance() (total int64, flows bool) {
	total = s.counted
	var owed int64
	for _, r := range s.payees {
		switch {
		case r.state.Phase != channel.Open:
			continue
		case !r.flows:
			return total, flows
		}
		flows = true
		left := r.allowed - r.state.Served - owed
		total += max(left, 0)
		if left < r.room() {
			break // by its credit; the next one's turn comes when it is used up
		}
		owed += r.state.CapacityBytes() - r.state.Covered()
	}
	return total, flows
}

// detach ends the sale: the channels stay in the ledger with what was served.
func (s *sale) detach(ctx context.Context) {
	s.hearOut(ctx)
	s.seller.giveBack(s.unsigned)
	if len(s.payees) == 0 {
		return
	}
	s.count(ctx)
	for _, r := range s.payees {
		s.distrust(r)
		if r.state.Phase == channel.Open {
			if err := r.store(ctx, channel.Store{}); err != nil {
				s.log.Error("channel's count of bytes not stored", "error", err)
			}
		}
		s.seller.live.release(r.state.ID(), s)
	}
}

// perform carries out an effect other than Store.
func (s *sale) perform(ctx context.Context, r *payeeRun, e channel.Effect) {
	if f, ok := e.(channel.CheckFunding); ok {
		s.check(ctx, r, f)
		return
	}
	if s.conn == nil {
		if f, ok := e.(channel.Fail); ok {
			s.seller.cfg.Log.Error("channel", "error", f.Err)
		}
		return
	}
	switch e := e.(type) {
	case channel.Send:
		s.send(e.Msg)
	case channel.Allow:
		r.flows, r.allowed = true, e.Total
		s.regulate()
	case channel.Revoke:
		r.flows, r.allowed = false, 0
		s.regulate()
	case channel.Fail:
		s.log.Info("payer failed", "reason", e.Err)
		s.conn.Fail(e.Err)
	}
}

// regulate lets the peer have what its channels allow.
func (s *sale) regulate() {
	if total, flows := s.allowance(); flows {
		s.conn.Allow(total)
		return
	}
	for _, r := range s.payees {
		if r.state.Phase == channel.Signed || r.state.Phase == channel.Checking {
			s.conn.Allow(s.counted) // it waits, and need not ask anew
			return
		}
	}
	s.log.Info("the payer is stopped")
	s.conn.Stop()
}

// check asks the chain without keeping the machine from other events.
func (s *sale) check(ctx context.Context, r *payeeRun, f channel.CheckFunding) {
	id := r.state.ID()
	c, err := r.state.Template()
	if err != nil {
		s.post(letter{refused(wire.CodeFunding, err.Error()), id})
		return
	}
	s.seller.mu.Lock()
	defer s.seller.mu.Unlock()
	if s.seller.ctx.Err() != nil {
		return
	}
	s.seller.wg.Add(1)
	go func() {
		defer s.seller.wg.Done()
		ctx, cancel := context.WithTimeout(ctx, chainTimeout)
		defer cancel()
		checked := s.seller.checkFunding(ctx, c, f)
		if checked.Refusal != nil {
			s.log.Info("funding refused", "reason", checked.Refusal)
		}
		s.post(letter{checked, id})
	}()
}

// chainTimeout bounds the questions about one funding.
const chainTimeout = time.Minute

func (s *sale) send(m wire.Message) {
	if s.conn == nil {
		return
	}
	b, err := wire.Encode(m)
	if err == nil {
		err = s.conn.Send(b)
	}
	if err != nil && !errors.Is(err, ErrConnClosed) {
		s.conn.Fail(err)
	}
}
