// Package ledger is the book of everything that is owed, paid and on its way:
// payment channels, the transactions that must reach the chain, the wallet's
// coins, and a double-entry journal of what each satoshi became.
//
// # What may be relied on
//
//   - Whatever a method that changes something was given is durable when it
//     returns nil, all of it or nothing, also when the power fails.
//   - An older commitment never replaces a newer one: SaveChannel and Apply
//     return ErrStale.
//   - The journal is append-only. What turns out otherwise, by a double spend
//     or a reorganisation, is answered by further entries. Every group of
//     entries sums to zero.
//   - The journal is derived: after each change the ledger posts the difference
//     between what the rows now say of a channel, a payment or a coin and what
//     was posted for it before. So a change that is repeated posts nothing, and
//     Check can recompute all of it.
//   - Key indexes are handed out once.
//
// Keys, transaction ids and scripts are bytes here: a 32-byte array is a txid
// in internal byte order, a PeerKey a compressed public key.
//
// Amounts are checked with money.Satoshis.Valid on the way in; an amount that
// cannot exist is money.ErrRange.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/db"
)

var (
	// ErrNotFound says that there is no such row.
	ErrNotFound = errors.New("not in the ledger")
	// ErrStale says that what was to be saved is older than what is there: a
	// lower sequence, the same one with other amounts, amounts that fell, or
	// other amounts for a channel that is settled.
	ErrStale = errors.New("older than what the ledger holds")
	// ErrChanged says that something which never changes was changed: a
	// channel's role or funding, the title of a settled one, or the bytes of an
	// outgoing transaction.
	ErrChanged = errors.New("differs from what the ledger holds")
	// ErrCoinTaken says that a coin is reserved, spent or not there.
	ErrCoinTaken = errors.New("coin is not available")
	// ErrUnbalanced says that a transaction's coins do not cover what it pays.
	ErrUnbalanced = errors.New("amounts do not add up")
	// ErrBooks is the error of Check.
	ErrBooks = errors.New("the ledger contradicts itself")
)

// Ledger is an open ledger. Its methods may be called from several goroutines.
type Ledger struct {
	db    *db.DB
	clock func() time.Time
	// What every payment needs, compiled.
	selectOne, updateOne, saveCreator *sql.Stmt
}

// Open opens the ledger in the database file at path, which it creates where
// there is none. Errors are those of db.Open.
func Open(ctx context.Context, path string, clock func() time.Time) (*Ledger, error) {
	return OpenWith(ctx, path, clock, Options{})
}

// Options say how a ledger is opened.
type Options struct {
	// Interval is the shortest time between two flushes of the disk, which a
	// payment waits for; db.DefaultInterval where it is zero.
	Interval time.Duration
	// Wrote, where it is set, is told each time whether the disk took a change,
	// as db.Options.Wrote is.
	Wrote func(error)
}

// OpenWith is Open with options.
func OpenWith(ctx context.Context, path string, clock func() time.Time, opt Options) (*Ledger, error) {
	return open(ctx, path, clock, db.Options{Durable: true, CheckCrashed: true, Interval: opt.Interval, Wrote: opt.Wrote})
}

func open(ctx context.Context, path string, clock func() time.Time, opt db.Options) (*Ledger, error) {
	opt.Migrations = migrations()
	d, err := db.Open(ctx, path, opt)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{db: d, clock: clock}
	for _, s := range []struct {
		into  **sql.Stmt
		query string
	}{{&l.selectOne, selectChannelOnly}, {&l.updateOne, updateChannel}, {&l.saveCreator, saveCreator}} {
		if *s.into, err = d.Prepare(ctx, s.query); err != nil {
			return nil, errors.Join(fmt.Errorf("open ledger: %w", err), d.Close())
		}
	}
	return l, nil
}

// Close waits for changes that have begun and closes the database.
func (l *Ledger) Close() error { return l.db.Close() }

// Backup writes a copy of the ledger, as of one moment, to the file at path.
func (l *Ledger) Backup(ctx context.Context, path string) error { return l.db.Backup(ctx, path) }

// Size returns how many bytes the ledger has, the log of the newest changes left
// out.
func (l *Ledger) Size(ctx context.Context) (bytes int64, err error) {
	if err := one(ctx, l.db.Read(), &bytes, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`); err != nil {
		return 0, fmt.Errorf("size of the ledger: %w", err)
	}
	return bytes, nil
}

// TryWrite makes a change that changes nothing, to find out whether the disk
// takes one.
func (l *Ledger) TryWrite(ctx context.Context) error {
	if err := l.db.TryWrite(ctx); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// Commits returns how many flushes of the disk the ledger has needed since it
// was opened.
func (l *Ledger) Commits() int64 { return l.db.Commits() }

// Outpoint names an output.
type Outpoint struct {
	Txid  [32]byte
	Index uint32
}

func validAmounts(amounts ...money.Satoshis) error {
	for _, a := range amounts {
		if !a.Valid() {
			return fmt.Errorf("%d satoshis: %w", int64(a), money.ErrRange)
		}
	}
	return nil
}
