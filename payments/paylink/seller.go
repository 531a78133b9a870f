package paylink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Offer is what a seller offers every payer, besides a title's price.
type Offer struct {
	MinCapacity, MaxCapacity money.Satoshis
	RefundWindow             uint32 // blocks
	CloseMargin              uint32 // blocks
	// UnconfirmedLimit caps what one channel delivers before its funding is
	// mined, UnconfirmedTotal what all of them do: fundings that stand on one
	// another are all lost with one double spend. Beyond it a channel waits
	// until its funding is mined.
	UnconfirmedLimit, UnconfirmedTotal money.Satoshis
	// Credit is how many bytes a new payer may owe, as long as they are not
	// worth more than CreditWorth; two pieces of the title in any case.
	Credit      int64
	CreditWorth money.Satoshis
	// Validity is how long an offer stands.
	Validity time.Duration
}

// DefaultOffer is what a box offers unless told otherwise. A channel below
// 2,000 sat would spend more than 5 % on fees at 100 sat/kB; and whoever takes
// the first credit and does not pay has spent about as much on the fees of his
// channel.
func DefaultOffer() Offer {
	return Offer{MinCapacity: 2_000, MaxCapacity: 10_000_000, RefundWindow: 1008, CloseMargin: 144,
		UnconfirmedLimit: 1_000, UnconfirmedTotal: 100_000, Credit: 16 << 20, CreditWorth: 50, Validity: 10 * time.Minute}
}

// DefaultPolicy lets the credit grow to a quarter of what a payer has paid
// for, and settles after an hour in which nothing moved.
func DefaultPolicy() channel.Policy {
	return channel.Policy{CreditShare: 4, IdleClose: time.Hour}
}

// SellerConfig is what a Seller works with.
type SellerConfig struct {
	Ledger *ledger.Ledger
	Wallet *wallet.Wallet
	Chain  chain.Backend
	Outbox *wallet.Outbox
	Offer  Offer
	Policy channel.Policy
	// Poll is how often the chain is asked for its height, and Looked is told
	// what it said each time; it must not block, and may be nil.
	Poll   time.Duration
	Looked func(tip chain.Header, err error)
	// Endangered is told of the channels whose money may be lost, whenever that
	// has changed: all of them, none when the danger is over. It must not block,
	// and may be nil.
	Endangered func([]Danger)
	Clock      func() time.Time
	Random     io.Reader // for nonces
	Log        *slog.Logger
}

// Seller takes payments for the upload side, and watches over its channels
// whether their payers are connected or not.
type Seller struct {
	cfg      SellerConfig
	identity bsv.PrivateKey
	height   atomic.Uint32 // of the chain; 0 until it was heard of
	feeRate  atomic.Int64
	checks   chan struct{} // bounds questions to the chain
	wake     chan struct{} // a service has news
	dangers  []Danger      // that were told; only Watch touches them

	ctx  context.Context // of the sales
	stop context.CancelFunc
	wg   sync.WaitGroup

	live    claims[*sale]
	mu      sync.Mutex
	history map[wire.ChannelID]wire.ChannelID // the channel that a settled one stands for
	watched watchlist
	spare   []uint32 // key indexes that were offered and never signed with
}

// maxSpare is how many key indexes are kept for the next offers. Most peers
// take no offer, and an index each would leave gaps that a wallet restored from
// its words does not look across.
const maxSpare = 1024

// takeIndex is a key index that no signature was made with.
func (s *Seller) takeIndex(ctx context.Context) (uint32, error) {
	s.mu.Lock()
	if n := len(s.spare); n > 0 {
		index := s.spare[n-1]
		s.spare = s.spare[:n-1]
		s.mu.Unlock()
		return index, nil
	}
	s.mu.Unlock()
	return s.cfg.Wallet.NextIndex(ctx, wallet.BranchChannel)
}

// giveBack returns indexes whose offers came to nothing.
func (s *Seller) giveBack(unsigned []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare = append(s.spare, unsigned[:min(len(unsigned), max(maxSpare-len(s.spare), 0))]...)
}

// NewSeller makes a Seller. Run has to be called for its watching.
func NewSeller(cfg SellerConfig) (*Seller, error) {
	identity, err := cfg.Wallet.Key(wallet.BranchIdentity, identityIndex)
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	s := &Seller{cfg: cfg, identity: identity, checks: make(chan struct{}, 8), wake: make(chan struct{}, 1), watched: newWatchlist()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Identity is the key by which payers know this seller.
func (s *Seller) Identity() bsv.PublicKey { return s.identity.Public() }

// Height is the chain's height as last heard of, 0 before.
func (s *Seller) Height() uint32 { return s.height.Load() }

// Open begins the payment side of a connection whose peer speaks bc_pay.
func (s *Seller) Open(conn SellerConn, t Title) Sale {
	sale := &sale{seller: s, conn: conn, title: t, log: s.cfg.Log.With("peer", conn.Remote(), "title", t.Name),
		mail: make(chan letter, mailboxSize), wake: make(chan struct{}, 1), closed: make(chan struct{}), done: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		close(sale.done)
		return sale
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		sale.run(s.ctx)
	}()
	return sale
}

// Run watches over the channels until ctx ends: closes those that are idle or
// near their refund, follows fundings into blocks, and keeps the height for
// new terms. When it returns no sale goes on.
func (s *Seller) Run(ctx context.Context) error {
	defer func() {
		s.mu.Lock()
		s.stop()
		s.mu.Unlock()
		s.wg.Wait()
	}()
	ticker := time.NewTicker(s.cfg.Poll)
	defer ticker.Stop()
	for {
		if err := s.Watch(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("watching over channels", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-s.wake:
		}
	}
}

// Watch is one round of Run's work.
func (s *Seller) Watch(ctx context.Context) error {
	tip, err := s.cfg.Chain.Tip(ctx)
	if s.cfg.Looked != nil && ctx.Err() == nil {
		s.cfg.Looked(tip, err)
	}
	if err != nil {
		return fmt.Errorf("ask for the tip: %w", err)
	}
	changed, fork, err := s.fork(ctx, tip)
	if err != nil {
		return err
	}
	if s.height.Swap(tip.Height) != tip.Height || s.feeRate.Load() == 0 {
		if rate, err := s.cfg.Chain.FeeRate(ctx); err == nil {
			s.feeRate.Store(int64(rate))
		}
	}
	if err := s.loadWatchlist(ctx); err != nil {
		return err
	}
	all := s.dueNow(tip, changed, fork)
	v := view{seller: s, seen: make(map[bsv.Txid]sight), left: s.questions()}
	var errs []error
	for _, d := range all {
		if err := s.watchOne(ctx, d, tip.Height, &v); err != nil {
			errs = append(errs, fmt.Errorf("channel %x: %w", d.id, err))
		}
	}
	s.tellDangers(tip.Height)
	return errors.Join(errs...)
}

func (s *Seller) openRows(ctx context.Context) ([]ledger.Channel, error) {
	open := true
	rows, err := s.cfg.Ledger.Channels(ctx, ledger.Filter{Role: ledger.Payee, Open: &open})
	if err != nil {
		return nil, fmt.Errorf("list open channels: %w", err)
	}
	return rows, nil
}

func (s *Seller) watchOne(ctx context.Context, d due, height uint32, v *view) error {
	if d.phase == channel.Closing {
		return s.followClose(ctx, d, v)
	}
	var events []channel.Event
	if d.tick {
		events = append(events, channel.Tip{Height: height})
	}
	var failed error
	if d.look {
		seen, err := v.look(ctx, d.funding, d.id)
		switch {
		case errors.Is(err, errLater):
		case err != nil:
			failed = err
		default:
			if ev := seen.event(d.confirmed); ev != nil {
				events = append(events, ev)
			}
			s.found(d.id, seen.minedAt, seen.unknown)
		}
	}
	if len(events) == 0 {
		return failed
	}
	return errors.Join(failed, s.deliver(ctx, d.id, events...))
}

// deliver steps a channel, on its connection's goroutine where it has one.
func (s *Seller) deliver(ctx context.Context, id wire.ChannelID, events ...channel.Event) error {
	owner := &sale{seller: s, done: make(chan struct{}), mail: make(chan letter, mailboxSize)}
	defer close(owner.done)
	for !s.live.claim(id, owner) {
		live := s.live.owner(id)
		if live == nil {
			continue // it has just let go
		}
		told := true
		for _, ev := range events {
			told = told && live.tell(id, ev)
		}
		if told {
			return nil
		}
		if !live.ends() {
			return errBusy
		}
		select {
		case <-live.done: // it has let go of the channel
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer s.live.release(id, owner)
	defer owner.rest()
	row, err := s.cfg.Ledger.Channel(ctx, id)
	if err != nil {
		return err
	}
	run, err := s.restore(row, owner)
	if err != nil {
		return err
	}
	for _, ev := range events {
		if err := run.step(ctx, ev); err != nil {
			return err
		}
	}
	for _, l := range owner.rest() { // told by another who came meanwhile
		if err := run.step(ctx, l.ev); err != nil {
			return err
		}
	}
	return nil
}

var errBusy = errors.New("the channel's connection takes nothing now")

// rebroadcast gives a channel's funding to the network again, and says whether
// the network does not take it, and whether something else has spent what it
// spends. That an input is missing only says that the network has forgotten more
// than the funding.
func (s *Seller) rebroadcast(ctx context.Context, id wire.ChannelID) (refused, lost bool, err error) {
	row, err := s.cfg.Ledger.Channel(ctx, id)
	if err != nil {
		return false, false, err
	}
	state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
	if err != nil {
		return false, false, err
	}
	tx, err := bsv.ParseTx(state.Funding, wire.MaxPayload)
	if err != nil {
		return false, false, fmt.Errorf("stored funding: %w", err)
	}
	err = s.cfg.Chain.Broadcast(ctx, tx, nil)
	var rejected *chain.Rejected
	if !errors.As(err, &rejected) {
		return false, false, err
	}
	if rejected.Reason != chain.MissingInputs {
		return true, rejected.Reason == chain.DoubleSpend, nil
	}
	for _, in := range tx.Inputs {
		spent, err := s.cfg.Chain.Spent(ctx, in.Prev)
		switch {
		case errors.Is(err, chain.ErrNotFound), errors.Is(err, chain.ErrUnsupported):
		case err != nil:
			return true, false, err
		case spent:
			return true, true, nil
		}
	}
	return true, false, nil
}

// followClose sees to it that the network has the funding on which a close
// rests that it does not take.
func (s *Seller) followClose(ctx context.Context, d due, v *view) error {
	out, err := s.cfg.Ledger.Outgoing(ctx, d.close)
	if err != nil {
		return fmt.Errorf("its close: %w", err)
	}
	if out.State != ledger.Pending {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watched.drop(d.id) // the outbox watches it from now on
		return nil
	}
	if !d.pending {
		return nil
	}
	seen, err := v.look(ctx, d.funding, d.id)
	if errors.Is(err, errLater) {
		return nil
	}
	if err != nil {
		return err
	}
	s.found(d.id, seen.minedAt, seen.unknown)
	if seen.sent {
		s.cfg.Outbox.Kick()
	}
	return nil
}

// CloseChannel settles one channel now.
func (s *Seller) CloseChannel(ctx context.Context, id wire.ChannelID) error {
	if err := s.deliver(ctx, id, channel.CloseWanted{}); err != nil {
		return fmt.Errorf("close channel %x: %w", id[:8], err)
	}
	return nil
}

// CloseAll settles every open channel now and returns how many there were.
func (s *Seller) CloseAll(ctx context.Context) (int, error) {
	rows, err := s.openRows(ctx)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, row := range rows {
		errs = append(errs, s.deliver(ctx, row.ID, channel.CloseWanted{}))
	}
	return len(rows), errors.Join(errs...)
}

// takeOver ends the connection that a channel lives on, so that a new one can
// have it.
func (s *Seller) takeOver(ctx context.Context, id wire.ChannelID) error {
	old := s.live.owner(id)
	if old == nil {
		return nil
	}
	if old.conn != nil {
		old.conn.Fail(errTakenOver)
		old.Close()
	}
	select {
	case <-old.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(takeOverTimeout):
		return errors.New("the channel's other connection does not end")
	}
}

var errTakenOver = errors.New("the channel went on over another connection")

const takeOverTimeout = 10 * time.Second

// restore makes a stored channel run for its owner.
func (s *Seller) restore(row ledger.Channel, owner *sale) (*payeeRun, error) {
	key, payout, err := channelKeys(s.cfg.Wallet, row.KeyIndex)
	if err != nil {
		return nil, err
	}
	state, err := channel.RestorePayee(row.Snapshot, key, s.cfg.Policy)
	if err != nil {
		return nil, err
	}
	return &payeeRun{seller: s, owner: owner, state: state, keyIndex: row.KeyIndex, payout: payout, row: row}, nil
}

// checkFunding has the chain look at a funding and everything unconfirmed that
// it stands on: all of it must be of version 1, final, paid for and unspent, or
// the refund and the close might come to nothing.
func (s *Seller) checkFunding(ctx context.Context, c bsv.Channel, ev channel.CheckFunding) channel.FundingChecked {
	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
	if ev.Funding.Txid() != c.Funding.Txid {
		return refused(wire.CodeWrongFunding, "the funding is not the one that was announced")
	}
	if len(ev.Funding.Inputs) > bsv.MaxFundingInputs {
		return refused(wire.CodeTooLarge, "the funding has too many inputs") // before the chain is asked for each
	}
	tip, err := s.cfg.Chain.Tip(ctx)
	if err != nil {
		return unavailable(err)
	}
	parents := make(map[bsv.Txid]*bsv.Tx, len(ev.Parents))
	for _, p := range ev.Parents {
		parents[p.Txid()] = p
	}
	prev, unconfirmed, refusal := s.ancestors(ctx, ev.Funding, parents, tip.Height+1)
	if refusal != nil {
		return *refusal
	}
	feeRate := money.FeeRate(s.feeRate.Load())
	if feeRate == 0 || feeRate > c.FeeRate {
		feeRate = c.FeeRate
	}
	if err := c.CheckFunding(ev.Funding, prev, feeRate, tip.Height+1); err != nil {
		return refusedFor(err)
	}
	var broadcast []*bsv.Tx
	for _, p := range ev.Parents {
		if unconfirmed[p.Txid()] { // and nothing else that a peer sends
			broadcast = append(broadcast, p)
		}
	}
	for _, tx := range append(broadcast, ev.Funding) {
		var rejected *chain.Rejected
		err := s.cfg.Chain.Broadcast(ctx, tx, nil)
		switch {
		case errors.As(err, &rejected):
			return refusedFor(rejected)
		case err != nil:
			return unavailable(err)
		}
	}
	spent, err := s.cfg.Chain.Spent(ctx, c.Funding)
	switch {
	case err != nil && !errors.Is(err, chain.ErrUnsupported):
		return unavailable(err)
	case spent:
		return refused(wire.CodeSpent, "the funding is spent already")
	}
	status, err := s.cfg.Chain.Status(ctx, c.Funding.Txid)
	if err != nil {
		return unavailable(err)
	}
	if status.State == chain.Conflicted {
		return refused(wire.CodeDoubleSpend, "the funding is in conflict with another transaction")
	}
	return channel.FundingChecked{Confirmed: status.State == chain.Mined, Height: tip.Height}
}

// admit says whether a channel may begin to deliver an amount on a funding that
// is not mined, within UnconfirmedTotal. From then on it counts, until its state
// is stored, which counts itself, or it is dismissed.
func (s *Seller) admit(id wire.ChannelID, amount money.Satoshis) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.watched
	all := l.exposed + amount
	for _, other := range l.admitted {
		all += other
	}
	if all > s.cfg.Offer.UnconfirmedTotal {
		return false
	}
	if l.admitted == nil {
		l.admitted = make(map[wire.ChannelID]money.Satoshis)
	}
	l.admitted[id] = amount
	return true
}

// dismiss ends what admit began.
func (s *Seller) dismiss(id wire.ChannelID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watched.admitted, id)
}

// ancestors returns the outputs that tx spends and its unconfirmed ancestors,
// and refuses those of them that anybody could change.
func (s *Seller) ancestors(ctx context.Context, tx *bsv.Tx, parents map[bsv.Txid]*bsv.Tx, nextHeight uint32) (prev []bsv.Output, unconfirmed map[bsv.Txid]bool, refusal *channel.FundingChecked) {
	refuse := func(f channel.FundingChecked) ([]bsv.Output, map[bsv.Txid]bool, *channel.FundingChecked) {
		return nil, nil, &f
	}
	unconfirmed = make(map[bsv.Txid]bool)
	seen := make(map[bsv.Txid]*bsv.Tx)
	queue := []*bsv.Tx{tx}
	for len(queue) > 0 {
		t := queue[0]
		queue = queue[1:]
		for _, in := range t.Inputs {
			id := in.Prev.Txid
			parent := seen[id]
			if parent == nil {
				if len(seen) >= maxAncestors {
					return refuse(refused(wire.CodeTooLarge, fmt.Sprintf("more than %d transactions behind the funding", maxAncestors)))
				}
				var err error
				if parent = parents[id]; parent == nil {
					parent, err = s.cfg.Chain.RawTx(ctx, id)
				}
				switch {
				case errors.Is(err, chain.ErrNotFound):
					return refuse(refused(wire.CodeUnknownParent, fmt.Sprintf("unknown parent %v", id)))
				case err != nil:
					return refuse(unavailable(err))
				}
				seen[id] = parent
				status, err := s.cfg.Chain.Status(ctx, id)
				if err != nil {
					return refuse(unavailable(err))
				}
				if status.State != chain.Mined {
					if err := bsv.CheckAncestor(parent, nextHeight); err != nil {
						return refuse(refusedFor(fmt.Errorf("unconfirmed parent %v: %w", id, err)))
					}
					unconfirmed[id] = true
					queue = append(queue, parent)
				}
			}
			if t == tx {
				if int64(in.Prev.Index) >= int64(len(parent.Outputs)) {
					return refuse(refused(wire.CodeUnknownParent, fmt.Sprintf("%v does not exist", in.Prev)))
				}
				prev = append(prev, parent.Outputs[in.Prev.Index])
			}
		}
	}
	return prev, unconfirmed, nil
}

// maxAncestors is how many transactions behind a funding are looked at.
const maxAncestors = 100

func refused(code wire.Code, text string) channel.FundingChecked {
	return channel.FundingChecked{Refusal: &wire.Refusal{Code: code, Text: text}}
}

// refusedFor finds the code for what payments/bsv and the chain say against a
// funding.
func refusedFor(err error) channel.FundingChecked {
	code := wire.CodeFunding
	var rejected *chain.Rejected
	switch {
	case errors.As(err, &rejected):
		code = rejectedCodes[rejected.Reason]
	case errors.Is(err, bsv.ErrVersion):
		code = wire.CodeVersion
	case errors.Is(err, bsv.ErrNotFinal):
		code = wire.CodeNonFinal
	case errors.Is(err, bsv.ErrFee):
		code = wire.CodeUnderpaid
	case errors.Is(err, bsv.ErrTxSize):
		code = wire.CodeTooLarge
	case errors.Is(err, bsv.ErrFunding), errors.Is(err, bsv.ErrTemplate), errors.Is(err, bsv.ErrValue):
		code = wire.CodeWrongFunding
	}
	return refused(code, err.Error())
}

var rejectedCodes = map[chain.Reason]wire.Code{
	chain.Other:         wire.CodeFunding,
	chain.MissingInputs: wire.CodeUnknownParent,
	chain.DoubleSpend:   wire.CodeDoubleSpend,
	chain.NonFinal:      wire.CodeNonFinal,
	chain.LowFee:        wire.CodeUnderpaid,
	chain.Invalid:       wire.CodeFunding,
}

func unavailable(err error) channel.FundingChecked {
	return channel.FundingChecked{Refusal: &wire.Refusal{Code: wire.CodeUnavailable, Text: "the chain cannot be asked now"}}
}
