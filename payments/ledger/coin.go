package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/bitcdn/bitcdn/payments/money"
)

// States of a coin.
const (
	CoinPending  = "pending" // made by an outgoing transaction that nobody has seen yet
	CoinUnspent  = "unspent"
	CoinReserved = "reserved" // to be spent by SpentBy
	CoinSpent    = "spent"
	CoinVoid     = "void" // never came to be
)

// Where a coin comes from.
const (
	OriginReceive = "receive" // somebody paid the wallet
	OriginChange  = "change"  // change of a payment or of a channel
	OriginEarning = "earning" // a channel in which this node is the payee
	OriginRefund  = "refund"  // a channel taken back
)

// MaxScript is the largest locking script in bytes that a coin may have.
const MaxScript = 1000

// Coin is an output that the wallet can spend, could spend or will.
type Coin struct {
	Txid             [32]byte
	Index            uint32
	Value            money.Satoshis
	Script           []byte
	Branch, KeyIndex uint32 // of the key that spends it
	Height           uint32 // of its block; 0 while unconfirmed
	State            string
	SpentBy          [32]byte // while reserved, and when spent where it is known
	Origin           string
}

// Outpoint names the coin.
func (c *Coin) Outpoint() Outpoint { return Outpoint{c.Txid, c.Index} }

func (c *Coin) check() error {
	switch c.Origin {
	case OriginReceive, OriginChange, OriginEarning, OriginRefund:
	default:
		return fmt.Errorf("unknown origin %q", c.Origin)
	}
	switch c.State {
	case CoinPending, CoinUnspent, CoinReserved, CoinSpent, CoinVoid:
	default:
		return fmt.Errorf("unknown state %q", c.State)
	}
	if len(c.Script) > MaxScript {
		return fmt.Errorf("script of %d bytes: %w", len(c.Script), money.ErrRange)
	}
	return validAmounts(c.Value)
}

// CoinFilter selects coins. The zero value selects all.
type CoinFilter struct {
	States  []string
	Origins []string
	Txid    *[32]byte // that made them
	SpentBy *[32]byte // that they are reserved for or spent by
	Key     *Key      // that spends them
}

// Key names a key of the wallet.
type Key struct{ Branch, Index uint32 }

// PutCoins stores coins that were found on the chain, state CoinUnspent where
// none is given. Of a coin that is there, the height is updated, and a pending
// or void one becomes unspent: that it was found proves that it exists. A coin
// that is reserved or spent remains so.
func (l *Ledger) PutCoins(ctx context.Context, coins ...Coin) error {
	return l.Apply(ctx, Batch{Coins: coins})
}

func (u *update) putCoin(c Coin) error {
	if c.State == "" {
		c.State = CoinUnspent
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("coin %x:%d: %w", c.Txid[:4], c.Index, err)
	}
	var value money.Satoshis
	old := u.tx.QueryRowContext(u.ctx, `INSERT INTO coins (txid, idx, value, script, branch, key_index, height, state,
		spent_by, origin) VALUES (?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (txid, idx) DO UPDATE SET
			height = CASE WHEN excluded.state = 'unspent' THEN excluded.height ELSE height END,
			state = CASE WHEN state IN ('pending', 'void') AND excluded.state != 'void' THEN excluded.state ELSE state END
		RETURNING value`,
		c.Txid[:], c.Index, int64(c.Value), c.Script, c.Branch, c.KeyIndex, c.Height, c.State,
		nullHash(c.SpentBy), c.Origin)
	if err := old.Scan(&value); err != nil {
		return err
	}
	if value != c.Value {
		return fmt.Errorf("coin %x:%d of %s is of %s: %w", c.Txid[:4], c.Index, c.Value, value, ErrChanged)
	}
	u.touch(c.Txid)
	return nil
}

// Coins returns the coins that f selects: mined ones first and the oldest of
// them first.
func (l *Ledger) Coins(ctx context.Context, f CoinFilter) ([]Coin, error) {
	return queryCoins(ctx, l.db.Read(), f)
}

// Coin returns one coin, or ErrNotFound.
func (l *Ledger) Coin(ctx context.Context, o Outpoint) (Coin, error) {
	found, err := queryCoins(ctx, l.db.Read(), CoinFilter{Txid: &o.Txid})
	if err != nil {
		return Coin{}, err
	}
	for _, c := range found {
		if c.Index == o.Index {
			return c, nil
		}
	}
	return Coin{}, fmt.Errorf("coin %x:%d: %w", o.Txid[:4], o.Index, ErrNotFound)
}

// KeyUsed reports whether the wallet knows a coin of this key.
func (l *Ledger) KeyUsed(ctx context.Context, branch, index uint32) (bool, error) {
	var n int64
	if err := one(ctx, l.db.Read(), &n, `SELECT EXISTS (SELECT 1 FROM coins WHERE branch = ? AND key_index = ?)`,
		branch, index); err != nil {
		return false, fmt.Errorf("read coins: %w", err)
	}
	return n != 0, nil
}

// ReserveCoins sets coins aside for the transaction by: all of them, or none
// and ErrCoinTaken. A coin that is pending or unspent can be reserved, and one
// that is reserved for the same transaction again. The coins that by will make
// may be stored together with the reservation, in state CoinPending: they count
// for nothing until by is an outgoing transaction.
func (l *Ledger) ReserveCoins(ctx context.Context, coins []Outpoint, by [32]byte) error {
	return l.Apply(ctx, Batch{Reserve: []Reservation{{Coins: coins, By: by}}})
}

// Reservation is coins set aside for a transaction.
type Reservation struct {
	Coins []Outpoint
	By    [32]byte
}

func (u *update) reserve(r Reservation) error {
	if r.By == [32]byte{} {
		return errors.New("reserve coins: no transaction")
	}
	for _, o := range r.Coins {
		done, err := u.tx.ExecContext(u.ctx, `UPDATE coins SET state = 'reserved', spent_by = ?3 WHERE txid = ?1 AND idx = ?2
			AND (state IN ('pending', 'unspent') OR state = 'reserved' AND spent_by = ?3)`, o.Txid[:], o.Index, r.By[:])
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("coin %x:%d: %w", o.Txid[:4], o.Index, ErrCoinTaken))
		}
		u.touch(o.Txid)
	}
	u.touch(r.By)
	return nil
}

// ReleaseCoins makes the coins that are reserved for by available again, and
// void those that it would have made. While by is an outgoing transaction that
// is not conflicted, it returns ErrCoinTaken.
func (l *Ledger) ReleaseCoins(ctx context.Context, by [32]byte) error {
	return l.change(ctx, func(u *update) error {
		o, err := selectOutgoing(u.ctx, u.tx, by)
		if err == nil && o.State != Conflicted {
			return fmt.Errorf("outgoing %x is %s: %w", by[:4], o.State, ErrCoinTaken)
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		_, err = u.drop(by)
		return err
	})
}

// ReleaseOrphans does what ReleaseCoins does for all transactions that were
// never stored, and so never broadcast, and returns how many coins are
// available again. It is for the start of the program, before anything is
// reserved.
func (l *Ledger) ReleaseOrphans(ctx context.Context) (released int, err error) {
	err = l.change(ctx, func(u *update) error {
		released = 0
		rows, err := u.tx.QueryContext(u.ctx, `SELECT spent_by FROM coins WHERE state = 'reserved'
			AND spent_by NOT IN (SELECT txid FROM outgoing)
			UNION SELECT txid FROM coins WHERE state = 'pending' AND txid NOT IN (SELECT txid FROM outgoing)`)
		if err != nil {
			return err
		}
		defer rows.Close()
		orphans, err := scanHashes(rows)
		if err != nil {
			return err
		}
		for _, by := range orphans {
			n, err := u.drop(by)
			if err != nil {
				return err
			}
			released += n
		}
		return nil
	})
	return released, err
}

// drop undoes the reservation for a transaction that will not be made.
func (u *update) drop(by [32]byte) (released int, err error) {
	coins, err := queryCoins(u.ctx, u.tx, CoinFilter{SpentBy: &by, States: []string{CoinReserved}})
	if err != nil {
		return 0, err
	}
	for _, c := range coins {
		if err := u.release(c.Outpoint()); err != nil {
			return 0, err
		}
	}
	_, err = u.tx.ExecContext(u.ctx, `UPDATE coins SET state = 'void' WHERE txid = ? AND state = 'pending'`, by[:])
	return len(coins), err
}

// release puts a reserved coin back to what the transaction that made it
// warrants.
func (u *update) release(o Outpoint) error {
	_, err := u.tx.ExecContext(u.ctx, `UPDATE coins SET spent_by = NULL, state = coalesce(
		(SELECT CASE outgoing.state WHEN 'pending' THEN 'pending' WHEN 'conflicted' THEN 'void' END
			FROM outgoing WHERE outgoing.txid = coins.txid), 'unspent')
		WHERE txid = ? AND idx = ? AND state = 'reserved'`, o.Txid[:], o.Index)
	u.touch(o.Txid)
	return err
}

// lose marks a coin that somebody else's transaction has spent, or, where void
// is set, that does not exist on the chain any more.
func (u *update) lose(o Outpoint, void bool) error {
	state := CoinSpent
	if void {
		state = CoinVoid
	}
	var spender [32]byte
	err := u.tx.QueryRowContext(u.ctx, `SELECT spent_by FROM coins WHERE txid = ? AND idx = ?`, o.Txid[:], o.Index).
		Scan(fixed(spender[:]))
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("coin %x:%d: %w", o.Txid[:4], o.Index, ErrNotFound)
	}
	if err != nil {
		return err
	}
	u.touch(o.Txid)
	u.touch(spender)
	_, err = u.tx.ExecContext(u.ctx, `UPDATE coins SET state = ?, spent_by = NULL WHERE txid = ? AND idx = ?
		AND state IN ('pending', 'unspent', 'reserved')`, state, o.Txid[:], o.Index)
	return err
}

func queryCoins(ctx context.Context, q querier, f CoinFilter) ([]Coin, error) {
	var where []string
	var args []any
	if f.Txid != nil {
		where, args = append(where, `txid = ?`), append(args, f.Txid[:])
	}
	if f.SpentBy != nil {
		where, args = append(where, `spent_by = ?`), append(args, f.SpentBy[:])
	}
	if f.Key != nil {
		where, args = append(where, `branch = ? AND key_index = ?`), append(args, f.Key.Branch, f.Key.Index)
	}
	among := func(column string, values []string) {
		if len(values) == 0 {
			return
		}
		where = append(where, column+` IN (?`+strings.Repeat(`, ?`, len(values)-1)+`)`)
		for _, v := range values {
			args = append(args, v)
		}
	}
	among(`state`, f.States)
	among(`origin`, f.Origins)
	query := `SELECT txid, idx, value, script, branch, key_index, height, state, spent_by, origin FROM coins`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	rows, err := q.QueryContext(ctx, query+` ORDER BY height = 0, height, txid, idx`, args...)
	if err != nil {
		return nil, fmt.Errorf("read coins: %w", err)
	}
	defer rows.Close()
	var all []Coin
	for rows.Next() {
		var c Coin
		if err := rows.Scan(fixed(c.Txid[:]), &c.Index, &c.Value, &c.Script, &c.Branch, &c.KeyIndex, &c.Height,
			&c.State, fixed(c.SpentBy[:]), &c.Origin); err != nil {
			return nil, fmt.Errorf("read coins: %w", err)
		}
		all = append(all, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read coins: %w", err)
	}
	return all, nil
}
