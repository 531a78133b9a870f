package paylink_test

import (
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// rawSeeder is a seeder that the test moves by hand.
type rawSeeder struct {
	m        *market
	conn     *rawConn
	purchase paylink.Purchase
	identity bsv.PrivateKey
	state    channel.Payee
	received int64
}

// rawSeeder connects a buyer to a seeder of the test's and makes an offer.
func (m *market) rawSeeder(b *paylink.Buyer, identity byte, change func(*wire.Terms)) *rawSeeder {
	m.t.Helper()
	s := &rawSeeder{m: m, conn: newRawConn(m.t), identity: key(m.t, identity)}
	s.purchase = b.Open(s.conn, m.title)
	m.t.Cleanup(s.purchase.Close)
	s.offer(change)
	return s
}

func key(t *testing.T, b byte) bsv.PrivateKey {
	raw := make([]byte, 32)
	raw[0], raw[31] = b, 1
	k, err := bsv.NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *rawSeeder) offer(change func(*wire.Terms)) {
	s.m.t.Helper()
	payee := key(s.m.t, 77)
	t := wire.Terms{Network: byte(bsv.Regtest), Identity: s.identity.Public(), Payee: payee.Public(), PayeeHash: payee.Public().Hash(), Ask: 5_000,
		MinCapacity: 2_000, MaxCapacity: 1_000_000, FeeRate: 100, TipHeight: 200, RefundWindow: 1008, CloseMargin: 144, UnconfirmedLimit: 1_000_000,
		Credit: 2 << 20, Expiry: s.m.clock.Now().Unix() + 600}
	if change != nil {
		change(&t)
	}
	digest, err := channel.TermsDigest(&t, s.m.title.InfoHash)
	if err != nil {
		s.m.t.Fatal(err)
	}
	if t.Signature, err = s.identity.SignDigest(digest); err != nil {
		s.m.t.Fatal(err)
	}
	s.state = channel.NewPayee(payee, channel.Policy{}, s.m.title.InfoHash, &t)
	say(s.m.t, s.purchase, &t)
}

// take steps the seeder's own machine and sends what that sends.
func (s *rawSeeder) take(m wire.Message) {
	var effects []channel.Effect
	s.state, effects = s.state.Step(channel.Got{Msg: m, Title: s.m.title.InfoHash, Terms: &s.state.Terms}, s.m.clock.Now())
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Send:
			say(s.m.t, s.purchase, e.Msg)
		case channel.CheckFunding:
			var more []channel.Effect
			s.state, more = s.state.Step(channel.FundingChecked{Height: 200, Confirmed: true}, s.m.clock.Now())
			for _, e := range more {
				if send, ok := e.(channel.Send); ok {
					say(s.m.t, s.purchase, send.Msg)
				}
			}
		}
	}
}

// open plays the honest seeder until the channel is open.
func (s *rawSeeder) open() {
	s.m.t.Helper()
	s.take(next[*wire.Open](s.conn))
	s.take(next[*wire.Funded](s.conn))
}

// serve delivers n verified bytes in reports of 128 KiB.
func (s *rawSeeder) serve(n int64) {
	for end := s.received + n; s.received < end; {
		s.received += min(128<<10, end-s.received)
		s.purchase.Received(s.received, s.received)
	}
}

func TestALieAboutTheCloseOnlyDelaysTheMoney(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	s := m.rawSeeder(b, 1, nil)
	s.open()
	s.serve(4 << 20)
	s.take(next[*wire.Pay](s.conn))
	say(t, s.purchase, &wire.Closed{Channel: s.state.ID(), Txid: [32]byte{1}})
	var row ledger.Channel
	wait(t, func() bool {
		var err error
		row, err = m.client.ledger.Channel(t.Context(), s.state.ID())
		return err == nil && row.State == ledger.StateClosed
	})
	if err := m.chain.WaitState(t.Context(), row.FundingTxid, 1); err != nil {
		t.Fatal(err)
	}
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.chain.MineTo(row.RefundHeight - 1)
	if err := b.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, err := m.client.ledger.OutgoingFor(t.Context(), ledger.Refund, 1); err != nil || len(out) > 0 {
		t.Fatalf("a refund before its time: %+v, %v", out, err)
	}
	m.chain.Mine(1)
	if err := b.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(t, func() bool {
		row, err := m.client.ledger.Channel(t.Context(), s.state.ID())
		return err == nil && row.State == ledger.StateRefunded
	})
	if err := m.client.ledger.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// A close that is on the chain is left alone.
func TestNoRefundAfterATrueClose(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	l := m.connect(b)
	l.transfer(32<<20, nil)
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	wait(t, func() bool { return len(m.chain.Mempool()) == 2 })
	m.chain.MineTo(1_500)
	for range 2 { // with and without the close's change in the wallet
		if err := b.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if out, err := m.client.ledger.OutgoingFor(t.Context(), ledger.Refund, 1); err != nil || len(out) > 0 {
			t.Fatalf("%+v, %v", out, err)
		}
		if err := m.client.wallet.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestASeederThatForgetsEveryChannel(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.moreCoins(10)
	enough := make(chan struct{}, 1)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(text string) {
		if strings.Contains(text, "came to nothing") {
			enough <- struct{}{}
		}
	})
	s := m.rawSeeder(b, 1, nil)
	for opens := 0; ; {
		select {
		case got := <-s.conn.msgs:
			switch got := got.(type) {
			case *wire.Open:
				if opens++; opens > 3 {
					t.Fatalf("%d channels opened with a seeder that forgets them", opens)
				}
				s.state = channel.NewPayee(s.state.Key, channel.Policy{}, s.state.Leg.Title, &s.state.Terms)
				s.take(got)
			case *wire.Funded:
				say(t, s.purchase, &wire.Refusal{Channel: got.Channel, Code: wire.CodeUnknownChannel})
			case *wire.Resume:
				t.Fatal("a channel that the seeder does not know is tried again")
			}
			continue
		case <-enough:
		case <-time.After(patience):
			t.Fatal("nothing comes")
		}
		break
	}
	// Another seeder is dealt with.
	s = m.rawSeeder(b, 2, nil)
	s.open()
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestTheRefundPaysForItself(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	s := m.rawSeeder(b, 1, func(t *wire.Terms) { t.FeeRate = 0 })
	if open := next[*wire.Open](s.conn); open.FeeRate != 100 {
		t.Errorf("refund at %v on a chain that wants 100", open.FeeRate)
	}
}

func TestASeederCannotBindTheWholeWallet(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	told := make(chan string, 16)
	b := m.buyer(6_000, paylink.NewBudget(1_000, 0), func(text string) { told <- text })
	s := m.rawSeeder(b, 1, func(t *wire.Terms) { t.MinCapacity = 900_000 })
	select {
	case got := <-s.conn.msgs:
		t.Errorf("%+v", got)
	case text := <-told:
		t.Log(text)
	}
}

// While one seeder keeps silent the others get their channels, as far as the
// wallet has coins for them.
func TestASilentSeederDoesNotHoldUpTheOthers(t *testing.T) {
	for name, c := range map[string]struct {
		coins             int
		timeout, patience time.Duration
	}{
		"coins for both": {1, time.Hour, 10 * time.Millisecond},
		"one coin":       {0, 2 * time.Second, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, 5_000, 0)
			m.moreCoins(c.coins)
			b := m.buyerWith(6_000, paylink.NewBudget(100_000, 0), nil, func(cfg *paylink.BuyerConfig) { cfg.OpenTimeout, cfg.OpenPatience = c.timeout, c.patience })
			silent := m.rawSeeder(b, 1, nil)
			next[*wire.Open](silent.conn)
			s := m.rawSeeder(b, 2, nil)
			s.open()
			if err := b.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFinishDoesNotWaitForATurn(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.moreCoins(2)
	b := m.buyerWith(6_000, paylink.NewBudget(100_000, 0), nil, func(cfg *paylink.BuyerConfig) { cfg.OpenTimeout, cfg.OpenPatience = time.Hour, time.Hour })
	silent := m.rawSeeder(b, 1, nil)
	next[*wire.Open](silent.conn)
	waiting := m.rawSeeder(b, 2, nil)
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-waiting.conn.msgs:
		t.Errorf("after the end: %+v", got)
	default:
	}
	if rows, err := m.client.ledger.Coins(t.Context(), ledger.CoinFilter{States: []string{ledger.CoinReserved}}); err != nil || len(rows) > 0 {
		t.Errorf("coins stay reserved: %+v, %v", rows, err)
	}
}

func TestAUsedUpChannelIsClosedOnce(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	s := m.rawSeeder(b, 1, func(t *wire.Terms) { t.MinCapacity, t.MaxCapacity = 100, 130 })
	s.open()
	s.serve(60 << 20)
	next[*wire.Close](s.conn)
	s.serve(4 << 20) // what was on its way
	s.purchase.Close()
	if err := b.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	closes := 1
	for len(s.conn.msgs) > 0 {
		if _, ok := (<-s.conn.msgs).(*wire.Close); ok {
			closes++
		}
	}
	if closes != 1 {
		t.Errorf("%d closes for one channel", closes)
	}
}

// A Resumed that answers nothing changes nothing, and costs no write.
func TestAResumedThatNobodyAskedFor(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	s := m.rawSeeder(b, 1, nil)
	s.open()
	s.serve(4 << 20)
	pay := next[*wire.Pay](s.conn)
	before := m.client.ledger.Commits()
	for range 20 {
		s.m.t.Helper()
		say(t, s.purchase, &wire.Resumed{Last: *pay, Credit: 2 << 20})
	}
	s.take(pay)
	s.serve(4 << 20)
	next[*wire.Pay](s.conn)
	if n := m.client.ledger.Commits() - before; n > 6 {
		t.Errorf("%d writes", n)
	}
}
