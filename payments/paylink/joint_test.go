package paylink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// gathering is a market whose buyer waits until a number of purchases want a
// channel, and for signatures until the test says so.
type gathering struct {
	*market
	buyer    *paylink.Buyer
	budget   *paylink.Budget
	enough   atomic.Int32
	patience chan time.Time
	notices  chan string
}

func newGathering(t *testing.T, enough int32, budget money.Satoshis) *gathering {
	g := &gathering{market: newMarket(t, 5_000, 700)}
	g.restart(enough, budget)
	return g
}

// restart makes a new buyer, as another run of the program does.
func (g *gathering) restart(enough int32, budget money.Satoshis) {
	g.enough.Store(enough)
	g.budget = paylink.NewBudget(budget, 0)
	g.patience, g.notices = make(chan time.Time), make(chan string, 1024)
	notices := g.notices
	g.buyer = g.market.buyerWith(6_000, g.budget, func(text string) { notices <- text }, func(cfg *paylink.BuyerConfig) { cfg.OpenTimeout = time.Hour })
	now := make(chan time.Time)
	close(now)
	g.buyer.GatherUntil(func(n int) <-chan time.Time {
		if int32(n) >= g.enough.Load() {
			return now
		}
		return nil
	})
	g.buyer.PatienceUntil(g.patience)
}

func (g *gathering) seeder(identity byte) *rawSeeder {
	g.t.Helper()
	return g.market.rawSeeder(g.buyer, identity, g.terms)
}

func (g *gathering) terms(t *wire.Terms) {
	t.Royalty, t.CreatorHash = g.title.Royalty.Rate, g.title.Royalty.To
}

func (g *gathering) seeders(n int) (all []*rawSeeder, opens []*wire.Open) {
	g.t.Helper()
	for i := range n {
		all = append(all, g.seeder(byte(i+1)))
	}
	for _, s := range all {
		opens = append(opens, next[*wire.Open](s.conn))
	}
	return all, opens
}

// told waits for a notice.
func (g *gathering) told(part string) {
	g.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case text := <-g.notices:
			if strings.Contains(text, part) {
				return
			}
		case <-timeout:
			g.t.Fatalf("nobody was told %q", part)
		}
	}
}

// heard waits until the purchase has dealt with what the seeder sent.
func (g *gathering) heard(s *rawSeeder) {
	g.t.Helper()
	say(g.t, s.purchase, &wire.Refusal{Code: wire.CodeUnavailable, Text: "ping"})
	g.told("the seeder cannot")
}

func (g *gathering) rows(state string) (rows []ledger.Channel) {
	g.t.Helper()
	all, err := g.client.ledger.Channels(g.t.Context(), ledger.Filter{})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, row := range all {
		if row.State == state {
			rows = append(rows, row)
		}
	}
	return rows
}

func (g *gathering) fundings() int {
	g.t.Helper()
	out, err := g.client.ledger.OutgoingFor(g.t.Context(), ledger.Funding, 100)
	if err != nil {
		g.t.Fatal(err)
	}
	return len(out)
}

// untouched checks that no coin is bound and nothing was spent.
func (g *gathering) untouched() {
	g.t.Helper()
	confirmed, unconfirmed, err := g.client.wallet.Balance(g.t.Context())
	if err != nil || confirmed+unconfirmed != 1_000_000 {
		g.t.Errorf("%v and %v are left of 1,000,000 sat; %v", confirmed, unconfirmed, err)
	}
	if g.fundings() != 0 || len(g.rows(ledger.StateOpening)) != 0 || g.budget.Spent() != 0 {
		g.t.Errorf("%d fundings, channels %+v, %v spent", g.fundings(), g.rows(ledger.StateOpening), g.budget.Spent())
	}
	if err := g.client.ledger.Check(g.t.Context()); err != nil {
		g.t.Error(err)
	}
}

// feeOf is what a transaction paid to the miner.
func (m *market) feeOf(txid bsv.Txid) (fee money.Satoshis) {
	m.t.Helper()
	tx, err := m.chain.RawTx(m.t.Context(), txid)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, in := range tx.Inputs {
		prev, err := m.chain.RawTx(m.t.Context(), in.Prev.Txid)
		if err != nil {
			m.t.Fatal(err)
		}
		fee += prev.Outputs[in.Prev.Index].Value
	}
	for _, o := range tx.Outputs {
		fee -= o.Value
	}
	return fee
}

func TestSellersShareOneFunding(t *testing.T) {
	odd := false
	for _, sellers := range []int{2, 3, 5} {
		t.Run(fmt.Sprint(sellers), func(t *testing.T) {
			if fee := shareFunding(t, sellers); fee%money.Satoshis(sellers) != 0 {
				odd = true
			}
		})
	}
	if !odd {
		t.Error("no fee had a rest")
	}
}

// shareFunding buys from several sellers and returns their funding's fee.
func shareFunding(t *testing.T, sellers int) money.Satoshis {
	g := newGathering(t, int32(sellers), 100_000)
	var links []*link
	for i := range sellers {
		m := *g.market
		if i > 0 {
			m.box = openNode(t, t.TempDir(), m.chain, m.clock)
			m.startSeller()
		}
		links = append(links, m.connect(g.buyer))
	}
	var sum sync.WaitGroup
	for i, l := range links {
		sum.Go(func() { l.transfer(int64(i+1)<<20, nil) })
	}
	sum.Wait()
	if err := g.buyer.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	receipts, err := paylink.Receipts(t.Context(), g.client.ledger, g.title.InfoHash)
	if err != nil || len(receipts) != sellers {
		t.Fatalf("%+v, %v", receipts, err)
	}
	var total, fees, shares money.Satoshis
	for i, r := range receipts {
		links[i].close()
		if r.Funding != receipts[0].Funding {
			t.Errorf("a funding of its own for %+v", r)
		}
		if err := g.chain.WaitState(t.Context(), r.Close, chain.Seen); err != nil {
			t.Fatal(err)
		}
		fees += r.Fee
		shares += r.Fee - g.feeOf(r.Close)
		total += r.Total()
	}
	fee := g.feeOf(receipts[0].Funding)
	if shares != fee {
		t.Errorf("a fee of %v was shared out as %v", fee, shares)
	}
	paid, borne, err := g.client.ledger.SpentOn(t.Context(), g.title.InfoHash)
	if err != nil || g.budget.Spent() != total || paid+borne != total || borne != fees {
		t.Errorf("receipts say %v, %v of it fees; the budget %v, the ledger %v and %v; %v", total, fees, g.budget.Spent(), paid, borne, err)
	}
	if err := g.client.ledger.Check(t.Context()); err != nil {
		t.Error(err)
	}
	g.chain.Mine(1)
	if err := g.client.wallet.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if confirmed, unconfirmed, err := g.client.wallet.Balance(t.Context()); err != nil || confirmed+unconfirmed != 1_000_000-total {
		t.Errorf("%v and %v are left, %v was spent; %v", confirmed, unconfirmed, total, err)
	}
	return fee
}

// Of those who are missing everybody else pays for one wait only.
func TestAFundingIsBuiltAnewWithoutThoseWhoAreMissing(t *testing.T) {
	g := newGathering(t, 6, 100_000)
	all, opens := g.seeders(6)
	good, silent, slow, refuses, leaves := []*rawSeeder{all[0], all[5]}, all[1], all[2], all[3], all[4]
	for i, o := range opens {
		if o.FundingTxid != opens[0].FundingTxid {
			t.Errorf("proposal %d is of another funding", i)
		}
	}
	for _, i := range []int{0, 5, 4} {
		all[i].take(opens[i])
		g.heard(all[i])
	}
	leaves.purchase.Close()
	say(t, refuses.purchase, &wire.Refusal{Channel: channel.ID(bsv.Outpoint{Txid: opens[3].FundingTxid, Index: opens[3].FundingIndex}), Code: wire.CodeTerms})
	wait(t, func() bool { return len(g.rows(ledger.StateFailed)) == 2 })
	if len(g.rows(ledger.StateOpening)) != 4 || g.fundings() != 0 {
		t.Fatalf("%+v, %d fundings", g.rows(ledger.StateOpening), g.fundings())
	}
	g.patience <- time.Time{}
	for _, s := range []*rawSeeder{good[0], good[1], silent, slow} {
		next[*wire.Close](s.conn)
	}
	slow.take(opens[2]) // too late
	g.enough.Store(2)
	for _, s := range good {
		s.offer(g.terms)
	}
	var again []*wire.Open
	for _, s := range good {
		again = append(again, next[*wire.Open](s.conn))
	}
	if again[0].FundingTxid != again[1].FundingTxid || again[0].Payer == opens[0].Payer || again[0].FundingTxid == opens[0].FundingTxid {
		t.Errorf("proposed again: %+v", again)
	}
	for i, s := range good {
		s.take(again[i])
	}
	for _, s := range good {
		s.take(next[*wire.Funded](s.conn))
	}
	slow.offer(g.terms) // in a funding of its own, without waiting for others
	slow.open()
	if err := g.buyer.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	var fees money.Satoshis
	for _, row := range g.rows(ledger.StateOpen) {
		fees += row.Fee
	}
	if g.fundings() != 2 || len(g.rows(ledger.StateOpen)) != 3 || len(g.rows(ledger.StateOpening)) != 0 || g.budget.Spent() != fees {
		t.Errorf("%d fundings, %+v; %v spent, fees %v", g.fundings(), g.rows(ledger.StateOpen), g.budget.Spent(), fees)
	}
	if err := g.client.ledger.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// Who sees fundings fail for others' sake again and again gets one of its own.
func TestAfterThreeFailuresOneByOne(t *testing.T) {
	g := newGathering(t, 3, 100_000)
	good := []*rawSeeder{g.seeder(1), g.seeder(2)}
	for round := range byte(3) {
		bad := g.seeder(10 + round)
		for _, s := range append([]*rawSeeder{bad}, good...) {
			s.take(next[*wire.Open](s.conn))
			g.heard(s)
			if s == bad {
				bad.purchase.Close()
			}
		}
		for _, s := range good {
			next[*wire.Close](s.conn)
			s.offer(g.terms)
		}
	}
	fundings := make(map[bsv.Txid]bool)
	for range good {
		// Whose turn comes first is not said.
		select {
		case first := <-good[0].conn.msgs:
			fundings[first.(*wire.Open).FundingTxid] = true
			good[0].take(first)
			good[0].take(next[*wire.Funded](good[0].conn))
		case first := <-good[1].conn.msgs:
			fundings[first.(*wire.Open).FundingTxid] = true
			good[1].take(first)
			good[1].take(next[*wire.Funded](good[1].conn))
		case <-time.After(patience):
			t.Fatal("no channel")
		}
	}
	if len(fundings) != 2 || g.fundings() != 2 {
		t.Errorf("%d fundings", len(fundings))
	}
}

// Until the funding is stored nothing is bound, and from then on nothing is lost.
func TestCrashesAroundASharedFunding(t *testing.T) {
	const sellers = 5
	for signed := range sellers {
		t.Run(fmt.Sprintf("%d of %d signed", signed, sellers), func(t *testing.T) {
			g := newGathering(t, sellers, 100_000)
			all, opens := g.seeders(sellers)
			for i := range signed {
				all[i].take(opens[i])
				g.heard(all[i])
			}
			g.crash()
			if n := len(g.rows(ledger.StateOpening)); n != sellers {
				t.Fatalf("%d channels were stored", n)
			}
			g.restart(1, 100_000)
			if err := g.buyer.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			g.untouched()
			if n := len(g.rows(ledger.StateFailed)); n != sellers {
				t.Errorf("%d channels were given up", n)
			}
		})
	}
	t.Run("the write fails", func(t *testing.T) {
		g := newGathering(t, sellers, 100_000)
		g.buyer.ApplyWith(func(context.Context, ledger.Batch) error { return errors.New("the disk is full") })
		all, opens := g.seeders(sellers)
		for i, s := range all {
			s.take(opens[i])
		}
		for _, s := range all {
			next[*wire.Close](s.conn)
		}
		if err := g.buyer.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.untouched()
	})
	t.Run("the write's answer is lost", func(t *testing.T) {
		g := newGathering(t, sellers, 100_000)
		g.buyer.ApplyWith(func(ctx context.Context, b ledger.Batch) error {
			return errors.Join(g.client.ledger.Apply(ctx, b), errors.New("timed out"))
		})
		all, opens := g.seeders(sellers)
		for i, s := range all {
			s.take(opens[i])
		}
		for _, s := range all {
			s.take(next[*wire.Funded](s.conn))
		}
	})
	for _, settle := range []string{"resumed", "refunded"} {
		t.Run("stored and "+settle, func(t *testing.T) {
			g := newGathering(t, sellers, 100_000)
			all, opens := g.seeders(sellers)
			for i, s := range all {
				s.take(opens[i])
			}
			for _, s := range all {
				next[*wire.Funded](s.conn) // and is lost
			}
			if err := g.chain.WaitState(t.Context(), opens[0].FundingTxid, chain.Seen); err != nil {
				t.Fatal(err)
			}
			g.crash()
			g.restart(1, 100_000)
			if err := g.buyer.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(g.rows(ledger.StateOpening)); n != sellers || g.fundings() != 1 {
				t.Fatalf("%d channels, %d fundings", n, g.fundings())
			}
			if settle == "resumed" {
				for i := range all {
					s := g.seeder(byte(i + 1))
					resume := next[*wire.Resume](s.conn)
					if resume.Channel != channel.ID(bsv.Outpoint{Txid: opens[i].FundingTxid, Index: opens[i].FundingIndex}) {
						t.Errorf("seeder %d was asked for another channel", i)
					}
					say(t, s.purchase, &wire.Resumed{Last: wire.Pay{Channel: resume.Channel}, Credit: 2 << 20})
					if f := next[*wire.Funded](s.conn); f.Channel != resume.Channel {
						t.Errorf("seeder %d was sent another funding", i)
					}
				}
				return
			}
			g.chain.MineTo(opens[0].RefundHeight)
			if err := g.buyer.Maintain(t.Context()); err != nil {
				t.Fatal(err)
			}
			var fees money.Satoshis
			refunded := g.rows(ledger.StateRefunded)
			for _, row := range refunded {
				fees += row.Fee
			}
			wait(t, func() bool { return len(g.chain.Mempool()) == sellers })
			want := g.feeOf(opens[0].FundingTxid)
			for _, tx := range g.chain.Mempool() {
				want += g.feeOf(tx.Txid())
			}
			if len(refunded) != sellers || fees != want {
				t.Errorf("%d channels were refunded for %v, the transactions cost %v", len(refunded), fees, want)
			}
			if err := g.client.ledger.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// crash ends the client's program without letting it put anything in order.
func (g *gathering) crash() {
	g.t.Helper()
	g.client.stop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.buyer.Suspend(ctx)
	g.client = openNode(g.t, g.client.dir, g.chain, g.clock)
}

func TestABudgetThatPaysForSomeOfAFunding(t *testing.T) {
	g := newGathering(t, 5, 100)
	var all []*rawSeeder
	for i := range byte(5) {
		all = append(all, g.seeder(i+1))
	}
	for range 3 {
		g.told("the budget does not pay")
	}
	proposed := func() (n int) {
		for _, s := range all {
			n += len(s.conn.msgs)
		}
		return n
	}
	wait(t, func() bool { return proposed() == 2 })
	for _, s := range all {
		if len(s.conn.msgs) > 0 {
			s.take(next[*wire.Open](s.conn))
		}
	}
	wait(t, func() bool { return g.fundings() == 1 })
	if err := g.buyer.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	var fees money.Satoshis
	for _, row := range g.rows(ledger.StateOpening) {
		fees += row.Fee
	}
	if len(g.rows(ledger.StateOpening)) != 2 || fees != g.budget.Spent() || fees > 100 || !g.buyer.OverLimit() {
		t.Errorf("%v in fees, %v spent", fees, g.budget.Spent())
	}
}

// Coins that do not suffice for all are for those who want the least.
func TestCoinsForSomeOfAFunding(t *testing.T) {
	g := newGathering(t, 3, 2_000_000)
	var all []*rawSeeder
	for i, least := range []money.Satoshis{2_000, 700_000, 600_000} {
		all = append(all, g.market.rawSeeder(g.buyer, byte(i+1), func(t *wire.Terms) { g.terms(t); t.MinCapacity = least }))
	}
	first, third := next[*wire.Open](all[0].conn), next[*wire.Open](all[2].conn)
	if first.FundingTxid != third.FundingTxid {
		t.Error("two fundings")
	}
	g.enough.Store(1)
	all[0].take(first)
	all[2].take(third)
	g.told("not paid")
}
