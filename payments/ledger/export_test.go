package ledger

import (
	"context"
	"database/sql"
	"time"

	"github.com/bitcdn/bitcdn/storage/db"
)

// OpenFast opens a ledger that does not wait to collect writes.
func OpenFast(ctx context.Context, path string, clock func() time.Time) (*Ledger, error) {
	return open(ctx, path, clock, db.Options{Interval: time.Nanosecond})
}

// Migrations gives tests the schema.
func Migrations() []string { return migrations() }

// Exec changes the database behind the ledger's back.
func (l *Ledger) Exec(ctx context.Context, statement string, args ...any) error {
	return l.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}

// CheckBooks is Check without the reading of the whole file.
func (l *Ledger) CheckBooks(ctx context.Context) error { return l.checkBooks(ctx) }

// Schema returns the statements that the database is made of.
func (l *Ledger) Schema(ctx context.Context) (text string, err error) {
	err = l.db.Read().QueryRowContext(ctx, `SELECT group_concat(sql, ';' ORDER BY name) FROM sqlite_schema
		WHERE sql IS NOT NULL`).Scan(&text)
	return text, err
}
