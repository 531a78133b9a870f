package channel_test

import (
	"math"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// visit brings up a connection for another title of the same seeder.
func (b *bench) visit(title [20]byte, tm wire.Terms) {
	b.title, b.offer = title, &tm
	b.reconnect()
}

// sign is a commitment that a payer could make who keeps to no rule.
func (b *bench) sign(p wire.Pay) *wire.Pay {
	c, err := b.payer.Template()
	if err != nil {
		b.t.Fatal(err)
	}
	p.Channel = b.payer.ID()
	creators := make([]bsv.Royalty, len(p.Creators))
	for i, r := range p.Creators {
		creators[i] = bsv.Royalty{To: r.To, Amount: r.Amount}
	}
	if p.Signature, err = c.SignCommitment(b.payer.Key, p.Payee, creators); err != nil {
		b.t.Fatal(err)
	}
	return &p
}

// On a connection of a dear title nothing may be had at the price of a cheap
// one, by whatever the payer or the chain says before the payer has moved.
func TestADearTitleIsNotServedAtTheLastOnesPrice(t *testing.T) {
	cheap, dear := terms(t, 1_000, 0), terms(t, 1_000_000, 50_000)
	for name, happens := range map[string]func(b *bench){
		"a payment of the last leg": func(b *bench) {
			p := b.payee.Last
			p.Seq, p.Payee, p.Bytes = p.Seq+1, p.Payee+100, p.Bytes+100<<20
			b.payeeStep(b.got(b.sign(p)))
		},
		"the funding is mined": func(b *bench) { b.payeeStep(channel.FundingMined{}) },
		"a reorganisation": func(b *bench) {
			b.payeeStep(channel.FundingMined{})
			b.payeeStep(channel.FundingUnmined{})
		},
		"a move to the last leg's title": func(b *bench) {
			p := b.payee.Last
			p.Seq++
			p.Leg, p.Bytes = p.Seq, 0
			b.payeeStep(b.got(b.sign(p)))
		},
		"resuming twice": func(b *bench) { b.payeeStep(b.got(b.resume())) },
	} {
		b := newBench(t, 100_000, cheap, money.MaxSatoshis)
		b.relay()
		for range 40 {
			b.deliver(256<<10, false)
			b.relay()
		}
		b.visit([20]byte{9}, dear)
		b.payeeStep(b.got(b.toPayee[0])) // the Resume
		happens(b)
		if b.payee.Leg.Title != b.title && b.allowed > b.payee.Served {
			t.Errorf("%s: %d bytes of a title at %v are allowed at %v", name, b.allowed-b.payee.Served, dear.Ask, b.payee.Leg.Price())
		}
	}
}

// The same of a channel that is funded on the connection of another title.
func TestADearTitleIsNotFundedAtAnotherOnesPrice(t *testing.T) {
	b := newBench(t, 100_000, terms(t, 1_000, 0), money.MaxSatoshis)
	for b.payer.Phase != channel.Funded {
		b.relayOne()
	}
	funded := b.toPayee[0]
	b.visit([20]byte{9}, terms(t, 1_000_000, 50_000))
	b.payeeStep(b.got(b.toPayee[0])) // the Resume
	b.payeeStep(b.got(funded))
	b.payeeStep(channel.FundingChecked{Height: 200, Confirmed: true})
	if b.allowed > 0 {
		t.Errorf("%d bytes of a title at 1,050,000 sat/GiB are allowed at %v", b.allowed, b.payee.Leg.Price())
	}
}

// Numbers that the ledger cannot hold would keep the channel from being stored.
func TestNumbersThatCannotBeStored(t *testing.T) {
	for name, change := range map[string]func(p *wire.Pay){
		"seq": func(p *wire.Pay) { p.Seq = 1 << 63 },
		"leg": func(p *wire.Pay) { p.Seq, p.Leg, p.Bytes = math.MaxUint64, math.MaxUint64, 0 },
	} {
		b := opened(t, terms(t, 1_000, 0))
		p := b.payer.Last
		change(&p)
		if raw, err := wire.Encode(&p); err == nil {
			t.Errorf("%s: encoded as %x", name, raw)
		}
	}
}

// Bytes that are free may be called any number; the sum over the legs stays one.
func TestFreeBytesDoNotOverflow(t *testing.T) {
	b := newBench(t, 100_000, terms(t, 0, 0), money.MaxSatoshis)
	b.relay()
	for range 5 {
		p := b.payee.Last
		p.Seq, p.Bytes = p.Seq+1, 1<<62
		b.payeeStep(b.got(b.sign(p)))
		p = b.payee.Last
		p.Seq++
		p.Leg, p.Bytes = p.Seq, 0
		b.payeeStep(b.got(b.sign(p)))
		if n := b.payee.Past.Bytes; n < 0 || n > 1<<60 {
			t.Fatalf("paid for %d bytes by the payee's count", n)
		}
		last := b.payer.Last
		last.Seq, last.Bytes = last.Seq+1, 1<<62
		b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
		last = b.payer.Last
		last.Leg = 77
		b.payerStep(b.got(&wire.Resumed{Last: last, Credit: 1 << 20}))
		if n := b.payer.Past.Bytes; n < 0 || n > 1<<60 {
			t.Fatalf("paid for %d bytes by the payer's count", n)
		}
	}
}

// A seeder that delivered a title for nothing must not have those bytes paid for
// at the price of another one, by saying that it never saw the funding.
func TestBytesOfOneTitleAreNotPaidForAsAnothers(t *testing.T) {
	b := newBench(t, 100_000, terms(t, 0, 0), money.MaxSatoshis)
	b.relay()
	b.payerStep(channel.Delivered{Wire: 1 << 30, Payable: 1 << 30, Limit: money.MaxSatoshis})
	b.visit([20]byte{9}, terms(t, 50_000, 0))
	b.payerStep(b.got(&wire.Resumed{Last: wire.Pay{Channel: b.payer.ID()}, Credit: 1 << 20}))
	b.payerStep(b.got(&wire.Ready{Channel: b.payer.ID(), Credit: 1 << 20}))
	b.payerStep(channel.Delivered{Wire: 1 << 30, Payable: 1 << 30, Limit: money.MaxSatoshis, Flush: true})
	if spent := b.payer.Spent(); spent > 0 {
		t.Errorf("paid %v for nothing", spent)
	}
}

// A payer that begins leg after leg, and trades nothing, must not wear out the
// seeder's disk.
func TestLegsWithoutTradeAreNotStored(t *testing.T) {
	b := opened(t, terms(t, 1_000, 0))
	stores := 0
	for range 6 {
		p := b.payee.Last
		p.Seq++
		p.Leg, p.Bytes = p.Seq, 0
		var effects []channel.Effect
		b.payee, effects = b.payee.Step(b.got(b.sign(p)), b.now)
		for _, e := range effects {
			if _, ok := e.(channel.Store); ok {
				stores++
			}
		}
		if b.payee.Last.Leg != p.Leg {
			t.Fatalf("leg %d was not begun", p.Leg)
		}
	}
	if stores > 1 {
		t.Errorf("%d writes", stores)
	}
}
