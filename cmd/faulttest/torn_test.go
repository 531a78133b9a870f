package faulttest

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	page  = 4096
	frame = page + 24 // of the write-ahead log
)

// wounds are what a power cut, or a disk that lied about it, may leave behind.
var wounds = []struct {
	name  string
	wound func(w *wounded)
}{
	{"log cut short", func(w *wounded) { w.cut("money.db-wal", 1+w.random.Int64N(2*frame)) }},
	{"log's last page scribbled over", func(w *wounded) { w.scribble("money.db-wal", frame, 0) }},
	{"a part of the log's last page", func(w *wounded) { w.scribble("money.db-wal", w.random.Int64N(frame), 0) }},
	{"log's last pages full of zeros", func(w *wounded) { w.zero("money.db-wal", 3*frame) }},
	{"database cut short", func(w *wounded) { w.cut("money.db", 1+w.random.Int64N(2*page)) }},
	{"database's last page scribbled over", func(w *wounded) { w.scribble("money.db", page, 0) }},
	{"a part of the database's last page", func(w *wounded) { w.scribble("money.db", 1+w.random.Int64N(page), 0) }},
	{"a page in the middle of the database", func(w *wounded) { w.scribble("money.db", page, page*w.random.Int64N(8)) }},
}

type wounded struct {
	*rig
	random *rand.Rand
}

func (w *wounded) open(name string) (*os.File, int64) {
	w.Helper()
	f, err := os.OpenFile(filepath.Join(w.box.Data, name), os.O_RDWR, 0)
	w.Must(err)
	info, err := f.Stat()
	w.Must(err)
	return f, info.Size()
}

func (w *wounded) cut(name string, n int64) {
	w.Helper()
	f, size := w.open(name)
	defer f.Close()
	w.Must(f.Truncate(max(size-n, 0)))
}

func (w *wounded) overwrite(name string, n, before int64, b byte, noise bool) {
	w.Helper()
	f, size := w.open(name)
	defer f.Close()
	n = min(n, size)
	text := make([]byte, n)
	for i := range text {
		text[i] = b
		if noise {
			text[i] = byte(w.random.Uint32())
		}
	}
	_, err := f.WriteAt(text, max(size-before-n, 0))
	w.Must(err)
}

// scribble writes noise over n bytes that end so many before the file does.
func (w *wounded) scribble(name string, n, before int64) { w.overwrite(name, n, before, 0, true) }
func (w *wounded) zero(name string, n int64)             { w.overwrite(name, n, 0, 0, false) }

// money is what a ledger says that payers have paid, by channel.
type owned map[[32]byte]ledger.Channel

func (r *rig) owned(l *ledger.Ledger) owned {
	r.Helper()
	rows, err := l.Channels(r.Ctx, ledger.Filter{Role: ledger.Payee})
	r.Must(err)
	all := make(owned, len(rows))
	for _, row := range rows {
		all[row.ID] = row
	}
	return all
}

// TestTornPages damages the ledger's files after the box was killed. The box
// either goes on from an earlier moment, or refuses and says where the copies
// are; what it says it owns is never more than was paid.
func TestTornPages(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.forgetful = true
	w := &wounded{r, rand.New(rand.NewPCG(9, 9))}
	s := r.sell()
	outcomes := make(map[string][2]int)
	var what toll
	for range 2 {
		for _, hurt := range wounds {
			s = r.goesOn(s)
			r.box.Process.Kill()
			s.get.Kill()
			good := filepath.Join(r.Dir, "good")
			r.Must(os.Mkdir(good, 0o700))
			r.keep(good, r.box.Data)
			var before owned
			var risk money.Satoshis
			r.snapshot(r.box.Data, func(l *ledger.Ledger) {
				risk, _ = r.unsettled(l)
				before = r.owned(l)
			})
			hurt.wound(w)
			count := outcomes[hurt.name]
			if r.starts() {
				count[0]++
				r.Must(r.box.Control.Check(r.Ctx))
				r.notMore(hurt.name, before)
			} else {
				count[1]++
				r.box.Process.WantWords("bitcdnd: error: ", "damaged", "bitcdnd: hint: ", "backup")
				r.keep(r.box.Data, good)
				r.box.Start()
			}
			r.Must(os.RemoveAll(good))
			outcomes[hurt.name] = count
			what = what.plus(toll{tries: 1, risk: risk, limit: credit(s.sent())})
		}
	}
	if s.get.Running() != nil {
		s.run()
	}
	s.complete()
	record(t, "torn pages", r.settle().plus(what))
	for name, n := range outcomes {
		t.Logf("%s: went on %d times, refused %d times", name, n[0], n[1])
	}
}

// goesOn waits for payments, of another client where this one has everything.
func (r *rig) goesOn(s *sale) *sale {
	r.Helper()
	sold := r.box.Sold()
	r.Await("payments", func() error {
		switch {
		case r.box.Sold() >= sold+384<<10:
			return nil
		case s.get.Running() == nil:
		case r.Exit(s.get) == 0:
			s.over()
			s = r.sell()
		default:
			s.run()
		}
		return errNotYet
	})
	return s
}

// keep copies a ledger's files, in place of those that are there.
func (r *rig) keep(to, from string) {
	r.Helper()
	for _, name := range []string{"money.db", "money.db-wal", "money.db-shm"} {
		err := os.Remove(filepath.Join(to, name))
		if !errors.Is(err, fs.ErrNotExist) {
			r.Must(err)
		}
		if err := copyFile(filepath.Join(to, name), filepath.Join(from, name)); !errors.Is(err, fs.ErrNotExist) {
			r.Must(err)
		}
	}
}

// starts launches the box and says whether it came up, or refused with an exit
// code.
func (r *rig) starts() (up bool) {
	r.Helper()
	r.box.Launch()
	r.Await("start or refusal", func() error {
		if r.box.Running() != nil {
			if code := r.Exit(r.box.Process); code != 1 {
				r.Errorf("exit code %d", code)
			}
			return nil
		}
		status, err := r.box.Control.Status(r.Ctx)
		if err == nil && status.Chain.Height == 0 {
			err = errNotYet
		}
		up = err == nil
		return err
	})
	return up
}

// notMore checks that a box that went on owns nothing that it was not paid.
func (r *rig) notMore(wound string, before owned) {
	r.Helper()
	for _, row := range r.box.Status().Channels {
		found := false
		for id, was := range before {
			if row.ID != hexOf(id) {
				continue
			}
			found = true
			if row.Paid > was.Payee || row.Royalty > was.Creator || row.Bytes > was.Bytes {
				r.Errorf("%s: channel %s has %v and %v for %d bytes, it was paid %v and %v for %d", wound, row.ID, row.Paid, row.Royalty, row.Bytes, was.Payee, was.Creator, was.Bytes)
			}
			// No more than the newest commit: a payment, for as much as may be owed at
			// one time and what was forgiven before.
			if gone := was.Payee + was.Creator - row.Paid - row.Royalty; gone > 2*credit(was.Bytes)+worth(was.Bytes/16) {
				r.Errorf("%s: channel %s has %v and %v left, it was paid %v and %v", wound, row.ID, row.Paid, row.Royalty, was.Payee, was.Creator)
			}
		}
		if !found {
			r.Errorf("%s: channel %s was not there", wound, row.ID)
		}
	}
}

func hexOf(id [32]byte) string { return hex.EncodeToString(id[:]) }
