package wallet_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func TestOutboxFollowsToTheGrave(t *testing.T) {
	bubble(t, func(r *rig) {
		txid := r.settle(r.sold(5000))
		r.step()
		r.state(txid, ledger.Seen)
		row := func() ledger.Channel {
			c, err := r.ledger.Channels(r.ctx, ledger.Filter{})
			r.must(err)
			return c[0]
		}
		if c := row(); c.State != ledger.StateClosed || c.CloseTxid != txid {
			r.Errorf("channel %s", c.State)
		}
		r.balance(0, 5000)
		r.chain.Mine(1)
		r.step()
		o := r.state(txid, ledger.Mined)
		tip, err := r.chain.Tip(r.ctx)
		r.must(err)
		if o.Height != tip.Height || o.Final {
			r.Errorf("mined at %d, final %t; the tip is %d", o.Height, o.Final, tip.Height)
		}
		r.balance(5000, 0)

		r.chain.Reorganise(1)
		r.step()
		r.state(txid, ledger.Seen)
		r.balance(0, 5000)
		r.chain.Mine(1)
		r.step()
		if again := r.state(txid, ledger.Mined); again.Height == o.Height {
			r.Errorf("mined again at %d", again.Height)
		}
		r.chain.Mine(4)
		r.step()
		if r.outgoing(txid).Final {
			r.Error("final with 5 blocks")
		}
		r.chain.Mine(1)
		r.step()
		if !r.outgoing(txid).Final {
			r.Error("not final with 6 blocks")
		}
	})
}

func TestOutboxBacksOff(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.chain.broadcast = chain.ErrUnavailable
		var waits []time.Duration
		for range 13 {
			next, err := r.outbox.Step(r.ctx)
			r.must(err)
			o := r.state(txid, ledger.Pending)
			if !strings.Contains(o.LastError, "unavailable") {
				r.Errorf("last error %q", o.LastError)
			}
			waits = append(waits, time.Until(o.NextTry).Round(time.Second))
			if next.After(o.NextTry) {
				r.Errorf("the next pass is at %v, the next try at %v", next, o.NextTry)
			}
			time.Sleep(time.Until(o.NextTry) + time.Second) // in the bubble
		}
		if waits[0] != time.Second || waits[1] != 2*time.Second || waits[12] != 10*time.Minute {
			r.Errorf("waits %v", waits)
		}
		r.chain.broadcast = nil
		r.step()
		if o := r.state(txid, ledger.Seen); o.Tries != 0 || o.LastError != "" {
			r.Errorf("%d tries, %q", o.Tries, o.LastError)
		}
	})
}

func TestOutboxWithoutAChain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.chain.SetDown(true)
		if _, err := r.outbox.Step(r.ctx); !errors.Is(err, chain.ErrUnavailable) {
			r.Errorf("no chain: %v", err)
		}
		r.chain.SetDown(false)
		r.step()
		r.state(txid, ledger.Seen)
	})
}

// The answer to a broadcast is lost: the second one finds it there.
func TestOutboxAnswerIsLost(t *testing.T) {
	bubble(t, func(r *rig) {
		r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.chain.LoseAnswer()
		r.step()
		r.state(txid, ledger.Pending)
		r.chain.Mine(1)
		r.step()
		r.step()
		r.state(txid, ledger.Seen)
		r.outbox.Kick()
		r.step()
		r.state(txid, ledger.Mined)
	})
}

// A payment that is in a block is refused when it is sent again. Whatever the
// chain does not answer then, it is not given up: its owner would pay twice.
func TestOutboxIsNotDisplacedByItself(t *testing.T) {
	for name, refusal := range map[string]chain.Reason{"missing inputs": chain.MissingInputs, "double spend": chain.DoubleSpend} {
		for _, status := range []error{chain.ErrUnavailable, chain.ErrUnsupported} {
			t.Run(name+", status "+status.Error(), func(t *testing.T) {
				bubble(t, func(r *rig) {
					r.deposit(10_000)
					txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
					r.must(err)
					r.chain.LoseAnswer()
					r.step()
					r.chain.Mine(1)
					r.chain.broadcast, r.chain.status = chain.Reject(refusal, "what it spends is not there"), status
					r.outbox.Kick()
					r.step()
					if o, err := r.ledger.Outgoing(r.ctx, txid); err != nil || o.State == ledger.Conflicted {
						r.Errorf("%s, %v", o.State, err)
					}
					r.chain.broadcast, r.chain.status = nil, nil
					r.outbox.Kick()
					r.step()
					r.outbox.Kick()
					r.step()
					r.state(txid, ledger.Mined)
				})
			})
		}
	}
}

// Of a displaced payment's coins, those that are spent are lost and the others
// are free again.
func TestOutboxConflict(t *testing.T) {
	bubble(t, func(r *rig) {
		taken := r.deposit(10_000)
		r.deposit(20_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 25_000)
		r.must(err)
		r.step()
		r.state(txid, ledger.Seen)
		k, err := r.wallet.Key(wallet.BranchReceive, 0)
		r.must(err)
		thief, _, err := bsv.BuildSweep([]bsv.Coin{taken}, []bsv.PrivateKey{k}, r.stranger(), 100)
		r.must(err)
		r.must(r.chain.MineConflict(thief))
		r.step()
		if o := r.state(txid, ledger.Conflicted); !o.Final {
			r.Error("a displaced payment is watched on")
		}
		r.must(r.ledger.Check(r.ctx))
		r.balance(20_000, 0)
		if !strings.Contains(r.log.String(), "displaced") {
			r.Errorf("log: %s", r.log)
		}
	})
}

// While the chain cannot say whether the coins are unspent, none is released.
func TestOutboxConflictInTheDark(t *testing.T) {
	bubble(t, func(r *rig) {
		taken := r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 5000)
		r.must(err)
		k, err := r.wallet.Key(wallet.BranchReceive, 0)
		r.must(err)
		thief, _, err := bsv.BuildSweep([]bsv.Coin{taken}, []bsv.PrivateKey{k}, r.stranger(), 100)
		r.must(err)
		r.must(r.chain.MineConflict(thief))
		r.chain.spent = chain.ErrUnavailable
		r.step()
		r.state(txid, ledger.Pending)
		r.balance(0, 0)
		r.chain.spent = nil
		r.outbox.Kick()
		r.step()
		r.state(txid, ledger.Conflicted)
		r.balance(0, 0)
	})
}

// What was to be paid from the change of a displaced payment is given up too,
// and one row that cannot be read does not keep the others back.
func TestOutboxConflictOfAParent(t *testing.T) {
	bubble(t, func(r *rig) {
		taken := r.deposit(20_000)
		first, err := r.wallet.Send(r.ctx, r.stranger(), 5000)
		r.must(err)
		r.step()
		second, err := r.wallet.Send(r.ctx, r.stranger(), 5000)
		r.must(err)
		r.step()
		r.must(r.ledger.PutOutgoing(r.ctx, ledger.Outgoing{Txid: [32]byte{1}, Raw: []byte("no transaction"), Purpose: ledger.Refund,
			Channel: [32]byte{1}}))
		k, err := r.wallet.Key(wallet.BranchReceive, 0)
		r.must(err)
		thief, _, err := bsv.BuildSweep([]bsv.Coin{taken}, []bsv.PrivateKey{k}, r.stranger(), 100)
		r.must(err)
		r.must(r.chain.MineConflict(thief))
		for range 2 {
			if _, err := r.outbox.Step(r.ctx); !errors.Is(err, bsv.ErrTxSyntax) {
				r.Errorf("an unreadable row: %v", err)
			}
		}
		r.state(first, ledger.Conflicted)
		if o := r.state(second, ledger.Conflicted); !o.Final {
			r.Error("the child is watched on")
		}
		r.balance(0, 0)
	})
}

// A parent that is late is not a conflict.
func TestOutboxWaitsForAParent(t *testing.T) {
	bubble(t, func(r *rig) {
		k := key(r, 0x41)
		grand := r.chain.Fund(bsv.P2PKH(k.Public().Hash()), 10_000)
		first, _, err := bsv.BuildSweep([]bsv.Coin{grand}, []bsv.PrivateKey{k}, k.Public().Hash(), 100)
		r.must(err)
		coin := bsv.Coin{Outpoint: bsv.Outpoint{Txid: first.Txid()}, Output: first.Outputs[0]}
		second, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, r.stranger(), 100)
		r.must(err)
		txid := second.Txid()
		r.must(r.ledger.PutOutgoing(r.ctx, ledger.Outgoing{Txid: txid, Raw: second.Bytes(), Purpose: ledger.Close, Channel: [32]byte{1},
			PrevOutputs: wallet.AppendOutputs(nil, first.Outputs)}))
		r.step()
		o := r.state(txid, ledger.Pending)
		if o.Tries != 1 || !strings.Contains(o.LastError, "missing") {
			r.Errorf("%d tries, %q", o.Tries, o.LastError)
		}
		r.must(r.chain.Broadcast(r.ctx, first, nil))
		r.chain.Mine(1)
		r.step()
		r.state(txid, ledger.Seen)
	})
}

// denier is a service that calls every transaction displaced and every output
// spent, and names nothing that did it.
type denier struct{ chain.Backend }

func (denier) Broadcast(context.Context, *bsv.Tx, []bsv.Output) error {
	return chain.Reject(chain.DoubleSpend, "it says")
}

func (denier) Spent(context.Context, bsv.Outpoint) (bool, error) { return true, nil }

// On a service's word alone a close is not given up for as long as it takes to
// bury what would have displaced it.
func TestOutboxKeepsACloseThatIsDenied(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.sold(5000)
		r.chain.MineTo(1000)
		honest := r.outbox
		r.outbox = wallet.NewOutbox(r.ledger, denier{r.chain}, time.Now, slog.New(slog.DiscardHandler))
		txid := r.settle(s)
		r.step()
		for range 3 * wallet.BuriedDepth {
			if o := r.state(txid, ledger.Conflicted); o.Final {
				t.Fatal("a close is given up on a service's word")
			}
			r.chain.Mine(1)
			r.step()
		}
		r.outbox = honest
		r.chain.Mine(1)
		r.step()
		r.state(txid, ledger.Seen)
		r.chain.Mine(1)
		r.step()
		r.state(txid, ledger.Mined)
		r.must(r.ledger.Check(r.ctx))
	})
}

// A close that a refund has displaced is tried on until the refund is buried,
// and wins where the refund is thrown out.
func TestOutboxFightsForAClose(t *testing.T) {
	for name, thrownOut := range map[string]bool{"the refund stays": false, "the refund is thrown out": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				s := r.sold(5000)
				payer := key(r, 0x55)
				index := s.row.KeyIndex
				mine, err := r.wallet.Key(wallet.BranchChannel, index)
				r.must(err)
				a, err := s.chain.SignRefund(payer)
				r.must(err)
				b, err := s.chain.SignRefund(mine)
				r.must(err)
				refund, err := s.chain.CompleteRefund(a, b)
				r.must(err)
				r.chain.MineTo(1000)
				txid := r.settle(s)
				r.must(r.chain.MineConflict(refund))
				r.step()
				if o := r.state(txid, ledger.Conflicted); o.Final {
					r.Error("a close is given up at once")
				}
				if c, err := r.ledger.Channel(r.ctx, s.row.ID); err != nil || c.State != ledger.StateRefunded {
					r.Errorf("channel %s, %v", c.State, err)
				}
				r.must(r.ledger.Check(r.ctx))
				if !thrownOut {
					for range wallet.BuriedDepth {
						if r.outgoing(txid).Final {
							r.Error("given up too early")
						}
						r.chain.Mine(1)
						r.step()
					}
					if !r.outgoing(txid).Final {
						r.Error("never given up")
					}
					return
				}
				r.chain.Reorganise(1) // the refund is in the mempool now
				r.must(r.chain.MineConflict(s.close))
				r.step()
				r.state(txid, ledger.Mined)
				if c, err := r.ledger.Channel(r.ctx, s.row.ID); err != nil || c.State != ledger.StateClosed {
					r.Errorf("channel %s, %v", c.State, err)
				}
				r.balance(5000, 0)
			})
		})
	}
}

func TestOutboxRun(t *testing.T) {
	bubble(t, func(r *rig) {
		ctx, cancel := context.WithCancel(r.ctx)
		ended := make(chan error)
		go func() { ended <- r.outbox.Run(ctx) }()
		synctest.Wait() // it has nothing to do
		r.deposit(10_000)
		txid, err := r.wallet.Send(r.ctx, r.stranger(), 4000)
		r.must(err)
		r.must(r.chain.WaitState(r.ctx, txid, chain.Seen)) // kicked
		r.chain.Mine(1)
		time.Sleep(2 * wallet.DefaultPoll) // in the bubble: it has asked for a block since
		synctest.Wait()
		r.state(txid, ledger.Mined)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			r.Errorf("ended with %v", err)
		}
	})
}
