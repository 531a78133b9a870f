package db

import (
	"context"
	"database/sql"
	"fmt"
)

// migrate brings the database to the newest version, each step in a
// transaction of its own together with the version that it leads to.
func migrate(ctx context.Context, w *sql.DB, path string, steps []string) error {
	var have int
	if err := w.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&have); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > len(steps) {
		return &VersionError{Path: path, Have: have, Want: len(steps)}
	}
	for v := have; v < len(steps); v++ {
		if err := step(ctx, w, steps[v], v+1); err != nil {
			return fmt.Errorf("bring schema to version %d: %w", v+1, err)
		}
	}
	return nil
}

func step(ctx context.Context, w *sql.DB, statements string, version int) error {
	tx, err := w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, statements); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, version)); err != nil {
		return err
	}
	return tx.Commit()
}
