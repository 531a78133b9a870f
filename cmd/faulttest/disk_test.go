package faulttest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"golang.org/x/sys/unix"
)

// dataFolder is where the first box of a world keeps its data.
func dataFolder(r *rig) string { return filepath.Join(r.Dir, "box1") }

// raised waits until the box has a health condition, or has it no longer.
func (r *rig) raised(code string, want bool) {
	r.Helper()
	r.Await(fmt.Sprintf("condition %q is %v", code, want), func() error {
		status, err := r.box.Control.Status(r.Ctx)
		if err != nil {
			return err
		}
		for _, c := range status.Health {
			if c.Code == code {
				if !want {
					return fmt.Errorf("%+v", c)
				}
				if c.Title == "" || c.Remedy == "" {
					r.Errorf("condition without words: %+v", c)
				}
				return nil
			}
		}
		if want {
			return fmt.Errorf("%+v", status.Health)
		}
		return nil
	})
}

// alone waits until nobody is connected to the box.
func (r *rig) alone() {
	r.Helper()
	r.Await("end of all connections", func() error {
		status, err := r.box.Control.Status(r.Ctx)
		if err == nil && status.Traffic.Connections > 0 {
			err = fmt.Errorf("%d connections", status.Traffic.Connections)
		}
		return err
	})
}

// exposed measures what is at risk now. The box must not be able to store
// anything.
func (r *rig) exposed() toll {
	r.Helper()
	var what toll
	r.snapshot(r.box.Data, func(l *ledger.Ledger) {
		open, paid := r.unsettled(l)
		owed := max(r.tap.blocks()-paid, 0)
		what = toll{tries: 1, risk: open + worth(owed), limit: credit(paid)}
		if worth(owed) > 2*what.limit+worth(paid/16) {
			r.Errorf("%d bytes were delivered and not paid for, the credit is %v", owed, what.limit)
		}
	})
	return what
}

// fill uses up the space of a file system and returns what gives it back.
func (r *rig) fill(dir string) (release func()) {
	r.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	r.Must(err)
	for size := 1 << 20; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		r.Fatal(err)
	}
	_ = f.Close()
	return func() { r.Must(os.Remove(path)) }
}

// TestDiskFull has the box's disk fill up while payments come in.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	const fault = "disk full"
	if !mounts.memory {
		untried(t, fault, "no file system can be mounted here")
	}
	r := newRigOn(t, nil, func(r *rig) {
		r.Must(os.Mkdir(dataFolder(r), 0o700))
		r.Must(unix.Mount("none", dataFolder(r), "tmpfs", 0, "size=16m,mode=0700"))
		r.Cleanup(func() { r.Must(unix.Unmount(dataFolder(r), unix.MNT_DETACH)) })
	}, nil)
	s := r.sell()
	var what toll
	for range 3 {
		r.box.AwaitSold(s.get, r.box.Sold()+1<<20)
		release := r.fill(r.box.Data)
		r.raised("ledger-unwritable", true)
		what = what.plus(r.stands(s))
		release()
		r.raised("ledger-unwritable", false)
	}

	r.box.AwaitSold(s.get, r.box.Sold()+1) // it has gone on by itself

	// Settling says that it cannot; or it can, as what the disk has set aside for
	// the write-ahead log may do for once.
	s.get.Signal(syscall.SIGINT)
	r.WantExit(s.get, 130)
	r.alone()
	release := r.fill(r.box.Data)
	r.Await("a word on settling", func() error {
		if _, err := r.box.Control.CloseChannels(r.Ctx, box.CloseRequest{}); err != nil {
			return nil
		}
		open := 0
		for _, row := range r.box.Status().Channels {
			if row.State == ledger.StateOpen {
				open++
			}
		}
		if open > 0 {
			return fmt.Errorf("%d channels are open", open)
		}
		return nil
	})
	what = what.plus(r.exposed())
	release()
	r.raised("ledger-unwritable", false)
	s.run()
	s.complete()
	record(t, fault, r.settle().plus(what))
}

// stands checks that the client waits, and measures what is at risk. Whoever
// connects anew may still be sent what the credit allows.
func (r *rig) stands(s *sale) toll {
	r.Helper()
	r.Await("a word about the ledger", func() error {
		if err := s.get.Running(); err != nil {
			return err
		}
		return s.get.Said("the ledger cannot be written")
	})
	return r.exposed()
}

// TestFileLimit does not let the box's files grow: what a quota does, and what
// needs no root.
func TestFileLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	s := r.sell()
	r.box.AwaitSold(s.get, 256<<10)
	limit := unix.Rlimit{Cur: 4096, Max: unix.RLIM_INFINITY}
	r.Must(unix.Prlimit(r.box.Process.Pid(), unix.RLIMIT_FSIZE, &limit, nil))
	r.raised("ledger-unwritable", true)
	what := r.stands(s)
	limit.Cur = unix.RLIM_INFINITY
	r.Must(unix.Prlimit(r.box.Process.Pid(), unix.RLIMIT_FSIZE, &limit, nil))
	r.raised("ledger-unwritable", false)
	s.complete()
	record(t, "files cannot grow", r.settle().plus(what))
}
