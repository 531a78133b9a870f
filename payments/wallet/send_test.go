package wallet_test

import (
	"errors"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func TestPrepareAndPay(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		if _, err := r.wallet.Prepare(r.ctx, r.stranger(), 4000, 99); !errors.Is(err, wallet.ErrFeeRate) {
			r.Errorf("below what the miner wants: %v", err)
		}
		if _, err := r.wallet.Prepare(r.ctx, r.stranger(), 4000, money.MaxFeeRate+1); !errors.Is(err, money.ErrRange) {
			r.Errorf("a fee beyond reason: %v", err)
		}
		f, err := r.wallet.Prepare(r.ctx, r.stranger(), 4000, 200)
		r.must(err)
		if want := money.FeeRate(200).Fee(bsv.PaymentSize(1, f.Tx.Outputs...)); f.Fee != want || f.Change.Value != 6000-want {
			r.Errorf("fee %v, change %v, want a fee of %v", f.Fee, f.Change.Value, want)
		}
		r.balance(0, 0)
		r.must(r.wallet.Release(r.ctx, f)) // the owner says no
		r.balance(10_000, 0)
		f, err = r.wallet.Prepare(r.ctx, r.stranger(), 4000, 0)
		r.must(err)
		txid, err := r.wallet.Pay(r.ctx, f)
		r.must(err)
		r.step()
		r.mine(1)
		r.state(txid, ledger.Mined)
		r.owns(4000)
	})
}

func TestSendAll(t *testing.T) {
	bubble(t, func(r *rig) {
		if _, err := r.wallet.PrepareAll(r.ctx, r.stranger(), 0); !errors.Is(err, wallet.ErrFunds) {
			r.Errorf("of nothing: %v", err)
		}
		r.deposit(15) // costs 15 to spend
		if _, err := r.wallet.PrepareAll(r.ctx, r.stranger(), 0); !errors.Is(err, wallet.ErrFunds) {
			r.Errorf("of dust: %v", err)
		}
		r.deposit(16)
		if _, err := r.wallet.PrepareAll(r.ctx, r.stranger(), 0); !errors.Is(err, wallet.ErrFunds) {
			r.Errorf("of less than the fee: %v", err)
		}
		r.deposit(10_000)
		r.earnings(3, 1000)
		f, err := r.wallet.PrepareAll(r.ctx, r.stranger(), 0)
		r.must(err)
		if len(f.Coins) != 5 || len(f.Tx.Outputs) != 1 || f.Change != nil || f.Tx.Outputs[0].Value != 13_016-f.Fee {
			r.Errorf("payment of %d coins: %+v", len(f.Coins), f)
		}
		txid, err := r.wallet.Pay(r.ctx, f)
		r.must(err)
		r.step()
		r.mine(1)
		r.state(txid, ledger.Mined)
		r.owns(13_016 - f.Fee)
		r.balance(15, 0)
	})
}
