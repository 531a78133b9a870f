package paylink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Purchases that want a channel at about the same time share a funding, a joint.
// The buyer's opener gathers them and builds it; each purchase proposes its own
// channel and says when its refund is signed. When all have said so, one write
// stores all channels and the funding, and only then anybody is sent it. Where
// one seeder is missing, nothing of it is used: the others give their channels
// up, and come to the next one with fresh terms.

const (
	// maxJoint is how many channels one funding opens.
	maxJoint = 16
	// maxJoints is how many fundings a purchase may see fail for another one's
	// sake before it gets one of its own.
	maxJoints = 3
)

var (
	// errNotWorth says that a channel with this seeder is not worth its price.
	errNotWorth = errors.New("not worth a channel")
	// errBudget says that the budget does not pay for the fees of a channel.
	errBudget = fmt.Errorf("over the budget: %w", errNotWorth)
	// errNextTurn says that the coins did not suffice for all of a funding.
	errNextTurn = errors.New("another funding's turn")
	// errBound says that another funding binds the coins.
	errBound = errors.New("the coins are bound")
)

// plan is the channel that a purchase wants.
type plan struct {
	title    Title
	terms    *wire.Terms
	key      bsv.PrivateKey
	keyIndex uint32
	out      bsv.Hash160
	open     wire.Open // without its funding
	lock     bsv.Script
}

// seat is a purchase's part in a funding.
type seat struct {
	plan  *plan         // before ready is closed; nil where the purchase wants none after all
	ready chan struct{} // the plan is made
	solo  bool          // in a funding of its own
	late  bool          // the seeder has made others wait before
	// answers gets one.
	answers chan answer

	// Below: under Buyer.seating.
	joint    *joint // once it is known
	gone     bool
	proposed bool // the seeder was asked
	answered bool // it has sent something that will be taken for a signature or not
	signed   bool
	next     channel.Payer  // when the funding is stored
	row      ledger.Channel // of next
	rest     []channel.Effect
	silent   bool // did not sign in time; before joint.over is closed
}

// answer tells a purchase to propose a channel, or why there is none.
type answer struct {
	joint   *joint
	run     *payerRun
	effects []channel.Effect
	err     error
}

// joint is a funding that is to open a channel with each of several seeders.
type joint struct {
	buyer   *Buyer
	seats   []*seat
	runs    []*payerRun
	effects [][]channel.Effect
	funding *wallet.Funding
	news    chan struct{}  // a seat has changed
	members sync.WaitGroup // purchases that have not parted from it
	release func()         // lets the next funding be built
	sealed  bool           // it is being stored, and nobody leaves any more; under Buyer.seating

	over   chan struct{} // closed when the end is known, which is:
	stored bool
	err    error // that kept it from being stored
}

func newSeat(solo, late bool) *seat {
	return &seat{ready: make(chan struct{}), answers: make(chan answer, 1), solo: solo, late: late}
}

// leave gives a seat up, or says that it is too late for that: the end will be
// known in a moment.
func (b *Buyer) leave(s *seat) bool {
	b.seating.Lock()
	defer b.seating.Unlock()
	if s.joint != nil && s.joint.sealed {
		return false
	}
	s.gone = true
	s.joint.poke()
	return true
}

func (j *joint) poke() {
	if j == nil {
		return
	}
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// openChannels builds one funding after the other, so that each can spend the
// change of the one before.
func (b *Buyer) openChannels(ctx context.Context) {
	for {
		seats := b.gather(ctx)
		if len(seats) == 0 {
			return
		}
		turn := make(chan struct{})
		j := &joint{buyer: b, seats: seats, news: make(chan struct{}, 1), over: make(chan struct{}), release: sync.OnceFunc(func() { close(turn) })}
		b.wg.Go(func() {
			defer j.release()
			j.run(ctx)
		})
		<-turn
	}
}

// gather waits for a purchase that wants a channel, and then a moment for
// others. Those that need a funding of their own come after all others.
func (b *Buyer) gather(ctx context.Context) []*seat {
	var all []*seat
	select {
	case s := <-b.seats:
		all = append(all, s)
	default:
		select {
		case s := <-b.seats:
			all = append(all, s)
		case s := <-b.solos:
			return []*seat{s}
		case <-ctx.Done():
			return nil
		}
	}
	timer := time.NewTimer(b.cfg.Gather)
	defer timer.Stop()
	for len(all) < maxJoint {
		until := timer.C
		if b.gathered != nil {
			until = b.gathered(len(all))
		}
		select {
		case s := <-b.seats:
			all = append(all, s)
		case <-until:
			return all
		case <-ctx.Done():
			return nil
		}
	}
	return all
}

func (j *joint) run(ctx context.Context) {
	b := j.buyer
	if !j.build(ctx) {
		return
	}
	b.proposals.Add(1)
	defer b.proposals.Add(-1) // before the turn is released
	late := false
	for i, s := range j.seats {
		j.members.Add(1)
		if !j.tell(s, answer{joint: j, run: j.runs[i], effects: j.effects[i]}) {
			b.cfg.Budget.give(j.runs[i].fees)
			j.members.Done()
		}
		late = late || s.late
	}
	if late {
		j.release()
	}
	if j.agree(ctx) {
		j.stored, j.err = j.store(ctx)
	}
	close(j.over)
	if j.stored {
		b.cfg.Outbox.Kick()
		j.awaitSeen(ctx)
		return
	}
	j.members.Wait() // what they give back is there for the next funding
	j.free(ctx)
}

// tell gives a purchase its answer, or says that it has gone.
func (j *joint) tell(s *seat, a answer) bool {
	j.buyer.seating.Lock()
	defer j.buyer.seating.Unlock()
	if s.gone {
		return false
	}
	s.answers <- a
	return true
}

// drop takes a seat out, for a reason that its purchase is told.
func (j *joint) drop(i int, reason error) {
	j.tell(j.seats[i], answer{err: reason})
	j.seats = append(j.seats[:i:i], j.seats[i+1:]...)
}

// build makes the funding for all that it can pay for, and says whether there
// is one.
func (j *joint) build(ctx context.Context) bool {
	b := j.buyer
	for _, s := range j.seats {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return false
		}
	}
	b.seating.Lock()
	var here []*seat
	for _, s := range j.seats {
		if s.joint = j; !s.gone && s.plan != nil {
			here = append(here, s)
		}
	}
	j.seats = here
	b.seating.Unlock()
	for len(j.seats) > 0 {
		err := j.fund(ctx)
		small := errors.Is(err, bsv.ErrFunds) || errors.Is(err, errNotWorth)
		switch {
		case small && len(j.seats) > 1:
			j.drop(j.dearest(), errNextTurn)
		case errors.Is(err, bsv.ErrFunds) && b.proposals.Load() > 0:
			j.drop(0, errBound)
		case err != nil:
			for len(j.seats) > 0 {
				j.drop(0, err)
			}
		case j.begin():
			return true
		default:
			j.free(ctx)
		}
	}
	return false
}

// dearest is the seat that binds the most.
func (j *joint) dearest() int {
	dearest := 0
	for i, s := range j.seats {
		if s.plan.open.Capacity >= j.seats[dearest].plan.open.Capacity {
			dearest = i
		}
	}
	return dearest
}

func (j *joint) fund(ctx context.Context) error {
	outs := make([]bsv.Output, len(j.seats))
	for i, s := range j.seats {
		outs[i] = bsv.Output{Value: s.plan.open.Capacity, Script: s.plan.lock}
	}
	var err error
	if j.funding, err = j.buyer.cfg.Wallet.Fund(ctx, outs); err != nil {
		return fmt.Errorf("fund a channel: %w", err)
	}
	if n := len(j.funding.Tx.Inputs); n > bsv.MaxFundingInputs || j.funding.Tx.Size() > bsv.MaxFundingSize {
		j.free(ctx)
		return fmt.Errorf("the wallet's coins are too small, a funding would spend %d: %w", n, errNotWorth)
	}
	return nil
}

// free gives back the coins of a funding that was not stored.
func (j *joint) free(ctx context.Context) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := j.buyer.cfg.Wallet.Release(ctx, j.funding); err != nil {
		j.buyer.cfg.Log.Error("coins not released", "error", err)
	}
}

// begin makes the channels of a funding and takes their fees from the budget.
// Where some cannot be, they are dropped and it says no.
func (j *joint) begin() bool {
	b := j.buyer
	n := len(j.seats)
	j.runs, j.effects = nil, nil
	reasons := make([]error, n)
	var taken money.Satoshis
	for i, s := range j.seats {
		pl := s.plan
		open := pl.open
		open.FundingTxid, open.FundingIndex = j.funding.Tx.Txid(), uint32(i)
		state, effects, err := channel.NewPayer(pl.key, pl.title.InfoHash, pl.terms, open, j.funding.Tx, j.funding.Prev)
		if err != nil {
			reasons[i] = err
			continue
		}
		fees := share(j.funding.Fee, n, i) + open.Capacity - state.Left()
		if !b.cfg.Budget.take(fees) {
			reasons[i] = fmt.Errorf("the budget does not pay for a channel's fees of %v: %w", fees, errBudget)
			continue
		}
		taken += fees
		j.runs = append(j.runs, &payerRun{buyer: b, state: state, keyIndex: pl.keyIndex, out: pl.out, fees: fees, opening: true, title: pl.title})
		j.effects = append(j.effects, effects)
	}
	if len(j.runs) == n {
		return true
	}
	b.cfg.Budget.give(taken)
	for i := n - 1; i >= 0; i-- {
		if reasons[i] != nil {
			j.drop(i, reasons[i])
		}
	}
	return false
}

// share is the part of the channel at an index in a funding's fee: equal ones,
// and the rest to the first.
func share(fee money.Satoshis, channels, index int) money.Satoshis {
	n := money.Satoshis(channels)
	part := fee / n
	if index == 0 {
		part += fee % n
	}
	return part
}

// shareOf is share of a funding that was stored.
func shareOf(out *ledger.Outgoing, index uint32) (money.Satoshis, error) {
	tx, err := bsv.ParseTx(out.Raw, bsv.MaxFundingSize)
	if err != nil {
		return 0, fmt.Errorf("stored funding: %w", err)
	}
	channels := 0
	for _, o := range tx.Outputs {
		if _, _, ok := o.Script.MultisigKeys(); ok {
			channels++
		}
	}
	return share(out.Fee, max(channels, 1), int(index)), nil
}

// agree waits until all refunds are signed, and says whether they are. From
// then on nobody can leave. All others are heard before one that is missing
// makes it fail, so that the next funding need not fail for the same reason.
func (j *joint) agree(ctx context.Context) bool {
	for j.proposing() { // what our own disk takes is not the seeders' fault
		select {
		case <-j.news:
		case <-ctx.Done():
			return false
		}
	}
	cfg := &j.buyer.cfg
	patience, deadline := time.NewTimer(cfg.OpenPatience), time.NewTimer(cfg.OpenTimeout)
	defer patience.Stop()
	defer deadline.Stop()
	waited := patience.C
	if j.buyer.patience != nil {
		waited = j.buyer.patience
	}
	for {
		if waiting, missing := j.tally(); waiting == 0 {
			return !missing
		}
		select {
		case <-j.news:
			continue
		case <-waited:
			if len(j.seats) == 1 {
				j.release()
				continue
			}
		case <-deadline.C:
		case <-ctx.Done():
			return false
		}
		if j.giveUpOn() {
			return false
		}
	}
}

// proposing says whether a purchase has not asked its seeder yet.
func (j *joint) proposing() bool {
	j.buyer.seating.Lock()
	defer j.buyer.seating.Unlock()
	return slices.ContainsFunc(j.seats, func(s *seat) bool { return !s.gone && !s.proposed })
}

// tally counts the seeders that have not answered, and says whether one is
// missing. Where all have signed it seals the joint.
func (j *joint) tally() (waiting int, missing bool) {
	j.buyer.seating.Lock()
	defer j.buyer.seating.Unlock()
	for _, s := range j.seats {
		switch {
		case s.gone:
			missing = true
		case !s.signed:
			waiting++
		}
	}
	j.sealed = waiting == 0 && !missing
	return waiting, missing
}

// giveUpOn marks those that have not answered, and says whether there were any.
func (j *joint) giveUpOn() bool {
	j.buyer.seating.Lock()
	defer j.buyer.seating.Unlock()
	found := false
	for _, s := range j.seats {
		if !s.gone && !s.answered {
			s.silent, found = true, true
		}
	}
	return found
}

// store makes the funding and all its channels durable in one write.
func (j *joint) store(ctx context.Context) (bool, error) {
	batch := ledger.Batch{Outbox: []ledger.Outgoing{j.funding.Outgoing(ledger.Funding)}}
	for _, s := range j.seats {
		batch.Channels = append(batch.Channels, s.row)
	}
	l := j.buyer.cfg.Ledger
	write, cancel := withTimeout(ctx)
	defer cancel()
	apply := l.Apply
	if j.buyer.apply != nil {
		apply = j.buyer.apply
	}
	err := apply(write, batch)
	if err == nil {
		return true, nil
	}
	look, cancel := withTimeout(ctx)
	defer cancel()
	if _, unknown := l.Outgoing(look, j.funding.Tx.Txid()); unknown == nil {
		return true, nil // it went through after all
	}
	return false, fmt.Errorf("store channels: %w", err)
}

// awaitSeen waits until the change of the funding can be spent.
func (j *joint) awaitSeen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		out, err := j.buyer.cfg.Ledger.Outgoing(ctx, j.funding.Tx.Txid())
		if err != nil || out.State != ledger.Pending {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// seenTimeout bounds the wait for the network to take a funding.
const seenTimeout = 15 * time.Second

// newSeat is for the next funding.
func (p *purchase) newSeat() (*seat, chan<- *seat) {
	late := p.buyer.isLate(p.terms.Identity)
	if late || p.failed >= maxJoints {
		return newSeat(true, late), p.buyer.solos
	}
	return newSeat(false, false), p.buyer.seats
}

// sit plans the channel that this purchase wants.
func (p *purchase) sit(ctx context.Context, s *seat) error {
	p.waiting, p.seat = false, s
	var err error
	if s.plan, err = p.plan(ctx); err != nil {
		p.buyer.leave(s)
		p.seat = nil
	}
	close(s.ready)
	return p.declined(err)
}

// declined takes note of why there is no channel now.
func (p *purchase) declined(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, errNextTurn):
		p.waiting = true
	case errors.Is(err, errBound):
		p.again = time.After(retryFunding)
	case errors.Is(err, errNotWorth), errors.Is(err, bsv.ErrFunds):
		if errors.Is(err, errBudget) && len(p.payers) == 0 {
			p.buyer.overLimit.Store(true)
		}
		p.buyer.notify(p, "not paid: %v", err)
		p.noMore()
	default:
		return err
	}
	return nil
}

// propose asks for the channel that a funding was built for.
func (p *purchase) propose(ctx context.Context, a answer) error {
	if a.run == nil {
		p.seat = nil
		return p.declined(a.err)
	}
	p.joint = a.joint
	r := a.run
	r.row.Remote = p.conn.Remote().String()
	claimed := p.buyer.live.claim(r.state.ID(), p)
	p.join(r)
	p.unused = false
	var rest []channel.Effect
	err := errors.New("the same funding twice")
	if claimed {
		rest, err = r.carryOut(ctx, r.state, a.effects)
	}
	if err != nil {
		p.quit(ctx)
		return err
	}
	p.perform(rest)
	p.note(func(s *seat) { s.proposed = true })
	return nil
}

// note changes this purchase's seat.
func (p *purchase) note(change func(*seat)) {
	p.buyer.seating.Lock()
	defer p.buyer.seating.Unlock()
	change(p.seat)
	p.joint.poke()
}

// sign says that the refund of a channel is signed and stored.
func (p *purchase) sign(r *payerRun) error {
	ready := *r
	var effects []channel.Effect
	ready.state, effects = r.state.Step(channel.FundingReady{Stored: true}, p.buyer.cfg.Clock())
	s := p.seat
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Store:
		case channel.Fail:
			return e.Err
		default:
			s.rest = append(s.rest, e)
		}
	}
	row, err := ready.record()
	if err != nil {
		return err
	}
	p.note(func(s *seat) { s.next, s.row, s.signed = ready.state, row, true })
	return nil
}

// quit leaves the funding that this purchase has a part in, and says whether
// that was possible.
func (p *purchase) quit(ctx context.Context) bool {
	s := p.seat
	if s == nil {
		return true
	}
	if !p.buyer.leave(s) {
		return false
	}
	select {
	case a := <-s.answers:
		if a.run != nil { // nobody has heard of it
			p.buyer.cfg.Budget.give(a.run.fees)
			p.joint = a.joint
		}
	default:
	}
	if r := p.opening(); r != nil {
		p.buyer.waste(r.state.Terms.Identity)
		p.giveUp(ctx, r)
	}
	p.part()
	return true
}

// part ends the purchase's part in a funding.
func (p *purchase) part() {
	j := p.joint
	p.seat, p.joint = nil, nil
	if j != nil {
		j.members.Done()
	}
}

// conclude takes note of how a funding has ended.
func (p *purchase) conclude(ctx context.Context) error {
	s, j, r := p.seat, p.joint, p.opening()
	defer p.part()
	identity := r.state.Terms.Identity
	switch {
	case j.stored:
		r.state, r.opening, p.failed = s.next, false, 0
		p.perform(s.rest)
	case j.err != nil:
		p.giveUp(ctx, r)
		return j.err
	case s.silent:
		p.buyer.notify(p, "did not sign the refund in time")
		p.buyer.waste(identity)
		p.buyer.setLate(identity)
		p.giveUp(ctx, r)
		if len(j.seats) == 1 {
			p.noMore()
		}
	default:
		p.failed++
		p.giveUp(ctx, r)
	}
	return nil
}

// giveUp takes back a channel whose funding has not left.
func (p *purchase) giveUp(ctx context.Context, r *payerRun) {
	rest, err := r.step(ctx, channel.Abandon{})
	if err != nil {
		p.log.Error("failed channel not stored", "error", err)
	}
	p.perform(rest)
	p.buyer.cfg.Budget.give(r.fees)
	r.opening = false
	p.drop(r)
}
