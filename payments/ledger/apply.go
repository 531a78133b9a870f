package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Batch is changes that belong together. They are made in the order of the
// fields.
type Batch struct {
	Coins    []Coin        // as PutCoins
	Reserve  []Reservation // as ReserveCoins
	Channels []Channel     // as SaveChannel
	Outbox   []Outgoing    // as PutOutgoing
	Updates  []Outgoing    // as UpdateOutgoing
	Moves    []Move
	Release  []Outpoint // coins that were reserved for a transaction that is conflicted
	Lost     []Outpoint // coins that somebody else's transaction has spent
	Void     []Outpoint // coins that the chain does not know any more
}

// Apply makes all changes of a batch, or none of them, together with the
// entries that follow from them. They are durable when it returns nil. Errors
// are those of the single changes.
func (l *Ledger) Apply(ctx context.Context, b Batch) error {
	return l.change(ctx, func(u *update) error { return u.apply(b) })
}

// update is one set of changes being made.
type update struct {
	ledger   *Ledger
	ctx      context.Context // never done: an interrupted write would undo those of others
	tx       *sql.Tx
	now      time.Time
	channels map[[32]byte]bool // to be booked again
	txids    map[[32]byte]bool // everything about these is to be booked again
}

func (l *Ledger) change(ctx context.Context, fn func(*update) error) error {
	now := l.clock()
	err := l.db.Write(ctx, func(tx *sql.Tx) error {
		u := &update{
			ledger:   l,
			ctx:      context.WithoutCancel(ctx),
			tx:       tx,
			now:      now,
			channels: make(map[[32]byte]bool),
			txids:    make(map[[32]byte]bool),
		}
		if err := fn(u); err != nil {
			return err
		}
		return u.book()
	})
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

func (u *update) apply(b Batch) error {
	return errors.Join(
		each(b.Coins, u.putCoin),
		each(b.Reserve, u.reserve),
		each(b.Channels, u.saveChannel),
		each(b.Outbox, u.putOutgoing),
		each(b.Updates, u.updateOutgoing),
		each(b.Moves, u.move),
		each(b.Release, u.release),
		each(b.Lost, func(o Outpoint) error { return u.lose(o, false) }),
		each(b.Void, func(o Outpoint) error { return u.lose(o, true) }),
	)
}

func each[T any](all []T, do func(T) error) error {
	for _, one := range all {
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

func (u *update) touchChannel(id [32]byte) { u.channels[id] = true }

func (u *update) touch(txid [32]byte) {
	if txid != [32]byte{} {
		u.txids[txid] = true
	}
}
