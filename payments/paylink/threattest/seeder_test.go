package threattest

import (
	"net/netip"
	"sync"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// seeder is an attacker who is paid. Its machine answers as an honest seller's
// does, as far as silent lets it; what it delivers is the test's to say.
type seeder struct {
	r        *rig
	identity bsv.PrivateKey
	payee    bsv.PrivateKey
	terms    *wire.Terms
	out      bsv.Hash160

	mu       sync.Mutex
	change   func(*wire.Terms)       // of the terms, before they are signed
	silent   func(wire.Message) bool // says which messages it does not answer
	state    channel.Payee           // of the newest channel
	closes   []*bsv.Tx               // that it could broadcast, the oldest first
	keep     bool                    // does not broadcast its close
	seen     map[wire.Kind]int       // messages that came
	failed   error
	purchase paylink.Purchase // of the newest connection
	conn     int              // its number

	onWire, verified int64 // of the newest connection
	good             int64 // verified on all connections
}

func (r *rig) newSeeder() *seeder {
	r.Helper()
	return &seeder{r: r, identity: r.key(), out: r.purse.Public().Hash(), seen: make(map[wire.Kind]int)}
}

// seederConn is a connection of the buyer's to a seeder.
type seederConn struct {
	s      *seeder
	number int
}

func (c seederConn) Remote() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.2:4000") }

func (c seederConn) Fail(reason error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.failed = reason
}

func (c seederConn) Send(b []byte) error {
	m, err := wire.Decode(b)
	if err != nil {
		c.s.r.Errorf("sent what does not decode: %v", err)
		return nil
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.number != c.s.conn {
		return paylink.ErrConnClosed
	}
	c.s.take(m)
	return nil
}

// connect begins a connection to a buyer, with terms for a new channel. A
// channel that there is goes on if the buyer asks for that.
func (s *seeder) connect(b *buyer) {
	s.r.Helper()
	s.mu.Lock()
	s.conn++
	conn := seederConn{s, s.conn}
	s.onWire, s.verified = 0, 0
	s.mu.Unlock()
	title := s.r.title
	title.Ask = 0
	purchase := b.Open(conn, title)
	s.r.Cleanup(purchase.Close)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purchase = purchase
	s.offer()
}

func (s *seeder) offer() {
	s.payee = s.r.key()
	t := wire.Terms{Network: byte(bsv.Regtest), Nonce: [16]byte{byte(s.conn)}, Identity: s.identity.Public(), Payee: s.payee.Public(), PayeeHash: s.out, Ask: s.r.title.Ask,
		MinCapacity: s.r.offer.MinCapacity, MaxCapacity: s.r.offer.MaxCapacity, FeeRate: feeRate, TipHeight: s.r.height(),
		RefundWindow: s.r.offer.RefundWindow, CloseMargin: s.r.offer.CloseMargin, UnconfirmedLimit: 1_000_000, Credit: 2 << 20,
		Expiry: s.r.clock.Now().Unix() + 600}
	if royalty := s.r.title.Royalty; royalty != nil {
		t.Royalty, t.CreatorHash = royalty.Rate, royalty.To
	}
	if s.change != nil {
		s.change(&t)
	}
	digest, err := channel.TermsDigest(&t, s.r.title.InfoHash)
	s.r.must(err)
	t.Signature, err = s.identity.SignDigest(digest)
	s.r.must(err)
	s.terms = &t
	s.send(&t)
}

func (s *seeder) send(m wire.Message) {
	b, err := wire.Encode(m)
	if err != nil {
		s.r.Error(err)
		return
	}
	s.purchase.Message(b)
}

// take answers a message.
func (s *seeder) take(m wire.Message) {
	s.seen[m.Kind()]++
	if s.silent != nil && s.silent(m) {
		return
	}
	if _, ok := m.(*wire.Open); ok {
		s.state = channel.NewPayee(s.payee, channel.Policy{}, s.r.title.InfoHash, s.terms)
	}
	s.step(channel.Got{Msg: m, Title: s.r.title.InfoHash, Terms: s.terms})
}

func (s *seeder) step(ev channel.Event) {
	var effects []channel.Effect
	s.state, effects = s.state.Step(ev, s.r.clock.Now())
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Send:
			s.send(e.Msg)
		case channel.CheckFunding:
			s.step(channel.FundingChecked{Confirmed: true})
		case channel.Store:
			if e.Tx != nil && !s.keep {
				if err := s.r.steal(e.Tx); err != nil {
					s.r.Errorf("the seeder's close: %v", err)
				}
			}
		case channel.Fail:
			s.r.Errorf("the buyer breaks the protocol: %v", e.Err)
		}
	}
	if tx, err := s.state.CloseTx(); err == nil && s.state.Phase == channel.Open {
		s.closes = append(s.closes, tx)
	}
}

// waitFor waits until something holds of the seeder.
func (s *seeder) waitFor(what string, holds func() bool) {
	s.r.Helper()
	s.r.wait(what, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return holds()
	})
}

// isOpen waits until the channel is open.
func (s *seeder) isOpen() {
	s.r.Helper()
	var funding bsv.Txid
	s.waitFor("the channel is open", func() bool {
		funding = s.state.Open.FundingTxid
		return s.state.Phase == channel.Open
	})
	s.r.waitState(funding, chain.Seen) // so that a close has something to spend
}

// deliver sends blocks, of which so many bytes turn out to be good.
func (s *seeder) deliver(bytes, good int64) {
	s.mu.Lock()
	s.onWire += bytes
	s.verified += good
	s.good += good
	purchase, onWire, verified := s.purchase, s.onWire, s.verified
	s.mu.Unlock()
	purchase.Received(onWire, verified)
}

// paid is what the newest commitment gives.
func (s *seeder) paid() money.Satoshis {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Last.Payee + s.state.Last.Royalties()
}

// lossOf is what a buyer has lost: what it has no more, without the worth of
// what is good.
func (s *seeder) lossOf(b *buyer) money.Satoshis {
	s.r.Helper()
	return b.before - s.r.coinsOf(b.party) - s.r.due(s.good)
}

// pinged is what a buyer says to a ping.
const pinged = "does not take a message of kind 10"

// ping returns when the buyer has looked at everything before. It asks for what
// no seller may ask for, to which a buyer with a channel answers at once; after
// each message it looks at what has come.
func (s *seeder) ping() {
	s.r.Helper()
	for range 2 {
		s.mu.Lock()
		want := s.seen[wire.KindRefusal] + 1
		s.send(&wire.Close{})
		s.mu.Unlock()
		s.waitFor("an answer", func() bool { return s.seen[wire.KindRefusal] >= want })
	}
}

// close settles the channel, and makes another offer.
func (s *seeder) close(again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step(channel.CloseWanted{})
	if again {
		s.offer()
	}
}
