package box

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/webui"
)

func TestPayoutTimes(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here: ", err)
	}
	at := func(text string) time.Time {
		t.Helper()
		v, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct {
		at, weekday string
		now, last   string
		wait        time.Duration
	}{
		{"", "", "2026-03-10 12:00", "", time.Hour},
		{"03:00", "", "2026-03-10 12:00", "2026-03-10 03:00", time.Hour},
		{"03:00", "", "2026-03-10 02:30", "2026-03-09 03:00", 30 * time.Minute},
		{"03:00", "", "2026-03-10 03:00", "2026-03-10 03:00", time.Hour},
		{"00:00", "", "2026-01-01 00:10", "2026-01-01 00:00", time.Hour},
		{"23:59", "", "2026-01-01 23:58", "2025-12-31 23:59", time.Minute},
		{"03:00", "monday", "2026-03-10 12:00", "2026-03-09 03:00", time.Hour}, // a Tuesday
		{"03:00", "monday", "2026-03-09 02:00", "2026-03-02 03:00", time.Hour},
		{"03:00", "sunday", "2026-03-08 02:59", "2026-03-01 03:00", time.Minute},
		// The clock goes forward at 2: 02:30 does not exist on that day.
		{"02:30", "", "2026-03-29 03:45", "2026-03-29 03:30", time.Hour},
		{"04:00", "", "2026-03-29 03:10", "2026-03-28 04:00", 50 * time.Minute},
		// And back at 3.
		{"02:30", "", "2026-10-25 12:00", "2026-10-25 02:30", time.Hour},
	} {
		s := PayoutSettings{Every: Duration(time.Hour), At: c.at, Weekday: c.weekday, MaxFeeShare: 50}
		if name, why := s.check(); name != "" {
			t.Errorf("%s: %s", name, why)
		}
		last := s.lastDue(at(c.now))
		want := time.Time{}
		if c.last != "" {
			want = at(c.last)
		}
		if !last.Equal(want) {
			t.Errorf("at %q %q: last due before %s at %v, want %v", c.at, c.weekday, c.now, last, want)
		}
		if wait := s.wait(at(c.now)); wait != c.wait {
			t.Errorf("at %q %q: wait %v at %s, want %v", c.at, c.weekday, wait, c.now, c.wait)
		}
	}
	for _, bad := range []PayoutSettings{
		{At: "25:00"}, {At: "3"}, {At: "03:00", Weekday: "mon"}, {At: "03:00", Weekday: "Monday"}, {Weekday: "monday"},
		{Every: 1, At: "03:00"}, {MaxFeeShare: 1001}, {Threshold: -1},
	} {
		if bad.MaxFeeShare == 0 {
			bad.MaxFeeShare = 50
		}
		if bad.Every == 0 {
			bad.Every = Duration(time.Hour)
		}
		if name, _ := bad.check(); name == "" {
			t.Errorf("taken: %+v", bad)
		}
	}
}

// till is a box of which only the money runs, on a chain in memory.
type till struct {
	*testing.T
	*Box
	ctx   context.Context
	chain *memory.Chain
	log   *bytes.Buffer
}

var owner = bsv.Hash160{0x21}

// withTill runs test in a bubble of synctest, where the ledger's pauses and the
// days take no time.
func withTill(t *testing.T, change func(*Settings), test func(*till)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		settings := DefaultSettings()
		settings.Network = bsv.Regtest
		settings.Payout.Address = owner.Address(bsv.Regtest)
		settings.Payout.Threshold = 1000
		change(&settings)
		r := &till{T: t, ctx: ctx, chain: memory.New(time.Now), log: new(bytes.Buffer)}
		r.chain.Mine(100)
		_, err := wallet.Create(ctx, dir, bsv.Regtest, bytes.NewReader(make([]byte, 64)))
		must(err)
		l, err := ledger.Open(ctx, filepath.Join(dir, "money.db"), time.Now)
		must(err)
		defer func() { must(l.Close()) }()
		log := slog.New(slog.NewTextHandler(r.log, nil))
		w, err := wallet.Open(ctx, dir, l, r.chain, wallet.Options{Clock: time.Now, Log: log})
		must(err)
		r.Box = &Box{opt: Options{Settings: settings, DataDir: dir, Clock: time.Now, Log: log}, health: health.NewSet(time.Now),
			ledger: l, wallet: w, chain: r.chain, outbox: wallet.NewOutbox(l, r.chain, time.Now, log),
			seller: new(paylink.Seller)} // only that there is one matters
		test(r)
		must(l.Check(context.WithoutCancel(ctx)))
	})
}

func (r *till) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// earn makes coins as closes of channels of a title leave them, mined.
func (r *till) earn(n int, value money.Satoshis, title string) {
	r.Helper()
	for range n {
		index, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
		r.must(err)
		k, err := r.wallet.Key(wallet.BranchPayout, index)
		r.must(err)
		coin := r.chain.Fund(bsv.P2PKH(k.Public().Hash()), value)
		tip, err := r.chain.Tip(r.ctx)
		r.must(err)
		txid := [32]byte(coin.Outpoint.Txid)
		c := ledger.Channel{ID: txid, Role: ledger.Payee, State: ledger.StateOpen, Title: [20]byte{1}, TitleName: title, KeyIndex: index,
			Capacity: 20_000, Seq: 1, Payee: value, Bytes: 1 << 20}
		r.must(r.ledger.SaveChannel(r.ctx, c))
		r.must(r.ledger.Apply(r.ctx, ledger.Batch{
			Coins: []ledger.Coin{{Txid: txid, Index: coin.Outpoint.Index, Value: value, Script: coin.Output.Script,
				Branch: wallet.BranchPayout, KeyIndex: index, Height: tip.Height, Origin: ledger.OriginEarning}},
			Outbox: []ledger.Outgoing{{Txid: txid, Raw: []byte("close"), Purpose: ledger.Close, Channel: c.ID, State: ledger.Mined,
				Height: tip.Height, Final: true}},
		}))
	}
}

// sweeps returns how many payouts there are.
func (r *till) sweeps() int {
	r.Helper()
	all, err := r.ledger.OutgoingFor(r.ctx, ledger.Sweep, 100)
	r.must(err)
	return len(all)
}

// run runs the payouts until the clock has this time.
func (r *till) run(until time.Time) {
	r.Helper()
	ctx, cancel := context.WithDeadline(r.ctx, until)
	defer cancel()
	r.must(r.payouts(ctx))
}

func TestPayoutsWhenThereIsEnough(t *testing.T) {
	withTill(t, func(s *Settings) {}, func(r *till) {
		start := time.Now()
		r.run(start.Add(90 * time.Minute))
		if n := r.sweeps(); n != 0 {
			r.Errorf("%d payouts of nothing", n)
		}
		r.earn(2, 5000, "film")
		r.run(start.Add(2 * time.Hour)) // a box that starts looks at once
		if n := r.sweeps(); n != 1 {
			r.Errorf("%d payouts, want 1", n)
		}
		r.earn(1, 5000, "film")
		r.run(start.Add(3 * time.Hour))
		r.earn(1, 5000, "film")
		r.run(start.Add(5 * time.Hour))
		if n := r.sweeps(); n != 3 {
			r.Errorf("%d payouts, want 3", n)
		}
	})
}

// The bubble's clock begins at midnight UTC, on the first of January 2000.
func TestPayoutsAtASetTime(t *testing.T) {
	withTill(t, func(s *Settings) { s.Payout.At = "03:00" }, func(r *till) {
		midnight := time.Now().UTC()
		r.opt.Clock = func() time.Time { return time.Now().UTC() }
		at := func(hours float64) time.Time { return midnight.Add(time.Duration(hours * float64(time.Hour))) }
		expect := func(when string, want int) {
			r.Helper()
			if n := r.sweeps(); n != want {
				r.Errorf("%s: %d payouts, want %d", when, n, want)
			}
		}
		r.earn(1, 5000, "film")
		r.run(at(2.9))
		expect("before the first time", 0)
		r.run(at(3.1))
		expect("at the first time", 1)
		r.earn(1, 5000, "film")
		r.run(at(20))
		expect("on the same day", 1)
		// The box is off from 20 to 30 o'clock, and makes up for 27.
		time.Sleep(time.Until(at(30)))
		r.run(at(30.1))
		expect("after a missed time", 2)
		// A time at which the chain is away is made up as soon as it is back.
		r.earn(1, 5000, "film")
		r.chain.SetDown(true)
		r.run(at(54))
		expect("without a chain", 2)
		if list := r.health.List(); len(list) != 1 || list[0].Code != "payout-failed" {
			r.Errorf("conditions %+v", list)
		}
		r.chain.SetDown(false)
		r.run(at(55.1))
		expect("when the chain is back", 3)
		if list := r.health.List(); len(list) != 0 {
			r.Errorf("conditions %+v", list)
		}
		// Too little at the set time waits for the next one.
		r.run(at(75.5))
		r.earn(1, 5000, "film")
		r.run(at(98))
		expect("earned after the time", 3)
		r.run(at(99.1))
		expect("the next day", 4)
	})
}

// A clock that was years ahead once does not stop the payouts for years.
func TestPayoutsAfterAClockThatWasAhead(t *testing.T) {
	withTill(t, func(s *Settings) { s.Payout.At = "03:00" }, func(r *till) {
		midnight := time.Now().UTC()
		r.opt.Clock = func() time.Time { return time.Now().UTC().AddDate(10, 0, 0) }
		r.run(midnight.Add(4 * time.Hour))
		r.earn(1, 5000, "film")
		r.opt.Clock = func() time.Time { return time.Now().UTC() }
		r.run(midnight.Add(26 * time.Hour))
		if n := r.sweeps(); n != 0 {
			r.Errorf("%d payouts before the time", n)
		}
		r.run(midnight.Add(28 * time.Hour))
		if n := r.sweeps(); n != 1 {
			r.Errorf("%d payouts, want 1", n)
		}
	})
}

func TestDryRunNamesEverything(t *testing.T) {
	withTill(t, func(s *Settings) { s.Payout.MaxFeeShare = 50 }, func(r *till) {
		r.chain.SetConsolidation(&chain.Consolidation{Factor: 20, Confirmations: 6, MaxScript: 150})
		if _, err := r.controlSweep(r.ctx, SweepRequest{DryRun: true}); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("nothing earned: %v", err)
		}
		r.earn(1, 5000, "film")
		r.earn(200, 1000, "song")
		r.earn(20, 12, "text")
		r.chain.Mine(6)
		dry, err := r.controlSweep(r.ctx, SweepRequest{DryRun: true})
		r.must(err)
		if dry.Inputs != 201 || len(dry.Transactions) != 2 || len(dry.Consolidations) != 1 || dry.Dust != 240 || dry.Txid != "" ||
			dry.Total != 205_000 || dry.Payout != dry.Total-dry.Fee || dry.To != r.opt.Settings.Payout.Address {
			r.Fatalf("%+v", dry)
		}
		tx := dry.Transactions[0]
		if len(tx.Inputs) != 200 || !slices.Equal(tx.Inputs[0].Titles, []string{"film"}) || tx.Inputs[0].Value != 5000 ||
			!slices.Equal(tx.Inputs[1].Titles, []string{"song"}) || len(tx.Inputs[0].Coin) < 66 || tx.FeeShare != 15 || tx.Fee != 2965 {
			r.Errorf("%d inputs, first %+v; fee %v, %d per mille", len(tx.Inputs), tx.Inputs[0], tx.Fee, tx.FeeShare)
		}
		if n := r.sweeps(); n != 0 {
			r.Errorf("a dry run made %d payouts", n)
		}
		done, err := r.controlSweep(r.ctx, SweepRequest{})
		r.must(err)
		if done.Payout != dry.Payout || done.Fee != dry.Fee || done.Txid == "" || done.Transactions[1].Txid == "" ||
			done.Consolidations[0].Txid == "" || done.Consolidations[0].Fee != 0 {
			r.Errorf("done %+v\nplanned %+v", done, dry)
		}
		// What was made, though the rest is below the threshold.
		if again, err := r.controlSweep(r.ctx, SweepRequest{}); !errors.Is(err, wallet.ErrBelowThreshold) {
			r.Errorf("again: %+v, %v", again, err)
		}
	})
}

// A payout that is only seen is not shown as paid out.
func TestStatusOfAPayoutOnItsWay(t *testing.T) {
	withTill(t, func(s *Settings) {}, func(r *till) {
		var err error
		r.catalogue, err = catalog.Open(r.ctx, filepath.Join(r.opt.DataDir, "titles.db"), filepath.Join(r.opt.DataDir, "torrents"), time.Now)
		r.must(err)
		defer r.catalogue.Close()
		totals := func() (paid, fees money.Satoshis) {
			r.Helper()
			var s webui.Status
			r.must(r.earnings(r.ctx, &s))
			if s.Earnings.Earned() != 5000 || s.Earnings.Unsettled != 0 {
				r.Errorf("earnings %+v", s.Earnings)
			}
			return s.Earnings.Swept, s.Earnings.Fees
		}
		r.earn(1, 5000, "film")
		made, err := r.Sweep(r.ctx, false)
		r.must(err)
		_, err = r.outbox.Step(r.ctx)
		r.must(err)
		if o, err := r.ledger.Outgoing(r.ctx, made.Sweeps[0].Txid); err != nil || o.State != ledger.Seen {
			r.Errorf("payout is %s, %v", o.State, err)
		}
		if paid, fees := totals(); paid != 0 || fees != 0 {
			r.Errorf("%v paid out, %v fees", paid, fees)
		}
		r.chain.Mine(1)
		_, err = r.outbox.Step(r.ctx)
		r.must(err)
		if paid, fees := totals(); paid != made.Sweeps[0].Payout || fees != made.Sweeps[0].Fee {
			r.Errorf("%v paid out, %v fees", paid, fees)
		}
	})
}
