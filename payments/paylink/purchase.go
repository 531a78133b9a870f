package paylink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// payerRun steps one channel of the payer. Its owner is the one goroutine that
// uses it.
type payerRun struct {
	buyer    *Buyer
	state    channel.Payer
	keyIndex uint32
	out      bsv.Hash160 // change and refund
	fees     money.Satoshis
	opening  bool // its funding is not stored
	row      ledger.Channel
	title    Title // of the connection; zero without one

	// Where the channel's part of the connection begins, and what the machine
	// had counted there.
	from               int64
	baseWire, basePaid int64
	resuming           bool // a Resume was not answered yet
}

// step applies an event and makes its Stores durable, and returns the other
// effects for the owner to carry out. An error means that the ledger did not
// take the new state; the run is then as it was before.
func (r *payerRun) step(ctx context.Context, ev channel.Event) ([]channel.Effect, error) {
	before := r.state
	next, effects := r.state.Step(ev, r.buyer.cfg.Clock())
	r.state = next
	return r.carryOut(ctx, before, effects)
}

func (r *payerRun) carryOut(ctx context.Context, before channel.Payer, effects []channel.Effect) ([]channel.Effect, error) {
	var rest []channel.Effect
	for _, e := range effects {
		st, ok := e.(channel.Store)
		if !ok {
			rest = append(rest, e)
			continue
		}
		// Machines store first, so nothing of rest has been carried out yet.
		if err := r.store(ctx, st); err != nil {
			r.state = before
			return nil, fmt.Errorf("store channel: %w", err)
		}
	}
	return rest, nil
}

func (r *payerRun) store(ctx context.Context, st channel.Store) error {
	row, err := r.record()
	if err != nil {
		return err
	}
	if p := r.state.Phase; p == channel.Closed || p == channel.Refunding {
		if row.Fee, err = r.feesInTheEnd(ctx); err != nil {
			return err
		}
	}
	batch := ledger.Batch{Channels: []ledger.Channel{row}}
	if st.Tx != nil {
		batch.Outbox = []ledger.Outgoing{outgoing(st, row.ID, coinsPaidTo(st.Tx, r.out, r.keyIndex, ledger.OriginRefund))}
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := r.buyer.cfg.Ledger.Apply(ctx, batch); err != nil {
		return err
	}
	if st.Tx != nil {
		r.buyer.cfg.Outbox.Kick()
	}
	return nil
}

// record is the channel's row as its state is.
func (r *payerRun) record() (ledger.Channel, error) {
	s := &r.state
	snapshot, err := s.Snapshot()
	if err != nil {
		return ledger.Channel{}, err
	}
	row := r.row
	row.ID, row.Role, row.PeerKey, row.KeyIndex = s.ID(), ledger.Payer, s.Terms.Identity, r.keyIndex
	describe(&row, &r.title, s.Phase, &s.Open, &s.Leg, &s.Past, &s.Last)
	row.Snapshot = snapshot
	switch s.Phase {
	case channel.Proposed, channel.Signed, channel.Failed: // its funding has cost nothing
	case channel.Closed:
		row.CloseTxid = s.Close
		fallthrough
	default:
		if r.fees > 0 {
			row.Fee = r.fees
		}
	}
	return row, nil
}

// feesInTheEnd are its share of the funding's and those of what settles the channel. Until
// then the budget holds the most that a close can cost.
func (r *payerRun) feesInTheEnd(ctx context.Context) (money.Satoshis, error) {
	s := &r.state
	funding, err := r.buyer.cfg.Ledger.Outgoing(ctx, s.Open.FundingTxid)
	if errors.Is(err, ledger.ErrNotFound) {
		return r.row.Fee, nil // of a ledger that was restored
	}
	if err != nil {
		return 0, err
	}
	c, err := s.Template()
	if err != nil {
		return 0, err
	}
	var tx *bsv.Tx
	if s.Phase == channel.Refunding {
		tx, err = c.Refund()
	} else {
		tx, err = s.Commitment()
	}
	if err != nil {
		return 0, err
	}
	fees, err := shareOf(&funding, s.Open.FundingIndex)
	if err != nil {
		return 0, err
	}
	fees += c.Capacity
	for _, o := range tx.Outputs {
		fees -= o.Value
	}
	return fees, nil
}

// purchase is the payment side of one download connection.
type purchase struct {
	buyer *Buyer
	conn  BuyerConn
	title Title
	log   *slog.Logger

	mail      chan channel.Event
	wake      chan struct{} // counts have changed, or the end is wanted
	onWire    atomic.Int64
	payable   atomic.Int64
	settle    atomic.Bool // finish with a close
	ending    atomic.Bool
	closeOnce sync.Once
	closed    chan struct{}
	done      chan struct{}

	// Below: the goroutine of run only.
	payers  []*payerRun // in the order in which bytes are paid for
	from    int64       // of the connection's bytes, where the next channel's part begins
	terms   *wire.Terms // the newest
	unused  bool        // no channel was proposed for them
	came    int64       // of the title over earlier connections, as far as channels tell
	flushed bool
	blocked bool             // nothing more can be paid here
	enough  bool             // no channel takes the place of the one that there is
	offers  int              // terms that came since something was paid
	earlier bool             // there may be channels of earlier connections
	proved  bool             // that earlier channels were paid
	waiting bool             // for a seat
	seat    *seat            // in a funding; nil without one
	joint   *joint           // the seat's, once a channel was proposed
	failed  int              // fundings that failed for another seeder's sake
	again   <-chan time.Time // until coins may have come free
	retry   <-chan time.Time // until the seeder's trouble may have passed
}

const (
	// maxTerms is how many offers are looked at on one connection without a
	// payment; each is a question to the chain.
	maxTerms = 32
	// retryFunding is how long to wait for coins that another funding binds.
	retryFunding = time.Second
	// maxBound is what a seeder may have bound in a channel beyond what the
	// title costs, and beyond the budget.
	maxBound money.Satoshis = 50_000
)

// Message is part of Session.
func (p *purchase) Message(payload []byte) {
	msg, err := wire.Decode(payload)
	switch {
	case errors.Is(err, wire.ErrKind):
		return
	case err != nil:
		p.conn.Fail(err)
		return
	}
	select {
	case p.mail <- channel.Got{Msg: msg}:
	case <-p.done:
	default:
		p.conn.Fail(ErrFlood)
	}
}

// Received is part of Purchase.
func (p *purchase) Received(wire, payable int64) {
	p.onWire.Store(wire)
	p.payable.Store(payable)
	p.poke()
}

func (p *purchase) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close is part of Session.
func (p *purchase) Close() { p.closeOnce.Do(func() { close(p.closed) }) }

// finish asks for the end of the purchase, with or without a close.
func (p *purchase) finish(settle bool) {
	p.settle.Store(settle)
	p.ending.Store(true)
	p.poke()
}

func (p *purchase) isDone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *purchase) run(ctx context.Context) {
	defer close(p.done)
	defer p.detach(ctx)
	for {
		var wanted *seat
		var seats chan<- *seat
		if p.waiting && !p.buyer.isFinishing() {
			wanted, seats = p.newSeat()
		}
		var answers <-chan answer
		var over <-chan struct{}
		switch {
		case p.joint != nil:
			over = p.joint.over
		case p.seat != nil:
			answers = p.seat.answers
		}
		select {
		case <-ctx.Done():
			return
		case <-p.closed:
			return
		case seats <- wanted:
			if err := p.sit(ctx, wanted); err != nil {
				p.fail(err)
				return
			}
		case a := <-answers:
			if err := p.propose(ctx, a); err != nil {
				p.fail(err)
				return
			}
		case <-over:
			if err := p.conclude(ctx); err != nil {
				p.fail(err)
				return
			}
		case <-p.again:
			p.again = nil
			p.waiting = true
		case <-p.retry:
			p.retry = nil
			if err := p.askAgain(); err != nil {
				p.fail(err)
				return
			}
		case <-p.wake:
			if err := p.pay(ctx); err != nil {
				p.fail(err)
				return
			}
		case ev := <-p.mail:
			if err := p.take(ctx, ev.(channel.Got)); err != nil {
				p.fail(err)
				return
			}
		}
		if p.ending.Load() {
			p.quit(ctx)
			if p.over() {
				return
			}
		}
	}
}

func (p *purchase) fail(err error) {
	p.buyer.notify(p, "payments failed: %v", err)
	p.conn.Fail(err)
}

// over says whether nothing more is to be done at the end.
func (p *purchase) over() bool {
	return !slices.ContainsFunc(p.payers, func(r *payerRun) bool { return !p.isOver(r) })
}

func (p *purchase) isOver(r *payerRun) bool {
	s := &r.state
	switch s.Phase {
	case channel.Open:
		// Where the budget is used up some of it stays owed.
		return !p.settle.Load() && p.flushed && (s.Settled() || p.blocked && s.Acked == s.Last.Seq)
	case channel.Signed, channel.Funded:
		return !p.settle.Load()
	case channel.Closing:
		return false
	}
	return true
}

// payer is the channel of this connection with a name, or nil.
func (p *purchase) payer(id wire.ChannelID) *payerRun {
	for _, r := range p.payers {
		if r.state.ID() == id {
			return r
		}
	}
	return nil
}

// opening is the channel whose funding is not stored, or nil.
func (p *purchase) opening() *payerRun {
	for _, r := range p.payers {
		if r.opening {
			return r
		}
	}
	return nil
}

func (p *purchase) take(ctx context.Context, got channel.Got) error {
	if terms, ok := got.Msg.(*wire.Terms); ok {
		return p.takeTerms(ctx, terms)
	}
	id := about(got.Msg)
	r := p.payer(id)
	if refusal, ok := got.Msg.(*wire.Refusal); ok && (r != nil || id == wire.ChannelID{}) {
		p.buyer.notify(p, "%v", refusal)
	}
	if r == nil {
		switch got.Msg.(type) {
		case *wire.RefundSig, *wire.Ready, *wire.Ack, *wire.Resumed, *wire.Closed, *wire.Refusal:
			return nil // about a channel that this connection had before
		}
		if len(p.payers) == 0 {
			return nil
		}
		r = p.payers[0] // whose machine knows what to say to it
	}
	_, resumed := got.Msg.(*wire.Resumed)
	if resumed && !r.resuming {
		return nil // it answers nothing
	}
	if _, refused := got.Msg.(*wire.Refusal); refused && r.opening && id == r.state.ID() && !p.buyer.leave(p.seat) {
		<-p.joint.over // it comes too late
		if err := p.conclude(ctx); err != nil {
			return err
		}
	}
	if _, isAnswer := got.Msg.(*wire.RefundSig); isAnswer && r.opening && r.state.Phase == channel.Proposed && id == r.state.ID() {
		p.note(func(s *seat) { s.answered = true })
	}
	before := r.state
	got.Title, got.Terms = p.title.InfoHash, p.terms
	if err := p.step(ctx, r, got); err != nil {
		return err
	}
	if before.Phase == channel.Proposed && r.state.Phase == channel.Signed {
		if err := p.sign(r); err != nil {
			return err
		}
	}
	if err := p.moved(ctx, r, before, got.Msg); err != nil {
		return err
	}
	return p.pay(ctx)
}

// moved does what a channel's new phase asks for.
func (p *purchase) moved(ctx context.Context, r *payerRun, before channel.Payer, msg wire.Message) error {
	refusal, _ := msg.(*wire.Refusal)
	_, resumed := msg.(*wire.Resumed)
	s := &r.state
	switch after := s.Phase; {
	case r.opening && after == channel.Failed:
		p.quit(ctx)
		p.noMore()
	case s.Refused:
		// The seeder lost it, or never had it. The money comes back with the
		// refund; this connection goes on with another channel.
		p.buyer.waste(s.Terms.Identity)
		p.drop(r)
		p.earlier, p.unused = true, true
	case after == channel.Closed && before.Phase != channel.Closed:
		p.buyer.notify(p, "channel closed with %v by %v", s.Spent(), s.Close)
		if s.Spent() == 0 {
			p.buyer.waste(s.Terms.Identity)
		}
		p.drop(r)
		p.earlier = true
	case resumed:
		r.resuming = false
		if after == channel.Open {
			// The machine has struck what was on its way when the connection
			// broke; what has come since counts from where it stands now.
			r.baseWire, r.basePaid = s.Wire, s.Payable
			p.came += s.Wire
			p.buyer.notify(p, "goes on with the channel, %v paid so far", s.Spent())
			p.earlier = true
		}
	case after == channel.Open && before.Phase != channel.Open:
		p.buyer.notify(p, "channel open, %v at %v", s.Open.Capacity, s.Leg.Price())
	case after == channel.Funded && refusal != nil && refusal.Code == wire.CodeUnavailable && refusal.Channel == s.ID():
		p.retry = time.After(p.buyer.cfg.RetryAfter)
	}
	return nil
}

// takeTerms looks at an offer.
func (p *purchase) takeTerms(ctx context.Context, t *wire.Terms) error {
	if p.offers++; p.offers > maxTerms {
		p.conn.Fail(ErrFlood)
		return nil
	}
	if p.seat != nil || p.buyer.isFinishing() {
		return nil
	}
	tip, err := p.buyer.cfg.Chain.Tip(ctx)
	if err != nil {
		p.buyer.notify(p, "not paid: the chain cannot be asked: %v", err)
		return nil
	}
	limits := channel.Limits{Network: p.buyer.cfg.Wallet.Network(), MaxPrice: p.buyer.cfg.MaxPrice,
		MaxWindow: p.buyer.cfg.MaxWindow, MaxFeeRate: p.buyer.cfg.MaxFeeRate}
	if r := p.title.Royalty; r != nil {
		limits.Royalty, limits.CreatorHash = r.Rate, r.To
	}
	if err := channel.CheckTerms(t, p.title.InfoHash, limits, tip.Height, p.buyer.cfg.Clock()); err != nil {
		p.buyer.notify(p, "not paid: %v", err)
		return nil
	}
	if len(p.payers) > 0 && t.Identity != p.terms.Identity {
		p.conn.Fail(fmt.Errorf("another identity on one connection: %w", channel.ErrProtocol))
		return nil
	}
	p.earlier = p.earlier || p.terms == nil
	p.terms, p.unused = t, true
	return p.next(ctx)
}

// next goes on with a channel that there is, or with a new one, where this
// connection has none or where the one that it has will not do.
func (p *purchase) next(ctx context.Context) error {
	if p.terms == nil || p.waiting || p.seat != nil || p.again != nil || p.blocked || len(p.payers) == maxAtOnce || p.buyer.isFinishing() {
		return nil
	}
	if n := len(p.payers); n > 0 && (p.payers[n-1].resuming || p.payers[n-1].state.Phase != channel.Open) {
		return nil
	}
	if p.earlier {
		resumed, err := p.resume(ctx)
		if err != nil || resumed {
			return err
		}
		p.earlier = false
	}
	if p.unused && len(p.payers) == 0 && !p.proved {
		p.proved = true
		if err := p.prove(ctx); err != nil {
			return err
		}
	}
	p.waiting = p.unused && (len(p.payers) == 0 || !p.enough && p.runsOut(p.payers[0]))
	return nil
}

// runsOut says whether a channel cannot pay for the rest of the title, though
// the budget could.
func (p *purchase) runsOut(r *payerRun) bool {
	budget := p.buyer.cfg.Budget
	return r.left() < p.rest() && r.state.Left() < budget.Limit()-budget.Spent()
}

// left is for how many more bytes the channel can pay.
func (r *payerRun) left() int64 { return max(0, r.state.CapacityBytes()-r.state.Wire) }

// rest is how many bytes of the title may still come over this connection.
func (p *purchase) rest() int64 {
	if c, ok := p.conn.(RestConn); ok {
		return c.Rest()
	}
	return max(0, p.title.Length-p.came-p.onWire.Load())
}

// resume asks the seeder to go on with a channel of an earlier connection: one
// of this title, the oldest first, or one of another title, which moves to this
// one.
func (p *purchase) resume(ctx context.Context) (bool, error) {
	open := true
	rows, err := p.buyer.cfg.Ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer, Open: &open})
	if err != nil {
		return false, fmt.Errorf("list channels: %w", err)
	}
	isHere := func(row ledger.Channel) bool { return row.Title == p.title.InfoHash }
	slices.SortStableFunc(rows, func(a, b ledger.Channel) int {
		switch {
		case isHere(a) == isHere(b):
			return 0
		case isHere(a):
			return -1
		}
		return 1
	})
	for _, row := range rows {
		if row.PeerKey != p.terms.Identity || isHere(row) && row.Rate+row.Royalty > p.buyer.cfg.MaxPrice || row.Seq == 0 {
			continue
		}
		run, err := p.buyer.take(ctx, row.ID, p)
		if err != nil {
			return false, err
		}
		if run == nil {
			continue
		}
		if run.state.Refused || run.state.Phase == channel.Refunding || run.state.CanMove(p.title.InfoHash, p.terms) != nil {
			p.buyer.live.release(row.ID, p)
			continue
		}
		run.row.Remote = p.conn.Remote().String()
		run.title = p.title
		p.join(run)
		return true, p.ask(run)
	}
	return false, nil
}

// prove shows the seeder a channel that was settled with it, the one that has
// paid most, by asking to go on with it. What it paid there counts for the next
// one; the answer, which says that it is closed, does not.
func (p *purchase) prove(ctx context.Context) error {
	open := false
	rows, err := p.buyer.cfg.Ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer, Open: &open})
	if err != nil {
		return fmt.Errorf("list channels: %w", err)
	}
	var best *ledger.Channel
	for i, row := range rows {
		if row.PeerKey == p.terms.Identity && row.State == ledger.StateClosed && row.Payee > 0 && (best == nil || row.Payee > best.Payee) {
			best = &rows[i]
		}
	}
	if best == nil {
		return nil
	}
	key, _, err := channelKeys(p.buyer.cfg.Wallet, best.KeyIndex)
	if err != nil {
		return err
	}
	proof, err := key.SignDigest(channel.ResumeDigest(p.terms.Nonce, p.title.InfoHash, best.ID))
	if err != nil {
		return fmt.Errorf("prove a channel's key: %w", err)
	}
	p.send(&wire.Resume{Channel: best.ID, Proof: proof})
	return nil
}

// askAgain asks the seeder to go on with a channel that it could not take.
func (p *purchase) askAgain() error {
	for _, r := range p.payers {
		if r.state.Phase == channel.Funded {
			return p.ask(r)
		}
	}
	return nil
}

// ask asks the seeder to go on with a channel.
func (p *purchase) ask(r *payerRun) error {
	id := r.state.ID()
	proof, err := r.state.Key.SignDigest(channel.ResumeDigest(p.terms.Nonce, p.title.InfoHash, id))
	if err != nil {
		return fmt.Errorf("prove the channel's key: %w", err)
	}
	r.resuming = true
	p.send(&wire.Resume{Channel: id, Proof: proof})
	return nil
}

func (p *purchase) exposure() int64 { return Exposure(p.title.PieceLength) }

// Exposure is how many bytes of pieces of this length are paid for to one
// seeder before they are verified: two pieces and the least credit. With
// several seeders none may hold a whole piece within its credit, and all of
// them may have come to its end with pieces that lack what another one was
// asked for. What a seeder is asked for at one time lies in two pieces; so what
// is not verified of n seeders is at most 2n pieces, and never all their
// exposure.
func Exposure(pieceLength int64) int64 {
	return min(2*pieceLength+channel.MinCredit, channel.MaxCredit)
}

// join gives a channel its part of the connection's bytes: what comes from now
// on, or from where the channel before it ends. Bytes of a channel that has
// ended without paying for them are the next one's.
func (p *purchase) join(r *payerRun) {
	r.from = p.from
	if r.state.Last.Seq > 0 {
		// Of an earlier connection. What came before it is asked after belongs to
		// nobody: the seeder has not let the channel go on yet.
		r.from = max(r.from, p.onWire.Load())
	}
	r.baseWire, r.basePaid = r.state.Wire, r.state.Payable
	r.state.Exposure = p.exposure()
	p.payers = append(p.payers, r)
}

// parts sets where each channel's part begins: behind that of the one before,
// which ends where its capacity or, when it takes nothing more, its payments do.
func (p *purchase) parts() {
	for i := 1; i < len(p.payers); i++ {
		p.payers[i].from = p.payers[i-1].end()
	}
}

// end is where a channel's part of the connection's bytes ends.
func (r *payerRun) end() int64 {
	s := &r.state
	if s.Phase == channel.Open && !s.Refused {
		return r.from + max(0, s.CapacityBytes()-r.baseWire)
	}
	return r.from + max(0, s.Last.Bytes-r.baseWire)
}

// noMore ends the search for another channel, which was of no use.
func (p *purchase) noMore() {
	if len(p.payers) > 0 {
		p.enough = true
		p.poke() // the channel may have waited for another one to take its place
		return
	}
	p.blocked = true
}

// plan is the channel that this purchase wants now. errNotWorth.
func (p *purchase) plan(ctx context.Context) (*plan, error) {
	cfg := &p.buyer.cfg
	t := p.terms
	if n := p.buyer.wastedOn(t.Identity); n >= maxWasted {
		return nil, fmt.Errorf("%d channels with this seeder came to nothing: %w", n, errNotWorth)
	}
	tip, err := cfg.Chain.Tip(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the tip: %w", err)
	}
	// A refund that pays too little would not be mined when it is needed.
	feeRate, err := cfg.Chain.FeeRate(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the fee rate: %w", err)
	}
	feeRate = max(t.FeeRate, min(feeRate, cfg.MaxFeeRate))
	capacity, err := p.capacity(feeRate)
	if err != nil {
		return nil, err
	}
	payee, err := bsv.ParsePublicKey(t.Payee[:])
	if err != nil {
		return nil, fmt.Errorf("payee's key: %w", err)
	}
	index, err := cfg.Wallet.NextIndex(ctx, wallet.BranchChannel)
	if err != nil {
		return nil, fmt.Errorf("new channel key: %w", err)
	}
	key, out, err := channelKeys(cfg.Wallet, index)
	if err != nil {
		return nil, err
	}
	open := wire.Open{Payer: key.Public(), PayerHash: out, FeeRate: feeRate, Capacity: capacity,
		RefundHeight: max(tip.Height, t.TipHeight) + t.RefundWindow}
	return &plan{title: p.title, terms: t, key: key, keyIndex: index, out: out, open: open, lock: bsv.Multisig(key.Public(), payee)}, nil
}

// capacity is what the rest of the title would cost from this seeder, with room for
// the close's fee, within what the seeder takes. What is not used comes back.
func (p *purchase) capacity(feeRate money.FeeRate) (money.Satoshis, error) {
	rest := p.rest()
	for _, r := range p.payers {
		rest = max(0, rest-r.left())
	}
	payee, creator, err := channel.Due(p.terms, rest)
	if err != nil {
		return 0, fmt.Errorf("price of the title: %w", err)
	}
	limit := p.buyer.cfg.Budget.Limit()
	need := min(payee+creator+p.buyer.cfg.Later, max(limit-p.buyer.cfg.Budget.Spent(), 0)) + 2*feeRate.Fee(bsv.CommitmentSize(3))
	if p.terms.MinCapacity > max(need, limit, maxBound) {
		return 0, fmt.Errorf("the seeder wants %v bound: %w", p.terms.MinCapacity, errNotWorth)
	}
	return min(max(need, p.terms.MinCapacity), p.terms.MaxCapacity), nil
}

// pay tells the machines what has come.
func (p *purchase) pay(ctx context.Context) error {
	if slices.ContainsFunc(p.payers, func(r *payerRun) bool { return r.resuming }) {
		return nil // the seeder may hold a newer commitment than we do
	}
	if p.ending.Load() {
		p.flushed = true
	}
	p.parts()
	ahead := int64(0) // that channels before have paid for, and is not verified
	for i, r := range slices.Clone(p.payers) {
		r.state.Exposure = max(0, p.exposure()-ahead)
		if err := p.payWith(ctx, r, i); err != nil {
			return err
		}
		ahead += max(0, r.state.Last.Bytes-r.state.Payable)
	}
	return p.next(ctx)
}

// payWith tells one machine what has come of its part, under the budget's lock,
// so that no two purchases spend the same satoshi.
func (p *purchase) payWith(ctx context.Context, r *payerRun, i int) error {
	wired, payable := p.onWire.Load()-r.from, p.payable.Load()-r.from
	ev := channel.Delivered{Wire: r.baseWire + max(0, wired), Payable: r.basePaid + max(0, payable), Flush: p.ending.Load()}
	full := r.state.CapacityBytes()
	ev.Wire, ev.Payable = min(ev.Wire, full), min(ev.Payable, full)
	before := r.state
	var effects []channel.Effect
	p.buyer.cfg.Budget.use(func(left money.Satoshis) money.Satoshis {
		ev.Limit = before.Spent() + left
		r.state, effects = before.Step(ev, p.buyer.cfg.Clock())
		return r.state.Spent() - before.Spent()
	})
	spent := r.state.Spent() - before.Spent()
	rest, err := r.carryOut(ctx, before, effects)
	if err != nil {
		p.buyer.cfg.Budget.give(spent)
		return err
	}
	if spent > 0 {
		p.offers = 0
	}
	p.perform(rest)
	enough := ev.Flush && p.settle.Load()
	for _, e := range rest {
		if _, usedUp := e.(channel.UsedUp); usedUp && !ev.Flush && !p.blocked {
			enough = !p.replaced(i) || r.state.Wire >= full
		}
	}
	if enough && r.state.Phase == channel.Open {
		return p.step(ctx, r, channel.CloseWanted{})
	}
	return nil
}

// replaced says whether another channel takes the place of the one at i, or is
// about to: then it is used to its last byte.
func (p *purchase) replaced(i int) bool {
	return i < len(p.payers)-1 || p.waiting || p.seat != nil || p.again != nil
}

func (p *purchase) step(ctx context.Context, r *payerRun, ev channel.Event) error {
	before := r.state.Spent()
	rest, err := r.step(ctx, ev)
	if err != nil {
		return err
	}
	if more := r.state.Spent() - before; more > 0 {
		// The seeder held a commitment that we had lost: it is spent.
		p.buyer.cfg.Budget.use(func(money.Satoshis) money.Satoshis { return more })
	}
	p.perform(rest)
	return nil
}

func (p *purchase) perform(effects []channel.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Send:
			p.send(e.Msg)
		case channel.OverLimit:
			if !p.blocked {
				p.buyer.notify(p, "the budget is used up")
			}
			p.blocked = true
			p.buyer.overLimit.Store(true)
		case channel.Fail:
			p.buyer.notify(p, "failed: %v", e.Err)
			p.conn.Fail(e.Err)
		}
	}
}

// drop lets go of a channel; it stays in the ledger.
func (p *purchase) drop(r *payerRun) {
	p.parts()
	i := slices.Index(p.payers, r)
	if i < 0 {
		return
	}
	p.payers = slices.Delete(p.payers, i, i+1)
	p.from = r.end()
	p.enough = p.enough && len(p.payers) > 0
	p.buyer.live.release(r.state.ID(), p)
	p.retry = nil
}

func (p *purchase) detach(ctx context.Context) {
	if !p.quit(ctx) {
		<-p.joint.over
		if err := p.conclude(ctx); err != nil {
			p.log.Error("channel not opened", "error", err)
		}
	}
	for _, r := range slices.Clone(p.payers) {
		if r.state.Phase == channel.Open {
			if err := r.store(ctx, channel.Store{}); err != nil {
				p.log.Error("channel's count of bytes not stored", "error", err)
			}
		}
		p.drop(r)
	}
}

func (p *purchase) send(m wire.Message) {
	b, err := wire.Encode(m)
	if err == nil {
		err = p.conn.Send(b)
	}
	if err != nil && !errors.Is(err, ErrConnClosed) {
		p.conn.Fail(err)
	}
}
