package db_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/storage/db"
)

var numbers = []string{
	`CREATE TABLE numbers (n INTEGER PRIMARY KEY, note TEXT NOT NULL DEFAULT '') STRICT`,
}

func open(t testing.TB, path string, opt db.Options) *db.DB {
	t.Helper()
	if opt.Migrations == nil {
		opt.Migrations = numbers
	}
	d, err := db.Open(context.Background(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func insert(d *db.DB, n int) error {
	return d.Write(context.Background(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO numbers (n) VALUES (?)`, n)
		return err
	})
}

func count(t testing.TB, d *db.DB) (n int) {
	t.Helper()
	if err := d.Read().QueryRow(`SELECT count(*) FROM numbers`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestFilesAreTheOwnersOnly(t *testing.T) {
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "with space?&%41.db"), db.Options{Durable: true})
	if err := insert(d, 1); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(d.Path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", info.Name(), info.Mode().Perm())
		}
	}
}

func TestSettings(t *testing.T) {
	for _, durable := range []bool{false, true} {
		d := open(t, filepath.Join(t.TempDir(), "x.db"), db.Options{Durable: durable})
		want := map[string]string{"journal_mode": "wal", "foreign_keys": "1", "synchronous": "1", "query_only": "0"}
		if durable {
			want["synchronous"] = "2"
		}
		err := d.Write(context.Background(), func(tx *sql.Tx) error {
			for pragma, value := range want {
				var got string
				if err := tx.QueryRow(`PRAGMA ` + pragma).Scan(&got); err != nil || got != value {
					t.Errorf("durable %t: %s = %s, %v; want %s", durable, pragma, got, err, value)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read().Exec(`INSERT INTO numbers (n) VALUES (1)`); err == nil {
			t.Error("a reading connection writes")
		}
	}
}

func TestMigrations(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "x.db")
	steps := append(numbers[:1:1], `CREATE TABLE two (n INTEGER) STRICT; INSERT INTO two VALUES (2)`)
	d, err := db.Open(ctx, path, db.Options{Migrations: steps[:1]})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(insert(d, 7), d.Close()); err != nil {
		t.Fatal(err)
	}

	// A step that fails leaves the version before it, whole.
	bad := append(steps[:1:1], `CREATE TABLE two (n INTEGER) STRICT; INSERT INTO nowhere VALUES (2)`)
	if d, err := db.Open(ctx, path, db.Options{Migrations: bad}); err == nil {
		d.Close()
		t.Fatal("a failing migration was taken")
	}
	d, err = db.Open(ctx, path, db.Options{Migrations: steps})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := d.Version(ctx); v != 2 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	if n := count(t, d); n != 1 {
		t.Errorf("%d rows survived the migration, want 1", n)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	_, err = db.Open(ctx, path, db.Options{Migrations: steps[:1]})
	var version *db.VersionError
	if !errors.Is(err, db.ErrNewer) || !errors.As(err, &version) || version.Have != 2 || version.Want != 1 {
		t.Errorf("a newer database: %v", err)
	}
}

func TestNoDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Open(context.Background(), path, db.Options{Migrations: numbers}); !errors.Is(err, db.ErrCorrupt) {
		t.Errorf("a file of zeros: %v, want ErrCorrupt", err)
	}
	if _, err := db.Open(context.Background(), filepath.Join(path, "y.db"), db.Options{}); err == nil {
		t.Error("a database below a file was opened")
	}
}

func TestOneErrorUndoesOnePart(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), db.Options{})
	failed := errors.New("failed")
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			err := d.Write(context.Background(), func(tx *sql.Tx) error {
				if _, err := tx.Exec(`INSERT INTO numbers (n) VALUES (?)`, i); err != nil {
					return err
				}
				if i%4 == 0 {
					return failed
				}
				return nil
			})
			if want := i%4 == 0; errors.Is(err, failed) != want || !want && err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	group.Wait()
	if n := count(t, d); n != 30 {
		t.Errorf("%d rows, want 30", n)
	}
}

// An interrupted statement makes SQLite undo the whole transaction; the others
// in the group must not notice.
func TestAnInterruptedWriteHarmsNoOther(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), db.Options{Interval: 50 * time.Millisecond})
	if err := insert(d, -1); err != nil { // so that what follows is collected
		t.Fatal(err)
	}
	var group sync.WaitGroup
	runs := make([]int, 10)
	for i := range 10 {
		group.Go(func() {
			err := d.Write(context.Background(), func(tx *sql.Tx) error {
				runs[i]++
				_, err := tx.Exec(`INSERT INTO numbers (n) VALUES (?)`, i)
				return err
			})
			if err != nil {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	group.Go(func() {
		err := d.Write(context.Background(), func(tx *sql.Tx) error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			_, err := tx.ExecContext(ctx, `INSERT INTO numbers (n, note)
				WITH RECURSIVE c(x) AS (SELECT 1000 UNION ALL SELECT x+1 FROM c) SELECT x, 'endless' FROM c`)
			return err
		})
		if err == nil {
			t.Error("an endless statement ended")
		}
	})
	group.Wait()
	if n := count(t, d); n != 11 {
		t.Errorf("%d rows, want 11", n)
	}
}

// The first write of a pause is flushed at once, later ones share a flush per
// interval.
func TestOneFlushPerInterval(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(context.Background(), path, db.Options{Migrations: numbers, Durable: true})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := insert(d, 0); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the first write waited %v", took)
		}
		var group sync.WaitGroup
		for writer := range 50 {
			group.Go(func() {
				for i := range 10 {
					before := time.Now()
					if err := insert(d, 1+writer*10+i); err != nil {
						t.Error(err)
					}
					if took := time.Since(before); took > db.DefaultInterval {
						t.Errorf("a write waited %v", took)
					}
				}
			})
		}
		group.Wait()
		if took, want := time.Since(start), 10*db.DefaultInterval; took != want {
			t.Errorf("10 writes each of 50 writers took %v, want %v", took, want)
		}
		if n := d.Commits(); n != 11 {
			t.Errorf("501 writes took %d flushes, want 11", n)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWithdrawnWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	synctest.Test(t, func(t *testing.T) {
		d, err := db.Open(context.Background(), path, db.Options{Migrations: numbers})
		if err != nil {
			t.Fatal(err)
		}
		if err := insert(d, 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), db.DefaultInterval/2)
		defer cancel()
		err = d.Write(ctx, func(*sql.Tx) error {
			t.Error("a withdrawn write was run")
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("withdrawn write: %v", err)
		}
		if err := insert(d, 2); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestClose(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), db.Options{Interval: time.Hour})
	if err := insert(d, 1); err != nil {
		t.Fatal(err)
	}
	// This one would wait an hour for its flush; closing ends the wait and
	// keeps the write.
	begun := make(chan error, 1)
	go func() { begun <- insert(d, 2) }()
	go func() { begun <- insert(d, 3) }()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	kept := 1
	for range 2 {
		switch err := <-begun; {
		case err == nil:
			kept++
		case !errors.Is(err, db.ErrClosed):
			t.Errorf("write while closing: %v", err)
		}
	}
	if err := insert(d, 4); !errors.Is(err, db.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	again := open(t, d.Path(), db.Options{})
	if n := count(t, again); n != kept {
		t.Errorf("%d rows, want %d", n, kept)
	}
}

func TestBackupAndCheck(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	d := open(t, filepath.Join(dir, "x.db"), db.Options{Interval: time.Millisecond})
	for i := range 20 {
		if err := insert(d, i); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(to, []byte("an older copy"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.Backup(ctx, to); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	if _, err := d.Read().Exec(`DELETE FROM numbers`); err == nil {
		t.Error("after a backup a reading connection writes")
	}
	if err := d.Check(ctx); err != nil {
		t.Error(err)
	}
	backup := open(t, to, db.Options{})
	if err := backup.Check(ctx); err != nil {
		t.Error(err)
	}
	if n := count(t, backup); n != 20 {
		t.Errorf("%d rows in the copy, want 20", n)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := db.Open(ctx, path, db.Options{Migrations: []string{`CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t (s)`}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(ctx, func(tx *sql.Tx) error {
		for i := range 200 {
			if _, err := tx.Exec(`INSERT INTO t (s) VALUES (?)`, fmt.Sprint("row ", i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) - 3000; i < len(b)-100; i++ {
		b[i] ^= 0x55
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err = db.Open(ctx, path, db.Options{Migrations: []string{``}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Check(ctx); !errors.Is(err, db.ErrCorrupt) {
		t.Errorf("damaged database: %v, want ErrCorrupt", err)
	}
}

// A database that was not closed is looked through; its files are those that a
// killed program leaves.
func TestCrashedIsLookedThrough(t *testing.T) {
	ctx := t.Context()
	old := filepath.Join(t.TempDir(), "old.db")
	d := open(t, old, db.Options{})
	fill := func(from int) {
		t.Helper()
		if err := d.Write(ctx, func(tx *sql.Tx) error {
			for n := range 500 {
				if _, err := tx.Exec(`INSERT INTO numbers (n, note) VALUES (?, 'a note of some length')`, from+n); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	fill(0)
	if _, err := d.Read().ExecContext(ctx, `PRAGMA query_only = off; PRAGMA wal_checkpoint(passive); PRAGMA query_only = on`); err != nil {
		t.Fatal(err)
	}
	fill(1000)
	for name, tc := range map[string]struct {
		hurt func(file, log []byte) ([]byte, []byte)
		want error
	}{
		"whole":        {func(file, log []byte) ([]byte, []byte) { return file, log }, nil},
		"log cut":      {func(file, log []byte) ([]byte, []byte) { return file, log[:len(log)-1] }, nil},
		"page torn":    {func(file, log []byte) ([]byte, []byte) { clear(file[4096 : 4096+512]); return file, nil }, db.ErrCorrupt},
		"file cut":     {func(file, log []byte) ([]byte, []byte) { return file[:len(file)-4096], log[:32] }, db.ErrCorrupt},
		"file emptied": {func(_, log []byte) ([]byte, []byte) { return nil, log }, db.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := os.ReadFile(old)
			if err != nil {
				t.Fatal(err)
			}
			log, err := os.ReadFile(old + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			file, log = tc.hurt(file, log)
			if log == nil {
				log = []byte("begun")
			}
			path := filepath.Join(t.TempDir(), "new.db")
			if err := errors.Join(os.WriteFile(path, file, 0o600), os.WriteFile(path+"-wal", log, 0o600)); err != nil {
				t.Fatal(err)
			}
			d, err := db.Open(ctx, path, db.Options{Migrations: numbers, CheckCrashed: true})
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if err == nil {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A disk that takes nothing more is told of, and that it takes something again.
func TestDiskIsToldOf(t *testing.T) {
	var told []error
	path := filepath.Join(t.TempDir(), "full.db")
	d := open(t, path, db.Options{Interval: time.Nanosecond, Wrote: func(err error) { told = append(told, err) }})
	ctx := t.Context()
	pages := func(most string) func(*sql.Tx) error {
		return func(tx *sql.Tx) error {
			_, err := tx.Exec(`PRAGMA max_page_count = ` + most)
			return err
		}
	}
	large := func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO numbers (note) VALUES (printf('%.*c', 100000, 'x'))`)
		return err
	}
	errOwn := errors.New("not wanted")
	for _, step := range []struct {
		fn   func(*sql.Tx) error
		want error
	}{{pages("1"), nil}, {large, db.ErrFull}, {func(*sql.Tx) error { return errOwn }, errOwn}, {pages("100000"), nil}, {large, nil}} {
		if err := d.Write(ctx, step.fn); !errors.Is(err, step.want) {
			t.Fatalf("%v, want %v", err, step.want)
		}
	}
	before, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.TryWrite(ctx); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path + "-wal"); err != nil || after.Size() <= before.Size() {
		t.Error("nothing was written", err)
	}
	want := []error{nil, db.ErrFull, nil, nil, nil}
	if len(told) != len(want) {
		t.Fatalf("told %v", told)
	}
	for i := range want {
		if !errors.Is(told[i], want[i]) {
			t.Errorf("told %v as number %d, want %v", told[i], i, want[i])
		}
	}
}

// Readers see the last flush and do not wait for a write that is under way.
func TestReadersDoNotWait(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "x.db"), db.Options{})
	err := d.Write(context.Background(), func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO numbers (n) VALUES (1)`); err != nil {
			return err
		}
		if n := count(t, d); n != 0 {
			t.Errorf("a reader sees %d rows that are not flushed", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, d); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

func BenchmarkWrite50Writers(b *testing.B) {
	d := open(b, filepath.Join(b.TempDir(), "x.db"), db.Options{Durable: true})
	var next sync.Mutex
	n := 0
	b.SetParallelism(25) // times GOMAXPROCS
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			next.Lock()
			n++
			i := n
			next.Unlock()
			if err := insert(d, i); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(d.Commits())/float64(b.N), "flushes/write")
}
