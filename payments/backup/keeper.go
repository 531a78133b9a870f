package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/bitcdn/bitcdn/storage/volume"
)

const (
	// DefaultEvery is the shortest time between two backups of the state, and
	// so what may be lost with the machine.
	DefaultEvery = time.Minute
	// LateAfter is the age of the newest backup from which on it is a fault, if
	// the ledger has changed since.
	LateAfter = 5 * time.Minute
	// DefaultKeep is how many of the newest backups of the state are kept.
	DefaultKeep = 3
	// keepDays is for how many days the last one of each is kept too.
	keepDays = 7
	// keepHistory is how many backups of the whole ledger are kept.
	keepHistory = 2
	// historyEvery is how often the whole ledger is backed up, if it changes.
	historyEvery = 24 * time.Hour
	// look is how often a Keeper asks whether the ledger has changed, which
	// costs a look at a number in memory.
	look        = 5 * time.Second
	historyLook = time.Hour
	// lastTime is what the last backup may take when the program ends.
	lastTime = 10 * time.Second
)

var (
	// ErrNoDisk says that the folder for backups is not there, or is not the
	// one that it was: its disk is unplugged, or another one.
	ErrNoDisk = errors.New("the folder for backups is missing, or its disk is not plugged in")
)

// KeeperConfig is what a Keeper works with.
type KeeperConfig struct {
	Ledger *ledger.Ledger
	Key    *Key
	// Dir is where the backups go, on another disk than the ledger. It is never
	// created.
	Dir string
	// Scratch is a folder for a copy of the ledger, once a day.
	Scratch string
	Payout  string        // the owner's address
	Every   time.Duration // DefaultEvery where it is zero
	Keep    int           // DefaultKeep where it is zero
	Clock   func() time.Time
	Random  io.Reader
	Log     *slog.Logger
	// Changed is told after each Step how the backups are; it must not block,
	// and may be nil.
	Changed func(Status)
}

// Status is how the backups are.
type Status struct {
	// Last is when the newest one was made, zero before the first; Since, when
	// the ledger was first seen to have changed after that, zero where it has
	// not.
	Last, Since time.Time
	Err         error // of the last try; nil where it went well
	Late        bool  // the newest one is older than LateAfter and not the ledger's state
}

// Keeper writes backups of a ledger into a folder as the ledger changes.
type Keeper struct {
	cfg KeeperConfig

	mu      sync.Mutex // of Step
	status  Status
	commits int64 // of the ledger, when it was last read
	known   bool  // commits is set
	digest  [sha256.Size]byte
	newest  string // path of the last one
	size    int64  // of it, bytes
	tried   time.Time

	whole   sync.Mutex // of StepHistory
	history time.Time  // of the last backup of the whole ledger
	before  int64      // commits then
}

// NewKeeper makes a Keeper.
func NewKeeper(cfg KeeperConfig) *Keeper {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	return &Keeper{cfg: cfg, before: -1}
}

// Run makes backups until ctx ends, and one more of the state then. No other
// program uses the Scratch folder.
func (k *Keeper) Run(ctx context.Context) error {
	if err := clearScratch(k.cfg.Scratch); err != nil {
		return err
	}
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { k.repeat(ctx, historyLook, "whole ledger", k.StepHistory) })
	k.repeat(ctx, min(look, k.cfg.Every), "state", k.Step)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	return k.Flush(last)
}

// repeat makes steps until ctx ends.
func (k *Keeper) repeat(ctx context.Context, every time.Duration, what string, step func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := step(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.Warn("backup not made", "of", what, "folder", k.cfg.Dir, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Step makes a backup of the state if one is due. The error says why one that is due was not
// made; it is tried again by the next Step.
func (k *Keeper) Step(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.step(ctx, false)
}

// Flush makes a backup now if the ledger has changed since the last one.
func (k *Keeper) Flush(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.step(ctx, true)
}

func (k *Keeper) step(ctx context.Context, now bool) error {
	at := k.cfg.Clock()
	commits := k.cfg.Ledger.Commits()
	changed := !k.known || commits != k.commits || k.gone()
	if changed && k.status.Since.IsZero() {
		k.status.Since = at
	}
	since := at.Sub(k.tried)
	// The look that is nearest to the time: one that comes a moment early must not
	// leave it to the next. A clock that was put back must not stop the backups.
	due := now || since < 0 || since >= k.cfg.Every-min(look, k.cfg.Every)/2
	if due && (changed || k.status.Err != nil) {
		k.tried = at
		k.status.Err = k.state(ctx, at)
		if k.status.Err == nil {
			k.commits, k.known, k.status.Since = commits, true, time.Time{}
		}
	}
	k.status.Late = !k.status.Since.IsZero() && at.Sub(k.status.Since) > LateAfter
	if k.cfg.Changed != nil && ctx.Err() == nil {
		k.cfg.Changed(k.status)
	}
	return k.status.Err
}

// StepHistory makes a backup of the whole ledger if there is none of the last
// day and the ledger has changed since. It may run beside Step.
func (k *Keeper) StepHistory(ctx context.Context) error {
	k.whole.Lock()
	defer k.whole.Unlock()
	at, commits := k.cfg.Clock(), k.cfg.Ledger.Commits()
	recent := func(made time.Time) bool { return !made.After(at) && at.Sub(made) < historyEvery }
	if commits == k.before || recent(k.history) {
		return nil
	}
	if err := k.disk(ctx); err != nil {
		return err
	}
	files, err := list(k.cfg.Dir, k.cfg.Key.fingerprint)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.kind == History && recent(f.made) {
			k.history = f.made
			return nil
		}
	}
	if _, err := k.write(History, at, func(w io.Writer) error {
		return writeHistory(ctx, w, k.cfg.Key, k.cfg.Ledger, k.cfg.Scratch, at, k.cfg.Random)
	}); err != nil {
		return err
	}
	k.history, k.before = at, commits
	return nil
}

// state writes a backup of the state, unless it is what the last one holds.
func (k *Keeper) state(ctx context.Context, at time.Time) error {
	if err := k.disk(ctx); err != nil {
		return err
	}
	c, err := collect(ctx, k.cfg.Ledger, k.cfg.Payout)
	if err != nil {
		return err
	}
	h := sha256.New()
	if err := c.encode(h); err != nil {
		return err
	}
	digest := [sha256.Size]byte(h.Sum(nil))
	if digest == k.digest && !k.status.Last.IsZero() && !k.gone() {
		return nil // other things of the ledger have changed
	}
	path, err := k.write(State, at, func(w io.Writer) error { return c.write(w, k.cfg.Key, at, k.cfg.Random) })
	if path != "" {
		k.digest, k.status.Last, k.newest = digest, at, path
		k.size = sizeOf(path)
	}
	return err
}

// gone reports whether the last backup of the state is not where it was written:
// somebody has removed it, or the disk is another one.
func (k *Keeper) gone() bool { return k.newest != "" && sizeOf(k.newest) != k.size }

// sizeOf is the size of a file, -1 where there is none.
func sizeOf(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	return info.Size()
}

// write makes a file and removes those that it makes superfluous, and what a
// power cut has left of others. It returns the path of a file that was made, with
// an error too.
func (k *Keeper) write(kind Kind, at time.Time, fill func(io.Writer) error) (path string, err error) {
	files, err := list(k.cfg.Dir, k.cfg.Key.fingerprint)
	if err != nil {
		return "", err
	}
	// First, because they may be what has filled the disk.
	half, err := filepath.Glob(filepath.Join(quoteGlob(k.cfg.Dir), fmt.Sprintf(".%s%x-*-%v%s.*.tmp", namePrefix, k.cfg.Key.fingerprint, kind, nameSuffix)))
	failed := []error{err}
	for _, name := range half {
		failed = append(failed, os.Remove(name))
	}
	var number uint64
	for _, f := range files {
		number = max(number, f.number)
	}
	mine := file{k.cfg.Key.fingerprint, number + 1, at.UTC().Truncate(time.Second), kind}
	path = filepath.Join(k.cfg.Dir, mine.name())
	if err := durable.ReplaceWith(path, 0o600, fill); err != nil {
		return "", err
	}
	for _, f := range superfluous(append(files, mine), k.cfg.Keep) {
		if err := os.Remove(filepath.Join(k.cfg.Dir, f.name())); !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return path, errors.Join(failed...)
}

// quoteGlob makes a path a pattern that matches it alone.
func quoteGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// disk sees to it that the folder is the owner's disk and not the empty place
// where it is plugged in. A folder gets a marker when it is first used; from
// then on a folder without one is no disk.
func (k *Keeper) disk(ctx context.Context) error {
	name := "backups in " + k.cfg.Dir
	_, err := k.cfg.Ledger.Claimed(ctx, name)
	used := err == nil
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	_, err = volume.Open(k.cfg.Dir)
	switch {
	case err == nil && used:
		return nil
	case err != nil && (used || !errors.Is(err, volume.ErrNoMarker)):
		return fmt.Errorf("%w: %w", ErrNoDisk, err)
	}
	v, err := Accept(k.cfg.Dir, k.cfg.Random)
	if err != nil {
		return err
	}
	_, err = k.cfg.Ledger.Claim(ctx, name, v.ID().String())
	return err
}

// Accept makes a folder that is there one for backups, as after a disk was
// replaced. ErrNoDisk where it is not there.
func Accept(dir string, random io.Reader) (*volume.Volume, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDisk, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is no folder", ErrNoDisk, dir)
	}
	return volume.Create(dir, random)
}

// file is the name of a backup. Files are in the order of their numbers,
// whatever the clock said.
type file struct {
	fingerprint Fingerprint
	number      uint64
	made        time.Time
	kind        Kind
}

const (
	namePrefix = "bitcdn-"
	nameSuffix = ".backup"
	nameTime   = "20060102T150405Z"
)

func (f file) name() string {
	return fmt.Sprintf("%s%x-%08d-%s-%v%s", namePrefix, f.fingerprint, f.number, f.made.Format(nameTime), f.kind, nameSuffix)
}

func parseName(name string) (f file, ok bool) {
	rest, ok := strings.CutPrefix(name, namePrefix)
	if !ok {
		return file{}, false
	}
	if rest, ok = strings.CutSuffix(rest, nameSuffix); !ok {
		return file{}, false
	}
	parts := strings.Split(rest, "-")
	if len(parts) != 4 {
		return file{}, false
	}
	print, err := hex.DecodeString(parts[0])
	if err != nil || len(print) != FingerprintSize {
		return file{}, false
	}
	f.fingerprint = Fingerprint(print)
	if f.number, err = strconv.ParseUint(parts[1], 10, 63); err != nil {
		return file{}, false
	}
	if f.made, err = time.Parse(nameTime, parts[2]); err != nil {
		return file{}, false
	}
	for _, kind := range []Kind{State, History} {
		if parts[3] == kind.String() {
			f.kind = kind
		}
	}
	return f, f.name() == name
}

// list returns the backups of one wallet, the oldest first.
func list(dir string, of Fingerprint) (files []file, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %w", ErrNoDisk, err)
		}
		return nil, err
	}
	for _, e := range entries {
		if f, ok := parseName(e.Name()); ok && f.fingerprint == of {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int {
		switch {
		case a.number < b.number:
			return -1
		case a.number > b.number:
			return 1
		}
		return strings.Compare(a.name(), b.name())
	})
	return files, nil
}

// Newest returns the paths of a wallet's newest backups in a folder, the state's
// and the whole ledger's; empty where there is none.
func Newest(dir string, of Fingerprint) (state, history string, err error) {
	files, err := list(dir, of)
	for _, f := range files {
		switch f.kind {
		case State:
			state = filepath.Join(dir, f.name())
		case History:
			history = filepath.Join(dir, f.name())
		}
	}
	return state, history, err
}

// superfluous selects what may be removed: neither one of the newest nor, of
// the state, the last one of one of the newest days.
func superfluous(files []file, keep int) (old []file) {
	left := map[Kind]int{State: keep, History: keepHistory}
	days := make(map[string]bool)
	for _, f := range slices.Backward(files) {
		day := f.made.Format(time.DateOnly)
		last := f.kind == State && !days[day] && len(days) < keepDays
		if last {
			days[day] = true
		}
		if left[f.kind]--; left[f.kind] < 0 && !last {
			old = append(old, f)
		}
	}
	return old
}
