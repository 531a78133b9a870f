package wallet_test

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func TestSweep(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(50_000) // is no earning
		p := wallet.Policy{To: r.stranger(), Threshold: 10_000, MaxFeeShare: 50}
		if _, err := r.wallet.Sweep(r.ctx, p); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("nothing earned: %v", err)
		}
		r.earned(3, 4000)
		s := r.sold(7000)
		r.settle(s)
		r.step() // seen, not mined: is not collected
		plan, err := r.wallet.SweepPlan(r.ctx, p)
		r.must(err)
		fee := money.FeeRate(100).Fee(10 + 3*148 + 34)
		if len(plan.Coins) != 3 || plan.Total != 12_000 || plan.Fee != fee || plan.Payout != 12_000-fee || !plan.Txid.IsZero() {
			r.Errorf("plan %+v, want a fee of %v", plan, fee)
		}
		again, err := r.wallet.SweepPlan(r.ctx, p)
		r.must(err)
		if again.Total != plan.Total {
			r.Error("a plan changes something")
		}
		done, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		if done.Total != plan.Total || done.Fee != plan.Fee || done.Payout != plan.Payout || done.Txid.IsZero() {
			r.Errorf("did %+v, planned %+v", done, plan)
		}
		if _, err := r.wallet.Sweep(r.ctx, p); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("a second sweep of the same: %v", err)
		}
		r.state(done.Txid, ledger.Pending)
		r.shut() // the power fails before anything was broadcast
		r.open()
		r.step()
		r.state(done.Txid, ledger.Seen)
		r.mine(1)
		r.state(done.Txid, ledger.Mined)
		coins, err := r.chain.Unspent(r.ctx, bsv.P2PKH(r.stranger()))
		if err != nil || len(coins) != 1 || coins[0].Output.Value != plan.Payout {
			r.Errorf("the owner has %v, %v", coins, err)
		}
		totals, err := r.ledger.Totals(r.ctx)
		r.must(err)
		if totals.Earned != 19_000 || totals.OnChain != 7000 || totals.Swept != plan.Payout || totals.SweepFees != fee ||
			totals.Earned != totals.OnChain+totals.Swept+totals.SweepFees {
			r.Errorf("totals %+v", totals)
		}
		if _, err := r.wallet.SweepPlan(r.ctx, wallet.Policy{}); err == nil {
			r.Error("a sweep to nobody")
		}
	})
}

func TestSweepCosts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earned(2, 100)
		r.earned(1, 10) // costs 15 to spend
		p := wallet.Policy{To: r.stranger(), MaxFeeShare: 100}
		plan, err := r.wallet.SweepPlan(r.ctx, p)
		if !errors.Is(err, wallet.ErrFeeShare) || plan.Total != 200 || plan.Fee != 34 || plan.Dust != 10 {
			r.Errorf("34 of 200: %v, %+v", err, plan)
		}
		p.MaxFeeShare = 170
		if plan, err = r.wallet.SweepPlan(r.ctx, p); err != nil || plan.Payout != 166 {
			r.Errorf("exactly the share: %v, %+v", err, plan)
		}
		r.chain.SetFeeRate(1)
		p.MaxFeeShare = 0 // the default
		if plan, err = r.wallet.SweepPlan(r.ctx, p); err != nil || plan.Total != 210 || plan.Fee != 1 {
			r.Errorf("at 1 sat/kB: %v, %+v", err, plan)
		}
		p.MaxInputs = 2
		if plan, err = r.wallet.SweepPlan(r.ctx, p); err != nil || plan.Total != 200 || plan.Left != 10 {
			r.Errorf("two inputs: %v, %+v", err, plan)
		}
		p.MaxInputs = 1
		p.Threshold = 150 // what there is counts, not what fits into one transaction
		if plan, err = r.wallet.SweepPlan(r.ctx, p); err != nil || plan.Total != 100 {
			r.Errorf("threshold: %v, %+v", err, plan)
		}
		p.Threshold = 211
		if _, err = r.wallet.SweepPlan(r.ctx, p); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("threshold: %v", err)
		}
	})
}

// More coins than one transaction takes are swept in several.
func TestSweepOfManyCoins(t *testing.T) {
	bubble(t, func(r *rig) {
		payout, err := r.wallet.Key(wallet.BranchPayout, 0)
		r.must(err)
		var coins []ledger.Coin
		for range 230 {
			c := r.chain.Fund(bsv.P2PKH(payout.Public().Hash()), 1000)
			coins = append(coins, ledger.Coin{Txid: c.Outpoint.Txid, Index: c.Outpoint.Index, Value: 1000, Script: c.Output.Script,
				Branch: wallet.BranchPayout, Height: 1, Origin: ledger.OriginEarning})
		}
		r.must(r.ledger.PutCoins(r.ctx, coins...))
		p := wallet.Policy{To: r.stranger(), MaxFeeShare: 50}
		for _, want := range []int{200, 30} {
			plan, err := r.wallet.Sweep(r.ctx, p)
			r.must(err)
			if len(plan.Coins) != want {
				r.Errorf("%d coins, want %d", len(plan.Coins), want)
			}
			r.step()
			o := r.state(plan.Txid, ledger.Seen)
			if len(o.Raw) > plan.Size || len(o.Raw) < plan.Size-2*want {
				r.Errorf("%d bytes, planned %d", len(o.Raw), plan.Size)
			}
		}
	})
}
