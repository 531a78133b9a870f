package channel_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// titled are terms of the same seeder for another title.
func titled(t testing.TB, ask, royalty money.Rate, creator byte) *wire.Terms {
	m := terms(t, ask, royalty)
	m.Payee = key(t, 0x70).Public() // the offer's own key, which a move leaves alone
	if royalty > 0 {
		m.CreatorHash = [20]byte{0xc0, creator}
	}
	return &m
}

// moveTo brings up a connection for another title.
func (b *bench) moveTo(title byte, offer *wire.Terms) {
	b.visit([20]byte{title}, *offer)
	b.relay()
}

// trade has so many bytes delivered, verified and paid for.
func (b *bench) trade(n int64) {
	for end := b.delivered + n; b.delivered < end; {
		before := b.delivered
		b.deliver(min(256<<10, end-before), false)
		b.relay()
		if b.delivered == before {
			b.t.Fatalf("stuck after %d bytes: %+v", before, b.payee.Last)
		}
	}
	b.flush()
	b.relay()
}

func TestSeveralTitlesAndCreatorsOverOneChannel(t *testing.T) {
	tm := terms(t, 5_000, 500)
	tm.CreatorHash = [20]byte{0xc0, 1}
	b := newBench(t, 100_000, tm, money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	b.trade(100 << 20) // 489, 49
	b.moveTo(2, titled(t, 20_000, 4_000, 2))
	b.trade(64 << 20) // 1,250, 250
	b.moveTo(3, titled(t, 10_000, 0, 0))
	b.trade(32 << 20) // 313
	b.moveTo(4, titled(t, 1_000, 1_000, 1))
	b.trade(512 << 20) // 500, 500 to the first creator
	b.moveTo(2, titled(t, 40_000, 4_000, 2))
	b.trade(16 << 20) // 625, 63 at the price of this connection
	want := []wire.Royalty{{To: [20]byte{0xc0, 1}, Amount: 49 + 500}, {To: [20]byte{0xc0, 2}, Amount: 250 + 63}}
	if p := b.payee.Last; p.Payee != 489+1_250+313+500+625 || !slices.Equal(p.Creators, want) || p.Title != [20]byte{2} || p.Bytes != 16<<20 {
		t.Errorf("%+v", p)
	}
	if n := b.payee.Past.Bytes + b.payee.Last.Bytes; n != b.delivered || b.payer.Past.Bytes != b.payee.Past.Bytes || b.payee.Served != n {
		t.Errorf("paid for %d of %d bytes, served %d", n, b.delivered, b.payee.Served)
	}
	b.payerStep(channel.CloseWanted{})
	b.relay()
	tx := b.broadcast[channel.CloseTx]
	var outs []bsv.Output
	for _, r := range want {
		outs = append(outs, bsv.Output{Value: r.Amount, Script: bsv.P2PKH(r.To)})
	}
	if len(tx.Outputs) != 4 || tx.Outputs[0].Value != b.payee.Last.Payee || !slices.EqualFunc(tx.Outputs[1:3], outs, func(x, y bsv.Output) bool {
		return x.Value == y.Value && x.Script.Equal(y.Script)
	}) {
		t.Errorf("close %+v", tx.Outputs)
	}
	if b.payer.Phase != channel.Closed || len(b.fails) > 0 {
		t.Errorf("%v, %v", b.payer.Phase, b.fails)
	}
}

// Whatever is lost of a move, the next connection makes one, and nobody pays
// twice.
func TestAMoveThatIsLost(t *testing.T) {
	for name, steps := range map[string]int{"the answer": 1, "the first commitment": 2, "its acknowledgement": 3} {
		for _, next := range []byte{0, 2, 3} {
			b := newBench(t, 100_000, terms(t, 5_000, 0), money.MaxSatoshis)
			b.relay()
			b.payeeStep(channel.FundingMined{})
			b.relay()
			b.trade(100 << 20)
			other := titled(t, 20_000, 4_000, 2)
			b.title, b.offer = [20]byte{2}, other
			b.reconnect()
			for range steps {
				b.relayOne()
			}
			if next == 0 {
				first := terms(t, 5_000, 0)
				other = &first
			}
			b.moveTo(next, other)
			b.trade(64 << 20)
			want := money.Satoshis(489 + 1_250)
			if next == 0 {
				want = 801 // with one rounding, or with two
			}
			if p := b.payee.Last; p.Payee < want || p.Payee > want+1 || p.Seq != b.payer.Last.Seq || len(b.fails) > 0 {
				t.Errorf("%s lost, then title %d: %v paid, want %v (%v)", name, next, p.Payee, want, b.fails)
			}
		}
	}
}

func TestANinthCreatorNeedsAnotherChannel(t *testing.T) {
	tm := terms(t, 5_000, 5_000)
	tm.CreatorHash = [20]byte{0xc0, 0}
	b := newBench(t, 100_000, tm, money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	b.trade(1 << 20)
	for i := byte(1); i < wire.MaxCreators; i++ {
		b.moveTo(i, titled(t, 5_000, 5_000, i))
		b.trade(1 << 20)
	}
	if len(b.payee.Last.Creators) != wire.MaxCreators {
		t.Fatalf("%d creators", len(b.payee.Last.Creators))
	}
	ninth := titled(t, 5_000, 5_000, 99)
	if err := b.payer.CanMove([20]byte{99}, ninth); !errors.Is(err, channel.ErrCreators) {
		t.Errorf("the payer may move: %v", err)
	}
	before := b.payer.Last
	b.title, b.offer = [20]byte{99}, ninth
	b.reconnect()
	b.relayOne()
	if r, ok := b.toPayer[0].(*wire.Refusal); !ok || r.Code != wire.CodeTerms || r.Text != channel.ErrCreators.Error() {
		t.Fatalf("%+v", b.toPayer)
	}
	b.relay()
	// The channel is still good for those that it pays, and for free titles.
	for i, m := range []*wire.Terms{titled(t, 5_000, 5_000, 3), titled(t, 5_000, 0, 0)} {
		b.moveTo(byte(50+i), m)
		b.trade(1 << 20)
	}
	if b.payer.Last.Payee <= before.Payee || len(b.fails) > 0 {
		t.Errorf("%+v, %v", b.payer.Last, b.fails)
	}
}

// A title is paid for at its own price and by its own credit, whatever was
// paid for a cheaper one.
func TestACheapTitleBuysNoCreditForADearOne(t *testing.T) {
	b := newBench(t, 1_000_000, terms(t, 100, 0), money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	b.trade(400 << 20) // 40 satoshis
	if b.payee.Credit() != channel.MaxCredit {
		t.Fatalf("credit %d", b.payee.Credit())
	}
	dear := titled(t, 1_000_000, 0, 0)
	dear.Credit = channel.MinCredit
	b.moveTo(2, dear)
	if b.payee.Credit() != channel.MinCredit {
		t.Errorf("a credit of %d bytes", b.payee.Credit())
	}
	b.trade(100 << 20)
	if got, want := b.payee.Credit(), int64(25<<20); got < want || got > want+1<<20 {
		t.Errorf("a credit of %d bytes after %d", got, 100<<20)
	}
}

// Moving on without paying is worth no more than breaking the connection.
func TestMovingOnDoesNotPay(t *testing.T) {
	b := newBench(t, 100_000, terms(t, 50_000, 0), 0)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	for i := range byte(100) {
		b.deliver(1<<20, false)
		b.moveTo(i+1, titled(t, 50_000, 0, 0))
	}
	if b.delivered > 2*b.payee.Terms.Credit || b.payee.Phase != channel.Closing {
		t.Errorf("delivered %d unpaid bytes over 100 titles, phase %v", b.delivered, b.payee.Phase)
	}
	// Nor is it with a credit that is worth more from title to title.
	b = newBench(t, 100_000, terms(t, 1_000, 0), 0)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	var worth money.Satoshis
	for i := range byte(20) {
		before := b.delivered
		b.deliver(1<<20, false)
		due, err := b.payee.Leg.Ask.Due(b.delivered - before)
		if err != nil {
			t.Fatal(err)
		}
		worth += due
		b.moveTo(i+1, titled(t, money.Rate(1_000*(2+int64(i))), 0, 0))
	}
	if last, err := b.payee.Leg.Ask.Due(2 * b.payee.Leg.Credit); err != nil || worth > last {
		t.Errorf("delivered for %v that was not paid, twice the last title's credit is %v", worth, last)
	}
}

// What a seeder had paid ahead on one title and never delivered whole counts on
// the next.
func TestExposureIsNotRenewedByMovingOn(t *testing.T) {
	b := opened(t, terms(t, 100_000, 0))
	b.payer.Exposure = 2 << 20
	verified := b.payer.Payable
	for i := range byte(50) {
		for range 16 {
			b.payerStep(channel.Delivered{Wire: b.payer.Wire + 256<<10, Payable: b.payer.Payable, Limit: money.MaxSatoshis})
		}
		b.title, b.offer = [20]byte{i + 1}, titled(t, 100_000, 0, 0)
		b.payerStep(b.got(&wire.Resumed{Last: b.payer.Last, Credit: 1 << 20}))
	}
	due, err := money.Rate(100_000).Due(verified + verified/64 + 2*b.payer.Exposure)
	if err != nil || b.payer.Spent() > due+50 { // each leg is rounded up
		t.Errorf("paid %v, the most is %v", b.payer.Spent(), due)
	}
}

func TestCapacityOfALeg(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 10_000, 0), money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	first := b.payer.CapacityBytes()
	if first != b.payee.CapacityBytes() || first < 1990<<20 || first > 2048<<20 {
		t.Errorf("%d bytes of a capacity of 2 GiB", first)
	}
	b.trade(1 << 30)
	if b.payer.CapacityBytes() != first || b.payer.Left() != 20_000-27-10_000 || b.payee.Remaining() != b.payer.Left() {
		t.Errorf("%d bytes, left %v and %v", b.payer.CapacityBytes(), b.payer.Left(), b.payee.Remaining())
	}
	b.moveTo(2, titled(t, 20_000, 10_000, 1))
	if n := b.payer.CapacityBytes(); n != b.payee.CapacityBytes() || n < 335<<20 || n > 342<<20 {
		t.Errorf("%d bytes of 10,000 sat at 30,000 sat/GiB", n)
	}
	if b.payer.Left() != 20_000-30-10_000 { // the close has one output more
		t.Errorf("left %v", b.payer.Left())
	}
}

func TestATipThatFallsAndJumps(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	for _, height := range []uint32{1000, 990, 1063, 3, 1062} {
		b.payeeStep(channel.Tip{Height: height})
		if b.payee.Phase != channel.Open {
			t.Fatalf("%v at height %d", b.payee.Phase, height)
		}
	}
	b.payeeStep(channel.Tip{Height: 5000}) // months off
	b.payeeStep(channel.Tip{Height: 900})
	if tx := b.broadcast[channel.CloseTx]; b.payee.Phase != channel.Closing || tx == nil || tx.Txid() != b.payee.Close {
		t.Errorf("%v", b.payee.Phase)
	}
}

// A clock that was set back must not keep an idle channel open for months.
func TestAClockThatWasSetBack(t *testing.T) {
	b := opened(t, terms(t, 5_000, 0))
	b.now = b.now.Add(-90 * 24 * time.Hour)
	b.payeeStep(channel.Tip{Height: 300})
	b.now = b.now.Add(time.Hour)
	b.payeeStep(channel.Tip{Height: 300})
	if b.payee.Phase != channel.Closing {
		t.Errorf("%v", b.payee.Phase)
	}
}

func TestReorganisedDoubtedAndLostFundings(t *testing.T) {
	tm := terms(t, 1_000_000, 0)
	limit := tm.Ask.Bytes(tm.UnconfirmedLimit)
	b := newBench(t, 1_000_000, tm, money.MaxSatoshis)
	b.relay()
	b.payeeStep(channel.FundingMined{})
	b.relay()
	b.trade(limit + 4<<20)

	b.payeeStep(channel.FundingUnmined{})
	before := b.delivered
	b.deliver(1<<20, false)
	b.moveTo(2, titled(t, 500_000, 0, 0)) // the limit is the channel's, not the title's
	b.deliver(1<<20, false)
	if b.delivered != before || b.payee.Confirmed {
		t.Fatalf("delivered %d bytes after the funding left its block", b.delivered-before)
	}
	b.payeeStep(channel.FundingMined{})
	b.relay()
	b.trade(1 << 20)

	b.payeeStep(channel.FundingDoubted{}) // it is mined: no matter
	b.trade(1 << 20)
	b.payeeStep(channel.FundingUnmined{})
	b.payeeStep(channel.FundingDoubted{})
	told := slices.ContainsFunc(b.toPayer, func(m wire.Message) bool {
		r, ok := m.(*wire.Refusal)
		return ok && r.Code == wire.CodeDoubleSpend
	})
	if !told || b.allowed != 0 {
		t.Errorf("doubted: allowed %d, told %v", b.allowed, told)
	}
	b.relay()
	b.flush()
	b.moveTo(2, b.offer)
	before = b.delivered
	b.deliver(1<<20, false)
	if b.delivered != before {
		t.Error("delivered on a doubted funding")
	}

	b.payeeStep(channel.FundingLost{})
	tx := b.broadcast[channel.CloseTx]
	if b.payee.Phase != channel.Closing || tx == nil || tx.Txid() != b.payee.Close || tx.Outputs[0].Value != b.payee.Last.Payee {
		t.Fatalf("lost: %v, close %v", b.payee.Phase, tx)
	}
	for _, m := range b.toPayer {
		if m.Kind() == wire.KindClosed {
			t.Error("a close that cannot be is announced")
		}
	}
}

func TestTrust(t *testing.T) {
	tm := terms(t, 100_000, 0)
	for name, c := range map[string]struct {
		trust, most money.Satoshis
		credit      int64
		unconfirmed money.Satoshis
	}{
		"none":           {0, 5_000, 1 << 20, 1_000},
		"some":           {2_000, 5_000, 5_368_709, 1_500},
		"up to the most": {100_000, 5_000, channel.MaxCredit, 5_000},
		"no maximum set": {100_000, 0, channel.MaxCredit, 1_000},
		"all there is":   {money.MaxSatoshis, money.MaxSatoshis, channel.MaxCredit, 1_000 + money.MaxSatoshis/4},
	} {
		b := newBench(t, 1_000_000, tm, money.MaxSatoshis)
		b.payee.Policy.Trust, b.payee.Policy.MaxUnconfirmed = c.trust, c.most
		b.relay()
		if b.payee.Credit() != c.credit || b.payee.Unconfirmed() != c.unconfirmed {
			t.Errorf("%s: credit %d, %v unconfirmed", name, b.payee.Credit(), b.payee.Unconfirmed())
		}
		if want := min(c.credit, tm.Ask.Bytes(c.unconfirmed)); b.allowed != want {
			t.Errorf("%s: allowed %d, want %d", name, b.allowed, want)
		}
	}
}

func TestAbandon(t *testing.T) {
	for _, steps := range []int{0, 1, 2} { // nothing heard, the payee has signed, so has the payer's refund
		b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
		b.gathers = true
		for range steps {
			b.relayOne()
		}
		b.payerStep(channel.Abandon{})
		b.relay()
		want := channel.Failed
		if b.payer.Phase != want || b.payee.Phase != want || b.broadcast[channel.FundingTx] != nil {
			t.Errorf("after %d messages: %v and %v", steps, b.payer.Phase, b.payee.Phase)
		}
		b.payerStep(channel.FundingReady{})
		b.payeeStep(channel.Tip{Height: 5000})
		if len(b.broadcast) > 0 {
			t.Errorf("after %d messages something is broadcast", steps)
		}
	}
	b := opened(t, terms(t, 5_000, 0))
	b.payerStep(channel.Abandon{})
	if b.payer.Phase != channel.Open {
		t.Error("an open channel was abandoned")
	}
}

// The funding of several channels leaves when all of them have their refunds.
func TestTheFundingWaitsUntilItIsReady(t *testing.T) {
	for _, stored := range []bool{false, true} {
		b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
		b.gathers = true
		b.relay()
		if b.payer.Phase != channel.Signed || b.broadcast[channel.FundingTx] != nil || len(b.payer.Refund) == 0 || b.payee.Phase != channel.Signed {
			t.Fatalf("%v", b.payer.Phase)
		}
		b.restartPayer()
		b.payerStep(channel.Tip{Height: 1208}) // nothing of it is on the chain
		if b.broadcast[channel.RefundTx] != nil {
			t.Fatal("the refund of a funding that never left")
		}
		b.payerStep(channel.FundingReady{Stored: stored})
		if (b.broadcast[channel.FundingTx] == nil) != stored || b.payer.Phase != channel.Funded {
			t.Fatalf("stored %v: %v", stored, b.payer.Phase)
		}
		b.relay()
		if b.payer.Phase != channel.Open || b.payee.Phase != channel.Open {
			t.Errorf("%v and %v", b.payer.Phase, b.payee.Phase)
		}
	}
	// A state that was put back may be older than its funding.
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	b.gathers = true
	b.relay()
	b.payerStep(channel.Tip{Height: 1208, Unspent: true})
	if b.broadcast[channel.RefundTx] == nil {
		t.Error("the money stays where it is")
	}
}

// A seeder that refuses a channel that is not funded yet has cost nothing.
func TestARefusalBeforeTheFunding(t *testing.T) {
	b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
	b.gathers = true
	b.relay()
	b.payerStep(b.got(&wire.Refusal{Channel: b.payer.ID(), Code: wire.CodeUnavailable}))
	if b.payer.Phase != channel.Failed {
		t.Errorf("%v", b.payer.Phase)
	}
}

// The first leg may be another title's, while nothing was delivered.
func TestAFundingThatIsTakenOnAnotherTitlesConnection(t *testing.T) {
	for steps := 2; steps < 6; steps++ {
		b := newBench(t, 20_000, terms(t, 5_000, 0), money.MaxSatoshis)
		for range steps {
			b.relayOne()
		}
		checking := b.checks
		b.title, b.offer = [20]byte{2}, titled(t, 20_000, 4_000, 1)
		b.reconnect()
		b.checks = checking
		b.relay()
		b.payeeStep(channel.FundingMined{})
		b.relay()
		b.trade(8 << 20)
		if p := b.payee.Last; p.Title != [20]byte{2} || p.Payee != 157 || p.Royalties() != 32 || len(b.fails) > 0 {
			t.Errorf("after %d messages: %+v, %v", steps, p, b.fails)
		}
	}
}
