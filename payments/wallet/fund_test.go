package wallet_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func TestFund(t *testing.T) {
	bubble(t, func(r *rig) {
		to := []bsv.Output{{Value: 12_000, Script: bsv.P2PKH(r.stranger())}}
		_, err := r.wallet.Fund(r.ctx, to)
		var missing *bsv.FundsError
		if !errors.As(err, &missing) || !errors.Is(err, wallet.ErrFunds) || missing.Missing != 12_020 {
			r.Errorf("an empty wallet: %v", err)
		}
		r.deposit(5000)
		r.deposit(10_000)
		if _, err := r.wallet.Fund(r.ctx, []bsv.Output{{Value: 14_990, Script: bsv.P2PKH(r.stranger())}}); !errors.As(err, &missing) ||
			missing.Missing < 1 || missing.Missing > 40 {
			r.Errorf("too much: %v", err)
		}
		f, err := r.wallet.Fund(r.ctx, to)
		r.must(err)
		if f.Tx.Version != 1 || len(f.Tx.Inputs) != 2 || f.Tx.Outputs[0].Value != 12_000 || f.Change == nil ||
			f.Change.Value != f.Tx.Outputs[1].Value || 12_000+f.Change.Value+f.Fee != 15_000 {
			r.Errorf("funding %+v", f)
		}
		for i := range f.Prev {
			r.must(bsv.VerifyInput(f.Tx, i, f.Prev[i]))
		}
		if f.Fee != 100*374/1000+1 {
			r.Errorf("fee %v", f.Fee)
		}
		r.balance(0, 0)
		r.must(r.wallet.Release(r.ctx, f))
		r.balance(15_000, 0)

		// Reserved and never stored: the next start gives it back.
		_, err = r.wallet.Fund(r.ctx, to)
		r.must(err)
		r.shut()
		r.open()
		r.balance(15_000, 0)

		// Stored: it is not given back, and its change is there when it is seen.
		f, err = r.wallet.Fund(r.ctx, to)
		r.must(err)
		r.must(r.ledger.PutOutgoing(r.ctx, f.Outgoing(ledger.Send)))
		if err := r.wallet.Release(r.ctx, f); !errors.Is(err, ledger.ErrCoinTaken) {
			r.Errorf("release of a stored payment: %v", err)
		}
		r.shut()
		r.open()
		r.balance(0, 0)
		r.step()
		r.balance(0, f.Change.Value)
		r.mine(1)
		r.balance(f.Change.Value, 0)
	})
}

func TestTwoPaymentsNeverShareACoin(t *testing.T) {
	bubble(t, func(r *rig) {
		for range 6 {
			r.deposit(10_000)
		}
		var paid atomic.Int32
		var group sync.WaitGroup
		for range 10 {
			group.Go(func() {
				f, err := r.wallet.Fund(r.ctx, []bsv.Output{{Value: 9000, Script: bsv.P2PKH(r.stranger())}})
				if err == nil {
					err = r.ledger.PutOutgoing(r.ctx, f.Outgoing(ledger.Send))
					paid.Add(1)
				}
				if err != nil && !errors.Is(err, wallet.ErrFunds) && !errors.Is(err, ledger.ErrCoinTaken) {
					r.Error(err)
				}
			})
		}
		group.Wait()
		r.step()
		if n := len(r.chain.Mempool()); n != int(paid.Load()) || n == 0 || n > 6 {
			r.Errorf("%d payments, %d in the mempool", paid.Load(), n)
		}
	})
}

// Payments that come to nothing use up no keys: a restore looks for change no
// further than a certain number of unused keys.
func TestFailedPaymentsUseNoKeys(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		to := []bsv.Output{{Value: 5000, Script: bsv.P2PKH(r.stranger())}}
		for range 60 {
			f, err := r.wallet.Fund(r.ctx, to)
			r.must(err)
			if f.Change.KeyIndex != 0 {
				r.Fatalf("change goes to key %d", f.Change.KeyIndex)
			}
			if _, err := r.wallet.Fund(r.ctx, to); !errors.Is(err, wallet.ErrFunds) {
				r.Fatal(err)
			}
			r.must(r.wallet.Release(r.ctx, f))
		}
	})
}

// What an unconfirmed stranger paid may be of version 2, and is not built on.
func TestUnconfirmedCoinsOfStrangers(t *testing.T) {
	bubble(t, func(r *rig) {
		address, err := r.wallet.ReceiveAddress(r.ctx)
		r.must(err)
		hash, err := bsv.ParseAddress(address, bsv.Regtest)
		r.must(err)
		r.chain.FundUnconfirmed(bsv.P2PKH(hash), 10_000)
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(0, 10_000)
		to := []bsv.Output{{Value: 1000, Script: bsv.P2PKH(r.stranger())}}
		if _, err := r.wallet.Fund(r.ctx, to); !errors.Is(err, wallet.ErrFunds) {
			r.Errorf("paid from it: %v", err)
		}
		r.chain.Mine(1)
		r.must(r.wallet.Refresh(r.ctx))
		if _, err := r.wallet.Fund(r.ctx, to); err != nil {
			r.Error(err)
		}
	})
}

func TestSend(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.state(txid, ledger.Pending)
		if len(r.chain.Mempool()) != 0 {
			r.Error("sent without the outbox")
		}
		r.step()
		r.state(txid, ledger.Seen)
		// Its change pays the next one before it is mined.
		second, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.step()
		r.mine(1)
		r.state(txid, ledger.Mined)
		r.state(second, ledger.Mined)
		if coins, err := r.chain.Unspent(r.ctx, bsv.P2PKH(r.stranger())); err != nil || len(coins) != 2 {
			r.Errorf("the stranger has %v, %v", coins, err)
		}
	})
}
