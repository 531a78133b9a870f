package paylink_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// patience is how long these tests wait for what must come.
const patience = 20 * time.Second

// rawConn is a connection whose other end is the test itself.
type rawConn struct {
	t      *testing.T
	remote netip.AddrPort
	msgs   chan wire.Message
	failed chan error

	mu      sync.Mutex
	allowed int64
}

func newRawConn(t *testing.T) *rawConn {
	return &rawConn{t: t, remote: netip.MustParseAddrPort("127.0.0.1:4000"), msgs: make(chan wire.Message, 1024), failed: make(chan error, 16)}
}

func (c *rawConn) Send(b []byte) error {
	m, err := wire.Decode(b)
	if err != nil {
		c.t.Errorf("sent what does not decode: %v", err)
		return nil
	}
	c.msgs <- m
	return nil
}

func (c *rawConn) Allow(total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed = total
}
func (c *rawConn) Stop()                  { c.Allow(0) }
func (c *rawConn) Remote() netip.AddrPort { return c.remote }
func (c *rawConn) Fail(reason error) {
	select {
	case c.failed <- reason:
	default:
	}
}

// next returns the next message of type M and skips others.
func next[M wire.Message](c *rawConn) M {
	c.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case m := <-c.msgs:
			if m, ok := m.(M); ok {
				return m
			}
			if r, ok := m.(*wire.Refusal); ok {
				c.t.Logf("refused: %s", r.Text)
			}
		case <-timeout:
			var want M
			c.t.Fatalf("no %T came", want)
		}
	}
}

func say(t *testing.T, s paylink.Session, m wire.Message) {
	t.Helper()
	b, err := wire.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	s.Message(b)
}

// rawPayer is a payer that the test moves by hand.
type rawPayer struct {
	m     *market
	conn  *rawConn
	sale  paylink.Sale
	nonce [16]byte
	terms *wire.Terms
	state channel.Payer
}

func (m *market) rawPayer() *rawPayer {
	m.t.Helper()
	p := &rawPayer{m: m, conn: newRawConn(m.t)}
	p.sale = m.seller.Open(p.conn, m.title)
	m.t.Cleanup(p.sale.Close)
	p.takeTerms()
	return p
}

func (p *rawPayer) takeTerms() {
	p.m.t.Helper()
	p.terms = next[*wire.Terms](p.conn)
	p.nonce = p.terms.Nonce
}

// propose sends an Open for a funding that spends coin, or one of the wallet's.
func (p *rawPayer) propose(coin *bsv.Coin) *wire.RefundSig {
	p.m.t.Helper()
	t, w := p.m.t, p.m.client.wallet
	index, err := w.NextIndex(t.Context(), wallet.BranchChannel)
	if err != nil {
		t.Fatal(err)
	}
	key, err := w.Key(wallet.BranchChannel, index)
	if err != nil {
		t.Fatal(err)
	}
	payee, err := bsv.ParsePublicKey(p.terms.Payee[:])
	if err != nil {
		t.Fatal(err)
	}
	open := wire.Open{Payer: key.Public(), PayerHash: key.Public().Hash(), Capacity: 20_000, FeeRate: p.terms.FeeRate, RefundHeight: p.terms.TipHeight + p.terms.RefundWindow}
	outs := []bsv.Output{{Value: open.Capacity, Script: bsv.Multisig(key.Public(), payee)}}
	var funding *bsv.Tx
	var prev []bsv.Output
	if coin == nil {
		f, err := w.Fund(t.Context(), outs)
		if err != nil {
			t.Fatal(err)
		}
		funding, prev = f.Tx, f.Prev
	} else {
		prev = []bsv.Output{coin.Output}
		if funding, _, err = bsv.BuildPayment([]bsv.Coin{*coin}, []bsv.PrivateKey{strangersKey(t)}, outs, strangersKey(t).Public().Hash(), 100); err != nil {
			t.Fatal(err)
		}
	}
	open.FundingTxid = funding.Txid()
	if p.state, _, err = channel.NewPayer(key, p.m.title.InfoHash, p.terms, open, funding, prev); err != nil {
		t.Fatal(err)
	}
	say(t, p.sale, &open)
	select {
	case m := <-p.conn.msgs:
		if sig, ok := m.(*wire.RefundSig); ok {
			p.step(sig)
			return sig
		}
	case <-time.After(patience):
		t.Fatal("no answer to the open")
	}
	return nil
}

func strangersKey(t *testing.T) bsv.PrivateKey {
	k, err := bsv.NewPrivateKey([]byte("a stranger's key, 32 bytes long."))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// step moves the payer's machine and returns what it would send.
func (p *rawPayer) step(m wire.Message) (out []wire.Message) {
	var effects []channel.Effect
	p.state, effects = p.state.Step(channel.Got{Msg: m, Title: p.m.title.InfoHash, Terms: p.terms}, p.m.clock.Now())
	if p.state.Phase == channel.Signed {
		var more []channel.Effect
		p.state, more = p.state.Step(channel.FundingReady{}, p.m.clock.Now())
		effects = append(effects, more...)
	}
	for _, e := range effects {
		if s, ok := e.(channel.Send); ok {
			out = append(out, s.Msg)
		}
	}
	return out
}

func (p *rawPayer) funded() *wire.Funded {
	return &wire.Funded{Channel: p.state.ID(), Funding: p.state.Funding, First: p.state.Last}
}

func (p *rawPayer) resume() *wire.Resume {
	proof, err := p.state.Key.SignDigest(channel.ResumeDigest(p.nonce, p.m.title.InfoHash, p.state.ID()))
	if err != nil {
		p.m.t.Fatal(err)
	}
	return &wire.Resume{Channel: p.state.ID(), Proof: proof}
}

// faultyChain is the memory chain with one kind of trouble.
type faultyChain struct {
	chain.Backend
	mu      sync.Mutex
	hold    map[bsv.Outpoint]chan struct{} // Spent waits for these
	missing map[bsv.Txid]bool              // neither known nor, if sent, with known inputs
	asked   int                            // for a status
	rawTx   int
	holdRaw chan struct{} // RawTx waits for it, where there is one
}

func (f *faultyChain) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	f.mu.Lock()
	hold, forgotten := f.hold[o], len(f.missing) > 0
	f.mu.Unlock()
	if forgotten {
		return false, nil
	}
	spent, err := f.Backend.Spent(ctx, o) // as of now, however late the answer
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return spent, err
}

func (f *faultyChain) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	f.mu.Lock()
	missing := f.missing[txid]
	f.asked++
	f.mu.Unlock()
	if missing {
		return chain.Status{}, nil
	}
	return f.Backend.Status(ctx, txid)
}

func (f *faultyChain) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	f.mu.Lock()
	f.rawTx++
	hold := f.holdRaw
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return f.Backend.RawTx(ctx, txid)
}

func (f *faultyChain) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	f.mu.Lock()
	missing := f.missing[tx.Txid()]
	for _, in := range tx.Inputs {
		if f.missing[in.Prev.Txid] {
			f.mu.Unlock()
			return chain.Reject(chain.MissingInputs, "forgotten")
		}
	}
	f.mu.Unlock()
	if missing {
		return chain.Reject(chain.MissingInputs, "forgotten")
	}
	return f.Backend.Broadcast(ctx, tx, prev)
}

// withChain restarts the box on another view of the chain.
func (m *market) withChain(c chain.Backend) {
	m.stop()
	m.startSellerOn(c)
}

func (m *market) moreCoins(n int) {
	m.t.Helper()
	address, err := m.client.wallet.ReceiveAddress(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	hash, err := bsv.ParseAddress(address, bsv.Regtest)
	if err != nil {
		m.t.Fatal(err)
	}
	for range n {
		m.chain.Fund(bsv.P2PKH(hash), 50_000)
	}
	if err := m.client.wallet.Refresh(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *market) boxRows(state string) (n int) {
	m.t.Helper()
	rows, err := m.box.ledger.Channels(m.t.Context(), ledger.Filter{Role: ledger.Payee})
	if err != nil {
		m.t.Fatal(err)
	}
	for _, r := range rows {
		if r.State == state {
			n++
		}
	}
	return n
}

// The chain's word on one funding must not open another channel.
func TestAnAnswerAboutAFormerChannelOpensNothing(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.moreCoins(3)
	faulty := &faultyChain{Backend: m.chain, hold: make(map[bsv.Outpoint]chan struct{})}
	m.withChain(faulty)
	p := m.rawPayer()
	p.propose(nil)
	first := bsv.Outpoint{Txid: p.state.Open.FundingTxid}
	hold := make(chan struct{})
	faulty.mu.Lock()
	faulty.hold[first] = hold
	faulty.mu.Unlock()
	say(t, p.sale, p.funded())
	for range 3 { // further looks at the same funding, all held up
		say(t, p.sale, p.resume())
		next[*wire.Resumed](p.conn)
		say(t, p.sale, p.funded())
	}
	hold <- struct{}{} // one of them is answered
	next[*wire.Ready](p.conn)
	say(t, p.sale, &wire.Close{Channel: p.state.ID()})
	next[*wire.Closed](p.conn)
	p.takeTerms()
	nowhere := bsv.Coin{Outpoint: bsv.Outpoint{Txid: [32]byte{9}}, Output: bsv.Output{Value: 30_000, Script: bsv.P2PKH(strangersKey(t).Public().Hash())}}
	p.propose(&nowhere)
	holdRaw := make(chan struct{})
	faulty.mu.Lock()
	faulty.holdRaw = holdRaw
	faulty.mu.Unlock()
	say(t, p.sale, p.funded())
	say(t, p.sale, &wire.Close{})
	next[*wire.Refusal](p.conn) // by now the new funding is being looked at
	close(hold)
	for range 300 { // time for the answers that are late to be dealt with
		say(t, p.sale, &wire.Close{})
		select {
		case got := <-p.conn.msgs:
			if _, ready := got.(*wire.Ready); ready {
				t.Fatal("a channel without a funding is open")
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	close(holdRaw)
	for {
		select {
		case got := <-p.conn.msgs:
			switch got := got.(type) {
			case *wire.Ready:
				t.Fatal("a channel without a funding is open")
			case *wire.Refusal:
				if got.Channel == p.state.ID() && got.Code == wire.CodeUnknownParent {
					return
				}
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
}

// Whoever has one settled channel must not get terms, keys and questions to
// the chain for nothing.
func TestResumingASettledChannelCostsNothing(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.moreCoins(2)
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	say(t, p.sale, &wire.Close{Channel: p.state.ID()})
	next[*wire.Closed](p.conn)
	p.takeTerms()
	settled := *p
	before, err := m.box.ledger.NextKey(t.Context(), wallet.BranchChannel)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		say(t, p.sale, settled.resume())
		closed := false
		for !closed {
			select {
			case got := <-p.conn.msgs:
				switch got.(type) {
				case *wire.Terms:
					t.Fatal("new terms for a Resume")
				case *wire.Closed:
					closed = true
				}
			case err := <-p.conn.failed:
				t.Fatal(err)
			case <-time.After(patience):
				t.Fatal("no answer")
			}
		}
	}
	if after, err := m.box.ledger.NextKey(t.Context(), wallet.BranchChannel); err != nil || after != before {
		t.Errorf("keys went from %d to %d, %v", before, after, err)
	}
	// The offer stands.
	if p.propose(nil) == nil {
		t.Fatal("the offer does not stand")
	}
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
}

func TestChannelsWithoutFundingsAreBounded(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	refused := 0
	for i := range 40 {
		p := m.rawPayer()
		coin := bsv.Coin{Outpoint: bsv.Outpoint{Txid: [32]byte{9}, Index: uint32(i)}, Output: bsv.Output{Value: 30_000, Script: bsv.P2PKH(strangersKey(t).Public().Hash())}}
		if p.propose(&coin) == nil {
			refused++
		}
		p.sale.Close()
	}
	if rows := m.boxRows(ledger.StateOpening); rows != 16 || refused != 24 {
		t.Errorf("%d rows for Opens that cost nothing, %d refused", rows, refused)
	}
	// Others are served, and after a day the place is free again.
	m.moreCoins(1)
	other := newRawConn(t)
	other.remote = netip.MustParseAddrPort("127.0.0.2:4000")
	q := &rawPayer{m: m, conn: other, sale: m.seller.Open(other, m.title)}
	defer q.sale.Close()
	q.takeTerms()
	if q.propose(nil) == nil {
		t.Fatal("another host is refused as well")
	}
	q.sale.Close()
	m.clock.advance(channel.FundingTime)
	wait(t, func() bool { return m.boxRows(ledger.StateFailed) == 17 })
	if m.rawPayer().propose(nil) == nil {
		t.Error("still refused after a day")
	}
}

// wait polls for what no event tells of.
func wait(t *testing.T, done func() bool) {
	t.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("it does not happen")
		}
	}
}

func TestWorthlessFundingsEndTheConnection(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	faulty := &faultyChain{Backend: m.chain}
	m.withChain(faulty)
	p := m.rawPayer()
	coin := bsv.Coin{Outpoint: bsv.Outpoint{Txid: [32]byte{9}}, Output: bsv.Output{Value: 30_000, Script: bsv.P2PKH(strangersKey(t).Public().Hash())}}
	p.propose(&coin)
	for range 10 {
		say(t, p.sale, p.funded())
		select {
		case err := <-p.conn.failed:
			if !errors.Is(err, channel.ErrProtocol) {
				t.Error(err)
			}
			return
		case m := <-p.conn.msgs:
			if r, ok := m.(*wire.Refusal); !ok || r.Code != wire.CodeUnknownParent {
				t.Fatalf("%+v", m)
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	t.Errorf("the chain was asked %d times for one connection's fundings", faulty.rawTx)
}

func TestTermsComeWhenTheChainAnswersAgain(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.stop()
	m.chain.SetDown(true)
	m.startSeller()
	conn := newRawConn(t)
	sale := m.seller.Open(conn, m.title)
	defer sale.Close()
	if r := next[*wire.Refusal](conn); r.Code != wire.CodeUnavailable {
		t.Errorf("%+v", r)
	}
	m.chain.SetDown(false)
	next[*wire.Terms](conn)
}

// A look at thousands of quiet channels must not read them.
func TestWatchingQuietChannelsIsCheap(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	m.chain.Mine(1)
	wait(t, func() bool { return m.confirmed(p.state.ID()) })
	p.sale.Close()
	m.stop()
	row, err := m.box.ledger.Channel(t.Context(), p.state.ID())
	if err != nil {
		t.Fatal(err)
	}
	const n = 1_000
	var batch ledger.Batch
	for i := range uint32(n) {
		c := row
		c.FundingIndex = i + 1
		c.ID = channel.ID(bsv.Outpoint{Txid: row.FundingTxid, Index: c.FundingIndex})
		state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		state.Open.FundingIndex = c.FundingIndex
		if c.Snapshot, err = state.Snapshot(); err != nil {
			t.Fatal(err)
		}
		batch.Channels = append(batch.Channels, c)
	}
	if err := m.box.ledger.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	seller := m.newSeller(m.chain)
	watch := func() {
		if err := seller.Watch(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	watch()
	if allocs := testing.AllocsPerRun(5, watch); allocs > n/10 {
		t.Errorf("%v allocations for a look at %d quiet channels", allocs, n)
	}
	m.chain.MineTo(p.state.Open.RefundHeight - 144)
	watch()
	// The copies have no signatures of their own and cannot be closed.
	if open := m.boxRows(ledger.StateOpen); open != n {
		t.Errorf("%d channels are open within the margin", open-n)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_ = seller.Run(cancelled)
}

func (m *market) confirmed(id wire.ChannelID) bool {
	row, err := m.box.ledger.Channel(m.t.Context(), id)
	if err != nil {
		return false
	}
	state, err := channel.RestorePayee(row.Snapshot, bsv.PrivateKey{}, channel.Policy{})
	return err == nil && state.Confirmed
}

// A network that forgets an unconfirmed funding, and what it stands on, must
// not take the channel along.
func TestAForgottenFundingIsGivenToTheNetworkAgain(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	faulty := &faultyChain{Backend: m.chain, missing: make(map[bsv.Txid]bool)}
	m.box.restartOn(faulty)
	m.withChain(faulty)
	p := m.rawPayer()
	p.propose(nil)
	say(t, p.sale, p.funded())
	next[*wire.Ready](p.conn)
	funding := p.state.Open.FundingTxid
	faulty.mu.Lock()
	faulty.missing[funding] = true
	asked := faulty.asked
	faulty.mu.Unlock()
	wait(t, func() bool { // some rounds of the watcher, which the payer keeps busy
		faulty.mu.Lock()
		defer faulty.mu.Unlock()
		return faulty.asked > asked+3
	})
	if m.boxRows(ledger.StateOpen) != 1 {
		t.Fatal("given up, though nothing has spent the coins")
	}
	say(t, p.sale, &wire.Close{Channel: p.state.ID()})
	closed := next[*wire.Closed](p.conn)
	wait(t, func() bool { // the close is not taken
		out, err := m.box.ledger.Outgoing(t.Context(), closed.Txid)
		return err == nil && out.Tries > 0
	})
	faulty.mu.Lock()
	delete(faulty.missing, funding)
	faulty.mu.Unlock()
	m.chain.Mine(1)
	m.clock.advance(time.Hour)
	m.box.outbox.Kick()
	if err := m.chain.WaitState(t.Context(), closed.Txid, chain.Seen); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionHasNoEndOfChannels(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.moreCoins(20)
	p := m.rawPayer()
	for i := range 20 {
		p.propose(nil)
		say(t, p.sale, p.funded())
		next[*wire.Ready](p.conn)
		say(t, p.sale, &wire.Close{Channel: p.state.ID()})
		next[*wire.Closed](p.conn)
		select {
		case got := <-p.conn.msgs:
			terms, ok := got.(*wire.Terms)
			if !ok {
				t.Fatalf("%+v", got)
			}
			p.terms, p.nonce = terms, terms.Nonce
		case err := <-p.conn.failed:
			if i < 3 {
				t.Errorf("ended after %d channels: %v", i+1, err)
			}
			return
		case <-time.After(patience):
			t.Fatal("neither terms nor an end")
		}
	}
	t.Error("no end of channels on one connection")
}

func (m *market) newSeller(c chain.Backend) *paylink.Seller {
	s, err := paylink.NewSeller(paylink.SellerConfig{Ledger: m.box.ledger, Wallet: m.box.wallet, Chain: c, Outbox: m.box.outbox,
		Offer: m.offer, Policy: paylink.DefaultPolicy(), Poll: m.poll, Endangered: m.endangered, Clock: m.clock.Now, Random: rand.Reader, Log: quiet()})
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// Fundings can stand on one another, and then one double spend takes all of
// them: what is delivered before a block comes is capped over all channels.
func TestUnconfirmedFundingsAreCappedTogether(t *testing.T) {
	m := newMarket(t, 5_000, 0)
	m.stop()
	m.offer.UnconfirmedTotal = m.offer.UnconfirmedLimit // of one channel
	m.startSeller()
	opened, waits := make(chan struct{}, 2), make(chan struct{}, 8)
	b := m.buyerWith(6_000, paylink.NewBudget(100_000, 0), func(text string) {
		switch {
		case strings.HasPrefix(text, "channel open"):
			opened <- struct{}{}
		case strings.Contains(text, "wait for the next block"):
			select {
			case waits <- struct{}{}:
			default:
			}
		}
	}, func(cfg *paylink.BuyerConfig) { cfg.RetryAfter = 10 * time.Millisecond })
	first := m.connect(b)
	defer first.close()
	<-opened
	second := m.connect(b)
	defer second.close()
	select {
	case <-waits:
	case <-opened:
		t.Fatal("a second channel delivers on a funding that is not mined")
	}
	m.chain.Mine(1)
	<-opened
	if err := b.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
}
