package wallet_test

import (
	"errors"
	"regexp"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func (r *rig) report(c chain.Backend) wallet.Report {
	r.Helper()
	report, err := wallet.CheckChain(r.ctx, r.ledger, c)
	r.must(err)
	return report
}

// A wallet that earned, bought nothing, was paid, sent and paid out agrees with
// the chain at each step.
func TestLedgerAndChainAgree(t *testing.T) {
	bubble(t, func(r *rig) {
		agree := func(when string) wallet.Report {
			r.Helper()
			report := r.report(r.chain)
			for _, d := range append(report.Differences, report.Unasked...) {
				r.Errorf("%s: %s", when, d)
			}
			if offline := r.report(nil); len(offline.Differences) > 0 || !offline.Offline {
				r.Errorf("%s, offline: %+v", when, offline)
			}
			return report
		}
		agree("empty")
		r.deposit(50_000)
		agree("deposit")
		r.earned(2, 4000)
		agree("earned")
		r.settle(r.sold(3000))
		r.step()
		report := agree("close seen")
		if report.Settled != 8000 || report.Paid != 8000 || report.Closes != 3 {
			r.Errorf("%+v", report)
		}
		r.mine(1)
		r.chain.Reorganise(1)
		r.step()
		agree("close thrown out")
		_, err := r.wallet.Send(r.ctx, r.stranger(), 20_000)
		r.must(err)
		agree("payment stored")
		r.step()
		agree("payment seen")
		r.mine(1)
		_, err = r.wallet.Sweep(r.ctx, wallet.Policy{To: r.stranger()})
		r.must(err)
		r.step()
		r.mine(6)
		report = agree("paid out")
		if report.Settled != 11_000 || report.Paid != 11_000 || report.Coins != 1 || report.Transactions != 5 || report.Closes != 3 {
			r.Errorf("%+v", report)
		}
	})
}

func TestWhatDiffersFromTheChain(t *testing.T) {
	earning := func(r *rig, height uint32) ledger.Coin {
		r.Helper()
		_, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
		r.must(err)
		k, err := r.wallet.Key(wallet.BranchPayout, 0)
		r.must(err)
		c := r.chain.Fund(bsv.P2PKH(k.Public().Hash()), 1000)
		tip, err := r.chain.Tip(r.ctx)
		r.must(err)
		return ledger.Coin{Txid: c.Outpoint.Txid, Index: c.Outpoint.Index, Value: 1000, Script: c.Output.Script,
			Branch: wallet.BranchPayout, Height: tip.Height + height, Origin: ledger.OriginEarning}
	}
	put := func(r *rig, c ledger.Coin, change func(*ledger.Coin)) {
		r.Helper()
		change(&c)
		r.must(r.ledger.PutCoins(r.ctx, c))
	}
	closed := func(r *rig, change func(*ledger.Channel)) {
		r.Helper()
		s := r.sold(5000)
		change(&s.row)
		s.row.Seq++
		r.must(r.ledger.SaveChannel(r.ctx, s.row))
		r.settle(s)
		r.step()
		r.mine(1)
	}
	for name, c := range map[string]struct {
		make func(*rig)
		want string // every sentence
	}{
		"a coin that never was": {func(r *rig) { put(r, earning(r, 0), func(c *ledger.Coin) { c.Txid[0]++ }) },
			`is not on the chain`},
		"an output too few": {func(r *rig) { put(r, earning(r, 0), func(c *ledger.Coin) { c.Index = 7 }) },
			`its transaction has 2 outputs`},
		"another value": {func(r *rig) { put(r, earning(r, 0), func(c *ledger.Coin) { c.Value++ }) },
			`is of 1,000 sat, the ledger says 1,001 sat`},
		"another key": {func(r *rig) { put(r, earning(r, 0), func(c *ledger.Coin) { c.Script = bsv.P2PKH(r.stranger()) }) },
			`locked to another key`},
		"another block": {func(r *rig) { put(r, earning(r, 1), func(*ledger.Coin) {}) },
			`is in block \d+, the ledger says \d+`},
		"a key that was not given out": {func(r *rig) { put(r, earning(r, 0), func(c *ledger.Coin) { c.KeyIndex = 99 }) },
			`key 99 of branch 3, of which only 16 were given out`},
		"a coin that somebody spent": {func(r *rig) {
			c := earning(r, 0)
			put(r, c, func(*ledger.Coin) {})
			k, err := r.wallet.Key(wallet.BranchPayout, 0)
			r.must(err)
			tx, _, err := bsv.BuildSweep([]bsv.Coin{{Outpoint: bsv.Outpoint{Txid: c.Txid, Index: c.Index}, Output: bsv.Output{Value: c.Value,
				Script: c.Script}}}, []bsv.PrivateKey{k}, r.stranger(), 100)
			r.must(err)
			r.must(r.chain.Broadcast(r.ctx, tx, nil))
		}, `is spent on the chain`},
		"a close that pays less": {func(r *rig) { closed(r, func(c *ledger.Channel) { c.Payee += 50 }) },
			`pays this node 5,000 sat, the newest commitment was of 5,050 sat|settled earnings are 5,050 sat, the closes in blocks paid 5,000 sat`},
		"a creator who gets nothing": {func(r *rig) {
			closed(r, func(c *ledger.Channel) {
				c.Creator, c.Creators = 7, []ledger.CreatorAmount{{Hash: r.stranger(), Amount: 7}}
			})
		}, `pays the creator [0-9a-f]+ 0 sat, agreed were 7 sat`},
		"a mined transaction that is thrown out": {func(r *rig) {
			txid := r.settle(r.sold(5000))
			r.step()
			r.mine(1)
			r.chain.Reorganise(1)
			r.chain.Drop(txid)
		}, `The close .* is said to be in block \d+; it is unknown|Coin .* is not on the chain|chain does not know the close`},
		"a transaction that was seen": {func(r *rig) {
			txid := r.settle(r.sold(5000))
			r.step()
			r.chain.Drop(txid)
		}, `was on the network; it is unknown now|Coin .* is not on the chain|chain does not know the close`},
		"bytes that are no transaction": {func(r *rig) {
			r.must(r.ledger.PutOutgoing(r.ctx, ledger.Outgoing{Txid: [32]byte{1}, Raw: []byte("x"), Purpose: ledger.Refund, Channel: [32]byte{1}}))
		}, `are no transaction`},
		"bytes of another": {func(r *rig) {
			s := r.sold(5000)
			r.must(r.ledger.PutOutgoing(r.ctx, ledger.Outgoing{Txid: [32]byte{1}, Raw: s.close.Bytes(), Purpose: ledger.Close, Channel: s.row.ID}))
		}, `are those of [0-9a-f]{64}`},
		"another fee, and a coin that is not spent": {func(r *rig) {
			r.deposit(10_000)
			f, err := r.wallet.Fund(r.ctx, []bsv.Output{{Value: 4000, Script: bsv.P2PKH(r.stranger())}})
			r.must(err)
			r.deposit(500)
			coins, err := r.ledger.Coins(r.ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
			r.must(err)
			r.must(r.ledger.ReserveCoins(r.ctx, []ledger.Outpoint{coins[0].Outpoint()}, f.Tx.Txid()))
			o := f.Outgoing(ledger.Send)
			o.Fee++
			r.must(r.ledger.PutOutgoing(r.ctx, o))
		}, `pays a fee of \d+ sat, booked are \d+ sat|is set aside for the send .* which does not spend it|spends 1 coins, the ledger has 2 of them`},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				c.make(r)
				report := r.report(r.chain)
				if len(report.Differences) == 0 {
					r.Error("nothing differs")
				}
				want := regexp.MustCompile(c.want)
				for _, d := range report.Differences {
					if !want.MatchString(d) {
						r.Errorf("%s", d)
					}
				}
			})
		})
	}
}

// A chain service that cannot tell, and one that does not answer.
func TestCheckWithoutAnswers(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earned(1, 4000)
		r.chain.spent = chain.ErrUnsupported
		if report := r.report(r.chain); len(report.Differences) != 0 || len(report.Unasked) != 1 {
			r.Errorf("%+v", report)
		}
		r.chain.SetDown(true)
		if _, err := wallet.CheckChain(r.ctx, r.ledger, r.chain); !errors.Is(err, chain.ErrUnavailable) {
			r.Errorf("no chain: %v", err)
		}
	})
}
