package wallet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// BuriedDepth is the number of blocks, its own included, after which a
// transaction is not looked at any more.
const BuriedDepth = 6

const (
	firstBackoff = time.Second
	lastBackoff  = 10 * time.Minute
	// lookAgain is how long a transaction that the network has goes without
	// being asked for while no block comes: it may drop out of the mempool.
	lookAgain = 10 * time.Minute
	// DefaultPoll is how often the chain is asked for a new block while
	// something is on its way.
	DefaultPoll = 15 * time.Second
)

// Outbox brings the ledger's outgoing transactions to the chain: it broadcasts
// them until the network has them, watches them until they are buried, and
// broadcasts again what a reorganisation has thrown out. It is the only place
// that broadcasts.
//
// A transaction that another one has displaced becomes conflicted, and so does
// a payout or a consolidation that the network takes for no such fee. The coins
// that a payment had reserved are released where the chain says that they are
// unspent, for the next payout. A close or refund goes on being tried for
// BuriedDepth blocks.
type Outbox struct {
	// Poll is how often the chain is asked for a new block; DefaultPoll where
	// it is zero. It must be set before Run.
	Poll time.Duration

	ledger *ledger.Ledger
	chain  chain.Backend
	clock  func() time.Time
	log    *slog.Logger

	kicked atomic.Bool
	kick   chan struct{}
	tip    chain.Header // at the last pass; only Step touches it
}

// NewOutbox makes an Outbox. Only one may work on a ledger.
func NewOutbox(l *ledger.Ledger, c chain.Backend, clock func() time.Time, log *slog.Logger) *Outbox {
	return &Outbox{ledger: l, chain: c, clock: clock, log: log, kick: make(chan struct{}, 1)}
}

// Kick makes the next pass come at once and look at everything. It never
// blocks.
func (o *Outbox) Kick() {
	o.kicked.Store(true)
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// Run makes passes until ctx ends, and returns its error.
func (o *Outbox) Run(ctx context.Context) error {
	for {
		next, err := o.Step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			o.log.Warn("outbox pass failed", "err", err)
		}
		timer := time.NewTimer(max(next.Sub(o.clock()), 0))
		select {
		case <-ctx.Done():
		case <-o.kick:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Step makes one pass and returns when the next one is due. Transactions are
// looked at when their time has come, and all of them after a Kick and when
// there is a new block. An error means that the pass is not complete; what is
// left is looked at in the next one. Only one Step may run at a time.
func (o *Outbox) Step(ctx context.Context) (next time.Time, err error) {
	poll := o.Poll
	if poll <= 0 {
		poll = DefaultPoll
	}
	later := o.clock().Add(poll)
	kicked := o.kicked.Swap(false)
	rows, err := o.ledger.OutgoingUnsettled(ctx)
	if err != nil {
		return later, fmt.Errorf("outbox: %w", err)
	}
	if len(rows) == 0 {
		return o.clock().Add(lookAgain), nil
	}
	tip, err := o.chain.Tip(ctx)
	if err != nil {
		o.kicked.CompareAndSwap(false, kicked)
		return later, fmt.Errorf("outbox: ask for the newest block: %w", err)
	}
	all := kicked || tip.Hash != o.tip.Hash
	next = later
	var failed []error // one row must not keep the others back
	for _, row := range rows {
		if all || !row.NextTry.After(o.clock()) {
			if row, err = o.look(ctx, row, tip); err != nil {
				failed = append(failed, fmt.Errorf("outbox: %s %s: %w", row.Purpose, bsv.Txid(row.Txid), err))
				if ctx.Err() != nil {
					break
				}
				continue
			}
		}
		if !row.Final && row.NextTry.Before(next) {
			next = row.NextTry
		}
	}
	if len(failed) > 0 {
		o.kicked.CompareAndSwap(false, kicked)
		return later, errors.Join(failed...)
	}
	o.tip = tip
	return next, nil
}

// look brings one row up to date with the chain and stores it.
func (o *Outbox) look(ctx context.Context, row ledger.Outgoing, tip chain.Header) (ledger.Outgoing, error) {
	was := row
	b := ledger.Batch{}
	var err error
	if row.State == ledger.Pending {
		err = o.send(ctx, &row, &b, tip)
	} else {
		err = o.watch(ctx, &row, &b, tip)
		if err == nil && row.State == ledger.Pending {
			err = o.send(ctx, &row, &b, tip) // thrown out: at once again
		}
	}
	if err != nil {
		return row, err
	}
	b.Updates = []ledger.Outgoing{row}
	if err := o.ledger.Apply(ctx, b); err != nil {
		return row, err
	}
	o.report(was, row)
	return row, nil
}

// send broadcasts. An error is one of the ledger or of ctx; what the network
// says goes into the row.
func (o *Outbox) send(ctx context.Context, row *ledger.Outgoing, b *ledger.Batch, tip chain.Header) error {
	tx, err := bsv.ParseTx(row.Raw, ledger.MaxRaw)
	if err != nil {
		return fmt.Errorf("read stored transaction: %w", err)
	}
	prev, err := ParseOutputs(row.PrevOutputs)
	if err != nil {
		return fmt.Errorf("read stored transaction: %w", err)
	}
	err = o.chain.Broadcast(ctx, tx, prev)
	if err == nil {
		o.settle(row, chain.Status{State: chain.Seen}, tip)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	row.LastError = err.Error()
	var no *chain.Rejected
	if !errors.As(err, &no) {
		o.retry(row)
		return nil
	}
	// The service may refuse what it has, or what is in a block already.
	st, err := o.chain.Status(ctx, row.Txid)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && (st.State == chain.Seen || st.State == chain.Mined):
		o.settle(row, st, tip)
		return nil
	case err != nil && !errors.Is(err, chain.ErrUnsupported):
		// It may be what spends its inputs: nothing is given up unasked.
		o.retry(row)
		return nil
	}
	lost := no.Reason.Final()
	switch no.Reason {
	case chain.MissingInputs:
		if lost, err = o.displaced(ctx, tx); err != nil {
			return err
		}
	case chain.LowFee:
		if lost, err = o.underpaid(ctx, row); err != nil {
			return err
		}
	}
	if lost {
		return o.conflict(ctx, row, b, tip)
	}
	o.retry(row)
	return nil
}

// displaced reports whether a transaction whose inputs the network misses has
// lost one of them: it is spent, or it was to come from a transaction of ours
// that was displaced itself. Otherwise, or where the chain cannot say, a parent
// may only be late.
func (o *Outbox) displaced(ctx context.Context, tx *bsv.Tx) (bool, error) {
	for _, in := range tx.Inputs {
		by, spent, err := chain.SpenderOf(ctx, o.chain, in.Prev)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err == nil && spent {
			return by != tx.Txid(), nil
		}
		parent, err := o.ledger.Outgoing(ctx, in.Prev.Txid)
		if err == nil && parent.State == ledger.Conflicted && parent.Final {
			return true, nil
		}
		if err != nil && !errors.Is(err, ledger.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}

// underpaid reports whether a transaction that is refused for its fee is to be
// given up, so that its coins are free for another: a consolidation, which pays
// none, and a payout of when the fee was lower. Both pay to their owner only, so
// that it is no harm where some node has them still.
func (o *Outbox) underpaid(ctx context.Context, row *ledger.Outgoing) (bool, error) {
	switch row.Purpose {
	case ledger.Consolidation:
		return true, nil
	case ledger.Sweep:
		rate, err := o.chain.FeeRate(ctx)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return err == nil && row.Fee < rate.Fee(len(row.Raw)), nil
	}
	return false, nil
}

// watch asks how far a transaction has come that was with the network before.
func (o *Outbox) watch(ctx context.Context, row *ledger.Outgoing, b *ledger.Batch, tip chain.Header) error {
	st, err := o.chain.Status(ctx, row.Txid)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		row.LastError = err.Error()
		o.retry(row)
		return nil
	}
	switch {
	case st.State == chain.Seen || st.State == chain.Mined:
		o.settle(row, st, tip)
	case row.State == ledger.Conflicted:
		if row.Final, err = o.lostForGood(ctx, row, tip); err != nil || row.Final {
			return err
		}
		// What displaced it may have been thrown out again.
		height := row.Height
		if err := o.send(ctx, row, b, tip); err != nil {
			return err
		}
		if row.State == ledger.Conflicted {
			row.Height = height
		}
	case st.State == chain.Conflicted:
		row.LastError = fmt.Sprintf("displaced by %v", st.Competing)
		return o.conflict(ctx, row, b, tip)
	default:
		row.State, row.Height, row.Tries, row.NextTry = ledger.Pending, 0, 0, o.clock()
	}
	return nil
}

// lostForGood reports whether a close or refund that was displaced need not be
// tried any more: what spends its input instead is proven to be buried. On a
// service's mere word it is tried for hopelessDepth blocks.
func (o *Outbox) lostForGood(ctx context.Context, row *ledger.Outgoing, tip chain.Header) (bool, error) {
	if tip.Height < row.Height+BuriedDepth {
		return false, nil
	}
	tx, err := bsv.ParseTx(row.Raw, ledger.MaxRaw)
	if err != nil {
		return false, fmt.Errorf("read stored transaction: %w", err)
	}
	for _, in := range tx.Inputs {
		by, spent, err := chain.SpenderOf(ctx, o.chain, in.Prev)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil || !spent || by.IsZero() || by == bsv.Txid(row.Txid) {
			continue
		}
		st, err := o.chain.Status(ctx, by)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err == nil && st.Confirmations(tip.Height) >= BuriedDepth {
			return true, nil
		}
	}
	return tip.Height >= row.Height+hopelessDepth, nil
}

// hopelessDepth is the number of blocks, a week, after which a transaction is
// given up that nothing proven has displaced.
const hopelessDepth = 1008

// settle takes over that the network has the transaction.
func (o *Outbox) settle(row *ledger.Outgoing, st chain.Status, tip chain.Header) {
	row.Tries, row.LastError = 0, ""
	row.NextTry = o.clock().Add(lookAgain)
	row.State, row.Height = ledger.Seen, 0
	if st.State == chain.Mined {
		row.State, row.Height = ledger.Mined, st.Height
		row.Final = st.Confirmations(tip.Height) >= BuriedDepth
	}
}

func (o *Outbox) retry(row *ledger.Outgoing) {
	wait := lastBackoff
	if row.Tries < 10 { // 2^10 seconds is above lastBackoff
		wait = min(firstBackoff<<row.Tries, lastBackoff)
	}
	row.Tries++
	row.NextTry = o.clock().Add(wait)
}

// conflict gives a transaction up. Only a coin of which the chain says that it
// is unspent is released; while it cannot say, nothing is changed.
func (o *Outbox) conflict(ctx context.Context, row *ledger.Outgoing, b *ledger.Batch, tip chain.Header) error {
	coins, err := o.ledger.Coins(ctx, ledger.CoinFilter{SpentBy: (*[32]byte)(&row.Txid)})
	if err != nil {
		return err
	}
	for _, c := range coins {
		by, spent, err := chain.SpenderOf(ctx, o.chain, outpoint(c.Outpoint()))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && spent && by == row.Txid: // it has not lost at all
			b.Release, b.Lost, b.Void = nil, nil, nil
			o.settle(row, chain.Status{State: chain.Seen}, tip)
			return nil
		case errors.Is(err, chain.ErrNotFound):
			b.Void = append(b.Void, c.Outpoint())
		case err != nil:
			row.LastError = err.Error()
			b.Release, b.Lost, b.Void = nil, nil, nil
			o.retry(row)
			return nil
		case spent:
			b.Lost = append(b.Lost, c.Outpoint())
		default:
			b.Release = append(b.Release, c.Outpoint())
		}
	}
	row.State, row.Height = ledger.Conflicted, tip.Height
	row.NextTry = o.clock().Add(lookAgain)
	row.Final = row.Purpose != ledger.Close && row.Purpose != ledger.Refund
	return nil
}

// report logs what has changed.
func (o *Outbox) report(was, is ledger.Outgoing) {
	log := o.log.With("purpose", is.Purpose, "txid", bsv.Txid(is.Txid))
	switch {
	case is.State != was.State && is.State == ledger.Conflicted && is.Purpose == ledger.Consolidation:
		log.Warn("coins are not joined", "reason", is.LastError)
	case is.State != was.State && is.State == ledger.Conflicted:
		log.Error("transaction displaced by another, or refused for good", "reason", is.LastError)
	case is.State != was.State && is.State == ledger.Pending:
		log.Warn("transaction dropped out of the chain", "err", is.LastError)
	case is.State != was.State:
		log.Info("transaction "+is.State, "height", is.Height)
	case is.LastError != "" && is.Tries != was.Tries:
		log.Warn("transaction not accepted, will be tried again", "tries", is.Tries, "next", is.NextTry, "err", is.LastError)
	}
}
