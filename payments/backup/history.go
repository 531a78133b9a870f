package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/storage/durable"
	"golang.org/x/sys/unix"
)

// WriteHistory writes a backup of the kind History to w. A copy of the ledger
// lies in the folder scratch meanwhile, readable by its owner only.
func WriteHistory(ctx context.Context, w io.Writer, k *Key, l *ledger.Ledger, scratch string, now time.Time, random io.Reader) error {
	if err := writeHistory(ctx, w, k, l, scratch, now, random); err != nil {
		return fmt.Errorf("write backup of the whole ledger: %w", err)
	}
	return nil
}

func writeHistory(ctx context.Context, w io.Writer, k *Key, l *ledger.Ledger, scratch string, now time.Time, random io.Reader) error {
	if err := room(ctx, l, scratch); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(scratch, scratchPattern)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, ledgerName)
	if err := l.Backup(ctx, path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return pack(w, k, History, now, random, func(w io.Writer) error {
		_, err := io.Copy(w, untilDone{ctx, f})
		return err
	})
}

// ErrNoRoom says that a copy of the ledger would take the room that payments
// need.
var ErrNoRoom = errors.New("too little room on the disk for a copy of the ledger")

// spare is how many bytes a copy of the ledger leaves free beside it.
const spare = 64 << 20

// room returns ErrNoRoom where there is too little for a copy of the ledger.
func room(ctx context.Context, l *ledger.Ledger, scratch string) error {
	size, err := l.Size(ctx)
	if err != nil {
		return err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(scratch, &disk); err != nil {
		return fmt.Errorf("free space of %s: %w", scratch, err)
	}
	return roomFor(size, int64(disk.Bavail)*int64(disk.Bsize))
}

func roomFor(size, free int64) error {
	if free-spare < size {
		return fmt.Errorf("%w: it has %d bytes, free are %d", ErrNoRoom, size, free)
	}
	return nil
}

// scratchPattern names the folders with copies of the ledger.
const scratchPattern = "backup-*.tmp"

// clearScratch removes what a program that was killed has left.
func clearScratch(scratch string) error {
	left, err := filepath.Glob(filepath.Join(quoteGlob(scratch), scratchPattern))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// untilDone is a Reader that ends with its context.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// RestoreHistory writes the database file of a backup of the kind History to a
// path where there is none. All of the backup has been checked when the file is
// there. Errors are those of Read.
func RestoreHistory(ctx context.Context, r io.Reader, k *Key, path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("restore ledger: %s: %w", path, ErrLedgerThere)
	}
	if err := noRest(path); err != nil {
		return fmt.Errorf("restore ledger: %w", err)
	}
	err := durable.ReplaceWith(path, 0o600, func(w io.Writer) error { return CheckHistory(ctx, r, k, w) })
	if err != nil {
		return fmt.Errorf("restore ledger: %w", err)
	}
	return nil
}

// CheckHistory reads a backup of the kind History whole and writes its database
// to w, of which nothing may be used before CheckHistory returns nil.
func CheckHistory(ctx context.Context, r io.Reader, k *Key, w io.Writer) error {
	return unpack(r, k, History, func(_ Header, r io.Reader) error {
		_, err := io.Copy(w, untilDone{ctx, r})
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrDamaged) {
			var path *os.PathError
			if errors.As(err, &path) {
				return err // of the disk that is written to
			}
			return readError(err)
		}
		return err
	})
}
