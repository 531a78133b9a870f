package channel_test

import (
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// opened is a bench after the handshake and some trade.
func opened(t *testing.T, tm wire.Terms) *bench {
	b := newBench(t, 100_000, tm, money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	for range 40 {
		b.deliver(256<<10, false)
		b.relay()
	}
	if b.payer.Last.Seq < 3 {
		t.Fatalf("only %d commitments", b.payer.Last.Seq)
	}
	return b
}

// The number of bytes is not signed: a seeder may say what it likes.
func TestResumedWithInflatedBytes(t *testing.T) {
	tm := terms(t, 1_000, 0)
	t.Run("more than the amounts buy", func(t *testing.T) {
		b := opened(t, tm)
		last := b.payer.Last
		last.Seq, last.Bytes = last.Seq+1, 1<<40
		b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
		if len(b.fails) == 0 || b.payer.Last.Bytes >= 1<<40 {
			t.Errorf("taken: %+v, %v", b.payer.Last.Bytes, b.fails)
		}
	})
	t.Run("the rest of a satoshi, again and again", func(t *testing.T) {
		b := opened(t, tm)
		verified := b.received
		for range 100 {
			last := b.payer.Last
			last.Seq++
			last.Bytes = b.payer.Covered()
			b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
			for range 4 {
				verified += 128 << 10
				b.payerStep(channel.Delivered{Wire: b.payer.Wire + 128<<10, Payable: b.payer.Payable + 128<<10, Limit: money.MaxSatoshis})
			}
		}
		due, err := tm.Ask.Due(verified + verified/64)
		if err != nil || b.payer.Last.Payee > due {
			t.Errorf("paid %v for %d verified bytes, which cost %v", b.payer.Last.Payee, verified, due)
		}
	})
}

// A seeder that sends what never becomes a piece is paid ahead within the
// exposure; hanging up must not renew it.
func TestExposureIsNotRenewedByBreakingConnections(t *testing.T) {
	tm := terms(t, 100_000, 0)
	b := opened(t, tm)
	b.payer.Exposure = 2 << 20
	verified := b.payer.Payable
	for range 50 {
		for range 16 {
			b.payerStep(channel.Delivered{Wire: b.payer.Wire + 256<<10, Payable: b.payer.Payable, Limit: money.MaxSatoshis})
		}
		b.payerStep(b.got(&wire.Resumed{Last: b.payer.Last, Credit: 1 << 20}))
	}
	if most := verified + verified/64 + 2*b.payer.Exposure; b.payer.Last.Bytes > most {
		t.Errorf("paid for %d bytes, of which %d were verified; the most is %d", b.payer.Last.Bytes, verified, most)
	}
}

// After a break with bytes that were paid for and not verified trade goes on.
func TestTradeGoesOnAfterForgoneBytes(t *testing.T) {
	tm := terms(t, 100_000, 0)
	b := opened(t, tm)
	b.payer.Exposure = tm.Credit + channel.MinCredit
	for range 8 { // nothing of it gets verified
		n := min(256<<10, b.allowed-b.payee.Served)
		b.payeeStep(channel.Served{Bytes: n})
		b.payerStep(channel.Delivered{Wire: b.payer.Wire + n, Payable: b.payer.Payable, Limit: b.spendable})
		b.relay()
	}
	if b.payer.Last.Bytes <= b.payer.Payable {
		t.Fatal("nothing was paid ahead")
	}
	b.reconnect()
	b.relay()
	for range 100 {
		before := b.delivered
		b.deliver(256<<10, false)
		b.relay()
		if b.delivered == before {
			t.Fatalf("stuck: payer %+v", b.payer.Last)
		}
	}
}

// Between any two Stores the power may go: a channel that is stored as closing
// must have its close in the outbox.
func TestTheLastPaymentAndItsCloseAreOneStore(t *testing.T) {
	tm := terms(t, 20_000, 0)
	b := newBench(t, 2_000, tm, money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	c, err := b.payer.Template()
	if err != nil {
		t.Fatal(err)
	}
	all := c.MaxSpend(0)
	sig, err := c.SignCommitment(b.payer.Key, all, nil)
	if err != nil {
		t.Fatal(err)
	}
	pay := &wire.Pay{Channel: b.payer.ID(), Seq: 2, Leg: 1, Bytes: tm.Ask.Bytes(all), Payee: all, Signature: sig}
	after, effects := b.payee.Step(b.got(pay), b.now)
	if after.Phase != channel.Closing {
		t.Fatalf("used up, but %v", after.Phase)
	}
	for _, e := range effects {
		if st, ok := e.(channel.Store); ok && st.Tx == nil {
			t.Error("a Store of the closing channel without its close")
		}
	}
}

// Messages that change nothing must not cost a write each.
func TestCheapMessagesAreNotStored(t *testing.T) {
	stores := func(effects []channel.Effect) (n int) {
		for _, e := range effects {
			if _, ok := e.(channel.Store); ok {
				n++
			}
		}
		return n
	}
	b := opened(t, terms(t, 1_000, 0))
	b.flush()
	b.relay()
	same := b.payer.Last
	for range 5 {
		same.Seq, same.Bytes = same.Seq+1, same.Bytes+1
		var effects []channel.Effect
		b.payee, effects = b.payee.Step(b.got(&same), b.now)
		if n := stores(effects); n > 0 {
			t.Fatalf("a commitment with the same amounts cost %d writes", n)
		}
	}
	for range 3 {
		resume := b.resume()
		_, effects := b.payee.Step(b.got(resume), b.now)
		if n := stores(effects); n > 0 {
			t.Fatalf("a resume with nothing to forgive cost %d writes", n)
		}
	}
}

// A Resume must not start a second look at a funding while the first is on.
func TestOneCheckAtATime(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	for b.checks == 0 {
		b.relayOne()
	}
	b.checks = 0
	for range 3 {
		b.payeeStep(b.got(b.resume()))
		b.payeeStep(b.got(&wire.Funded{Channel: b.payer.ID(), Funding: b.payer.Funding, First: b.payer.Last}))
	}
	if b.checks != 0 {
		t.Errorf("%d further looks", b.checks)
	}
	b.payeeStep(channel.FundingChecked{Height: 200})
	if b.payee.Phase != channel.Open {
		t.Errorf("after the check: %v", b.payee.Phase)
	}
}

func TestAChannelThatIsNeverFundedFails(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	b.relayOne() // Open; nothing more comes
	b.now = b.now.Add(channel.FundingTime - time.Second)
	b.payeeStep(channel.Tip{Height: 201})
	if b.payee.Phase != channel.Signed {
		t.Fatalf("given up early: %v", b.payee.Phase)
	}
	b.now = b.now.Add(time.Second)
	b.payeeStep(channel.Tip{Height: 201})
	if b.payee.Phase != channel.Failed {
		t.Errorf("kept for ever: %v", b.payee.Phase)
	}
}

// That a seeder says closed is no close.
func TestTheRefundComesWhenTheCloseWasALie(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	b.payerStep(b.got(&wire.Closed{Channel: b.payer.ID(), Txid: [32]byte{1}}))
	if b.payer.Phase != channel.Closed {
		t.Fatalf("%v", b.payer.Phase)
	}
	b.restartPayer()
	b.payerStep(channel.Tip{Height: 1208})
	if b.broadcast[channel.RefundTx] != nil {
		t.Fatal("a refund of a channel that may be closed")
	}
	b.payerStep(channel.Tip{Height: 1207, Unspent: true})
	if b.broadcast[channel.RefundTx] != nil {
		t.Fatal("a refund before its time")
	}
	b.payerStep(channel.Tip{Height: 1208, Unspent: true})
	if b.broadcast[channel.RefundTx] == nil {
		t.Error("the money stays where it is")
	}
}

func TestAChannelThatTheSeederDoesNotKnow(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	b.payerStep(b.got(&wire.Refusal{Channel: b.payer.ID(), Code: wire.CodeUnknownChannel}))
	b.restartPayer()
	if !b.payer.Refused {
		t.Error("forgotten")
	}
	b.payerStep(channel.Tip{Height: 1208})
	if b.broadcast[channel.RefundTx] == nil {
		t.Error("no refund")
	}
}

// Commitments of an earlier leg come again on every connection there is.
func TestCommitmentsOfAnEarlierLegAreHarmless(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	var sent []wire.Message
	record := func() {
		sent = append(sent, &wire.Funded{Channel: b.payer.ID(), Funding: b.payer.Funding, First: b.payer.Last}, copyOf(b.payer.Last))
	}
	record()
	for i := range byte(4) {
		b.moveTo(i%2+1, titled(t, 20_000, 4_000, i%2))
		record()
		b.trade(2 << 20)
		record()
	}
	want := b.payee
	for title := range byte(3) {
		for _, m := range sent {
			got := channel.Got{Msg: m, Title: [20]byte{title}, Terms: b.offer}
			after, effects := b.payee.Step(got, b.now)
			if after.Last.Seq != want.Last.Seq || after.Leg != want.Leg || after.Past.Payee != want.Past.Payee || after.Served != want.Served {
				t.Errorf("%+v makes %+v", m, after.Last)
			}
			for _, e := range effects {
				switch e := e.(type) {
				case channel.Store, channel.Fail, channel.Revoke, channel.Allow:
					t.Errorf("%+v has effect %+v", m, e)
				}
			}
		}
	}
}

func copyOf(p wire.Pay) *wire.Pay { return &p }

// A move goes to a title of the same seeder only.
func TestMovesToStrangers(t *testing.T) {
	for name, change := range map[string]func(*wire.Terms){
		"another seeder":  func(m *wire.Terms) { m.Identity = key(t, 9).Public() },
		"another network": func(m *wire.Terms) { m.Network++ },
	} {
		b := opened(t, terms(t, 5_000, 0))
		offer := titled(t, 20_000, 0, 0)
		change(offer)
		if b.payer.CanMove([20]byte{2}, offer) == nil {
			t.Errorf("%s: the payer would move", name)
		}
		before := b.payer.Last
		b.title, b.offer = [20]byte{2}, offer
		b.reconnect()
		b.relay()
		if b.payee.Last.Seq != before.Seq || b.payer.Last.Seq != before.Seq || b.payee.Leg.Title == b.title {
			t.Errorf("%s: moved", name)
		}
		b.payerStep(b.got(&wire.Resumed{Last: b.payer.Last}))
		if b.payer.Last.Seq != before.Seq || b.payer.Leg.Title == b.title || len(b.fails) == 0 {
			t.Errorf("%s: the payer moved", name)
		}
	}
}

// What a seeder says of a leg that the payer does not know.
func TestResumedWithAnUnknownLeg(t *testing.T) {
	for name, change := range map[string]func(*wire.Pay){
		"more than was signed":  func(p *wire.Pay) { p.Payee += 1_000 },
		"a creator":             func(p *wire.Pay) { p.Creators = []wire.Royalty{{To: [20]byte{9}, Amount: 5}} },
		"a creator of nothing":  func(p *wire.Pay) { p.Creators = []wire.Royalty{{To: [20]byte{9}}} },
		"more than the channel": func(p *wire.Pay) { p.Payee = money.MaxSatoshis },
	} {
		b := opened(t, terms(t, 5_000, 0))
		last := b.payer.Last
		last.Seq, last.Leg, last.Bytes = last.Seq+9, last.Seq+9, 0
		change(&last)
		before := b.payer.Last
		b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
		if b.payer.Last.Seq != before.Seq || len(b.fails) == 0 {
			t.Errorf("%s: taken, %+v", name, b.payer.Last)
		}
	}
	// With nothing more than was signed it costs a new leg, and no money.
	b := opened(t, terms(t, 5_000, 0))
	last := b.payer.Last
	last.Seq, last.Leg, last.Bytes = last.Seq+9, last.Seq+9, 1<<40
	before := b.payer.Last
	b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
	if p := b.payer.Last; len(b.fails) > 0 || p.Payee != before.Payee || p.Bytes != 0 || p.Seq != last.Seq+1 || p.Leg != p.Seq {
		t.Errorf("%+v, %v", p, b.fails)
	}
}

// Numbers near their ends.
func TestResumedWithTheLastNumber(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	last := b.payer.Last
	before := b.payer.Last
	for _, leg := range []uint64{last.Leg, wire.MaxSeq} {
		last.Seq, last.Leg = wire.MaxSeq, leg
		b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
	}
	if b.payer.Last.Seq != before.Seq || len(b.fails) != 2 {
		t.Errorf("from number %d to %d, %v", before.Seq, b.payer.Last.Seq, b.fails)
	}
}
