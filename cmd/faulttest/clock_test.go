package faulttest

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

// clock is a time of day that is wrong by as much as the test wants. It has no
// monotonic part, as times have none that were stored and read again: a box that
// is handed it sees every jump, also where a real one does not, whose waits and
// whose connections follow the machine's monotonic clock. So the tests do not
// limit the upload, and let clients connect again.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Round(0).Add(time.Duration(c.off.Load())) }

func (c *clock) jump(d time.Duration) { c.off.Add(int64(d)) }

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
			r := newRigOn(t, func(s *box.Settings) { s.Upload.Rate = 0 }, nil, c.now)
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
	r := newRigOn(t, func(s *box.Settings) { s.Upload.Rate = 0 }, nil, c.now)
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
		c.jump(6 * time.Hour)
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
