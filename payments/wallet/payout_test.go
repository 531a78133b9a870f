package wallet_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// earnings puts n coins of a value on one payout key, mined.
func (r *rig) earnings(n int, value money.Satoshis) {
	r.Helper()
	payout, err := r.wallet.Key(wallet.BranchPayout, 0)
	r.must(err)
	var coins []ledger.Coin
	for range n {
		c := r.chain.Fund(bsv.P2PKH(payout.Public().Hash()), value)
		tip, err := r.chain.Tip(r.ctx)
		r.must(err)
		coins = append(coins, ledger.Coin{Txid: c.Outpoint.Txid, Index: c.Outpoint.Index, Value: value, Script: c.Output.Script,
			Branch: wallet.BranchPayout, Height: tip.Height, Origin: ledger.OriginEarning})
	}
	r.must(r.ledger.PutCoins(r.ctx, coins...))
}

// owns checks what has come to the owner's address.
func (r *rig) owns(want money.Satoshis) {
	r.Helper()
	coins, err := r.chain.Unspent(r.ctx, bsv.P2PKH(r.stranger()))
	r.must(err)
	var sum money.Satoshis
	for _, c := range coins {
		sum += c.Output.Value
	}
	if sum != want {
		r.Errorf("the owner has %v, want %v", sum, want)
	}
}

// One payout takes as many transactions as it needs, and leaves out those of
// which the fee would take too much.
func TestPayoutInBatches(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earnings(5, 2000)
		r.earnings(4, 1000)
		r.earnings(2, 200) // 15 each to spend
		r.earnings(1, 10)
		p := wallet.Policy{To: r.stranger(), Threshold: 14_000, MaxFeeShare: 50, MaxInputs: 3}
		planned, err := r.wallet.PayoutPlan(r.ctx, p)
		r.must(err)
		made, err := r.wallet.Payout(r.ctx, p)
		r.must(err)
		sizes, totals := []int{3, 3, 3}, []money.Satoshis{6000, 5000, 3000}
		lefts := []money.Satoshis{8400, 3400, 400}
		if len(made) != 3 || len(planned) != 3 {
			r.Fatalf("%d transactions, planned %d, want 3", len(made), len(planned))
		}
		var paid money.Satoshis
		for i, plan := range made {
			if len(plan.Coins) != sizes[i] || plan.Total != totals[i] || plan.Left != lefts[i] || plan.Dust != 10 ||
				plan.Payout != plan.Total-plan.Fee || plan.FeeShare() > 50 || planned[i].Payout != plan.Payout || !planned[i].Txid.IsZero() {
				r.Errorf("transaction %d: %+v", i, plan)
			}
			paid += plan.Payout
		}
		r.step()
		r.mine(1)
		r.owns(paid)
		// Two coins of 200 cost 34: more than 5 %.
		p.Threshold = 0
		if plans, err := r.wallet.PayoutPlan(r.ctx, p); !errors.Is(err, wallet.ErrFeeShare) || len(plans) != 1 || plans[0].FeeShare() != 85 {
			r.Errorf("the rest: %v, %+v", err, plans)
		}
		if made, err := r.wallet.Payout(r.ctx, p); !errors.Is(err, wallet.ErrFeeShare) || len(made) != 0 {
			r.Errorf("the rest: %v, %d", err, len(made))
		}
	})
}

// A coin is taken while a payout of several transactions is made: those before
// are told, the others come the next time.
func TestPayoutLosesARace(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earnings(4, 2000)
		p := wallet.Policy{To: r.stranger(), MaxInputs: 2}
		plans, err := r.wallet.PayoutPlan(r.ctx, p)
		r.must(err)
		taken := plans[1].Coins[0]
		w, err := wallet.Open(r.ctx, r.dir, r.ledger, r.chain, wallet.Options{Clock: time.Now, Stored: func() {
			_ = r.ledger.ReserveCoins(r.ctx, []ledger.Outpoint{taken.Outpoint()}, [32]byte{9})
		}})
		r.must(err)
		made, err := w.Payout(r.ctx, p)
		if !errors.Is(err, ledger.ErrCoinTaken) || len(made) != 1 {
			r.Errorf("%d made, %v", len(made), err)
		}
	})
}

// A payout that somebody with the same words has displaced is made again from
// the coins that are left.
func TestADisplacedPayoutIsRedone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earnings(3, 4000)
		p := wallet.Policy{To: r.stranger(), Threshold: 5000}
		first, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		r.step()
		r.state(first.Txid, ledger.Seen)
		if _, err := r.wallet.SweepPlan(r.ctx, p); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("coins that are on their way are paid out again: %v", err)
		}
		k, err := r.wallet.Key(wallet.BranchPayout, 0)
		r.must(err)
		lost := first.Coins[0]
		thief, _, err := bsv.BuildSweep([]bsv.Coin{{Outpoint: bsv.Outpoint{Txid: lost.Txid, Index: lost.Index},
			Output: bsv.Output{Value: lost.Value, Script: lost.Script}}}, []bsv.PrivateKey{k}, key(r, 0x66).Public().Hash(), 100)
		r.must(err)
		r.must(r.chain.MineConflict(thief))
		r.step()
		r.state(first.Txid, ledger.Conflicted)
		r.must(r.ledger.Check(r.ctx))
		again, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		if again.Total != 8000 {
			r.Errorf("the second payout is of %v", again.Total)
		}
		r.step()
		r.mine(1)
		r.state(again.Txid, ledger.Mined)
		r.owns(again.Payout)
	})
}

func TestAPayoutThatIsDroppedIsSentAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earnings(2, 4000)
		plan, err := r.wallet.Sweep(r.ctx, wallet.Policy{To: r.stranger()})
		r.must(err)
		r.step()
		r.chain.Drop(plan.Txid)
		r.outbox.Kick()
		r.step()
		r.state(plan.Txid, ledger.Seen)
		if len(r.chain.Mempool()) != 1 {
			r.Error("it was not sent again")
		}
		r.mine(1)
		r.chain.Reorganise(1)
		r.step()
		r.state(plan.Txid, ledger.Seen)
		r.chain.Drop(plan.Txid)
		r.mine(1) // without it
		r.state(plan.Txid, ledger.Seen)
		r.mine(1)
		r.state(plan.Txid, ledger.Mined)
		r.owns(plan.Payout)
	})
}

// The fee has risen before the network has seen the payout: it is made anew.
func TestAPayoutThatPaysTooLittleIsRedone(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earnings(2, 4000)
		p := wallet.Policy{To: r.stranger()}
		first, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		r.chain.SetFeeRate(200)
		r.step()
		if o := r.state(first.Txid, ledger.Conflicted); !o.Final {
			r.Error("it is watched on")
		}
		again, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		if again.Fee <= first.Fee || again.Total != first.Total {
			r.Errorf("%+v after %+v", again, first)
		}
		r.step()
		r.mine(1)
		r.owns(again.Payout)
	})
}

var rule = chain.Consolidation{Factor: 20, Confirmations: 6, MaxScript: 150}

func TestConsolidation(t *testing.T) {
	bubble(t, func(r *rig) {
		p := wallet.Policy{To: r.stranger(), MaxFeeShare: 50}
		joined := func() []wallet.Plan {
			r.Helper()
			planned, err := r.wallet.ConsolidationPlan(r.ctx, p)
			r.must(err)
			made, err := r.wallet.Consolidate(r.ctx, p)
			r.must(err)
			if len(made) != len(planned) {
				r.Errorf("%d transactions, planned %d", len(made), len(planned))
			}
			return made
		}
		r.earnings(10, 12)   // less than they cost
		r.earnings(9, 299)   // above the fee share
		r.earnings(3, 5_000) // large
		r.chain.Mine(5)
		if made := joined(); len(made) != 0 {
			r.Errorf("the chain knows no free transactions: %+v", made)
		}
		r.chain.SetConsolidation(&rule)
		if made := joined(); len(made) != 0 {
			r.Errorf("19 coins are joined for nothing: %+v", made)
		}
		r.earnings(1, 12)
		if made := joined(); len(made) != 0 {
			r.Errorf("a young coin is joined for nothing: %+v", made)
		}
		r.chain.Mine(5)
		made := joined()
		if len(made) != 1 || len(made[0].Coins) != 20 || made[0].Fee != 0 || made[0].Payout != 11*12+9*299 {
			r.Fatalf("joined %+v", made)
		}
		if again := joined(); len(again) != 0 {
			r.Errorf("again %+v", again)
		}
		r.must(r.ledger.Check(r.ctx))
		r.step()
		r.state(made[0].Txid, ledger.Seen)
		r.mine(1)
		r.state(made[0].Txid, ledger.Mined)
		plan, err := r.wallet.Sweep(r.ctx, p)
		r.must(err)
		if len(plan.Coins) != 4 || plan.Dust != 0 || plan.Total != 15_000+11*12+9*299 {
			r.Errorf("payout %+v", plan)
		}
		totals, err := r.ledger.Totals(r.ctx)
		r.must(err)
		if totals.Swept != plan.Payout || totals.SweepFees != plan.Fee {
			r.Errorf("totals %+v", totals)
		}
		r.step()
		r.mine(1)
		r.owns(plan.Payout)
	})
}

// The joined coin is an earning for a wallet that has only the words.
func TestAJoinedCoinIsRecovered(t *testing.T) {
	bubble(t, func(r *rig) {
		r.chain.SetConsolidation(&rule)
		r.earnings(20, 12)
		r.chain.Mine(5)
		made, err := r.wallet.Consolidate(r.ctx, wallet.Policy{})
		r.must(err)
		r.step()
		r.mine(1)
		r.shut()
		dir := r.TempDir()
		r.must(wallet.Restore(r.ctx, dir, r.words, bsv.Regtest))
		r.ledger, err = ledger.Open(r.ctx, filepath.Join(dir, "money.db"), time.Now)
		r.must(err)
		r.wallet, err = wallet.Open(r.ctx, dir, r.ledger, r.chain, wallet.Options{Clock: time.Now, Gap: 20})
		r.must(err)
		r.must(r.wallet.Refresh(r.ctx))
		coins, err := r.ledger.Coins(r.ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
		r.must(err)
		if len(coins) != 1 || coins[0].Txid != made[0].Txid || coins[0].Origin != ledger.OriginEarning || coins[0].Value != 240 {
			r.Errorf("found %+v", coins)
		}
	})
}

// A chain that says so and does not hold to it: the coins are free again, and a
// day goes by before the next try.
func TestARefusedConsolidation(t *testing.T) {
	bubble(t, func(r *rig) {
		r.chain.SetConsolidation(&rule)
		r.earnings(20, 12)
		r.chain.Mine(5)
		made, err := r.wallet.Consolidate(r.ctx, wallet.Policy{})
		r.must(err)
		if len(made) != 1 {
			r.Fatalf("%d transactions", len(made))
		}
		r.chain.broadcast = chain.Reject(chain.LowFee, "not for nothing")
		r.step()
		r.chain.broadcast = nil
		if o := r.state(made[0].Txid, ledger.Conflicted); !o.Final {
			r.Error("it is watched on")
		}
		r.must(r.ledger.Check(r.ctx))
		coins, err := r.ledger.Coins(r.ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
		if err != nil || len(coins) != 20 {
			r.Errorf("%d coins are free, %v", len(coins), err)
		}
		for wait, want := range map[time.Duration]int{0: 0, 23 * time.Hour: 0} {
			time.Sleep(wait) // in the bubble
			if made, err = r.wallet.Consolidate(r.ctx, wallet.Policy{}); err != nil || len(made) != want {
				r.Errorf("after %v: %d transactions, %v", wait, len(made), err)
			}
		}
		time.Sleep(2 * time.Hour) // in the bubble
		if made, err = r.wallet.Consolidate(r.ctx, wallet.Policy{}); err != nil || len(made) != 1 {
			r.Errorf("a day later: %d transactions, %v", len(made), err)
		}
	})
}

// Where nothing costs anything, coins are joined as they may be dear to spend
// tomorrow.
func TestConsolidationAtNoRate(t *testing.T) {
	bubble(t, func(r *rig) {
		r.chain.SetFeeRate(0)
		r.earnings(wallet.DefaultMaxInputs+19, 12)
		made, err := r.wallet.Consolidate(r.ctx, wallet.Policy{})
		r.must(err)
		if len(made) != 1 || len(made[0].Coins) != wallet.DefaultMaxInputs {
			r.Errorf("%d transactions", len(made))
		}
		r.step()
		r.mine(1)
		r.state(made[0].Txid, ledger.Mined)
		r.chain.SetFeeRate(100)
		plan, err := r.wallet.SweepPlan(r.ctx, wallet.Policy{To: r.stranger()})
		r.must(err)
		if len(plan.Coins) != 1 || plan.Dust != 19*12 {
			r.Errorf("payout %+v", plan)
		}
	})
}
