package db_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/storage/db"
)

// Who has seen the count and reads then reads all that was counted: a commit
// counts when it is made, not when it is begun.
func TestCommitsAreCountedWhenTheyAreMade(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, err := db.Open(ctx, filepath.Join(t.TempDir(), "x.db"), db.Options{Migrations: []string{
		`CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (of INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)`}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO child VALUES (1)`)
		return err
	}); err == nil {
		t.Error("a child without a parent was committed")
	}
	if n := d.Commits(); n != 0 {
		t.Errorf("%d commits after one that was refused", n)
	}
	if err := d.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO parent VALUES (1)`)
		return err
	}); err != nil {
		t.Error(err)
	}
	if n := d.Commits(); n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
}
