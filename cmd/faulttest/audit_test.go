package faulttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// rig is a box behind a tap, and the clients that bought from it.
type rig struct {
	*e2e.World
	box   *e2e.Seller
	tap   *tap
	sales []*sale
	// forgetful says that the disk has lost what it was given for good, so that
	// the box may have less than it said.
	forgetful bool
}

// sale is one client that buys the title.
type sale struct {
	rig    *rig
	client *e2e.Client
	get    *e2e.Process
	from   int64 // block data that the box had sent before
	until  int64 // and when the sale was over; 0 before
}

// limit is how long a test may take whose machine does other things too.
const limit = 8 * time.Minute

// newRig starts a node and a box that sells slowly.
func newRig(t *testing.T, change func(*box.Settings)) *rig {
	t.Helper()
	return newRigOn(t, change, nil, nil)
}

// newRigOn is newRig for a box whose data folder is prepared by the test, or that
// runs in this process with a clock of its own.
func newRigOn(t *testing.T, change func(*box.Settings), prepare func(*rig), clock func() time.Time) *rig {
	t.Helper()
	r := &rig{World: e2e.NewWorld(t, shared, limit)}
	if prepare != nil {
		prepare(r)
	}
	s := r.Settings(ask)
	s.Upload.Rate = uploadRate
	s.Payout.Every = box.Duration(time.Hour) // only when the test asks for it
	if change != nil {
		change(&s)
	}
	r.box = r.BoxWith(s, clock)
	r.tap = newTap(t, s.Listen.Peers)
	r.box.Peers = r.tap.address()
	return r
}

// sell has a new client begin to buy the title.
func (r *rig) sell() *sale {
	r.Helper()
	s := &sale{rig: r, client: r.Client(pocket), from: r.tap.blocks()}
	r.sales = append(r.sales, s)
	s.run()
	return s
}

// run has the client begin, or go on.
func (s *sale) run() {
	s.rig.Helper()
	s.get = s.client.Get(generous, bigBudget)
}

// sent is how many bytes of block data the box has sent for the sale.
func (s *sale) sent() int64 {
	if s.until != 0 {
		return s.until - s.from
	}
	return s.rig.tap.blocks() - s.from
}

// complete waits until the client has everything.
func (s *sale) complete() {
	s.rig.Helper()
	s.rig.WantExit(s.get, 0)
	s.over()
}

func (s *sale) over() {
	if s.until == 0 {
		s.until = s.rig.tap.blocks()
	}
}

var errNotYet = errors.New("not yet")

// worth is what bytes of the title cost, royalty included.
func worth(n int64) money.Satoshis {
	payee, err := ask.Due(max(n, 0))
	if err != nil {
		panic(err)
	}
	creator, err := royalty.Due(max(n, 0))
	if err != nil {
		panic(err)
	}
	return payee + creator
}

// leastCredit is how many bytes a new payer may owe this box.
const leastCredit = 256 << 10

// credit is what the box lets a payer owe who has paid for so many bytes.
func credit(paid int64) money.Satoshis { return worth(max(leastCredit, paid/4)) }

// snapshot copies a program's ledger as it is on the disk, and shows the copy.
// The program is not disturbed, so that what it does at its next start is its
// own; it must not be running.
func (r *rig) snapshot(data string, look func(*ledger.Ledger)) {
	r.Helper()
	dir, err := os.MkdirTemp(r.Dir, "copy-")
	r.Must(err)
	defer func() { r.Must(os.RemoveAll(dir)) }()
	for _, name := range []string{"money.db", "money.db-wal"} {
		if err := copyFile(filepath.Join(dir, name), filepath.Join(data, name)); !errors.Is(err, fs.ErrNotExist) {
			r.Must(err)
		}
	}
	l, err := ledger.Open(r.Ctx, filepath.Join(dir, "money.db"), time.Now)
	r.Must(err)
	defer func() { r.Must(l.Close()) }()
	look(l)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// unsettled is what a box's ledger says of money that is not in a block: the
// newest commitments, and how many bytes all commitments pay for.
func (r *rig) unsettled(l *ledger.Ledger) (open money.Satoshis, paid int64) {
	r.Helper()
	rows, err := l.Channels(r.Ctx, ledger.Filter{Role: ledger.Payee})
	r.Must(err)
	for _, row := range rows {
		paid += row.Bytes
		out, err := l.Outgoing(r.Ctx, row.CloseTxid)
		if errors.Is(err, ledger.ErrNotFound) || err == nil && out.State != ledger.Mined {
			open += row.Payee + row.Creator
		} else {
			r.Must(err)
		}
	}
	return open, paid
}

// settle brings everything that the box has to the chain, ends the box, and
// compares the chain with all ledgers. It returns what the box and the payers
// have lost.
func (r *rig) settle() (lost toll) {
	r.Helper()
	for _, s := range r.sales {
		s.over()
	}
	if r.box.Running() != nil {
		r.box.Start()
	}
	r.Must(r.box.Control.Check(r.Ctx))
	r.Await("everything settled", func() error {
		_, _ = r.box.Control.CloseChannels(r.Ctx, box.CloseRequest{}) // a channel that is busy is closed the next time
		if err := r.mine(); err != nil {
			return err
		}
		status, err := r.box.Control.Status(r.Ctx)
		if err != nil {
			return err
		}
		for _, s := range status.Earnings.Sweeps {
			if s.Height == 0 {
				return fmt.Errorf("sweep %s is not mined", s.Txid)
			}
		}
		if n := status.Earnings.Unsettled; n != 0 {
			return fmt.Errorf("%v are not settled: %+v", n, status.Channels)
		}
		return nil
	})
	r.box.Stop()
	paid := r.compareBox()
	for _, s := range r.sales {
		lost = lost.plus(s.compare())
	}
	var sent int64
	for _, s := range r.sales {
		sent += s.sent()
	}
	if all := r.tap.blocks(); sent != all {
		r.Errorf("%d bytes were sent, %d of them in a sale", all, sent)
	}
	lost.box = max(worth(sent)-paid, 0)
	return lost
}

// mine makes a block where something waits for it.
func (r *rig) mine() error {
	var waiting []string
	if err := r.Node.Backend().Call(r.Ctx, &waiting, "getrawmempool"); err != nil || len(waiting) == 0 {
		return err
	}
	return r.Node.Mine(r.Ctx, 1)
}

// compareBox compares the box's ledger with the chain, and returns what payers
// have paid there.
func (r *rig) compareBox() (paid money.Satoshis) {
	r.Helper()
	r.Ledger(r.box.Data, func(l *ledger.Ledger) {
		for _, difference := range r.differences(l) {
			r.Error(difference)
		}
		totals, err := l.Totals(r.Ctx)
		r.Must(err)
		rows, err := l.Channels(r.Ctx, ledger.Filter{Role: ledger.Payee})
		r.Must(err)
		var payee, creator money.Satoshis
		for _, row := range rows {
			if acked, settled := r.tap.promised(row.ID); row.Seq < acked && !r.forgetful || settled != [32]byte{} && settled != row.CloseTxid {
				r.Errorf("channel %x: the box has commitment %d and close %s, it said %d and %s", row.ID[:4], row.Seq, bsv.Txid(row.CloseTxid), acked, bsv.Txid(settled))
			}
			if row.State != ledger.StateClosed {
				if row.Payee+row.Creator != 0 {
					r.Errorf("channel %x is %s with %v and %v", row.ID[:4], row.State, row.Payee, row.Creator)
				}
				continue
			}
			tx := r.Mined(bsv.Txid(row.CloseTxid).String())
			if tx.Inputs[0].Prev != (bsv.Outpoint{Txid: row.FundingTxid, Index: row.FundingIndex}) {
				r.Errorf("channel %x: close %s spends another funding", row.ID[:4], tx.Txid())
			}
			if row.Payee > 0 && tx.Outputs[0].Value != row.Payee || e2e.PaidTo(tx, shared.Creator) != row.Creator {
				r.Errorf("channel %x: close %s pays %v, the ledger says %v and %v", row.ID[:4], tx.Txid(), tx.Outputs, row.Payee, row.Creator)
			}
			if row.Payee > 0 {
				payee += tx.Outputs[0].Value
			}
			creator += e2e.PaidTo(tx, shared.Creator)
		}
		if totals.Earned != payee || totals.Settled != payee || totals.Unsettled != 0 || totals.Royalty != creator {
			r.Errorf("the chain has %v and %v for the creator, the ledger %+v", payee, creator, totals)
		}
		r.compareSweeps(l, totals)
		paid = payee + creator
	})
	return paid
}

// differences are what the wallet's own comparison of a ledger with the chain
// finds.
func (r *rig) differences(l *ledger.Ledger) []string {
	r.Helper()
	report, err := wallet.CheckChain(r.Ctx, l, r.Node.Backend())
	r.Must(err)
	return report.Differences
}

// compareSweeps compares what was swept, and what is left, with the chain.
func (r *rig) compareSweeps(l *ledger.Ledger, totals ledger.Totals) {
	r.Helper()
	backend := r.Node.Backend()
	owned, err := backend.Unspent(r.Ctx, bsv.P2PKH(r.box.Owner.Public().Hash()))
	r.Must(err)
	var swept, fees, left money.Satoshis
	for _, c := range owned {
		swept += c.Output.Value
		fees += r.Fee(r.Transaction(c.Outpoint.Txid.String()))
	}
	coins, err := l.Coins(r.Ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	r.Must(err)
	for _, c := range coins {
		on, err := backend.Unspent(r.Ctx, c.Script)
		r.Must(err)
		found := false
		for _, o := range on {
			found = found || o.Outpoint == (bsv.Outpoint{Txid: c.Txid, Index: c.Index}) && o.Output.Value == c.Value && o.Height == c.Height
		}
		if !found {
			r.Errorf("coin %s:%d of %v at height %d is not on the chain: %v", bsv.Txid(c.Txid), c.Index, c.Value, c.Height, on)
		}
		left += c.Value
	}
	if totals.Swept != swept || totals.SweepFees != fees || totals.OnChain != left || totals.Earned != swept+fees+left {
		r.Errorf("on the chain %v swept, %v fees, %v left; the ledger says %+v", swept, fees, left, totals)
		sweeps, err := l.OutgoingFor(r.Ctx, ledger.Sweep, 1000)
		r.Must(err)
		for _, o := range sweeps {
			status, err := backend.Status(r.Ctx, o.Txid)
			r.Logf("sweep %s is %s at height %d; the node says %+v, %v", bsv.Txid(o.Txid), o.State, o.Height, status, err)
		}
	}
}

// compare compares a client's wallet and ledger with the chain. What its
// fundings cost beyond the first that bought something is lost, and what it
// paid for and did not get.
func (s *sale) compare() (lost toll) {
	r := s.rig
	r.Helper()
	confirmed, unconfirmed := s.client.Balance()
	for range 2 { // a refund whose time had come; change of a close that came this moment
		r.Must(r.mine())
		if confirmed, unconfirmed = s.client.Balance(); unconfirmed == 0 {
			break
		}
	}
	var spent, bound, bought, fees money.Satoshis
	r.Ledger(s.client.Data, func(l *ledger.Ledger) {
		rows, err := l.Channels(r.Ctx, ledger.Filter{Role: ledger.Payer})
		r.Must(err)
		funded := make(map[bsv.Txid]bool)
		less := false // a box that could not store the newest payment settled with less
		for _, row := range rows {
			out := r.outcome(l, row)
			spent += out.fee + out.paid
			if !funded[row.FundingTxid] {
				spent += out.funding
				funded[row.FundingTxid] = true
			}
			bound += out.bound
			bought += out.paid
			if out.paid == 0 {
				fees += out.funding + out.fee
			}
			settled := row.State == ledger.StateClosed || row.State == ledger.StateRefunded || row.State == ledger.StateFailed
			if out.known && settled == (out.bound > 0) {
				r.Errorf("channel %x is %s, the chain has %+v", row.ID[:4], row.State, out)
			}
			less = less || row.State == ledger.StateClosed && row.Payee+row.Creator > out.paid
			if row.State == ledger.StateClosed && row.Payee+row.Creator < out.paid {
				r.Errorf("channel %x took %v, its payer signed %v and %v", row.ID[:4], out.paid, row.Payee, row.Creator)
			}
		}
		for _, difference := range r.differences(l) {
			if less {
				r.Log(filepath.Base(s.client.Data), difference)
			} else {
				r.Error(filepath.Base(s.client.Data), difference)
			}
		}
	})
	if want := s.client.Pocket - spent - bound; unconfirmed != 0 || confirmed != want {
		r.Errorf("%s has %v and %v on the way, by the chain it has %v, and %v in channels", filepath.Base(s.client.Data), confirmed, unconfirmed, want, bound)
	}
	lost.payer = max(bought-worth(s.have()), 0) + fees
	return lost
}

// outcome is what became of a payer's channel on the chain.
type outcome struct {
	known     bool           // the chain has the funding
	funding   money.Satoshis // its fee
	fee, paid money.Satoshis // of what settled it
	bound     money.Satoshis // where nothing has
}

func (r *rig) outcome(l *ledger.Ledger, row ledger.Channel) (o outcome) {
	r.Helper()
	backend := r.Node.Backend()
	funding, err := backend.RawTx(r.Ctx, row.FundingTxid)
	if errors.Is(err, chain.ErrNotFound) {
		return outcome{}
	}
	r.Must(err)
	o.known, o.funding = true, r.Fee(funding)
	by, spent, err := backend.SpentBy(r.Ctx, bsv.Outpoint{Txid: row.FundingTxid, Index: row.FundingIndex})
	r.Must(err)
	if !spent {
		o.bound = row.Capacity
		return o
	}
	if row.CloseTxid != by {
		r.Errorf("channel %x is %s by %s, its funding is spent by %s", row.ID[:4], row.State, bsv.Txid(row.CloseTxid), by)
	}
	tx := r.Mined(by.String())
	o.fee = r.Fee(tx)
	if row.State == ledger.StateRefunded {
		return o
	}
	// What comes back to the payer is a coin of its wallet; that this is on the
	// chain as the wallet says, the balance shows.
	coins, err := l.Coins(r.Ctx, ledger.CoinFilter{Key: &ledger.Key{Branch: wallet.BranchPayout, Index: row.KeyIndex}})
	r.Must(err)
	o.paid = row.Capacity - o.fee
	for _, c := range coins {
		if c.Txid == row.CloseTxid {
			o.paid -= c.Value
		}
	}
	return o
}

// have is how many bytes of the title the client has on its disk, right ones.
func (s *sale) have() (n int64) {
	r := s.rig
	r.Helper()
	original := filepath.Join(shared.Folder, e2e.Contents)
	r.Must(filepath.WalkDir(original, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(s.client.Out, e2e.Contents, rel))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		const block = 16 << 10
		for at := 0; at < len(want); at += block {
			end := min(at+block, len(want))
			if end <= len(got) && bytes.Equal(got[at:end], want[at:end]) {
				n += int64(end - at)
			}
		}
		return nil
	}))
	return n
}
