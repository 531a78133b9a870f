package faulttest

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

// clock is a time of day that the test sets, as a person or a time server sets
// the machine's.
type clock struct{ set, passed atomic.Int64 } // seconds

// now is the machine's time, later by what has passed since. What was set moves
// the time of day only and not the monotonic reading beside it, which no clock
// of a machine moves: differences between times of one run do not see it,
// differences to times that were stored do.
func (c *clock) now() time.Time {
	now := time.Now().Add(time.Duration(c.passed.Load()) * time.Second)
	// Package time has no way to say so. The first word of a Time with a
	// monotonic reading holds seconds from bit 30 on; TestSetClock looks.
	*(*uint64)(unsafe.Pointer(&now)) += uint64(c.set.Load()) << 30
	return now
}

// jump sets the clock.
func (c *clock) jump(d time.Duration) { c.set.Add(int64(d / time.Second)) }

// pass lets time go by.
func (c *clock) pass(d time.Duration) { c.passed.Add(int64(d / time.Second)) }

func TestSetClock(t *testing.T) {
	c := &clock{}
	before := c.now()
	for _, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		was := c.now()
		c.jump(jump)
		is := c.now()
		if d := is.Round(0).Sub(was.Round(0)); d < jump || d > jump+time.Minute {
			t.Errorf("set by %v, the time of day moved by %v", jump, d)
		}
		if d := is.Sub(was); d < 0 || d > time.Minute {
			t.Errorf("set by %v, %v passed", jump, d)
		}
	}
	c.pass(time.Hour)
	if d := c.now().Sub(before); d < time.Hour || d > time.Hour+time.Minute {
		t.Errorf("%v passed", d)
	}
}

// unpaid measures what is at risk with a running box.
func (r *rig) unpaid(tries int) toll {
	r.Helper()
	status := r.box.Status()
	var paid int64
	for _, title := range status.Titles {
		paid += title.Sold
	}
	risk := status.Earnings.Unsettled
	for _, c := range status.Channels {
		risk += c.Royalty
	}
	return toll{tries: tries, risk: risk + worth(r.tap.blocks()-paid), limit: credit(paid)}
}

// TestClock has the box's clock wrong by an hour from the start, and jump by
// one while it sells.
func TestClock(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]time.Duration{"fast": time.Hour, "slow": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &clock{}
			c.jump(wrong)
			r := newRigOn(t, nil, nil, c.now)
			s := r.sell()
			if wrong < 0 {
				// An offer of an hour ago is none. When the clock is set right the
				// box sells, to those who come then.
				r.Await("a word about the offer", func() error { return s.get.Said("the offer has run out") })
				c.jump(-wrong)
				s.get.Signal(syscall.SIGINT)
				r.Exit(s.get)
				s.run()
				r.box.AwaitSold(s.get, 1<<20)
				c.jump(wrong)
			}
			r.box.AwaitSold(s.get, r.box.Sold()+1<<20)
			what := r.unpaid(1)
			record(t, "clock an hour wrong at the start", toll{tries: 1, risk: what.risk, limit: what.limit})
			what = toll{}
			for _, jump := range []time.Duration{-wrong, -wrong, wrong, wrong} {
				what = what.plus(r.unpaid(1))
				c.jump(jump)
				r.box.AwaitSold(s.get, r.box.Sold()+512<<10)
			}
			// A box that is started again believes the clock that it finds.
			r.box.Stop()
			c.jump(-wrong)
			r.box.Start()
			s.complete()
			record(t, "clock jumps by an hour", r.settle().plus(what))
		})
	}
}

// TestChainGone takes the chain away from a box and its clients for a day.
func TestChainGone(t *testing.T) {
	t.Parallel()
	const fault = "chain services gone for a day"
	c := &clock{}
	r := newRigOn(t, nil, nil, c.now)
	idle := r.sell()
	r.box.AwaitSold(idle.get, 1<<20)
	idle.get.Signal(syscall.SIGINT)
	r.WantExit(idle.get, 130)
	r.alone()
	idle.over()
	s := r.sell()
	r.box.AwaitSold(s.get, r.box.Sold()+1<<20)

	r.Offline.Store(true)
	r.raised("chain-unreachable", true)
	what := r.unpaid(1)
	// A sale that has begun needs no chain, and ends; what it earned waits.
	s.complete()
	r.alone()
	for range 4 {
		c.pass(6 * time.Hour)
		r.Must(r.Node.Mine(r.Ctx, 36))
	}
	unsettled := r.box.Status().Earnings.Unsettled
	if unsettled == 0 {
		t.Error("settled without a chain")
	}
	// A new one does not begin.
	late := r.sell()
	r.WantExit(late.get, 1)
	late.get.WantWords("bitcdn: error: ", "bitcdn: hint: ")
	what = what.plus(r.unpaid(1))

	r.Offline.Store(false)
	r.raised("chain-unreachable", false)
	r.Await("what waited on the chain, and what has been idle since", func() error {
		if err := r.mine(); err != nil {
			return err
		}
		e := r.box.Status().Earnings
		if e.Unsettled != 0 || e.OnChain != unsettled {
			return errNotYet
		}
		return nil
	})
	for _, row := range r.box.Status().Channels {
		if row.State != ledger.StateClosed {
			t.Errorf("%+v", row)
		}
	}
	late.run()
	late.complete()
	record(t, fault, r.settle().plus(what))
}
