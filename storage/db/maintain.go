package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// maxProblems is how many lines of SQLite's report a Check error carries.
const maxProblems = 10

// Check reads the whole database and reports damage as ErrCorrupt. It takes
// time in proportion to the size of the file.
func (d *DB) Check(ctx context.Context) error {
	return d.check(ctx, `PRAGMA integrity_check`, `PRAGMA foreign_key_check`)
}

func (d *DB) check(ctx context.Context, pragmas ...string) error {
	var problems []error
	for _, pragma := range pragmas {
		found, err := d.report(ctx, pragma)
		if err != nil {
			return fmt.Errorf("check database: %w", classify(err))
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		return fmt.Errorf("check database %s: %w: %w", d.path, ErrCorrupt, errors.Join(problems...))
	}
	return nil
}

func (d *DB) report(ctx context.Context, pragma string) (problems []error, err error) {
	rows, err := d.reader.QueryContext(ctx, pragma)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() && len(problems) < maxProblems {
		columns, err := rows.Columns()
		if err != nil {
			return nil, err
		}
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			return nil, err
		}
		first := *values[0].(*any)
		if len(values) == 1 && first == "ok" {
			continue
		}
		line := fmt.Sprint(first)
		for _, v := range values[1:] {
			line += fmt.Sprintf(" %v", *v.(*any))
		}
		problems = append(problems, errors.New(line))
	}
	return problems, rows.Err()
}

// Backup writes a copy of the database, as of one moment, to path, readable by
// its owner only. Writes go on meanwhile. A file that is there is replaced when
// the copy is complete and on the disk, never before.
func (d *DB) Backup(ctx context.Context, path string) error {
	if err := d.backup(ctx, path); err != nil {
		return fmt.Errorf("back up database to %s: %w", path, classify(err))
	}
	return nil
}

func (d *DB) backup(ctx context.Context, path string) error {
	dir := filepath.Dir(path)
	// VACUUM INTO takes an empty file and keeps its mode, which CreateTemp
	// makes 0600.
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails where it was renamed
	defer f.Close()
	if err := d.copyTo(ctx, f.Name()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// copyTo uses a connection of its own kind: the copy is a write to another
// file, which the reading connections refuse.
func (d *DB) copyTo(ctx context.Context, path string) error {
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `PRAGMA query_only = off`); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `VACUUM INTO ?`, path)
	_, restore := conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA query_only = on`)
	return errors.Join(err, restore)
}
