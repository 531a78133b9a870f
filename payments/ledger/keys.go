package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/money"
)

// MaxKeyIndex is the number of key indexes of a branch (BIP 32, not hardened).
const MaxKeyIndex = 1 << 31

// ReserveKeys hands out n key indexes of a branch and returns the first. An
// index is handed out once, also where the program ends before it is used.
func (l *Ledger) ReserveKeys(ctx context.Context, branch uint32, n uint32) (first uint32, err error) {
	if n == 0 || n > MaxKeyIndex {
		return 0, fmt.Errorf("reserve %d keys: %w", n, money.ErrRange)
	}
	err = l.change(ctx, func(u *update) error {
		var next int64
		if err := u.tx.QueryRowContext(u.ctx, `INSERT INTO keys (branch, next) VALUES (?1, ?2)
			ON CONFLICT (branch) DO UPDATE SET next = next + ?2 RETURNING next`, branch, n).Scan(&next); err != nil {
			return err
		}
		if next > MaxKeyIndex {
			return fmt.Errorf("branch %d has no keys left: %w", branch, money.ErrRange)
		}
		first = uint32(next - int64(n))
		return nil
	})
	return first, err
}

// AdvanceKeys sees to it that no index of a branch below next is handed out,
// for a wallet that was restored.
func (l *Ledger) AdvanceKeys(ctx context.Context, branch, next uint32) error {
	return l.change(ctx, func(u *update) error {
		_, err := u.tx.ExecContext(u.ctx, `INSERT INTO keys (branch, next) VALUES (?1, ?2)
			ON CONFLICT (branch) DO UPDATE SET next = max(next, ?2)`, branch, next)
		return err
	})
}

// NextKey returns the index that would be handed out next.
func (l *Ledger) NextKey(ctx context.Context, branch uint32) (uint32, error) {
	var next uint32
	err := l.db.Read().QueryRowContext(ctx, `SELECT next FROM keys WHERE branch = ?`, branch).Scan(&next)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read keys: %w", err)
	}
	return next, nil
}

// Claim stores a value under a name where there is none, and returns what is
// stored then: its own value or an earlier one.
func (l *Ledger) Claim(ctx context.Context, name, value string) (string, error) {
	err := l.change(ctx, func(u *update) error {
		if _, err := u.tx.ExecContext(u.ctx, `INSERT INTO claims (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`,
			name, value); err != nil {
			return err
		}
		return u.tx.QueryRowContext(u.ctx, `SELECT value FROM claims WHERE name = ?`, name).Scan(&value)
	})
	return value, err
}

// Claimed returns what is stored under a name, or ErrNotFound.
func (l *Ledger) Claimed(ctx context.Context, name string) (value string, err error) {
	err = l.db.Read().QueryRowContext(ctx, `SELECT value FROM claims WHERE name = ?`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}

// Marked returns what is remembered under a name, "" where nothing is.
func (l *Ledger) Marked(ctx context.Context, name string) (string, error) {
	var value string
	rows, err := l.db.Read().QueryContext(ctx, `SELECT value FROM marks WHERE name = ?`, name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&value)
	}
	if err = errors.Join(err, rows.Err()); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return value, nil
}

// Mark remembers a value under a name instead of the former one.
func (l *Ledger) Mark(ctx context.Context, name, value string) error {
	return l.change(ctx, func(u *update) error {
		_, err := u.tx.ExecContext(u.ctx, `INSERT INTO marks (name, value) VALUES (?, ?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
		return err
	})
}
