package ledger_test

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

var epoch = time.UnixMilli(1_700_000_000_000).UTC()

func clock() time.Time { return epoch }

func fast(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.OpenFast(context.Background(), filepath.Join(t.TempDir(), "money.db"), clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	must(t, l.Check(context.Background()))
}

// id makes a 32-byte name from a kind and a number.
func id(kind byte, n int) (h [32]byte) {
	h[0] = kind
	binary.BigEndian.PutUint32(h[1:], uint32(n))
	return h
}

func payee(n int) ledger.Channel {
	return ledger.Channel{
		ID: id('c', n), Role: ledger.Payee, State: ledger.StateOpen, Title: [20]byte{1}, TitleName: "a title",
		Remote: "192.0.2.1:6881", PeerKey: [33]byte{2}, KeyIndex: uint32(n), FundingTxid: id('f', n), FundingIndex: 1,
		Capacity: 20_000, RefundHeight: 1108, Rate: 1000, Royalty: 100, Seq: 1, Bytes: 1 << 20, Payee: 100, Creator: 10,
		Snapshot: []byte("machine"),
	}
}

// closing is the outbox row of a channel's close that pays us.
func closing(c ledger.Channel, txid [32]byte) ledger.Outgoing {
	return ledger.Outgoing{
		Txid: txid, Raw: []byte("raw"), PrevOutputs: []byte("prev"), Purpose: ledger.Close, Channel: c.ID,
		Outputs: []ledger.Coin{{Txid: txid, Value: c.Payee, Script: []byte("script"), Branch: 3, KeyIndex: c.KeyIndex,
			Origin: ledger.OriginEarning}},
	}
}

func TestChannelComesBackAsItWas(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	want := payee(1)
	must(t, l.SaveChannel(ctx, want))
	want.Created, want.Updated = epoch, epoch
	got, err := l.Channel(ctx, want.ID)
	must(t, err)
	if string(got.Snapshot) != string(want.Snapshot) {
		t.Errorf("snapshot %q", got.Snapshot)
	}
	got.Snapshot, want.Snapshot = nil, nil
	if a, b := flat(got), flat(want); a != b {
		t.Errorf("got\n%+v, want\n%+v", a, b)
	}
	if _, err := l.Channel(ctx, id('x', 1)); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("unknown channel: %v", err)
	}
}

// flat makes a channel comparable.
func flat(c ledger.Channel) any {
	type comparable struct {
		id, funding, close [32]byte
		role               ledger.Role
		texts              string
		title              [20]byte
		key                [33]byte
		numbers            [10]int64
		created, updated   time.Time
	}
	return comparable{c.ID, c.FundingTxid, c.CloseTxid, c.Role, strings.Join([]string{c.State, c.TitleName, c.Remote}, "|"),
		c.Title, c.PeerKey, [10]int64{int64(c.KeyIndex), int64(c.FundingIndex), int64(c.Capacity), int64(c.RefundHeight),
			int64(c.Rate), int64(c.Royalty), int64(c.Seq), c.Bytes, int64(c.Payee), int64(c.Creator)}, c.Created, c.Updated}
}

func TestAnOlderCommitmentIsRefused(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := payee(1)
	c.Seq, c.Payee, c.Creator, c.Bytes = 5, 500, 50, 5<<20
	must(t, l.SaveChannel(ctx, c))
	for name, change := range map[string]func(*ledger.Channel){
		"lower sequence":      func(c *ledger.Channel) { c.Seq = 4 },
		"same, less paid":     func(c *ledger.Channel) { c.Payee = 499 },
		"same, more paid":     func(c *ledger.Channel) { c.Payee = 501 },
		"same, other royalty": func(c *ledger.Channel) { c.Creator = 51 },
		"same, other bytes":   func(c *ledger.Channel) { c.Bytes++ },
		"higher, less paid":   func(c *ledger.Channel) { c.Seq, c.Payee = 6, 499 },
	} {
		bad := c
		change(&bad)
		if err := l.SaveChannel(ctx, bad); !errors.Is(err, ledger.ErrStale) {
			t.Errorf("%s: %v, want ErrStale", name, err)
		}
	}
	for name, change := range map[string]func(*ledger.Channel){
		"role":     func(c *ledger.Channel) { c.Role = ledger.Payer },
		"key":      func(c *ledger.Channel) { c.KeyIndex++ },
		"funding":  func(c *ledger.Channel) { c.FundingTxid[0]++ },
		"capacity": func(c *ledger.Channel) { c.Capacity++ },
	} {
		bad := c
		bad.Seq++
		change(&bad)
		if err := l.SaveChannel(ctx, bad); !errors.Is(err, ledger.ErrChanged) {
			t.Errorf("%s: %v, want ErrChanged", name, err)
		}
	}
	for name, change := range map[string]func(*ledger.Channel){
		"negative":         func(c *ledger.Channel) { c.Payee = -1 },
		"above all money":  func(c *ledger.Channel) { c.Capacity = money.MaxSatoshis + 1 },
		"above capacity":   func(c *ledger.Channel) { c.Payee = 19_951 },
		"unknown state":    func(c *ledger.Channel) { c.State = "ajar" },
		"unknown role":     func(c *ledger.Channel) { c.Role = 3 },
		"endless sequence": func(c *ledger.Channel) { c.Seq = 1 << 63 },
		"huge snapshot":    func(c *ledger.Channel) { c.Snapshot = make([]byte, ledger.MaxSnapshot+1) },
	} {
		bad := c
		bad.Seq++
		change(&bad)
		if err := l.SaveChannel(ctx, bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	must(t, l.SaveChannel(ctx, c)) // the same again
	// Not even with the program's checks gone.
	if err := l.Exec(ctx, `UPDATE channels SET seq = 4, payee = 400`); err == nil {
		t.Error("the database takes an older commitment")
	}
	check(t, l)
}

func TestAStateNeverFallsBack(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := payee(1)
	must(t, l.SaveChannel(ctx, c))
	must(t, l.PutOutgoing(ctx, closing(c, id('t', 1))))
	o, err := l.Outgoing(ctx, id('t', 1))
	must(t, err)
	o.State = ledger.Seen
	must(t, l.UpdateOutgoing(ctx, o))

	late := c // held by somebody since before the close
	late.State, late.Snapshot = ledger.StateClosing, []byte("late")
	must(t, l.SaveChannel(ctx, late))
	got, err := l.Channel(ctx, c.ID)
	must(t, err)
	if got.State != ledger.StateClosed || got.CloseTxid != id('t', 1) || string(got.Snapshot) != "late" {
		t.Errorf("state %s, close %x, snapshot %q", got.State, got.CloseTxid[:4], got.Snapshot)
	}
	late.Seq, late.Payee = 2, 200
	if err := l.SaveChannel(ctx, late); !errors.Is(err, ledger.ErrStale) {
		t.Errorf("a commitment after the close: %v, want ErrStale", err)
	}
	check(t, l)
}

// The life of one earned amount: commitment, close, reorganisation, payout.
func TestEarnings(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := payee(1)
	c.Seq, c.Payee, c.Creator, c.Bytes = 9, 5000, 500, 5<<30
	must(t, l.SaveChannel(ctx, c))
	other := payee(2)
	other.Title, other.TitleName = [20]byte{2}, "another"
	must(t, l.SaveChannel(ctx, other))

	expect := func(when string, unsettled, settled, onChain, swept, fees money.Satoshis) {
		t.Helper()
		check(t, l)
		byTitle, err := l.EarningsByTitle(ctx)
		must(t, err)
		if len(byTitle) != 2 || byTitle[0].Name != "a title" || byTitle[0].Bytes != 5<<30 || byTitle[0].Channels != 1 ||
			byTitle[0].Unsettled != unsettled || byTitle[0].Settled != settled || byTitle[0].Royalty != 500 {
			t.Errorf("%s: by title %+v", when, byTitle)
		}
		totals, err := l.Totals(ctx)
		must(t, err)
		if totals.Earned != 5100 || totals.Unsettled != unsettled+100 || totals.Settled != settled ||
			totals.OnChain != onChain || totals.Swept != swept || totals.SweepFees != fees || totals.Royalty != 510 {
			t.Errorf("%s: totals %+v", when, totals)
		}
	}
	set := func(txid [32]byte, state string, height uint32) {
		t.Helper()
		o, err := l.Outgoing(ctx, txid)
		must(t, err)
		o.State, o.Height = state, height
		must(t, l.UpdateOutgoing(ctx, o))
		must(t, l.UpdateOutgoing(ctx, o)) // repeated: nothing happens
	}
	expect("open", 5000, 0, 0, 0, 0)
	txid := id('t', 1)
	c.State, c.CloseTxid = ledger.StateClosing, txid
	must(t, l.Apply(ctx, ledger.Batch{Channels: []ledger.Channel{c}, Outbox: []ledger.Outgoing{closing(c, txid)}}))
	expect("close stored", 5000, 0, 0, 0, 0)
	set(txid, ledger.Seen, 0)
	expect("close seen", 5000, 0, 5000, 0, 0)
	set(txid, ledger.Mined, 110)
	expect("close mined", 0, 5000, 5000, 0, 0)
	set(txid, ledger.Pending, 0)
	expect("close thrown out", 5000, 0, 0, 0, 0)
	set(txid, ledger.Mined, 111)
	expect("close mined again", 0, 5000, 5000, 0, 0)
	if coin, err := l.Coin(ctx, ledger.Outpoint{Txid: txid}); err != nil || coin.Height != 111 || coin.State != ledger.CoinUnspent {
		t.Errorf("coin %+v, %v", coin, err)
	}

	sweep := id('s', 1)
	must(t, l.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{{Txid: txid}}, By: sweep}},
		Outbox:  []ledger.Outgoing{{Txid: sweep, Raw: []byte("sweep"), Purpose: ledger.Sweep, Fee: 20}},
	}))
	inBlocks := func(swept, fees money.Satoshis) {
		t.Helper()
		if totals, err := l.Totals(ctx); err != nil || totals.SweptMined != swept || totals.SweepFeesMined != fees {
			t.Errorf("paid out in blocks: %v and fees of %v, %v", totals.SweptMined, totals.SweepFeesMined, err)
		}
	}
	expect("payout stored", 0, 5000, 0, 4980, 20)
	inBlocks(0, 0)
	set(sweep, ledger.Seen, 0)
	inBlocks(0, 0)
	set(sweep, ledger.Mined, 112)
	expect("payout mined", 0, 5000, 0, 4980, 20)
	inBlocks(4980, 20)

	// Every satoshi of it leads to a channel, a title and a transaction.
	entries, err := l.Entries(ctx, ledger.EntryFilter{Channel: &c.ID, Account: ledger.AccountSales})
	must(t, err)
	var sales int64
	for _, e := range entries {
		if e.Title != c.Title || e.Txid != txid {
			t.Errorf("entry %+v", e)
		}
		sales += e.Amount
	}
	if sales != -5000 {
		t.Errorf("sales of the channel: %d", sales)
	}
}

func TestAPayerTakesItBack(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := payee(1)
	must(t, l.SaveChannel(ctx, c))
	txid := id('t', 1)
	must(t, l.PutOutgoing(ctx, closing(c, txid)))
	o, err := l.Outgoing(ctx, txid)
	must(t, err)
	for _, state := range []string{ledger.Seen, ledger.Conflicted} {
		o.State = state
		must(t, l.UpdateOutgoing(ctx, o))
		check(t, l)
	}
	if c, err = l.Channel(ctx, c.ID); err != nil || c.State != ledger.StateRefunded {
		t.Errorf("channel %s, %v", c.State, err)
	}
	totals, err := l.Totals(ctx)
	must(t, err)
	if totals.Earned != 0 || totals.OnChain != 0 {
		t.Errorf("totals %+v", totals)
	}
	// The refund is reorganised away after all.
	o.State, o.Height = ledger.Mined, 120
	must(t, l.UpdateOutgoing(ctx, o))
	check(t, l)
	if totals, err = l.Totals(ctx); err != nil || totals.Settled != 100 || totals.OnChain != 100 {
		t.Errorf("totals %+v, %v", totals, err)
	}
}

// fund makes a payer's channel from a coin of 50,000.
func fund(t testing.TB, l *ledger.Ledger, n int) ledger.Channel {
	t.Helper()
	ctx := context.Background()
	in := ledger.Coin{Txid: id('i', n), Value: 50_000, Script: []byte("in"), Height: 100, Origin: ledger.OriginReceive}
	must(t, l.PutCoins(ctx, in))
	c := payee(n)
	c.Role, c.State, c.Seq, c.Payee, c.Creator, c.Bytes, c.Fee = ledger.Payer, ledger.StateOpening, 0, 0, 0, 0, 30
	must(t, l.Apply(ctx, ledger.Batch{
		Reserve:  []ledger.Reservation{{Coins: []ledger.Outpoint{in.Outpoint()}, By: c.FundingTxid}},
		Channels: []ledger.Channel{c},
		Outbox: []ledger.Outgoing{{Txid: c.FundingTxid, Raw: []byte("funding"), Purpose: ledger.Funding, Channel: c.ID, Fee: 30,
			Outputs: []ledger.Coin{{Txid: c.FundingTxid, Index: 0, Value: 29_970, Script: []byte("change"), Branch: 1,
				Origin: ledger.OriginChange}}}},
	}))
	check(t, l)
	return c
}

func TestBuying(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := fund(t, l, 1)
	balance := func(account string) (sum int64) {
		entries, err := l.Entries(ctx, ledger.EntryFilter{Account: account})
		must(t, err)
		for _, e := range entries {
			sum += e.Amount
		}
		return sum
	}
	if e, f := balance(ledger.AccountEscrow), balance(ledger.AccountFeesChannel); e != 20_000 || f != 30 {
		t.Errorf("escrow %d, fees %d", e, f)
	}
	if coins, err := l.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}}); err != nil || len(coins) != 0 {
		t.Errorf("change of a funding that nobody has seen can be spent: %v, %v", coins, err)
	}
	o, err := l.Outgoing(ctx, c.FundingTxid)
	must(t, err)
	o.State = ledger.Seen
	must(t, l.UpdateOutgoing(ctx, o))
	if coins, err := l.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}}); err != nil || len(coins) != 1 ||
		coins[0].Value != 29_970 {
		t.Errorf("change %v, %v", coins, err)
	}
	c.State, c.Seq, c.Payee, c.Creator, c.Bytes = ledger.StateOpen, 3, 3000, 300, 3<<30
	must(t, l.SaveChannel(ctx, c))
	if paid, fees, err := l.SpentOn(ctx, c.Title); paid != 3300 || fees != 30 || err != nil {
		t.Errorf("spent %v and %v, %v", paid, fees, err)
	}
	// The payee closes; the wallet finds the change.
	txid := id('t', 1)
	must(t, l.Apply(ctx, ledger.Batch{
		Coins: []ledger.Coin{{Txid: txid, Index: 2, Value: 16_670, Script: []byte("s"), Branch: 3, KeyIndex: c.KeyIndex,
			Height: 120, Origin: ledger.OriginChange}},
		Moves: []ledger.Move{{Channel: c.ID, State: ledger.StateClosed, CloseTxid: txid}},
	}))
	check(t, l)
	for account, want := range map[string]int64{
		ledger.AccountEscrow: 0, ledger.AccountPurchases: 3000, ledger.AccountRoyalties: 300,
		ledger.AccountFeesChannel: 60, ledger.AccountWallet: 29_970 + 16_670, ledger.AccountDeposits: -50_000,
	} {
		if got := balance(account); got != want {
			t.Errorf("%s: %d, want %d", account, got, want)
		}
	}
	totals, err := l.Totals(ctx)
	must(t, err)
	if totals.Bought != 3300 || totals.ChannelFees != 60 || totals.Escrow != 0 {
		t.Errorf("totals %+v", totals)
	}
}

func TestADisplacedFunding(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := fund(t, l, 1)
	if err := l.ReleaseCoins(ctx, c.FundingTxid); !errors.Is(err, ledger.ErrCoinTaken) {
		t.Errorf("coins of a stored funding are released: %v", err)
	}
	o, err := l.Outgoing(ctx, c.FundingTxid)
	must(t, err)
	o.State, o.Final = ledger.Conflicted, true
	must(t, l.Apply(ctx, ledger.Batch{Updates: []ledger.Outgoing{o}, Release: []ledger.Outpoint{{Txid: id('i', 1)}}}))
	check(t, l)
	if c, err = l.Channel(ctx, c.ID); err != nil || c.State != ledger.StateFailed {
		t.Errorf("channel %s, %v", c.State, err)
	}
	coins, err := l.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil || len(coins) != 1 || coins[0].Value != 50_000 {
		t.Errorf("coins %+v, %v", coins, err)
	}
	if totals, err := l.Totals(ctx); err != nil || totals.Escrow != 0 || totals.ChannelFees != 0 {
		t.Errorf("totals %+v, %v", totals, err)
	}
}

func TestReservations(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	for i := range 3 {
		must(t, l.PutCoins(ctx, ledger.Coin{Txid: id('i', i), Value: 1000, Height: 1, Origin: ledger.OriginReceive}))
	}
	a, b := id('a', 0), id('b', 0)
	coin := func(n int) ledger.Outpoint { return ledger.Outpoint{Txid: id('i', n)} }
	must(t, l.ReserveCoins(ctx, []ledger.Outpoint{coin(0), coin(1)}, a))
	must(t, l.ReserveCoins(ctx, []ledger.Outpoint{coin(0), coin(1)}, a))
	if err := l.ReserveCoins(ctx, []ledger.Outpoint{coin(2), coin(1)}, b); !errors.Is(err, ledger.ErrCoinTaken) {
		t.Errorf("a taken coin: %v", err)
	}
	if c, err := l.Coin(ctx, coin(2)); err != nil || c.State != ledger.CoinUnspent {
		t.Errorf("half a reservation: %s, %v", c.State, err)
	}
	if err := l.ReserveCoins(ctx, []ledger.Outpoint{coin(9)}, b); !errors.Is(err, ledger.ErrCoinTaken) {
		t.Errorf("a coin that is not there: %v", err)
	}
	must(t, l.ReleaseCoins(ctx, b)) // nothing of b's
	check(t, l)
	must(t, l.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{coin(2)}, By: b}},
		Coins:   []ledger.Coin{{Txid: b, Value: 900, State: ledger.CoinPending, Origin: ledger.OriginChange}},
	}))
	if n, err := l.ReleaseOrphans(ctx); n != 3 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	if c, err := l.Coin(ctx, ledger.Outpoint{Txid: b}); err != nil || c.State != ledger.CoinVoid {
		t.Errorf("change of what was never made: %s, %v", c.State, err)
	}
	// What does not cover its fee is no payment.
	err := l.Apply(ctx, ledger.Batch{
		Reserve: []ledger.Reservation{{Coins: []ledger.Outpoint{coin(0)}, By: a}},
		Outbox:  []ledger.Outgoing{{Txid: a, Raw: []byte("raw"), Purpose: ledger.Send, Fee: 1001}},
	})
	if !errors.Is(err, ledger.ErrUnbalanced) {
		t.Errorf("an unbalanced payment: %v", err)
	}
	if c, err := l.Coin(ctx, coin(0)); err != nil || c.State != ledger.CoinUnspent {
		t.Errorf("it left a reservation: %s, %v", c.State, err)
	}
	check(t, l)
}

func TestKeysAreHandedOutOnce(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	var mu sync.Mutex
	seen := make(map[uint32]bool)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 10 {
				first, err := l.ReserveKeys(ctx, 2, 3)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for i := first; i < first+3; i++ {
					if seen[i] {
						t.Errorf("index %d twice", i)
					}
					seen[i] = true
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if next, err := l.NextKey(ctx, 2); next != 240 || err != nil {
		t.Errorf("next is %d, %v", next, err)
	}
	must(t, l.AdvanceKeys(ctx, 2, 1000))
	must(t, l.AdvanceKeys(ctx, 2, 500))
	if first, err := l.ReserveKeys(ctx, 2, 1); first != 1000 || err != nil {
		t.Errorf("after the advance: %d, %v", first, err)
	}
	for _, n := range []uint32{0, ledger.MaxKeyIndex} {
		if _, err := l.ReserveKeys(ctx, 2, n); !errors.Is(err, money.ErrRange) {
			t.Errorf("%d keys: %v", n, err)
		}
	}
}

func TestOutbox(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	c := payee(1)
	must(t, l.SaveChannel(ctx, c))
	first, second := closing(c, id('t', 1)), closing(c, id('t', 2))
	second.NextTry = epoch.Add(time.Minute)
	must(t, l.PutOutgoing(ctx, first))
	must(t, l.PutOutgoing(ctx, second))
	must(t, l.PutOutgoing(ctx, first))
	changed := first
	changed.Raw = []byte("other")
	if err := l.PutOutgoing(ctx, changed); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("other bytes for a txid: %v", err)
	}
	for now, want := range map[time.Time]int{epoch.Add(-1): 0, epoch: 1, epoch.Add(time.Hour): 2} {
		if due, err := l.OutgoingDue(ctx, now, 10); err != nil || len(due) != want {
			t.Errorf("%d due, %v; want %d", len(due), err, want)
		}
	}
	if due, err := l.OutgoingDue(ctx, epoch.Add(time.Hour), 1); err != nil || len(due) != 1 || due[0].Txid != first.Txid {
		t.Errorf("the oldest comes first: %v, %v", due, err)
	}
	o, err := l.Outgoing(ctx, first.Txid)
	must(t, err)
	if o.Created != epoch || o.NextTry != epoch || string(o.PrevOutputs) != "prev" || o.Channel != c.ID {
		t.Errorf("%+v", o)
	}
	o.State, o.Final, o.Height, o.Tries, o.LastError = ledger.Mined, true, 7, 3, strings.Repeat("x", 600)
	must(t, l.UpdateOutgoing(ctx, o))
	if o, err = l.Outgoing(ctx, first.Txid); err != nil || !o.Final || o.Height != 7 || o.Tries != 3 || len(o.LastError) != ledger.MaxLastError {
		t.Errorf("%+v, %v", o, err)
	}
	if rest, err := l.OutgoingUnsettled(ctx); err != nil || len(rest) != 1 || rest[0].Txid != second.Txid {
		t.Errorf("%v, %v", rest, err)
	}
	if err := l.UpdateOutgoing(ctx, ledger.Outgoing{Txid: id('x', 1), State: ledger.Seen}); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("unknown transaction: %v", err)
	}
	for name, bad := range map[string]ledger.Outgoing{
		"no purpose":   {Txid: id('x', 1), Raw: []byte("x")},
		"no channel":   {Txid: id('x', 1), Raw: []byte("x"), Purpose: ledger.Close},
		"no bytes":     {Txid: id('x', 1), Purpose: ledger.Send},
		"no txid":      {Raw: []byte("x"), Purpose: ledger.Send},
		"wrong fee":    {Txid: id('x', 1), Raw: []byte("x"), Purpose: ledger.Send, Fee: -1},
		"foreign coin": {Txid: id('x', 1), Raw: []byte("x"), Purpose: ledger.Send, Outputs: []ledger.Coin{{Origin: ledger.OriginChange}}},
	} {
		if err := l.PutOutgoing(ctx, bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFilters(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	states := []string{ledger.StateOpening, ledger.StateOpen, ledger.StateClosing, ledger.StateClosed, ledger.StateRefunded, ledger.StateFailed}
	for i, state := range states {
		c := payee(i)
		c.State, c.Title = state, [20]byte{byte(i % 2)}
		if i >= 4 {
			c.Role = ledger.Payer
		}
		must(t, l.SaveChannel(ctx, c))
	}
	yes, no, title := true, false, [20]byte{1}
	for name, f := range map[string]struct {
		filter ledger.Filter
		want   int
	}{
		"all":          {ledger.Filter{}, 6},
		"open":         {ledger.Filter{Open: &yes}, 3},
		"settled":      {ledger.Filter{Open: &no}, 3},
		"payers":       {ledger.Filter{Role: ledger.Payer}, 2},
		"title":        {ledger.Filter{Title: &title}, 3},
		"all of these": {ledger.Filter{Role: ledger.Payee, Open: &yes, Title: &title}, 1},
	} {
		if got, err := l.Channels(ctx, f.filter); err != nil || len(got) != f.want {
			t.Errorf("%s: %d channels, %v; want %d", name, len(got), err, f.want)
		}
	}
}

func TestJournalIsAppendOnly(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	fund(t, l, 1)
	for _, statement := range []string{
		`UPDATE entries SET amount = amount + 1`,
		`DELETE FROM entries`,
		`DELETE FROM channels`,
		`UPDATE keys SET next = -1`,
		`INSERT OR REPLACE INTO entries SELECT id, tx_group, at, about, subject, account, 7, channel, title, txid, note FROM entries LIMIT 1`,
	} {
		must(t, l.Exec(ctx, `INSERT INTO keys VALUES (9, 9) ON CONFLICT DO NOTHING`))
		if err := l.Exec(ctx, statement); err == nil {
			t.Errorf("taken: %s", statement)
		}
	}
	check(t, l)
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	ctx := context.Background()
	for _, statement := range []string{
		`INSERT INTO entries (tx_group, at, about, subject, account, amount, note) VALUES (99, 1, 'coin', zeroblob(36), 'wallet', 5, '')`,
		`INSERT INTO entries (tx_group, at, about, subject, account, amount, note)
			VALUES (99, 1, 'coin', zeroblob(36), 'wallet', 5, ''), (99, 1, 'coin', zeroblob(36), 'deposits', -5, '')`,
		`UPDATE coins SET value = value + 1`,
		`UPDATE coins SET state = 'spent'`,
		`UPDATE coins SET spent_by = NULL WHERE state = 'reserved'`,
		`UPDATE outgoing SET fee = fee + 1`,
		`UPDATE channels SET capacity = capacity - 1`,
	} {
		l := fast(t)
		fund(t, l, 1)
		must(t, l.Exec(ctx, statement))
		if err := l.Check(ctx); !errors.Is(err, ledger.ErrBooks) && !errors.Is(err, ledger.ErrUnbalanced) {
			t.Errorf("%s: %v, want ErrBooks", statement, err)
		}
	}
}

func TestClaims(t *testing.T) {
	ctx := context.Background()
	l := fast(t)
	if _, err := l.Claimed(ctx, "wallet"); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("nothing claimed: %v", err)
	}
	for range 2 {
		if got, err := l.Claim(ctx, "wallet", "first"); got != "first" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if got, err := l.Claim(ctx, "wallet", "second"); got != "first" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := l.Claimed(ctx, "wallet"); got != "first" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// 50 payers at once: what one payment costs in flushes of the disk.
func BenchmarkPayment50Payers(b *testing.B) {
	ctx := context.Background()
	l, err := ledger.Open(ctx, filepath.Join(b.TempDir(), "money.db"), time.Now)
	must(b, err)
	defer l.Close()
	const payers = 50
	var all ledger.Batch
	for i := range payers {
		c := payee(i)
		c.Capacity = money.MaxSatoshis
		all.Channels = append(all.Channels, c)
	}
	must(b, l.Apply(ctx, all))
	before := l.Commits()
	b.ResetTimer()
	var group sync.WaitGroup
	for i := range payers {
		group.Go(func() {
			c := payee(i)
			c.Capacity = money.MaxSatoshis
			for n := i; n < b.N; n += payers {
				c.Seq++
				c.Payee++
				c.Bytes++
				if err := l.SaveChannel(ctx, c); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(l.Commits()-before)/float64(b.N), "flushes/payment")
}

// What a payment costs in processor time.
func BenchmarkPayment(b *testing.B) {
	ctx := context.Background()
	l, err := ledger.OpenFast(ctx, filepath.Join(b.TempDir(), "money.db"), time.Now)
	must(b, err)
	defer l.Close()
	c := payee(1)
	c.Capacity = money.MaxSatoshis
	c.Snapshot = make([]byte, 1000)
	for b.Loop() {
		c.Seq++
		c.Payee++
		c.Bytes++
		must(b, l.SaveChannel(ctx, c))
	}
}
