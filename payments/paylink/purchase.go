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
	funding  *wallet.Funding // until its outbox row is stored
	row      ledger.Channel
	title    Title // of the connection; zero without one
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
	snapshot, err := r.state.Snapshot()
	if err != nil {
		return err
	}
	row := r.row
	s := &r.state
	row.ID, row.Role, row.PeerKey, row.KeyIndex = s.ID(), ledger.Payer, s.Terms.Identity, r.keyIndex
	describe(&row, &r.title, s.Phase, &s.Open, &s.Leg, &s.Past, &s.Last)
	row.Snapshot = snapshot
	if s.Phase == channel.Closed {
		row.CloseTxid = s.Close
	}
	if s.Phase != channel.Proposed && s.Phase != channel.Failed && r.fees > 0 {
		row.Fee = r.fees
	}
	if s.Phase == channel.Closed || s.Phase == channel.Refunding {
		if row.Fee, err = r.feesInTheEnd(ctx); err != nil {
			return err
		}
	}
	batch := ledger.Batch{Channels: []ledger.Channel{row}}
	if st.Tx != nil {
		out := outgoing(st, row.ID, coinsPaidTo(st.Tx, r.out, r.keyIndex, ledger.OriginRefund))
		if st.Purpose == channel.FundingTx {
			out = r.funding.Outgoing(ledger.Funding)
		}
		batch.Outbox = []ledger.Outgoing{out}
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

// feesInTheEnd are those of the funding and of what settles the channel. Until
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
	fees := funding.Fee + c.Capacity
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
	payer     *payerRun
	terms     *wire.Terms
	tiedAt    int64 // connection's counts when the channel came to it
	tiedPaid  int64
	wireOff   int64 // channel's count minus connection's
	payOff    int64
	flushed   bool
	blocked   bool // nothing more can be paid here
	offers    int  // terms that came
	resuming  bool // a Resume was not answered yet
	waiting   bool // for buyer.opening
	holdsOpen bool
	deadline  <-chan time.Time // for the refund's signature
	patience  <-chan time.Time // until others need not wait for it
	again     <-chan time.Time // until coins may have come free
	retry     <-chan time.Time // until the seeder's trouble may have passed
}

const (
	// maxTerms is how many offers are looked at on one connection; each is a
	// question to the chain.
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
		var turn chan<- struct{}
		if p.waiting && !p.buyer.isFinishing() {
			turn = p.buyer.opening
		}
		select {
		case <-ctx.Done():
			return
		case <-p.closed:
			return
		case <-p.deadline:
			p.buyer.notify(p, "did not sign the refund in time")
			p.giveUp(ctx)
		case <-p.patience:
			p.patience = nil
			p.releaseOpening()
		case <-p.again:
			p.again = nil
			p.waiting = true
		case <-p.retry:
			p.retry = nil
			if err := p.askAgain(); err != nil {
				p.fail(err)
				return
			}
		case turn <- struct{}{}:
			p.waiting, p.holdsOpen = false, true
			if err := p.fund(ctx); err != nil {
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
		if p.ending.Load() && p.over() {
			return
		}
	}
}

func (p *purchase) fail(err error) {
	p.buyer.notify(p, "payments failed: %v", err)
	p.conn.Fail(err)
}

// over says whether nothing more is to be done at the end.
func (p *purchase) over() bool {
	if p.payer == nil {
		return true
	}
	switch p.payer.state.Phase {
	case channel.Open:
		// Where the budget is used up some of it stays owed.
		s := &p.payer.state
		return !p.settle.Load() && p.flushed && (s.Settled() || p.blocked && s.Acked == s.Last.Seq)
	case channel.Signed, channel.Funded:
		return !p.settle.Load()
	case channel.Closing:
		return false
	}
	return true
}

func (p *purchase) take(ctx context.Context, got channel.Got) error {
	refusal, _ := got.Msg.(*wire.Refusal)
	if terms, ok := got.Msg.(*wire.Terms); ok {
		return p.takeTerms(ctx, terms)
	}
	if refusal != nil && (p.payer == nil || refusal.Channel == p.payer.state.ID()) {
		p.buyer.notify(p, "%v", refusal)
	}
	if p.payer == nil {
		return nil
	}
	_, resumed := got.Msg.(*wire.Resumed)
	if resumed && !p.resuming {
		return nil // it answers nothing
	}
	asked := p.resuming
	before := p.payer.state
	got.Title, got.Terms = p.title.InfoHash, p.terms
	if err := p.step(ctx, got); err != nil {
		return err
	}
	if before.Phase == channel.Proposed && p.payer.state.Phase == channel.Signed {
		if err := p.step(ctx, channel.FundingReady{}); err != nil {
			return err
		}
	}
	switch after := p.payer.state.Phase; {
	case before.Phase == channel.Proposed && after == channel.Funded:
		p.deadline, p.patience = nil, nil
		p.payer.funding = nil
		p.releaseOpeningWhenSeen(ctx, p.payer.state.Open.FundingTxid)
	case before.Phase == channel.Proposed && after == channel.Failed:
		p.giveUp(ctx)
		return nil
	case p.payer.state.Refused:
		// The seeder lost it, or never had it. The money comes back with the
		// refund; this connection goes on with another channel.
		p.buyer.waste(p.payer.state.Terms.Identity)
		p.drop()
		return p.next(ctx)
	case after == channel.Closed && before.Phase != channel.Closed:
		p.buyer.notify(p, "channel closed with %v by %v", p.payer.state.Spent(), p.payer.state.Close)
		if p.payer.state.Spent() == 0 {
			p.buyer.waste(p.payer.state.Terms.Identity)
		}
		p.drop()
		if asked {
			return p.next(ctx) // the offer of this connection stands
		}
		return nil
	case resumed:
		p.resuming = false
		if after == channel.Open {
			// The machine has struck what was on its way when the connection
			// broke; what has come since counts from where it stands now.
			p.wireOff = p.payer.state.Wire - p.tiedAt
			p.payOff = p.payer.state.Payable - p.tiedPaid
			p.buyer.notify(p, "goes on with the channel, %v paid so far", p.payer.state.Spent())
		}
	case after == channel.Open && before.Phase != channel.Open:
		p.buyer.notify(p, "channel open, %v at %v", p.payer.state.Open.Capacity, p.terms.Ask+p.terms.Royalty)
	case after == channel.Funded && refusal != nil && refusal.Code == wire.CodeUnavailable && refusal.Channel == p.payer.state.ID():
		p.retry = time.After(p.buyer.cfg.RetryAfter)
	}
	return p.pay(ctx)
}

// takeTerms looks at an offer, and goes on with a channel of before where this
// seeder has one.
func (p *purchase) takeTerms(ctx context.Context, t *wire.Terms) error {
	if p.offers++; p.offers > maxTerms {
		p.conn.Fail(ErrFlood)
		return nil
	}
	if p.payer != nil || p.buyer.isFinishing() {
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
	p.terms = t
	return p.next(ctx)
}

// next goes on with a channel that there is, or with a new one.
func (p *purchase) next(ctx context.Context) error {
	if p.buyer.isFinishing() {
		return nil
	}
	resumed, err := p.resume(ctx)
	if err == nil && !resumed {
		p.waiting = !p.blocked
	}
	return err
}

// resume asks the seeder to go on with a channel of an earlier connection.
func (p *purchase) resume(ctx context.Context) (bool, error) {
	open := true
	rows, err := p.buyer.cfg.Ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer, Open: &open, Title: &p.title.InfoHash})
	if err != nil {
		return false, fmt.Errorf("list channels: %w", err)
	}
	for _, row := range slices.Backward(rows) {
		if row.PeerKey != p.terms.Identity || row.Rate+row.Royalty > p.buyer.cfg.MaxPrice || row.Seq == 0 {
			continue
		}
		if !p.buyer.claim(row.ID, p) {
			continue
		}
		run, err := p.buyer.restore(row)
		if err != nil {
			p.buyer.release(row.ID, p)
			return false, err
		}
		if run.state.Refused || run.state.CanMove(p.title.InfoHash, p.terms) != nil {
			p.buyer.release(row.ID, p)
			continue
		}
		run.row.Remote = p.conn.Remote().String()
		run.title = p.title
		run.state.Exposure = p.exposure()
		p.payer = run
		p.tie()
		return true, p.askAgain()
	}
	return false, nil
}

// askAgain asks the seeder to go on with the channel.
func (p *purchase) askAgain() error {
	if p.payer == nil {
		return nil
	}
	id := p.payer.state.ID()
	proof, err := p.payer.state.Key.SignDigest(channel.ResumeDigest(p.terms.Nonce, p.title.InfoHash, id))
	if err != nil {
		return fmt.Errorf("prove the channel's key: %w", err)
	}
	p.resuming = true
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

// tie makes the connection's counts continue the channel's.
func (p *purchase) tie() {
	p.tiedAt, p.tiedPaid = p.onWire.Load(), p.payable.Load()
	p.wireOff = p.payer.state.Wire - p.tiedAt
	p.payOff = p.payer.state.Payable - p.tiedPaid
}

// fund makes a funding and proposes a channel. It is called with
// buyer.opening held.
func (p *purchase) fund(ctx context.Context) error {
	err := p.propose(ctx)
	if err == nil {
		return nil
	}
	p.releaseOpening()
	switch {
	case errors.Is(err, bsv.ErrFunds) && p.buyer.proposals.Load() > 0:
		p.again = time.After(retryFunding)
		return nil
	case errors.Is(err, errNotWorth), errors.Is(err, bsv.ErrFunds):
		p.blocked = true
		p.buyer.notify(p, "not paid: %v", err)
		return nil
	}
	return err
}

// errNotWorth says that a channel with this seeder is not worth its price.
var errNotWorth = errors.New("not worth a channel")

func (p *purchase) propose(ctx context.Context) error {
	cfg := &p.buyer.cfg
	t := p.terms
	if n := p.buyer.wastedOn(t.Identity); n >= maxWasted {
		return fmt.Errorf("%d channels with this seeder came to nothing: %w", n, errNotWorth)
	}
	tip, err := cfg.Chain.Tip(ctx)
	if err != nil {
		return fmt.Errorf("ask for the tip: %w", err)
	}
	// A refund that pays too little would not be mined when it is needed.
	feeRate, err := cfg.Chain.FeeRate(ctx)
	if err != nil {
		return fmt.Errorf("ask for the fee rate: %w", err)
	}
	feeRate = max(t.FeeRate, min(feeRate, cfg.MaxFeeRate))
	index, err := cfg.Wallet.NextIndex(ctx, wallet.BranchChannel)
	if err != nil {
		return fmt.Errorf("new channel key: %w", err)
	}
	key, out, err := channelKeys(cfg.Wallet, index)
	if err != nil {
		return err
	}
	open := wire.Open{Payer: key.Public(), PayerHash: out, FeeRate: feeRate,
		RefundHeight: max(tip.Height, t.TipHeight) + t.RefundWindow}
	payee, err := bsv.ParsePublicKey(t.Payee[:])
	if err != nil {
		return fmt.Errorf("payee's key: %w", err)
	}
	if open.Capacity, err = p.capacity(feeRate); err != nil {
		return err
	}
	lock := bsv.Multisig(key.Public(), payee)
	funding, err := cfg.Wallet.Fund(ctx, []bsv.Output{{Value: open.Capacity, Script: lock}})
	if err != nil {
		return fmt.Errorf("fund a channel: %w", err)
	}
	if n := len(funding.Tx.Inputs); n > bsv.MaxFundingInputs || funding.Tx.Size() > bsv.MaxFundingSize {
		return errors.Join(fmt.Errorf("the wallet's coins are too small, a funding would spend %d: %w", n, errNotWorth), cfg.Wallet.Release(ctx, funding))
	}
	open.FundingTxid = funding.Tx.Txid()
	state, effects, err := channel.NewPayer(key, p.title.InfoHash, t, open, funding.Tx, funding.Prev)
	if err != nil {
		return errors.Join(err, cfg.Wallet.Release(ctx, funding))
	}
	state.Exposure = p.exposure()
	run := &payerRun{buyer: p.buyer, state: state, keyIndex: index, out: out, fees: funding.Fee + open.Capacity - state.Left(),
		funding: funding, title: p.title, row: ledger.Channel{Remote: p.conn.Remote().String()}}
	if !cfg.Budget.take(run.fees) {
		p.buyer.overLimit.Store(true)
		return errors.Join(fmt.Errorf("the budget does not pay for a channel's fees of %v: %w", run.fees, errNotWorth), cfg.Wallet.Release(ctx, funding))
	}
	if !p.buyer.claim(state.ID(), p) {
		cfg.Budget.give(run.fees)
		return errors.Join(errors.New("the same funding twice"), cfg.Wallet.Release(ctx, funding))
	}
	p.payer = run
	p.buyer.proposals.Add(1)
	p.tie()
	rest, err := run.carryOut(ctx, state, effects)
	if err != nil {
		p.giveUp(ctx)
		return err
	}
	p.perform(rest)
	p.deadline = time.After(cfg.OpenTimeout)
	p.patience = time.After(cfg.OpenPatience)
	return nil
}

// capacity is what the whole title would cost from this seeder, with room for
// the close's fee, within what the seeder takes. What is not used comes back.
func (p *purchase) capacity(feeRate money.FeeRate) (money.Satoshis, error) {
	payee, creator, err := channel.Due(p.terms, p.title.Length)
	if err != nil {
		return 0, fmt.Errorf("price of the title: %w", err)
	}
	limit := p.buyer.cfg.Budget.Limit()
	need := min(payee+creator, max(limit-p.buyer.cfg.Budget.Spent(), 0)) + 2*feeRate.Fee(bsv.CommitmentSize(3))
	if p.terms.MinCapacity > max(need, limit, maxBound) {
		return 0, fmt.Errorf("the seeder wants %v bound: %w", p.terms.MinCapacity, errNotWorth)
	}
	return min(max(need, p.terms.MinCapacity), p.terms.MaxCapacity), nil
}

// pay tells the machine what has come, under the budget's lock, so that no two
// purchases spend the same satoshi.
func (p *purchase) pay(ctx context.Context) error {
	if p.payer == nil || p.resuming {
		return nil // the seeder may hold a newer commitment than we do
	}
	if p.ending.Load() {
		p.flushed = true
	}
	ev := channel.Delivered{Wire: p.wireOff + p.onWire.Load(), Payable: p.payOff + p.payable.Load(), Flush: p.ending.Load()}
	before := p.payer.state
	var effects []channel.Effect
	p.buyer.cfg.Budget.use(func(left money.Satoshis) money.Satoshis {
		ev.Limit = before.Spent() + left
		p.payer.state, effects = before.Step(ev, p.buyer.cfg.Clock())
		return p.payer.state.Spent() - before.Spent()
	})
	spent := p.payer.state.Spent() - before.Spent()
	rest, err := p.payer.carryOut(ctx, before, effects)
	if err != nil {
		p.buyer.cfg.Budget.give(spent)
		return err
	}
	p.perform(rest)
	enough := ev.Flush && p.settle.Load()
	for _, e := range rest {
		if _, usedUp := e.(channel.UsedUp); usedUp && !ev.Flush && !p.blocked {
			enough = true
		}
	}
	if enough && p.payer.state.Phase == channel.Open {
		return p.step(ctx, channel.CloseWanted{})
	}
	return nil
}

func (p *purchase) step(ctx context.Context, ev channel.Event) error {
	before := p.payer.state.Spent()
	rest, err := p.payer.step(ctx, ev)
	if err != nil {
		return err
	}
	if more := p.payer.state.Spent() - before; more > 0 {
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

// giveUp takes back a funding that nobody has seen.
func (p *purchase) giveUp(ctx context.Context) {
	p.deadline, p.patience = nil, nil
	if p.payer != nil && p.payer.funding != nil {
		p.buyer.proposals.Add(-1)
		p.buyer.waste(p.payer.state.Terms.Identity)
		rest, err := p.payer.step(ctx, channel.Abandon{})
		if err != nil {
			p.log.Error("failed channel not stored", "error", err)
		}
		p.perform(rest)
		ctx, cancel := withTimeout(ctx)
		defer cancel()
		if err := p.buyer.cfg.Wallet.Release(ctx, p.payer.funding); err != nil {
			p.log.Error("coins not released", "error", err)
		}
		p.buyer.cfg.Budget.give(p.payer.fees)
		p.payer.funding = nil
		p.blocked = true
	}
	p.drop()
	p.releaseOpening()
}

func (p *purchase) releaseOpening() {
	if p.holdsOpen {
		p.holdsOpen = false
		<-p.buyer.opening
	}
}

// releaseOpeningWhenSeen lets the next purchase build its funding as soon as
// the change of this one can be spent.
func (p *purchase) releaseOpeningWhenSeen(ctx context.Context, funding bsv.Txid) {
	held := p.holdsOpen
	p.holdsOpen = false
	p.buyer.wg.Add(1)
	go func() {
		defer p.buyer.wg.Done()
		defer func() {
			p.buyer.proposals.Add(-1)
			if held {
				<-p.buyer.opening
			}
		}()
		ctx, cancel := context.WithTimeout(ctx, seenTimeout)
		defer cancel()
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			out, err := p.buyer.cfg.Ledger.Outgoing(ctx, funding)
			if err != nil || out.State != ledger.Pending {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
}

// seenTimeout bounds the wait for the network to take a funding.
const seenTimeout = 15 * time.Second

// drop lets go of the channel; it stays in the ledger.
func (p *purchase) drop() {
	if p.payer != nil {
		p.buyer.release(p.payer.state.ID(), p)
		p.payer = nil
	}
	p.resuming, p.retry = false, nil
}

func (p *purchase) detach(ctx context.Context) {
	if p.payer != nil && (p.payer.state.Phase == channel.Proposed || p.payer.state.Phase == channel.Signed) {
		p.giveUp(ctx)
		return
	}
	if p.payer != nil && p.payer.state.Phase == channel.Open {
		if err := p.payer.store(ctx, channel.Store{}); err != nil {
			p.log.Error("channel's count of bytes not stored", "error", err)
		}
	}
	p.drop()
	p.releaseOpening()
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
