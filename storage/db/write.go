package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// maxGroup is the most Writes that share a transaction, so that one of a flood
// does not wait for all the others.
const maxGroup = 512

// errLost says that SQLite undid the whole transaction and not only what
// failed: it does so when a write is interrupted, and on some errors of the
// disk.
var errLost = errors.New("the transaction was undone")

const (
	waiting int32 = iota
	begun
	withdrawn
)

type job struct {
	fn    func(*sql.Tx) error
	err   error
	state atomic.Int32
	done  chan struct{}
}

func (j *job) finish(err error) {
	j.err = err
	close(j.done)
}

// counter counts flushes.
type counter struct{ n atomic.Int64 }

// Commits returns how many transactions, that is flushes of the disk where
// the database is durable, the Writes have needed since Open.
func (d *DB) Commits() int64 { return d.commits.n.Load() }

// Write runs fn in a transaction that it may share with other Writes, and
// returns when what fn did is durable. Where fn returns an error, Write returns
// it and what fn did is undone. fn must not keep tx, must not begin, commit or
// roll back, must not call Write, and may be run a second time where the first
// run was undone because of another Write. It runs on another goroutine than
// Write's caller.
//
// When ctx ends before fn has begun then fn is not run; afterwards its outcome
// is waited for. ErrClosed says that fn was not run.
func (d *DB) Write(ctx context.Context, fn func(*sql.Tx) error) error {
	j := &job{fn: fn, done: make(chan struct{})}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case d.jobs <- j:
	case <-d.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
	}
	if j.state.CompareAndSwap(waiting, withdrawn) {
		return ctx.Err()
	}
	<-j.done
	return j.err
}

// TryWrite makes a Write that changes nothing, to find out whether the disk
// takes one.
func (d *DB) TryWrite(ctx context.Context) error {
	return d.Write(ctx, func(tx *sql.Tx) error {
		var version int
		if err := tx.QueryRow(`PRAGMA user_version`).Scan(&version); err != nil {
			return err
		}
		_, err := tx.Exec(fmt.Sprintf(`PRAGMA user_version = %d`, version))
		return err
	})
}

// run is the goroutine that owns the writing connection.
func (d *DB) run() {
	defer close(d.stopped)
	var last time.Time // of the newest flush
	for {
		select {
		case j := <-d.jobs:
			group, open := d.collect(j, last)
			d.commit(group)
			last = time.Now()
			if !open {
				return
			}
		case <-d.closing:
			return
		}
	}
}

// collect gathers the Writes that will share a transaction: those that come
// until the interval since the last flush has passed. It reports false when
// the database is being closed, which ends the wait.
func (d *DB) collect(first *job, last time.Time) (group []*job, open bool) {
	group = append(group, first)
	if pause := d.interval - time.Since(last); pause > 0 && !last.IsZero() {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		for len(group) < maxGroup {
			select {
			case j := <-d.jobs:
				group = append(group, j)
				continue
			case <-timer.C:
			case <-d.closing:
				return group, false
			}
			break
		}
	}
	for len(group) < maxGroup {
		select {
		case j := <-d.jobs:
			group = append(group, j)
			continue
		default:
		}
		break
	}
	return group, true
}

// commit runs the group in one transaction. Each round that is lost as a whole
// is begun again without the Write that lost it.
func (d *DB) commit(group []*job) {
	live := group[:0]
	for _, j := range group {
		if j.state.CompareAndSwap(waiting, begun) {
			live = append(live, j)
		}
	}
	for len(live) > 0 {
		done, failed, err := d.round(live)
		if failed == nil {
			for _, j := range done {
				j.finish(err)
			}
			return
		}
		failed.finish(err)
		rest := live[:0]
		for _, j := range live {
			if j != failed && !j.finished() {
				rest = append(rest, j)
			}
		}
		live = rest
	}
}

func (j *job) finished() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// round runs the jobs and commits. Those whose own part failed are finished at
// once. The others are returned with the outcome of the commit; or, where the
// whole transaction was undone on the way, the one that brought that about.
func (d *DB) round(live []*job) (done []*job, failed *job, err error) {
	tx, err := d.writer.BeginTx(context.Background(), nil)
	if err != nil {
		err = fmt.Errorf("begin: %w", classify(err))
		d.wrote(err)
		return live, nil, err
	}
	for _, j := range live {
		err := part(tx, j.fn)
		if ofDisk(err) {
			d.wrote(classify(err))
		}
		switch {
		case err == nil:
			done = append(done, j)
		case errors.Is(err, errLost):
			_ = tx.Rollback() // frees the connection; there may be nothing to undo
			return nil, j, classify(err)
		default:
			j.finish(classify(err))
		}
	}
	if len(done) == 0 {
		if err := tx.Rollback(); err != nil {
			return nil, nil, err
		}
		return nil, nil, nil
	}
	if err := tx.Commit(); err != nil {
		err = fmt.Errorf("commit: %w", classify(err))
		d.wrote(err)
		return done, nil, err
	}
	// Not before: who has seen the count must read what was counted.
	d.commits.n.Add(1)
	d.wrote(nil)
	return done, nil, nil
}

// part runs fn so that it can be undone by itself. errLost says that it cannot,
// because the transaction is gone and the savepoint with it.
func part(tx *sql.Tx, fn func(*sql.Tx) error) error {
	if _, err := tx.Exec(`SAVEPOINT part`); err != nil {
		return errors.Join(err, errLost)
	}
	err := fn(tx)
	if err != nil {
		if _, undo := tx.Exec(`ROLLBACK TO part`); undo != nil {
			return errors.Join(err, errLost, undo)
		}
	}
	if _, release := tx.Exec(`RELEASE part`); release != nil {
		return errors.Join(err, errLost, release)
	}
	return err
}
