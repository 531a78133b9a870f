// Package db opens the program's SQLite databases and makes writing to them
// safe and rare.
//
// # What may be relied on
//
//   - A Write that returned nil is durable: it outlasts the process being
//     killed, and with Options.Durable also the power being cut.
//   - A Write is all or nothing, whatever ends the process.
//   - Writes that come at the same time share one transaction and one flush of
//     the disk. The first one after a pause is written at once; under load
//     there is at most one flush per Options.Interval, which is what an SD card
//     lives longer by. An error in one of them undoes that one only.
//   - Readers never wait for the writer: a read sees the state of the last
//     flush.
//   - A schema is a list of steps that is only ever appended to. A database
//     written by a newer program is refused with a VersionError and left as it
//     is.
//
// One process at a time has a database open; the caller sees to that (a lock on
// its data directory). Should it fail to, then SQLite's own locks keep the file
// whole: the second process waits for the busy timeout and then gets ErrBusy.
//
// SQLite is github.com/ncruces/go-sqlite3, translated to Go. Each of its
// connections has a memory of its own that never shrinks, which is why there
// is one for writing and few, with small caches, for reading.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

// Defaults of Options.
const (
	DefaultInterval = 200 * time.Millisecond
	DefaultCache    = 256 << 10
)

const (
	busyTimeout = 5 * time.Second
	readers     = 2
	// readerIdle is how long a reading connection is kept for the next reader;
	// its memory is given back with it.
	readerIdle = 30 * time.Second
	// A write-ahead log of this many pages of 4 KiB is copied into the
	// database.
	checkpointPages = 256
)

var (
	// ErrClosed says that the database has been closed.
	ErrClosed = errors.New("database is closed")
	// ErrNewer says that the database was written by a newer program.
	ErrNewer = errors.New("database was written by a newer version of this program")
	// ErrCorrupt says that the file is damaged or no database.
	ErrCorrupt = errors.New("database is damaged")
	// ErrFull says that the disk, or its quota, is full.
	ErrFull = errors.New("disk is full")
	// ErrBusy says that another process holds the database.
	ErrBusy = errors.New("database is in use by another process")
)

// VersionError is the error of a database whose schema is newer than the
// program. It is ErrNewer.
type VersionError struct {
	Path string
	Have int // schema version of the file
	Want int // newest version that this program knows
}

// Error names the file and both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: %s: its schema is version %d, the newest known is %d", e.Path, ErrNewer, e.Have, e.Want)
}

// Is reports whether target is ErrNewer.
func (e *VersionError) Is(target error) bool { return target == ErrNewer }

// Options say how a database is opened.
type Options struct {
	// Migrations are the steps from an empty database to the present schema,
	// each one or more SQL statements. Step n brings the database from version
	// n to n+1. Steps that were released are never changed.
	Migrations []string
	// Durable makes a Write outlast a power cut. Without it one may be lost,
	// but never a part of it, and never the database.
	Durable bool
	// Interval is the shortest time between two flushes; DefaultInterval where
	// it is zero.
	Interval time.Duration
	// Cache is the most memory in bytes that each connection keeps pages in;
	// DefaultCache where it is zero.
	Cache int
	// CheckCrashed has a database that was not closed looked through when it is
	// opened, in time in proportion to its size: whatever ended the program may
	// have torn a page, and SQLite sees that only when it needs the page.
	CheckCrashed bool
	// Wrote, where it is set, is told each time whether the disk took what was
	// written: nil, or why not. It must not block, nor use the database.
	Wrote func(error)
}

// DB is an open database. Its methods may be called from several goroutines.
type DB struct {
	path     string
	writer   *sql.DB // of one connection
	reader   *sql.DB
	interval time.Duration
	wrote    func(error)

	jobs    chan *job
	closing chan struct{}
	stopped chan struct{}
	once    sync.Once

	commits counter
}

// Open opens the database at path, which it creates, readable by its owner
// only, where there is none, and brings its schema up to date. The directory
// must exist. Errors are VersionError, ErrCorrupt, ErrFull, ErrBusy and those
// of the file system.
func Open(ctx context.Context, path string, opt Options) (*DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	d, err := open(ctx, path, opt)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", path, classify(err))
	}
	return d, nil
}

func open(ctx context.Context, path string, opt Options) (*DB, error) {
	if err := createFile(path); err != nil {
		return nil, err
	}
	crashed, err := hasLog(path)
	if err != nil {
		return nil, err
	}
	if opt.Interval <= 0 {
		opt.Interval = DefaultInterval
	}
	if opt.Cache <= 0 {
		opt.Cache = DefaultCache
	}
	if opt.Wrote == nil {
		opt.Wrote = func(error) {}
	}
	writer, err := driver.Open(source(path, opt, false))
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	d := &DB{
		path:     path,
		writer:   writer,
		interval: opt.Interval,
		wrote:    opt.Wrote,
		jobs:     make(chan *job),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	if err := migrate(ctx, writer, path, opt.Migrations); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	d.reader, err = driver.Open(source(path, opt, true))
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	d.reader.SetMaxOpenConns(readers)
	d.reader.SetMaxIdleConns(1)
	d.reader.SetConnMaxIdleTime(readerIdle)
	go d.run()
	if crashed && opt.CheckCrashed {
		if err := d.check(ctx, `PRAGMA quick_check`); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	return d, nil
}

// hasLog says whether the database was not closed when it was last used. An
// empty database beside a log was longer once: SQLite would take it for a new
// one, and throw the log away.
func hasLog(path string) (bool, error) {
	log, err := os.Stat(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) || err == nil && log.Size() == 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("it is empty, and its write-ahead log is not: %w", ErrCorrupt)
	}
	return true, err
}

// createFile makes an empty file that only its owner can read, because SQLite
// would make one that everybody can, and makes its name outlast a power cut.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func source(path string, opt Options, readOnly bool) string {
	synchronous := "normal"
	if opt.Durable {
		synchronous = "full"
	}
	pragmas := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()),
		"journal_mode(wal)",
		"synchronous(" + synchronous + ")",
		"foreign_keys(on)",
		"recursive_triggers(on)", // so that REPLACE fires the delete triggers too
		"temp_store(memory)",
		fmt.Sprintf("cache_size(%d)", -opt.Cache/1024), // negative: KiB
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
		fmt.Sprintf("journal_size_limit(%d)", 2*checkpointPages*4096),
	}
	if readOnly {
		pragmas = append(pragmas, "query_only(on)")
	}
	query := url.Values{
		"_pragma": pragmas,
		"_txlock": {"immediate"},
		"modeof":  {path}, // the log gets the mode of the database
	}
	if readOnly {
		query.Set("_txlock", "deferred")
	}
	// SQLite does not read a plus as a space.
	encoded := strings.ReplaceAll(query.Encode(), "+", "%20")
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + encoded
}

// Path returns the absolute path of the database file.
func (d *DB) Path() string { return d.path }

// Read returns the connections for reading. A write through them fails.
func (d *DB) Read() *sql.DB { return d.reader }

// Prepare compiles a statement for Writes, which use it by way of
// tx.StmtContext: to compile one takes longer than to run it. It waits for the
// writes that are under way, so it is for the start. The statement is closed
// with the database.
func (d *DB) Prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	stmt, err := d.writer.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare statement: %w", classify(err))
	}
	return stmt, nil
}

// Version returns the schema version of the open database.
func (d *DB) Version(ctx context.Context) (int, error) {
	var v int
	if err := d.reader.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&v); err != nil {
		return 0, fmt.Errorf("read schema version: %w", classify(err))
	}
	return v, nil
}

// Close waits for the writes that have begun and closes the database. It may
// be called more than once.
func (d *DB) Close() error {
	var err error
	d.once.Do(func() {
		close(d.closing)
		<-d.stopped
		// The reader goes first: the last connection to close copies the
		// write-ahead log into the database.
		err = errors.Join(d.reader.Close(), d.writer.Close())
	})
	if err != nil {
		return fmt.Errorf("close database %s: %w", d.path, classify(err))
	}
	return nil
}

// ofDisk says whether an error is one of the disk or the file, and not of what
// was to be written.
func ofDisk(err error) bool {
	for _, code := range []sqlite3.ErrorCode{sqlite3.FULL, sqlite3.IOERR, sqlite3.READONLY, sqlite3.CANTOPEN, sqlite3.CORRUPT, sqlite3.NOTADB, sqlite3.PROTOCOL} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// classify puts the errors that a caller can do something about in front of
// SQLite's own.
func classify(err error) error {
	for _, c := range []struct {
		code sqlite3.ErrorCode
		kind error
	}{
		{sqlite3.CORRUPT, ErrCorrupt},
		{sqlite3.NOTADB, ErrCorrupt},
		{sqlite3.FULL, ErrFull},
		{sqlite3.BUSY, ErrBusy},
	} {
		if errors.Is(err, c.code) {
			return fmt.Errorf("%w: %w", c.kind, err)
		}
	}
	return err
}
