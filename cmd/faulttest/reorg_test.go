package faulttest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// orphaned is how deep the reorganisations are.
const orphaned = 3

// TestReorganisation throws out the three newest blocks, with the close of a
// channel in them and then with a payout.
func TestReorganisation(t *testing.T) {
	t.Parallel()
	for name, reorganise := range map[string]func(*rig) error{
		"waits again": func(r *rig) error { return r.Node.Reorganise(r.Ctx, orphaned, regnode.ToMempool) },
		"mined again": func(r *rig) error { return r.Node.Reorganise(r.Ctx, orphaned, regnode.MinedAgain) },
		"forgotten": func(r *rig) error {
			if err := r.Node.Reorganise(r.Ctx, orphaned, regnode.ToMempool); err != nil {
				return err
			}
			// With the next block the box finds out.
			return errors.Join(r.Node.Restart(r.Ctx), r.Node.Mine(r.Ctx, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			s := r.sell()
			r.box.AwaitSold(s.get, 1<<20)
			r.Must(r.Node.Mine(r.Ctx, 1)) // the funding
			s.complete()

			r.minedSoon()
			r.Must(r.Node.Mine(r.Ctx, orphaned-1))
			earned := r.follows("close", func(e earnings) bool { return e.unsettled == 0 && e.onChain > 0 }).onChain
			r.Must(reorganise(r))
			r.follows("close after the reorganisation", func(e earnings) bool {
				return e.unsettled+e.onChain == earned && (e.unsettled == 0) == (name == "mined again")
			})
			if name != "mined again" {
				r.minedSoon()
			}
			r.follows("close in a block again", func(e earnings) bool { return e.unsettled == 0 && e.onChain == earned })
			record(t, "reorganisation under a close", toll{tries: 1, risk: earned})

			plan, err := r.box.Control.Sweep(r.Ctx, box.SweepRequest{})
			r.Must(err)
			r.Transaction(plan.Txid)
			r.Must(r.Node.Mine(r.Ctx, orphaned))
			r.follows("payout", func(e earnings) bool { return e.sweptAt > 0 })
			r.Must(reorganise(r))
			r.follows("payout after the reorganisation", func(e earnings) bool { return (e.sweptAt > 0) == (name == "mined again") })
			if name != "mined again" {
				r.minedSoon()
			}
			e := r.follows("payout in a block again", func(e earnings) bool { return e.sweptAt > 0 })
			if e.swept != plan.Payout || e.swept+plan.Fee != earned {
				t.Errorf("%+v, earned were %v, swept %+v", e, earned, plan)
			}
			lost := r.settle()
			lost.tries, lost.risk, lost.limit = 1, plan.Payout, credit(s.sent())
			record(t, "reorganisation under a payout", lost)
		})
	}
}

// earnings are what the box says of its money.
type earnings struct {
	unsettled, onChain, swept money.Satoshis // royalties left out
	sweptAt                   uint32         // the height of the newest sweep
}

// follows waits until the box has seen something of the chain.
func (r *rig) follows(what string, seen func(earnings) bool) (e earnings) {
	r.Helper()
	r.Await(what, func() error {
		status, err := r.box.Control.Status(r.Ctx)
		if err != nil {
			return err
		}
		e = earnings{unsettled: status.Earnings.Unsettled, onChain: status.Earnings.OnChain, swept: status.Earnings.Swept}
		if len(status.Earnings.Sweeps) > 0 {
			e.sweptAt = status.Earnings.Sweeps[0].Height
		}
		if !seen(e) {
			return fmt.Errorf("%+v", e)
		}
		return nil
	})
	return e
}

// minedSoon mines a block as soon as something waits for it.
func (r *rig) minedSoon() {
	r.Helper()
	r.Await("a transaction that waits", func() error {
		var waiting []string
		if err := r.Node.Backend().Call(r.Ctx, &waiting, "getrawmempool"); err != nil {
			return err
		}
		if len(waiting) == 0 {
			return fmt.Errorf("the mempool is empty")
		}
		return r.Node.Mine(r.Ctx, 1)
	})
}
