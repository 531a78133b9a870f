package channel_test

import (
	"testing"

	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
	"pgregory.net/rapid"
)

// Whatever is dropped, repeated, reordered, restarted or forgotten, nobody
// loses more than the limits, and the payee can always close.
func TestModel(t *testing.T) {
	total := 0
	rapid.Check(t, func(t *rapid.T) {
		steps := rapid.IntRange(250, 400).Draw(t, "steps")
		b := newModel(t)
		for range steps {
			total++
			if b.payee.Phase == channel.Closing || b.payee.Phase == channel.Failed || b.payer.Phase == channel.Failed {
				b = newModel(t)
			}
			b.something(t)
			b.hold(t)
		}
	})
	if total < 20_000 {
		t.Errorf("only %d steps", total)
	}
}

func newModel(t *rapid.T) *bench {
	ask := money.Rate(rapid.SampledFrom([]int64{0, 1, 1_000, 50_000, 200_000}).Draw(t, "ask"))
	royalty := money.Rate(rapid.SampledFrom([]int64{0, 1, 20_000}).Draw(t, "royalty"))
	if ask+royalty == 0 {
		ask = 1
	}
	capacity := money.Satoshis(rapid.Int64Range(2_000, 100_000).Draw(t, "capacity"))
	b := newBench(t, capacity, terms(nil, ask, royalty), money.MaxSatoshis)
	b.payer.Exposure = rapid.SampledFrom([]int64{0, 300 << 10, 2 << 20}).Draw(t, "exposure")
	if rapid.Bool().Draw(t, "opened") {
		b.relay()
	}
	return b
}

func (b *bench) something(t *rapid.T) {
	switch rapid.IntRange(0, 19).Draw(t, "do") {
	case 0, 1, 2, 3, 4:
		b.unchecked(int64(rapid.IntRange(1, 2<<20).Draw(t, "bytes")), false)
	case 5:
		b.unchecked(int64(rapid.IntRange(1, 1<<20).Draw(t, "lost")), true)
	case 6, 7, 8:
		b.verify(rapid.Int64Range(0, b.unverified).Draw(t, "verified"))
	case 9, 10:
		b.relay()
	case 11:
		b.relayOne()
	case 12, 13:
		b.reconnect()
		if rapid.Bool().Draw(t, "at once") {
			b.relay()
		}
	case 14:
		b.disconnect()
		b.restartPayee()
	case 15:
		exposure := b.payer.Exposure
		b.disconnect()
		b.restartPayer()
		b.payer.Exposure = exposure
	case 16: // out of order, or the same once more, from this connection or a former one
		if len(b.former) > 0 && b.connected {
			m := b.former[rapid.IntRange(0, len(b.former)-1).Draw(t, "former")]
			switch m.Kind() {
			case wire.KindOpen, wire.KindFunded, wire.KindPay, wire.KindClose:
				b.toPayee = append([]wire.Message{m}, b.toPayee...)
			case wire.KindResumed: // a purchase takes those only that answer a Resume
			default:
				b.toPayer = append([]wire.Message{m}, b.toPayer...)
			}
		}
	case 17: // the payer's disk is put back to what it was some time ago
		if len(b.snapshots) > 2 && b.losses < 3 && b.payer.Last.Seq > 0 {
			b.disconnect()
			old, err := channel.RestorePayer(b.snapshots[rapid.IntRange(1, len(b.snapshots)-1).Draw(t, "snapshot")], b.payer.Key)
			if err != nil {
				t.Fatal(err)
			}
			if old.Last.Seq == 0 {
				return // it would not know that there is a channel
			}
			old.Exposure, old.Prev = b.payer.Exposure, b.payer.Prev
			if old.Last.Seq < b.payer.Last.Seq || old.Payable < b.payer.Payable {
				b.losses++
			}
			b.payer = old
		}
	case 18:
		b.payeeStep(channel.FundingMined{})
	case 19:
		switch rapid.IntRange(0, 40).Draw(t, "end") {
		case 0:
			b.payeeStep(channel.FundingLost{})
			before := b.payee.Served
			b.unchecked(1<<20, false)
			if b.payee.Served != before {
				t.Fatal("delivered on a funding that is lost")
			}
		case 1:
			if b.live {
				b.payerStep(channel.CloseWanted{})
			}
		case 2:
			b.payeeStep(channel.CloseWanted{})
		case 3:
			if b.live {
				b.flush()
			}
		}
	}
}

// unchecked sends up to n bytes as far as the payee lets them go. They come,
// but are not verified.
func (b *bench) unchecked(n int64, lost bool) {
	n = min(n, b.allowed-b.payee.Served)
	if n <= 0 || !b.live {
		return
	}
	b.payeeStep(channel.Served{Bytes: n})
	if !lost {
		b.unverified += n
		b.payerStep(channel.Delivered{Wire: b.payer.Wire + n, Payable: b.payer.Payable, Limit: b.spendable})
	}
}

func (b *bench) verify(n int64) {
	if !b.live {
		return
	}
	b.unverified -= n
	b.received += n
	b.payerStep(channel.Delivered{Wire: b.payer.Wire, Payable: b.payer.Payable + n, Limit: b.spendable})
}

// hold checks what must be true at any time.
func (b *bench) hold(t *rapid.T) {
	tm := &b.payee.Terms
	// What may be paid for at the most. Each loss of the payer's state makes
	// it take what it had paid ahead for verified, once.
	most := b.received
	for range b.losses + 1 {
		most += most/64 + 2*b.payer.Exposure
	}
	due, creator, err := channel.Due(tm, most)
	if err != nil {
		t.Fatal(err)
	}
	if b.payer.Last.Payee > due || b.payer.Last.Royalties() > creator {
		t.Fatalf("paid %v and %v for %d verified bytes (most %d), which cost %v and %v", b.payer.Last.Payee, b.payer.Last.Royalties(), b.received, most, due, creator)
	}
	if b.payee.Last.Seq > b.payer.Last.Seq && b.losses == 0 {
		t.Fatalf("payee holds commitment %d, payer has signed %d", b.payee.Last.Seq, b.payer.Last.Seq)
	}
	if b.payer.Phase == channel.Open && b.live && b.payer.Payable > b.payer.Wire {
		t.Fatalf("%d bytes verified of %d", b.payer.Payable, b.payer.Wire)
	}
	if b.broadcast[channel.FundingTx] != nil && len(b.payer.Refund) == 0 {
		t.Fatal("the funding is out and there is no refund")
	}
	closed := b.broadcast[channel.CloseTx]
	if b.payee.Phase == channel.Closing && (closed == nil || closed.Txid() != b.payee.Close) {
		t.Fatalf("the payee is closing and %v is in the outbox", closed)
	}
	if b.payee.Phase != channel.Open {
		return
	}
	if b.payee.Last.Seq != b.closable { // it takes a while to build
		tx, err := b.payee.CloseTx()
		if err != nil {
			t.Fatalf("the newest commitment cannot be broadcast: %v", err)
		}
		paid, err := tx.Paid()
		if err != nil || paid > b.payee.Open.Capacity {
			t.Fatalf("value is not conserved: %v of %v, %v", paid, b.payee.Open.Capacity, err)
		}
		b.closable = b.payee.Last.Seq
	}
	covered := b.payee.Covered()
	if owed := b.payee.Served - b.payee.Forgiven - covered; owed > b.payee.Credit() {
		t.Fatalf("%d bytes owed, credit %d", owed, b.payee.Credit())
	}
	if b.payee.Forgiven > 2*tm.Credit+b.payee.Served/4 {
		t.Fatalf("forgiven %d bytes of %d", b.payee.Forgiven, b.payee.Served)
	}
	if due, err := (tm.Ask + tm.Royalty).Due(b.payee.Served); !b.payee.Confirmed && (err != nil || due > tm.UnconfirmedLimit) {
		t.Fatalf("served for %v before the funding is mined, limit %v", due, tm.UnconfirmedLimit)
	}
}
