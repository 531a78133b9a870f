package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"pgregory.net/rapid"
)

// world drives a ledger the way paylink, the wallet and the outbox do, in any
// order that can happen, and some that cannot.
type world struct {
	l        *ledger.Ledger
	n, steps int // names given out, changes made
	channels []ledger.Channel
	sent     [][32]byte // outgoing transactions
}

func (w *world) name(kind byte) [32]byte {
	w.n++
	return id(kind, w.n)
}

// expect fails the test for any error that is not one of those that a change
// may be refused with.
func expect(t *rapid.T, err error, allowed ...error) bool {
	for _, a := range allowed {
		if errors.Is(err, a) {
			return false
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func (w *world) coins(t *rapid.T, f ledger.CoinFilter) []ledger.Coin {
	coins, err := w.l.Coins(context.Background(), f)
	expect(t, err)
	return coins
}

func (w *world) deposit(t *rapid.T) {
	c := ledger.Coin{
		Txid: w.name('d'), Index: rapid.Uint32Range(0, 2).Draw(t, "index"), Height: 5, Origin: ledger.OriginReceive,
		Value: money.Satoshis(rapid.Int64Range(0, 100_000).Draw(t, "value")),
	}
	expect(t, w.l.PutCoins(context.Background(), c))
}

// some draws up to n free coins.
func (w *world) some(t *rapid.T, n int, origins ...string) (coins []ledger.Coin, sum money.Satoshis) {
	free := w.coins(t, ledger.CoinFilter{States: []string{ledger.CoinUnspent}, Origins: origins})
	if len(free) == 0 {
		t.Skip("no coins")
	}
	coins = free[:min(len(free), rapid.IntRange(1, n).Draw(t, "coins"))]
	for _, c := range coins {
		sum += c.Value
	}
	return coins, sum
}

func points(coins []ledger.Coin) (all []ledger.Outpoint) {
	for _, c := range coins {
		all = append(all, c.Outpoint())
	}
	return all
}

func (w *world) fund(t *rapid.T) {
	ctx := context.Background()
	coins, sum := w.some(t, 3)
	txid := w.name('f')
	if rapid.Bool().Draw(t, "abandoned") {
		expect(t, w.l.Apply(ctx, ledger.Batch{
			Reserve: []ledger.Reservation{{Coins: points(coins), By: txid}},
			Coins:   []ledger.Coin{{Txid: txid, Value: sum / 2, State: ledger.CoinPending, Branch: 1, Origin: ledger.OriginChange}},
		}))
		if rapid.Bool().Draw(t, "released") {
			expect(t, w.l.ReleaseCoins(ctx, txid))
		}
		return
	}
	b := ledger.Batch{Reserve: []ledger.Reservation{{Coins: points(coins), By: txid}}}
	fee := min(sum, money.Satoshis(rapid.Int64Range(0, 50).Draw(t, "fee")))
	left := sum - fee
	for i := range rapid.IntRange(1, 2).Draw(t, "channels") {
		c := payee(w.n*4 + i)
		c.ID, c.Role, c.State, c.FundingTxid, c.FundingIndex = w.name('c'), ledger.Payer, ledger.StateOpening, txid, uint32(i)
		c.Seq, c.Bytes, c.Payee, c.Creator = 0, 0, 0, 0
		c.Capacity = money.Satoshis(rapid.Int64Range(0, int64(left)).Draw(t, "capacity"))
		left -= c.Capacity
		b.Channels = append(b.Channels, c)
	}
	o := ledger.Outgoing{Txid: txid, Raw: []byte("f"), Purpose: ledger.Funding, Fee: fee}
	if left > 0 {
		o.Outputs = []ledger.Coin{{Txid: txid, Index: 9, Value: left, Branch: 1, Origin: ledger.OriginChange}}
	}
	b.Outbox = []ledger.Outgoing{o}
	expect(t, w.l.Apply(ctx, b))
	expect(t, w.l.Apply(ctx, ledger.Batch{Outbox: b.Outbox}))
	w.channels, w.sent = append(w.channels, b.Channels...), append(w.sent, txid)
}

func (w *world) open(t *rapid.T) {
	c := payee(w.n * 4)
	c.ID, c.FundingTxid = w.name('c'), w.name('f')
	expect(t, w.l.SaveChannel(context.Background(), c))
	w.channels = append(w.channels, c)
}

func (w *world) channel(t *rapid.T) *ledger.Channel {
	if len(w.channels) == 0 {
		t.Skip("no channels")
	}
	return &w.channels[rapid.IntRange(0, len(w.channels)-1).Draw(t, "channel")]
}

func (w *world) pay(t *rapid.T) {
	c := w.channel(t)
	next := *c
	next.State = ledger.StateOpen
	next.Seq += uint64(rapid.IntRange(0, 2).Draw(t, "commitments"))
	next.Bytes += rapid.Int64Range(0, 1<<20).Draw(t, "bytes")
	next.Payee += money.Satoshis(rapid.Int64Range(0, 500).Draw(t, "payee"))
	if to := rapid.IntRange(0, 3).Draw(t, "creator"); to > 0 {
		next.Creators = slices.Clone(c.Creators)
		for len(next.Creators) < to {
			next.Creators = append(next.Creators, ledger.CreatorAmount{Hash: [20]byte{byte(len(next.Creators))}})
		}
		more := money.Satoshis(rapid.Int64Range(0, 50).Draw(t, "royalty"))
		next.Creators[to-1].Amount += more
		next.Creator += more
	}
	if rapid.Bool().Draw(t, "another title") {
		next.Title = [20]byte{rapid.ByteRange(0, 4).Draw(t, "title")}
	}
	if expect(t, w.l.SaveChannel(context.Background(), next), ledger.ErrStale, ledger.ErrUnbalanced, ledger.ErrChanged) {
		*c = next
	}
}

// settle closes a payee's channel, takes a payer's one back, or finds the
// close of a payer's one.
func (w *world) settle(t *rapid.T) {
	ctx := context.Background()
	c := w.channel(t)
	txid := w.name('t')
	o := ledger.Outgoing{Txid: txid, Raw: []byte("t"), Channel: c.ID}
	coin := ledger.Coin{Txid: txid, Branch: 3, KeyIndex: c.KeyIndex, Origin: ledger.OriginEarning, Value: c.Payee}
	row := *c
	row.State, row.CloseTxid = ledger.StateClosing, txid
	switch {
	case c.Role == ledger.Payee:
		o.Purpose = ledger.Close
	case rapid.Bool().Draw(t, "refund"):
		o.Purpose = ledger.Refund
		coin.Origin, coin.Value = ledger.OriginRefund, max(c.Capacity-24, 0)
	default:
		coin.Origin = ledger.OriginChange
		coin.Value = money.Satoshis(rapid.Int64Range(0, int64(c.Capacity)).Draw(t, "change"))
		b := ledger.Batch{Moves: []ledger.Move{{Channel: c.ID, State: ledger.StateClosed, CloseTxid: txid}}}
		if rapid.Bool().Draw(t, "found") {
			b.Coins = []ledger.Coin{coin}
		}
		if !rapid.Bool().Draw(t, "coin first") {
			expect(t, w.l.Apply(ctx, b))
			return
		}
		expect(t, w.l.Apply(ctx, ledger.Batch{Coins: b.Coins}))
		expect(t, w.l.Apply(ctx, ledger.Batch{Moves: b.Moves}))
		return
	}
	if coin.Value > 0 {
		o.Outputs = []ledger.Coin{coin}
	}
	if expect(t, w.l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{row}, Outbox: []ledger.Outgoing{o}}), ledger.ErrStale) {
		w.sent = append(w.sent, txid)
	}
}

// chain moves an outgoing transaction to any state.
func (w *world) chain(t *rapid.T) {
	ctx := context.Background()
	if len(w.sent) == 0 {
		t.Skip("nothing sent")
	}
	txid := rapid.SampledFrom(w.sent).Draw(t, "txid")
	o, err := w.l.Outgoing(ctx, txid)
	expect(t, err)
	if o.Final {
		t.Skip("final")
	}
	o.State = rapid.SampledFrom([]string{ledger.Pending, ledger.Seen, ledger.Mined, ledger.Conflicted}).Draw(t, "state")
	o.Height = 0
	if o.State == ledger.Mined {
		o.Height = rapid.Uint32Range(1, 3).Draw(t, "height")
	}
	b := ledger.Batch{Updates: []ledger.Outgoing{o}}
	if o.State == ledger.Conflicted {
		// As the outbox does: a payment is given up, its coins looked at.
		b.Updates[0].Final = o.Purpose != ledger.Close && o.Purpose != ledger.Refund
		for _, c := range w.coins(t, ledger.CoinFilter{SpentBy: &txid}) {
			switch rapid.IntRange(0, 2).Draw(t, "coin is") {
			case 0:
				b.Release = append(b.Release, c.Outpoint())
			case 1:
				b.Lost = append(b.Lost, c.Outpoint())
			case 2:
				b.Void = append(b.Void, c.Outpoint())
			}
		}
	}
	for range rapid.IntRange(1, 2).Draw(t, "times") {
		expect(t, w.l.Apply(ctx, b))
	}
}

func (w *world) payOut(t *rapid.T) {
	purpose := rapid.SampledFrom([]string{ledger.Sweep, ledger.Send}).Draw(t, "purpose")
	var origins []string
	if purpose == ledger.Sweep {
		origins = []string{ledger.OriginEarning}
	}
	coins, sum := w.some(t, 5, origins...)
	txid := w.name('s')
	o := ledger.Outgoing{Txid: txid, Raw: []byte("s"), Purpose: purpose,
		Fee: money.Satoshis(rapid.Int64Range(0, int64(sum)).Draw(t, "fee"))}
	if left := sum - o.Fee; purpose == ledger.Send && left > 0 {
		o.Outputs = []ledger.Coin{{Txid: txid, Value: left / 2, Branch: 1, Origin: ledger.OriginChange}}
	}
	expect(t, w.l.Apply(context.Background(), ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: points(coins), By: txid}}, Outbox: []ledger.Outgoing{o},
	}))
	w.sent = append(w.sent, txid)
}

// disappear has the wallet find that a coin is spent or gone.
func (w *world) disappear(t *rapid.T) {
	coins, _ := w.some(t, 1)
	b := ledger.Batch{Lost: points(coins)}
	if rapid.Bool().Draw(t, "void") {
		b = ledger.Batch{Void: points(coins)}
	}
	expect(t, w.l.Apply(context.Background(), b))
	if rapid.Bool().Draw(t, "back") {
		coins[0].State = ""
		expect(t, w.l.PutCoins(context.Background(), coins[0]))
	}
}

func (w *world) restart(t *rapid.T) {
	_, err := w.l.ReleaseOrphans(context.Background())
	expect(t, err)
}

func TestTheBooksAlwaysBalance(t *testing.T) {
	ctx := context.Background()
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		l, err := ledger.OpenFast(ctx, path, clock)
		expect(t, err)
		defer os.Remove(path)
		defer l.Close()
		w := &world{l: l}
		w.deposit(t)
		t.Repeat(map[string]func(*rapid.T){
			"deposit":   w.deposit,
			"fund":      w.fund,
			"open":      w.open,
			"pay":       w.pay,
			"settle":    w.settle,
			"chain":     w.chain,
			"pay out":   w.payOut,
			"disappear": w.disappear,
			"restart":   w.restart,
			"":          w.sometimes,
		})
		w.invariant(t)
		w.titlesAddUp(t)
	})
}

// sometimes checks after every fifth change: what is wrong stays wrong.
func (w *world) sometimes(t *rapid.T) {
	if w.steps++; w.steps%5 == 0 {
		w.invariant(t)
	}
}

func (w *world) invariant(t *rapid.T) {
	ctx := context.Background()
	if err := w.l.CheckBooks(ctx); err != nil {
		t.Fatal(err)
	}
	entries, err := w.l.Entries(ctx, ledger.EntryFilter{Limit: 100_000})
	expect(t, err)
	sums := make(map[int64]int64)
	var all int64
	for _, e := range entries {
		sums[e.Group] += e.Amount
		all += e.Amount
	}
	for group, sum := range sums {
		if sum != 0 {
			t.Fatalf("group %d sums to %d", group, sum)
		}
	}
	if all != 0 {
		t.Fatalf("the journal sums to %d", all)
	}
	for _, c := range w.channels {
		got, err := w.l.Channel(ctx, c.ID)
		expect(t, err)
		if got.Seq != c.Seq || got.Payee != c.Payee || got.Creator != c.Creator {
			t.Fatalf("channel has commitment %d of %v, want %d of %v", got.Seq, got.Payee, c.Seq, c.Payee)
		}
	}
}

// titlesAddUp compares the channels with what their titles have of them.
func (w *world) titlesAddUp(t *rapid.T) {
	ctx := context.Background()
	titles := make(map[[20]byte]bool)
	for _, c := range w.channels {
		titles[c.Title] = true
	}
	for first := range byte(5) {
		titles[[20]byte{first}] = true
	}
	var bytes int64
	var payee, creator money.Satoshis
	for title := range titles {
		for _, role := range []ledger.Role{ledger.Payer, ledger.Payee} {
			shares, err := w.l.Shares(ctx, title, role)
			expect(t, err)
			for _, s := range shares {
				bytes, payee, creator = bytes+s.Bytes, payee+s.Payee, creator+s.Creator
			}
		}
	}
	for _, c := range w.channels {
		bytes, payee, creator = bytes-c.Bytes, payee-c.Payee, creator-c.Creator
	}
	if bytes != 0 || payee != 0 || creator != 0 {
		t.Fatalf("the titles have %d bytes, %d and %d satoshis more than their channels", bytes, int64(payee), int64(creator))
	}
	records, accounts, err := recordsAddUp(ctx, w.l)
	expect(t, err)
	if records != accounts {
		t.Fatalf("records of %d, accounts of %d", records, accounts)
	}
	byTitle, err := w.l.EarningsByTitle(ctx)
	expect(t, err)
	totals, err := w.l.Totals(ctx)
	if !expect(t, err, money.ErrRange) { // a funding in conflict whose channel was closed all the same
		return
	}
	for _, e := range byTitle {
		totals.Unsettled -= e.Unsettled
		totals.Settled -= e.Settled
	}
	if totals.Unsettled != 0 || totals.Settled != 0 {
		t.Fatalf("the titles lack %d and %d of the totals", int64(totals.Unsettled), int64(totals.Settled))
	}
}
