package channel_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
	"pgregory.net/rapid"
)

var start = time.Unix(1_800_000_000, 0)

func key(t testing.TB, b byte) bsv.PrivateKey {
	k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func terms(t testing.TB, ask, royalty money.Rate) wire.Terms {
	payout, creator := key(t, 4).Public().Hash(), key(t, 5).Public().Hash()
	m := wire.Terms{Network: byte(bsv.Regtest), Identity: key(t, 1).Public(), Payee: key(t, 2).Public(), PayeeHash: payout,
		Ask: ask, Royalty: royalty, MinCapacity: 2_000, MaxCapacity: 1_000_000, FeeRate: 100, TipHeight: 200,
		RefundWindow: 1008, CloseMargin: 144, UnconfirmedLimit: 1_000, Credit: 1 << 20, Expiry: start.Unix() + 600}
	if royalty > 0 {
		m.CreatorHash = creator
	}
	return m
}

// side is what the two ends share in these tests: a state, what was stored of
// it, and the messages that wait to be sent.
type bench struct {
	t     rapid.TB
	now   time.Time
	payer channel.Payer
	payee channel.Payee

	payerDisk        []byte
	toPayer, toPayee []wire.Message
	title            [20]byte    // of the connection
	offer            *wire.Terms // of the connection
	connected        bool
	gathers          bool // the payer's funding waits for the refunds of other channels

	allowed   int64 // over the channel's life
	delivered int64 // put on the wire by the payee
	received  int64 // by the payer
	broadcast map[channel.Purpose]*bsv.Tx
	checks    int // fundings waiting for the chain's word
	fails     []error
	spendable money.Satoshis
}

func newBench(t rapid.TB, capacity money.Satoshis, tm wire.Terms, spendable money.Satoshis) *bench {
	b := &bench{t: t, now: start, connected: true, broadcast: map[channel.Purpose]*bsv.Tx{}, spendable: spendable}
	keyOf := func(x byte) bsv.PrivateKey {
		k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{x}, 32))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	b.offer = &tm
	b.payee = channel.NewPayee(keyOf(2), channel.Policy{CreditShare: 4, IdleClose: time.Hour}, b.title, &tm)
	lock := bsv.Multisig(keyOf(3).Public(), keyOf(2).Public())
	coin := bsv.Coin{Outpoint: bsv.Outpoint{Index: 9}, Output: bsv.Output{Value: capacity * 2, Script: bsv.P2PKH(keyOf(6).Public().Hash())}}
	funding, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{keyOf(6)}, []bsv.Output{{Value: capacity, Script: lock}}, keyOf(6).Public().Hash(), 100)
	if err != nil {
		t.Fatal(err)
	}
	open := wire.Open{Payer: keyOf(3).Public(), PayerHash: keyOf(7).Public().Hash(), FundingTxid: funding.Txid(), Capacity: capacity, RefundHeight: tm.TipHeight + tm.RefundWindow, FeeRate: tm.FeeRate}
	payer, effects, err := channel.NewPayer(keyOf(3), b.title, &tm, open, funding, []bsv.Output{coin.Output})
	if err != nil {
		t.Fatal(err)
	}
	b.payer = payer
	b.runPayer(effects)
	return b
}

func (b *bench) payerStep(ev channel.Event) {
	before := b.payer.Last
	var effects []channel.Effect
	b.payer, effects = b.payer.Step(ev, b.now)
	b.ordered("payer", before, b.payer.Last)
	b.runPayer(effects)
	if b.payer.Phase == channel.Signed && !b.gathers {
		b.payerStep(channel.FundingReady{})
	}
}

func (b *bench) payeeStep(ev channel.Event) {
	before := b.payee.Last
	var effects []channel.Effect
	b.payee, effects = b.payee.Step(ev, b.now)
	if b.payee.Phase != channel.Signed {
		b.ordered("payee", before, b.payee.Last)
	}
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Store:
			if e.Tx != nil {
				b.broadcast[e.Purpose] = e.Tx
			}
		case channel.Send:
			if b.connected {
				b.toPayer = append(b.toPayer, e.Msg)
			}
		case channel.CheckFunding:
			b.checks++
		case channel.Allow:
			b.allowed = e.Total
		case channel.Revoke:
			b.allowed = 0
		case channel.Fail:
			b.fails = append(b.fails, e.Err)
		}
	}
}

func (b *bench) runPayer(effects []channel.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Store:
			snap, err := b.payer.Snapshot()
			if err != nil {
				b.t.Fatal(err)
			}
			b.payerDisk = snap
			if e.Tx != nil {
				b.broadcast[e.Purpose] = e.Tx
			}
		case channel.Send:
			if b.connected {
				b.toPayee = append(b.toPayee, e.Msg)
			}
		case channel.Fail:
			b.fails = append(b.fails, e.Err)
		}
	}
}

// ordered holds for both ends.
func (b *bench) ordered(who string, x, y wire.Pay) {
	if err := goesBack(&x, &y); err != nil {
		b.t.Fatalf("%s: %v", who, err)
	}
}

// goesBack says what is wrong with a commitment y after x: nothing falls, and
// one number has one content.
func goesBack(x, y *wire.Pay) error {
	if y.Seq < x.Seq || y.Payee < x.Payee || fallen(x.Creators, y.Creators) || y.Leg < x.Leg || y.Leg == x.Leg && y.Bytes < x.Bytes {
		return fmt.Errorf("from %+v back to %+v", *x, *y)
	}
	if x.Seq == y.Seq && x.Seq > 0 && (x.Payee != y.Payee || !slices.Equal(x.Creators, y.Creators) || x.Leg != y.Leg) {
		return fmt.Errorf("two commitments %d", x.Seq)
	}
	return nil
}

func fallen(x, y []wire.Royalty) bool {
	for _, r := range x {
		i := slices.IndexFunc(y, func(s wire.Royalty) bool { return s.To == r.To })
		if i < 0 || y[i].Amount < r.Amount {
			return true
		}
	}
	return false
}

// relay hands over everything that waits, until nothing does.
func (b *bench) relay() {
	for len(b.toPayee)+len(b.toPayer)+b.checks > 0 {
		b.relayOne()
	}
}

func (b *bench) relayOne() {
	switch {
	case len(b.toPayee) > 0:
		m := b.toPayee[0]
		b.toPayee = b.toPayee[1:]
		b.payeeStep(b.got(m))
	case b.checks > 0:
		b.checks--
		b.payeeStep(channel.FundingChecked{Height: 200})
	case len(b.toPayer) > 0:
		m := b.toPayer[0]
		b.toPayer = b.toPayer[1:]
		b.payerStep(b.got(m))
	}
}

// got is a message on this connection.
func (b *bench) got(m wire.Message) channel.Got {
	return channel.Got{Msg: m, Title: b.title, Terms: b.offer}
}

// deliver sends up to n bytes as far as the payee lets them go.
func (b *bench) deliver(n int64, lost bool) {
	n = min(n, b.allowed-b.payee.Served)
	if n <= 0 {
		return
	}
	b.payeeStep(channel.Served{Bytes: n})
	b.delivered += n
	if !lost {
		b.received += n
		b.payerStep(channel.Delivered{Wire: b.payer.Wire + n, Payable: b.payer.Payable + n, Limit: b.spendable})
	}
}

func (b *bench) flush() {
	b.payerStep(channel.Delivered{Wire: b.payer.Wire, Payable: b.payer.Payable, Limit: b.spendable, Flush: true})
}

func (b *bench) disconnect() {
	b.connected = false
	b.toPayee, b.toPayer, b.checks = nil, nil, 0
}

// reconnect brings up a new connection, on which the payer proves its key.
func (b *bench) reconnect() {
	b.disconnect()
	b.connected = true
	offer := *b.offer
	offer.Nonce[0]++
	b.offer = &offer
	b.toPayee = append(b.toPayee, b.resume())
}

// resume proves the payer's key on this connection.
func (b *bench) resume() *wire.Resume {
	proof, err := b.payer.Key.SignDigest(channel.ResumeDigest(b.offer.Nonce, b.title, b.payer.ID()))
	if err != nil {
		b.t.Fatal(err)
	}
	return &wire.Resume{Channel: b.payer.ID(), Proof: proof}
}

func (b *bench) restartPayer() {
	s, err := channel.RestorePayer(b.payerDisk, b.payer.Key)
	if err != nil {
		b.t.Fatal(err)
	}
	s.Prev = b.payer.Prev
	b.payer = s
}

func TestASaleFromOpenToClose(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 500), money.MaxSatoshis)
	b.relay()
	if b.payer.Phase != channel.Open || b.payee.Phase != channel.Open {
		t.Fatalf("after the handshake: %v and %v", b.payer.Phase, b.payee.Phase)
	}
	if b.broadcast[channel.FundingTx] == nil {
		t.Fatal("the funding is not in the outbox")
	}
	const total = 100 << 20
	for b.delivered < total {
		before := b.delivered
		b.deliver(min(256<<10, total-b.delivered), false)
		b.relay()
		if b.delivered == before {
			t.Fatalf("stuck after %d bytes: owed %d, credit %d", before, b.payee.Served-b.payee.Covered(), b.payee.Credit())
		}
	}
	b.flush()
	b.payerStep(channel.CloseWanted{})
	b.relay()
	if b.payer.Phase != channel.Closed || b.payee.Phase != channel.Closing {
		t.Fatalf("after the close: %v and %v", b.payer.Phase, b.payee.Phase)
	}
	payee, creator, err := channel.Due(&b.payee.Terms, total)
	if err != nil {
		t.Fatal(err)
	}
	tx := b.broadcast[channel.CloseTx]
	if tx.Txid() != b.payer.Close {
		t.Errorf("the payer was told of close %v, it is %v", b.payer.Close, tx.Txid())
	}
	if tx.Outputs[0].Value != payee || tx.Outputs[1].Value != creator || len(tx.Outputs) != 3 {
		t.Errorf("close pays %+v, want %v and %v", tx.Outputs, payee, creator)
	}
	if b.payer.Last.Bytes != total || b.payee.Served != total {
		t.Errorf("paid for %d, served %d, want %d", b.payer.Last.Bytes, b.payee.Served, total)
	}
}

func TestAPayerThatDoesNotPayGetsItsCreditAndNoMore(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), 0)
	b.relay()
	for range 100 {
		b.deliver(1<<20, false)
		b.relay()
	}
	if b.delivered != b.payee.Terms.Credit {
		t.Errorf("delivered %d to a payer who pays nothing, credit is %d", b.delivered, b.payee.Terms.Credit)
	}
	// Breaking the connection must not pay: in the end the payee closes.
	for range 100 {
		b.reconnect()
		b.relay()
		b.deliver(1<<20, false)
	}
	if b.delivered > 2*b.payee.Terms.Credit || b.payee.Phase != channel.Closing {
		t.Errorf("delivered %d over broken connections, phase %v", b.delivered, b.payee.Phase)
	}
}

func TestNothingBeyondTheUnconfirmedLimit(t *testing.T) {
	tm := terms(t, 1_000_000, 0)
	b := newBench(t, 1_000_000, tm, money.MaxSatoshis)
	b.relay()
	for range 200 {
		b.deliver(256<<10, false)
		b.relay()
	}
	due, err := tm.Ask.Due(b.delivered)
	if err != nil || due > tm.UnconfirmedLimit {
		t.Errorf("delivered for %v before the funding was mined, limit %v", due, tm.UnconfirmedLimit)
	}
	b.payeeStep(channel.FundingMined{})
	b.relay()
	before := b.delivered
	b.deliver(256<<10, false)
	if b.delivered == before {
		t.Error("nothing more after the funding was mined")
	}
	b.payeeStep(channel.FundingLost{})
	before = b.delivered
	b.deliver(256<<10, false)
	if b.delivered != before {
		t.Error("delivered after the funding was lost")
	}
}

func TestTheFundingLeavesOnlyWithAGoodRefund(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	stranger, err := b.payer.Template()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := stranger.SignRefund(b.payer.Key) // not the payee's
	if err != nil {
		t.Fatal(err)
	}
	b.payerStep(b.got(&wire.RefundSig{Channel: b.payer.ID(), Signature: sig}))
	if b.broadcast[channel.FundingTx] != nil || b.payer.Phase != channel.Failed {
		t.Fatalf("a stranger's signature was taken for the refund: %v", b.payer.Phase)
	}
}

func TestTheRefundComesWhenTheSeederIsGone(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	b.relay()
	b.payerStep(channel.Tip{Height: 1207})
	if b.broadcast[channel.RefundTx] != nil {
		t.Fatal("the refund left one block early")
	}
	b.payerStep(channel.Tip{Height: 1208})
	tx := b.broadcast[channel.RefundTx]
	if tx == nil || tx.LockTime != 1208 || tx.Version != 1 {
		t.Fatalf("refund: %+v", tx)
	}
}

func TestThePayeeClosesInTimeAndWhenIdle(t *testing.T) {
	for name, c := range map[string]struct {
		ev    channel.Event
		after time.Duration
		want  channel.Phase
	}{
		"margin":     {channel.Tip{Height: 1208 - 144}, 0, channel.Closing},
		"before":     {channel.Tip{Height: 1208 - 145}, 0, channel.Open},
		"idle":       {channel.Tip{Height: 300}, time.Hour, channel.Closing},
		"not idle":   {channel.Tip{Height: 300}, time.Hour - time.Second, channel.Open},
		"on demand":  {channel.CloseWanted{}, 0, channel.Closing},
		"overflow":   {channel.Tip{Height: 1<<32 - 1}, 0, channel.Closing},
		"other news": {channel.FundingMined{}, 0, channel.Open},
	} {
		b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
		b.relay()
		b.now = b.now.Add(c.after)
		b.payeeStep(c.ev)
		if b.payee.Phase != c.want {
			t.Errorf("%s: %v, want %v", name, b.payee.Phase, c.want)
		}
		if (b.broadcast[channel.CloseTx] != nil) != (c.want == channel.Closing) {
			t.Errorf("%s: close in the outbox: %v", name, b.broadcast[channel.CloseTx])
		}
	}
}

func TestUsedUp(t *testing.T) {
	b := newBench(t, 2_000, terms(t, 20_000, 1_000), money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	for range 1000 {
		b.deliver(256<<10, false)
		b.relay()
	}
	if left := b.payer.Left(); left > 2 {
		t.Errorf("spent %v, left %v", b.payer.Spent(), left)
	}
	// The payee delivers no byte that the channel cannot pay for, and the payer
	// pays the last ones without waiting for half of the credit.
	if b.payee.Served != b.payee.Last.Bytes {
		t.Errorf("served %d, paid for %d", b.payee.Served, b.payee.Last.Bytes)
	}
}

func TestHostileMessages(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench) wire.Message
		breaks bool
	}{
		"payment that takes back": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Payee = p.Seq+1, p.Payee-1
			return &p
		}, true},
		"payment below the price": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Bytes = p.Seq+1, p.Bytes+1<<30
			return &p
		}, true},
		"other amounts, same number": {func(b *bench) wire.Message { p := b.payer.Last; p.Payee++; return &p }, true},
		"signature of other amounts": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Payee = p.Seq+1, p.Payee+1
			return &p
		}, true},
		"more than the capacity": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Payee = p.Seq+1, 1_000_000
			return &p
		}, true},
		"another channel":       {func(b *bench) wire.Message { p := b.payer.Last; p.Channel[0]++; return &p }, false},
		"an old one":            {func(b *bench) wire.Message { p := b.payer.Last; p.Seq = 1; return &p }, false},
		"a second open":         {func(b *bench) wire.Message { return &b.payer.Open }, false},
		"a seeder's message":    {func(b *bench) wire.Message { return &wire.Ack{} }, true},
		"resume without proof":  {func(b *bench) wire.Message { return &wire.Resume{Channel: b.payer.ID()} }, true},
		"close of another":      {func(b *bench) wire.Message { return &wire.Close{} }, false},
		"funding that is none":  {func(b *bench) wire.Message { return &wire.Funded{Channel: b.payer.ID(), Funding: []byte{1}} }, false},
		"resume of another one": {func(b *bench) wire.Message { return &wire.Resume{} }, false},
		"a leg with bytes": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg = p.Seq+1, p.Seq+1
			return &p
		}, false},
		"a leg of another connection's title": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg, p.Bytes, p.Title = p.Seq+1, p.Seq+1, 0, [20]byte{9}
			return &p
		}, false},
		"a leg that never began": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg = p.Seq+2, p.Seq+1
			return &p
		}, false},
		"a leg that is over": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg = p.Seq+1, 0
			return &p
		}, false},
		"this leg, another title": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Title = p.Seq+1, [20]byte{9}
			return &p
		}, false},
		"a leg that takes back": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg, p.Bytes, p.Payee = p.Seq+1, p.Seq+1, 0, p.Payee-1
			return &p
		}, true},
		"a leg that is not signed": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Leg, p.Bytes, p.Payee = p.Seq+1, p.Seq+1, 0, p.Payee+1
			return &p
		}, true},
		"without the creator": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, nil
			return &p
		}, true},
		"with another creator in its place": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, []wire.Royalty{{To: [20]byte{9}, Amount: p.Creators[0].Amount}}
			return &p
		}, true},
		"with a creator twice": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, []wire.Royalty{p.Creators[0], p.Creators[0]}
			return &p
		}, true},
		"with a creator of nothing": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, []wire.Royalty{p.Creators[0], {To: [20]byte{9}}}
			return &p
		}, true},
		"with a creator without an address": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, []wire.Royalty{p.Creators[0], {Amount: 1}}
			return &p
		}, true},
		"a creator of all there is": {func(b *bench) wire.Message {
			p := b.payer.Last
			p.Seq, p.Creators = p.Seq+1, []wire.Royalty{p.Creators[0], {To: [20]byte{9}, Amount: money.MaxSatoshis}}
			return &p
		}, true},
	} {
		b := newBench(t, 20_000, terms(t, 5_000, 1_000), money.MaxSatoshis)
		b.relay()
		for range 40 {
			b.deliver(256<<10, false)
			b.relay()
		}
		paid := b.payee.Last
		b.payeeStep(b.got(c.change(b)))
		if b.payee.Last.Payee != paid.Payee || b.payee.Last.Seq != paid.Seq {
			t.Errorf("%s changed the newest commitment", name)
		}
		if broke := len(b.fails) > 0; broke != c.breaks {
			t.Errorf("%s: connection ended %v, want %v (%v)", name, broke, c.breaks, b.fails)
		}
		for _, err := range b.fails {
			if !errors.Is(err, channel.ErrProtocol) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := b.payee.CloseTx(); err != nil {
			t.Errorf("%s: the close does not build any more: %v", name, err)
		}
	}
}

func TestTermsThatAPayerRefuses(t *testing.T) {
	limits := channel.Limits{Network: bsv.Regtest, MaxPrice: 6_000, MaxWindow: 2016, MaxFeeRate: 1000, Royalty: 500, CreatorHash: key(t, 5).Public().Hash()}
	sign := func(m *wire.Terms) {
		d, err := channel.TermsDigest(m, [20]byte{7})
		if err != nil {
			t.Fatal(err)
		}
		if m.Signature, err = key(t, 1).SignDigest(d); err != nil {
			t.Fatal(err)
		}
	}
	good := terms(t, 5_000, 500)
	sign(&good)
	if err := channel.CheckTerms(&good, [20]byte{7}, limits, 200, start); err != nil {
		t.Fatalf("good terms: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*wire.Terms)
		want   error
	}{
		"price":         {func(m *wire.Terms) { m.Ask = 5_501 }, channel.ErrPrice},
		"network":       {func(m *wire.Terms) { m.Network = 0 }, channel.ErrNetwork},
		"expired":       {func(m *wire.Terms) { m.Expiry = start.Unix() - 1 }, channel.ErrExpired},
		"royalty up":    {func(m *wire.Terms) { m.Royalty = 501; m.Ask = 0 }, channel.ErrRoyalty},
		"no royalty":    {func(m *wire.Terms) { m.Royalty = 0 }, channel.ErrRoyalty},
		"other creator": {func(m *wire.Terms) { m.CreatorHash[0]++ }, channel.ErrRoyalty},
		"long refund":   {func(m *wire.Terms) { m.RefundWindow = 2017 }, channel.ErrWindow},
		"high tip":      {func(m *wire.Terms) { m.TipHeight = 207 }, channel.ErrWindow},
		"tip at 2^32-1": {func(m *wire.Terms) { m.TipHeight = 1<<32 - 1 }, channel.ErrWindow},
		"margin":        {func(m *wire.Terms) { m.CloseMargin = 1008 }, channel.ErrWindow},
		"credit":        {func(m *wire.Terms) { m.Credit = 1 }, channel.ErrCredit},
		"fee rate":      {func(m *wire.Terms) { m.FeeRate = 1001 }, channel.ErrFeeRate},
	} {
		m := terms(t, 5_000, 500)
		c.change(&m)
		sign(&m)
		if err := channel.CheckTerms(&m, [20]byte{7}, limits, 200, start); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	forged := good
	forged.Ask--
	if err := channel.CheckTerms(&forged, [20]byte{7}, limits, 200, start); !errors.Is(err, channel.ErrSignature) {
		t.Errorf("changed after signing: %v", err)
	}
	if err := channel.CheckTerms(&good, [20]byte{8}, limits, 200, start); !errors.Is(err, channel.ErrSignature) {
		t.Errorf("terms of another title: %v", err)
	}
}
