package paylink_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the time of a test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// node is one end's money: ledger, wallet and outbox in a folder.
type node struct {
	t      *testing.T
	dir    string
	clock  *clock
	chain  *memory.Chain
	ledger *ledger.Ledger
	wallet *wallet.Wallet
	outbox *wallet.Outbox
	halt   func() // the outbox
	stop   func()
}

func openNode(t *testing.T, dir string, c *memory.Chain, clk *clock) *node {
	t.Helper()
	ctx := t.Context()
	n := &node{t: t, dir: dir, clock: clk, chain: c}
	var err error
	// Not the usual 200 ms: what is stored in these tests is the same.
	if n.ledger, err = ledger.OpenWith(ctx, filepath.Join(dir, "money.db"), clk.Now, ledger.Options{Interval: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	n.wallet, err = wallet.Open(ctx, dir, n.ledger, c, wallet.Options{Clock: clk.Now, Log: quiet()})
	if errors.Is(err, wallet.ErrNoWallet) {
		if _, err = wallet.Create(ctx, dir, bsv.Regtest, rand.Reader); err == nil {
			n.wallet, err = wallet.Open(ctx, dir, n.ledger, c, wallet.Options{Clock: clk.Now, Log: quiet()})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	n.startOutbox(c)
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) startOutbox(c chain.Backend) {
	n.outbox = wallet.NewOutbox(n.ledger, c, n.clock.Now, quiet())
	n.outbox.Poll = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.outbox.Run(ctx)
	}()
	n.halt = sync.OnceFunc(func() { cancel(); <-done })
	n.stop = sync.OnceFunc(func() {
		n.halt()
		if err := n.ledger.Close(); err != nil {
			n.t.Error(err)
		}
	})
}

// restartOn gives the outbox another view of the chain.
func (n *node) restartOn(c chain.Backend) {
	n.halt()
	n.startOutbox(c)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// market is a seller and a payer with coins on one chain.
type market struct {
	t      *testing.T
	clock  *clock
	chain  *memory.Chain
	box    *node
	client *node
	title  paylink.Title
	offer  paylink.Offer
	seller *paylink.Seller
	stop   func()

	poll       time.Duration
	endangered func([]paylink.Danger)
}

func newMarket(t *testing.T, ask, royalty money.Rate) *market {
	clk := &clock{now: time.Unix(1_800_000_000, 0)}
	m := &market{t: t, clock: clk, chain: memory.New(clk.Now), offer: paylink.DefaultOffer(), poll: 10 * time.Millisecond}
	m.chain.MineTo(200)
	m.box = openNode(t, t.TempDir(), m.chain, clk)
	m.client = openNode(t, t.TempDir(), m.chain, clk)
	m.title = paylink.Title{InfoHash: [20]byte{7}, Name: "a film", Length: 64 << 20, PieceLength: 1 << 20, Ask: ask}
	if royalty > 0 {
		creator, err := bsv.NewPrivateKey([]byte(strings.Repeat("c", 32)))
		if err != nil {
			t.Fatal(err)
		}
		m.title.Royalty = &paylink.Royalty{Creator: creator.Public(), Rate: royalty, To: creator.Public().Hash()}
	}
	address, err := m.client.wallet.ReceiveAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := bsv.ParseAddress(address, bsv.Regtest)
	if err != nil {
		t.Fatal(err)
	}
	m.chain.Fund(bsv.P2PKH(hash), 1_000_000)
	if err := m.client.wallet.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.startSeller()
	return m
}

func (m *market) startSeller() { m.startSellerOn(m.chain) }

func (m *market) startSellerOn(c chain.Backend) {
	m.seller = m.newSeller(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.seller.Run(ctx); err != nil {
			m.t.Error(err)
		}
	}()
	m.stop = sync.OnceFunc(func() { cancel(); <-done })
	m.t.Cleanup(m.stop)
}

func (m *market) buyer(maxPrice money.Rate, budget *paylink.Budget, notices func(string)) *paylink.Buyer {
	return m.buyerWith(maxPrice, budget, notices, func(*paylink.BuyerConfig) {})
}

func (m *market) buyerWith(maxPrice money.Rate, budget *paylink.Budget, notices func(string), change func(*paylink.BuyerConfig)) *paylink.Buyer {
	cfg := paylink.BuyerConfig{Ledger: m.client.ledger, Wallet: m.client.wallet, Chain: m.chain, Outbox: m.client.outbox,
		MaxPrice: maxPrice, Budget: budget, MaxFeeRate: 1000, MaxWindow: 2016, Clock: m.clock.Now, Log: quiet(),
		Notify: func(n paylink.Notice) {
			if notices != nil {
				notices(n.Text)
			}
		}}
	change(&cfg)
	b := paylink.NewBuyer(cfg)
	m.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Suspend(ctx) // where the test has not done so
	})
	return b
}

// link is a connection between the two: what the peer wire would be.
type link struct {
	m        *market
	sale     paylink.Sale
	purchase paylink.Purchase

	mu      sync.Mutex
	changed *sync.Cond
	allowed int64
	sent    int64
	failed  error
	stops   int // Stop was called
	ready   chan struct{}
}

func (m *market) connect(b *paylink.Buyer) *link {
	l := &link{m: m, ready: make(chan struct{})}
	l.changed = sync.NewCond(&l.mu)
	buyerTitle := m.title
	buyerTitle.Ask = 0
	l.purchase = b.Open(buyerEnd{l}, buyerTitle)
	l.sale = m.seller.Open(sellerEnd{l}, m.title)
	close(l.ready)
	return l
}

func (l *link) close() {
	l.sale.Close()
	l.purchase.Close()
}

type sellerEnd struct{ *link }
type buyerEnd struct{ *link }

func (e sellerEnd) Send(b []byte) error { <-e.ready; e.purchase.Message(b); return nil }
func (e buyerEnd) Send(b []byte) error  { <-e.ready; e.sale.Message(b); return nil }

func (l *link) Remote() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:4000") }

func (l *link) Fail(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = reason
	}
	l.changed.Broadcast()
}

func (l *link) Allow(total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed = total
	l.changed.Broadcast()
}

func (l *link) Stop() {
	l.mu.Lock()
	l.stops++
	l.mu.Unlock()
	l.Allow(0)
}

// transfer moves n bytes of blocks as fast as the sale allows, or as far as it
// does before give says that waiting is over.
func (l *link) transfer(n int64, give <-chan struct{}) int64 {
	l.m.t.Helper()
	if give != nil {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-give:
				l.Fail(errGivenUp)
			case <-stop:
			}
		}()
	}
	var moved int64
	for moved < n {
		l.mu.Lock()
		for l.allowed <= l.sent && l.failed == nil {
			l.changed.Wait()
		}
		if l.failed != nil {
			l.mu.Unlock()
			return moved
		}
		block := min(16<<10, l.allowed-l.sent, n-moved)
		l.sent += block
		total := l.sent
		l.mu.Unlock()
		moved += block
		l.sale.Sent(total)
		l.purchase.Received(total, total)
	}
	return moved
}

var errGivenUp = errors.New("the test waits no longer")

func TestASaleAgreesToTheSatoshi(t *testing.T) {
	m := newMarket(t, 5_000, 700)
	budget := paylink.NewBudget(100_000, 0)
	b := m.buyer(6_000, budget, nil)
	l := m.connect(b)
	if n := l.transfer(m.title.Length, nil); n != m.title.Length {
		t.Fatalf("moved %d bytes: %v", n, l.failed)
	}
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	payee, _ := money.Rate(5_000).Due(m.title.Length)
	creator, _ := money.Rate(700).Due(m.title.Length)

	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 1 {
		t.Fatalf("receipts: %+v, %v", receipts, err)
	}
	r := receipts[0]
	if r.Bytes != m.title.Length || r.Payee != payee || r.Creator != creator {
		t.Errorf("receipt %+v, want %v and %v for %d bytes", r, payee, creator, m.title.Length)
	}
	if err := m.chain.WaitState(t.Context(), r.Close, chain.Seen); err != nil {
		t.Fatal(err)
	}
	m.chain.Mine(1)
	tx, err := m.chain.RawTx(t.Context(), r.Close)
	if err != nil {
		t.Fatal(err)
	}
	if tx.Outputs[0].Value != payee || tx.Outputs[1].Value != creator {
		t.Errorf("the close pays %+v", tx.Outputs)
	}
	earned, err := m.box.ledger.EarningsByTitle(t.Context())
	if err != nil || len(earned) != 1 || earned[0].Bytes != m.title.Length || earned[0].Royalty != creator || earned[0].Unsettled+earned[0].Settled != payee {
		t.Errorf("the box earned %+v, %v", earned, err)
	}
	if budget.Spent() != r.Total() {
		t.Errorf("the budget says %v, the receipt %v", budget.Spent(), r.Total())
	}
	for _, n := range []*node{m.box, m.client} {
		if err := n.ledger.Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestBrokenConnectionsAndRestarts(t *testing.T) {
	m := newMarket(t, 5_000, 700)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	var moved int64
	for round := range 4 {
		l := m.connect(b)
		moved += l.transfer(m.title.Length/4, nil)
		if round == 3 {
			if err := b.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.close()
			break
		}
		if err := b.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.close()
		if round%2 == 0 { // the box goes down and comes up
			m.stop()
			m.box.stop()
			m.box = openNode(t, m.box.dir, m.chain, m.clock)
			m.startSeller()
		} else {
			m.client.stop()
			m.client = openNode(t, m.client.dir, m.chain, m.clock)
		}
		paid, fees, err := m.client.ledger.SpentOn(t.Context(), m.title.InfoHash)
		if err != nil {
			t.Fatal(err)
		}
		b = m.buyer(6_000, paylink.NewBudget(100_000, paid+fees), nil)
		if err := b.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 1 {
		t.Fatalf("one channel was to carry it all: %+v, %v", receipts, err)
	}
	if receipts[0].Bytes != moved || moved != m.title.Length {
		t.Errorf("paid for %d of %d bytes", receipts[0].Bytes, moved)
	}
}

func TestNothingAboveThePriceOrTheBudget(t *testing.T) {
	t.Run("price", func(t *testing.T) {
		m := newMarket(t, 5_000, 1_001)
		told := make(chan struct{})
		b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(text string) {
			if strings.Contains(text, "above the limit") {
				close(told)
			}
		})
		l := m.connect(b)
		<-told
		l.close()
		if err := b.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rows, err := m.client.ledger.Channels(t.Context(), ledger.Filter{}); err != nil || len(rows) > 0 {
			t.Errorf("a channel was opened above the price: %+v, %v", rows, err)
		}
	})
	t.Run("budget", func(t *testing.T) {
		m := newMarket(t, 50_000, 1_000)
		budget := paylink.NewBudget(1_000, 0) // the title costs 3,188 sat
		told := make(chan struct{})
		b := m.buyer(60_000, budget, func(text string) {
			if strings.HasPrefix(text, "channel open") {
				m.chain.Mine(1) // or it may wait at the limit for unconfirmed fundings
			}
			if strings.Contains(text, "budget is used up") {
				close(told)
			}
		})
		l := m.connect(b)
		moved := l.transfer(m.title.Length, told)
		if err := b.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.close()
		if !b.OverLimit() || budget.Spent() > 1_000 || budget.Spent() < 990 {
			t.Errorf("spent %v of 1,000 sat, over the limit: %v", budget.Spent(), b.OverLimit())
		}
		if moved >= m.title.Length {
			t.Error("everything came although the budget did not pay for it")
		}
	})
}

// A channel that is used up gives way to another one that is open by then: the
// payer is never stopped, and every byte is paid for in one of them.
func TestUsedUpChannelsGiveWay(t *testing.T) {
	m := newMarket(t, 60_000, 2_000)
	m.stop()
	m.offer.MinCapacity, m.offer.MaxCapacity = 900, 900 // of the title's 3,875 sat
	m.startSeller()
	opened := make(chan struct{}, 16)
	b := m.buyer(70_000, paylink.NewBudget(100_000, 0), func(text string) {
		t.Log(text)
		if strings.HasPrefix(text, "channel open") {
			m.chain.Mine(1)
			opened <- struct{}{}
		}
	})
	l := m.connect(b)
	<-opened
	const channels = 5
	for i := range channels - 1 {
		l.transfer(m.title.Length*int64(i+1)/channels-l.sent, nil) // not the whole channel
		select {
		case <-opened:
		case <-time.After(patience):
			t.Fatalf("no channel takes the place of the one that is being used up; %d bytes came", l.sent)
		}
	}
	if moved := l.transfer(m.title.Length-l.sent, nil); l.sent != m.title.Length {
		t.Fatalf("moved %d bytes: %v", moved, l.failed)
	}
	if l.stops > 0 {
		t.Errorf("the seller stopped %d times", l.stops)
	}
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != channels {
		t.Fatalf("receipts: %+v, %v", receipts, err)
	}
	var billed, served int64
	for _, r := range receipts {
		billed += r.Bytes
		row, err := m.box.ledger.Channel(t.Context(), r.Channel)
		if err != nil {
			t.Fatal(err)
		}
		state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		served += state.Served
		if state.Served != r.Bytes {
			t.Errorf("%d bytes served on a channel that paid for %d", state.Served, r.Bytes)
		}
	}
	if billed != m.title.Length || served != m.title.Length {
		t.Errorf("%d of %d bytes were paid for, %d served, in %d channels", billed, m.title.Length, served, len(receipts))
	}
}

func TestTheWatcherClosesWithoutAConnection(t *testing.T) {
	for name, pass := range map[string]func(m *market){
		"idle":         func(m *market) { m.clock.advance(time.Hour) },
		"refund nears": func(m *market) { m.chain.MineTo(200 + 1 + 1008 - 144) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, 5_000, 0)
			b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
			l := m.connect(b)
			l.transfer(32<<20, nil)
			if err := b.Suspend(t.Context()); err != nil {
				t.Fatal(err)
			}
			l.close()
			rows, err := m.box.ledger.Channels(t.Context(), ledger.Filter{})
			if err != nil || len(rows) != 1 || rows[0].State != ledger.StateOpen {
				t.Fatalf("%+v, %v", rows, err)
			}
			pass(m)
			for {
				changed := m.chain.Changed()
				spent, err := m.chain.Spent(t.Context(), bsv.Outpoint{Txid: rows[0].FundingTxid, Index: rows[0].FundingIndex})
				if err != nil {
					t.Fatal(err)
				}
				if spent {
					break
				}
				<-changed
			}
			due, _ := money.Rate(5_000).Due(32 << 20)
			row, err := m.box.ledger.Channel(t.Context(), rows[0].ID)
			if err != nil || row.Payee != due || row.CloseTxid == [32]byte{} {
				t.Errorf("closed as %+v, want %v; %v", row, due, err)
			}
		})
	}
}

func TestOnDemandCloseWhileConnected(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(x string) { t.Log(x) })
	l := m.connect(b)
	l.transfer(16<<20, nil)
	if n, err := m.seller.CloseAll(t.Context()); n != 1 || err != nil {
		t.Fatalf("closed %d, %v", n, err)
	}
	// The payer opens another channel on the same connection and goes on.
	l.transfer(16<<20, nil)
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	receipts, err := paylink.Receipts(t.Context(), m.client.ledger, m.title.InfoHash)
	if err != nil || len(receipts) != 2 {
		t.Fatalf("%+v, %v", receipts, err)
	}
}

// What is asked for while a connection ends is done.
func TestOnDemandCloseWhileDisconnecting(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	for i := range 10 {
		b := m.buyer(6_000, paylink.NewBudget(100_000, 0), func(x string) { t.Log(x) })
		l := m.connect(b)
		l.transfer(16<<20, nil)
		l.close()
		if n, err := m.seller.CloseAll(t.Context()); n != 1 || err != nil {
			t.Fatalf("closed %d, %v", n, err)
		}
		if err := b.Suspend(t.Context()); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(20 * time.Second)
		for m.boxRows(ledger.StateOpen) > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("round %d: the channel is still open", i)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

func TestPeersThatBreakTheProtocol(t *testing.T) {
	encode := func(m wire.Message) []byte {
		b, err := wire.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, payload := range map[string][]byte{
		"not a message":    {6, 1, 2},
		"too long":         make([]byte, wire.MaxPayload+1),
		"seeder's message": encode(&wire.Ack{}),
	} {
		m := newMarket(t, 5_000, 0)
		l := &link{m: m, ready: make(chan struct{})}
		l.changed = sync.NewCond(&l.mu)
		l.purchase = nobody{}
		l.sale = m.seller.Open(sellerEnd{l}, m.title)
		close(l.ready)
		l.sale.Message(payload)
		l.mu.Lock()
		for l.failed == nil {
			l.changed.Wait()
		}
		l.mu.Unlock()
		l.sale.Close()
		if !errors.Is(l.failed, channel.ErrProtocol) && !errors.Is(l.failed, wire.ErrMalformed) && !errors.Is(l.failed, wire.ErrTooLong) {
			t.Errorf("%s: %v", name, l.failed)
		}
		m.stop()
	}
	m := newMarket(t, 5_000, 0)
	l := &link{m: m, ready: make(chan struct{})}
	l.changed = sync.NewCond(&l.mu)
	l.purchase = nobody{}
	l.sale = m.seller.Open(sellerEnd{l}, m.title)
	for range 100 { // nobody answers: the sender of terms waits for ready
		l.sale.Message(encode(&wire.Close{}))
	}
	if !errors.Is(l.failed, paylink.ErrFlood) {
		t.Errorf("flood: %v", l.failed)
	}
	close(l.ready)
	l.sale.Close()
}

// nobody is a purchase that takes no notice.
type nobody struct{}

func (nobody) Message([]byte)        {}
func (nobody) Received(int64, int64) {}
func (nobody) Close()                {}

// Most peers take no offer. Were each of them to cost a key, a wallet restored
// from its words would not find the coins behind the gap.
func TestOffersThatComeToNothingCostNoKeys(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	payee := func() [33]byte {
		terms := make(chan [33]byte, 1)
		l := &link{m: m, ready: make(chan struct{})}
		l.changed = sync.NewCond(&l.mu)
		l.purchase = listener{terms}
		sale := m.seller.Open(sellerEnd{l}, m.title)
		l.sale = sale
		close(l.ready)
		key := <-terms
		sale.Close()
		paylink.WaitEnded(sale)
		return key
	}
	first := payee()
	for range 20 {
		if key := payee(); key != first {
			t.Fatal("an offer that came to nothing used up its key")
		}
	}
	b := m.buyer(6_000, paylink.NewBudget(100_000, 0), nil)
	l := m.connect(b)
	l.transfer(1<<20, nil)
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.close()
	if key := payee(); key == first {
		t.Error("the key of a channel was offered again")
	}
}

// listener is a purchase that hands on the key of the first terms.
type listener struct{ terms chan [33]byte }

func (l listener) Message(b []byte) {
	if m, err := wire.Decode(b); err == nil {
		if terms, ok := m.(*wire.Terms); ok {
			l.terms <- terms.Payee
		}
	}
}
func (listener) Received(int64, int64) {}
func (listener) Close()                {}
