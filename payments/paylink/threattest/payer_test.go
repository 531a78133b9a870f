package threattest

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// conn is the seller's end of a connection to an attacker. What the seller
// lets the peer have counts as served when the attacker takes it.
type conn struct {
	r      *rig
	remote netip.AddrPort
	msgs   chan wire.Message
	failed chan struct{}
	fail   sync.Once

	mu      sync.Mutex
	allowed int64
	reason  error
}

func (c *conn) Send(b []byte) error {
	m, err := wire.Decode(b)
	if err != nil {
		c.r.Errorf("sent what does not decode: %v", err)
		return nil
	}
	c.msgs <- m
	return nil
}

func (c *conn) Allow(total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == nil { // else it has ended
		c.allowed = total
	}
}

func (c *conn) Stop()                  { c.Allow(0) }
func (c *conn) Remote() netip.AddrPort { return c.remote }

func (c *conn) Fail(reason error) {
	c.mu.Lock()
	c.reason, c.allowed = reason, 0
	c.mu.Unlock()
	c.fail.Do(func() { close(c.failed) })
}

func (c *conn) limit() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed
}

// payer is an attacker who pays, or does not. It has a channel machine of its
// own, which knows what a correct payer would send.
type payer struct {
	r     *rig
	conn  *conn
	sale  paylink.Sale
	nonce [16]byte
	terms *wire.Terms
	state channel.Payer

	taken   int64 // of this connection
	total   int64 // of all connections, in this channel
	refusal *wire.Refusal
}

// connect begins a connection and waits for terms.
func (r *rig) connect() *payer {
	r.Helper()
	p := &payer{r: r}
	p.reconnect()
	return p
}

// reconnect ends the connection, if there is one, and begins another.
func (p *payer) reconnect() {
	p.r.Helper()
	p.leave()
	p.conn = &conn{r: p.r, remote: netip.MustParseAddrPort("127.0.0.1:4000"), msgs: make(chan wire.Message, 4096), failed: make(chan struct{})}
	p.sale = p.r.seller.Open(p.conn, p.r.title)
	p.r.Cleanup(p.sale.Close)
	p.taken = 0
	p.terms = await[*wire.Terms](p)
	p.nonce = p.terms.Nonce
}

func (p *payer) leave() {
	if p.sale != nil {
		p.sale.Close()
	}
}

// receive is the next message, or nil when the connection has ended.
func (p *payer) receive() wire.Message {
	p.r.Helper()
	select {
	case m := <-p.conn.msgs:
		return p.note(m)
	default:
	}
	select {
	case m := <-p.conn.msgs:
		return p.note(m)
	case <-p.conn.failed:
		return nil
	case <-time.After(patience):
		p.r.Fatal("no message came")
		return nil
	}
}

func (p *payer) note(m wire.Message) wire.Message {
	switch m := m.(type) {
	case *wire.Refusal:
		if m.Channel != (wire.ChannelID{0xff}) {
			p.refusal = m
		}
	case *wire.Terms:
		p.terms = m
	}
	return m
}

// await is the next message of type M; the zero value when the connection or
// the channel ends before, or when it is refused.
func await[M wire.Message](p *payer) (got M) {
	p.r.Helper()
	p.refusal = nil
	for {
		m := p.receive()
		if m == nil {
			return got
		}
		if want, ok := m.(M); ok {
			return want
		}
		switch m := m.(type) {
		case *wire.Refusal:
			if m.Code != wire.CodeUnconfirmed {
				return got
			}
		case *wire.Closed:
			return got
		}
	}
}

func (p *payer) say(m wire.Message) {
	p.r.Helper()
	b, err := wire.Encode(m)
	p.r.must(err)
	p.sale.Message(b)
}

// ping returns when the seller has looked at everything before.
func (p *payer) ping() {
	p.r.Helper()
	here := wire.ChannelID{0xff}
	p.say(&wire.Close{Channel: here})
	for {
		m := p.receive()
		if r, ok := m.(*wire.Refusal); m == nil || ok && r.Channel == here {
			return
		}
	}
}

// plan is how an attacker opens a channel. The zero value is honest.
type plan struct {
	coins    []bsv.Coin // of the purse; one of 30,000 satoshis where there are none
	capacity money.Satoshis
	feeRate  money.FeeRate
	change   func(*bsv.Tx) // of the funding, before it is signed again
	parents  []*bsv.Tx
	// broadcast gives the funding to the node first; swap hands over another one
	// than was announced.
	broadcast, swap bool
}

// prepare makes a funding and gets its refund signed.
func (p *payer) prepare(how plan) *wire.RefundSig {
	p.r.Helper()
	if how.coins == nil {
		how.coins = p.r.coins(1, 30_000)
	}
	if how.capacity == 0 {
		how.capacity = 20_000
	}
	if how.feeRate == 0 {
		how.feeRate = feeRate
	}
	key := p.r.key()
	payee, err := bsv.ParsePublicKey(p.terms.Payee[:])
	p.r.must(err)
	lock := bsv.Output{Value: how.capacity, Script: bsv.Multisig(key.Public(), payee)}
	keys := make([]bsv.PrivateKey, len(how.coins))
	prev := make([]bsv.Output, len(how.coins))
	for i, c := range how.coins {
		keys[i], prev[i] = p.r.purse, c.Output
	}
	funding, _, err := bsv.BuildPayment(how.coins, keys, []bsv.Output{lock}, p.r.purse.Public().Hash(), how.feeRate)
	p.r.must(err)
	if how.change != nil {
		how.change(funding)
		p.r.sign(funding, prev)
	}
	return p.open(key, funding, prev, wire.Open{FundingTxid: funding.Txid(), Capacity: how.capacity})
}

// sign signs all inputs with the purse's key.
func (r *rig) sign(tx *bsv.Tx, prev []bsv.Output) {
	r.Helper()
	for i := range tx.Inputs {
		r.must(bsv.SignP2PKH(tx, i, prev[i], r.purse))
	}
}

// open asks for the refund's signature; nil where that is refused.
func (p *payer) open(key bsv.PrivateKey, funding *bsv.Tx, prev []bsv.Output, open wire.Open) *wire.RefundSig {
	p.r.Helper()
	open.Payer, open.PayerHash = key.Public(), p.r.purse.Public().Hash()
	open.FeeRate, open.RefundHeight = p.terms.FeeRate, p.terms.TipHeight+p.terms.RefundWindow
	state, _, err := channel.NewPayer(key, p.r.title.InfoHash, p.terms, open, funding, prev)
	p.r.must(err)
	p.state, p.total = state, 0
	p.say(&open)
	sig := await[*wire.RefundSig](p)
	if sig != nil {
		p.step(channel.Got{Msg: sig})
		p.step(channel.FundingReady{})
	}
	return sig
}

// funded hands the funding over, and says whether the channel is open.
func (p *payer) funded(parents ...*bsv.Tx) bool {
	p.r.Helper()
	p.say(p.handover(parents...))
	ready := await[*wire.Ready](p)
	if ready != nil {
		p.step(channel.Got{Msg: ready})
	}
	return ready != nil
}

func (p *payer) handover(parents ...*bsv.Tx) *wire.Funded {
	m := &wire.Funded{Channel: p.state.ID(), Funding: p.state.Funding, First: p.state.Last}
	for _, tx := range parents {
		m.Parents = append(m.Parents, tx.Bytes())
	}
	return m
}

// fund opens a channel and says whether it could.
func (p *payer) fund(how plan) bool {
	p.r.Helper()
	if p.prepare(how) == nil {
		return false
	}
	if how.broadcast {
		p.r.must(p.r.steal(p.raw()))
	}
	if how.swap {
		p.state.Funding = p.r.spend(feeRate, p.r.coins(1, 30_000)...).Bytes()
	}
	return p.funded(how.parents...)
}

// step moves the attacker's machine and returns what a correct payer would
// send.
func (p *payer) step(ev channel.Event) (out []wire.Message) {
	p.r.Helper()
	if got, ok := ev.(channel.Got); ok {
		got.Title, got.Terms = p.r.title.InfoHash, p.terms
		ev = got
	}
	var effects []channel.Effect
	p.state, effects = p.state.Step(ev, p.r.clock.Now())
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Send:
			out = append(out, e.Msg)
		case channel.Fail:
			p.r.Logf("attacker's machine: %v", e.Err)
		}
	}
	return out
}

// take takes all that the seller lets it have, and returns how much that was.
func (p *payer) take() (n int64) {
	p.r.Helper()
	for {
		p.ping()
		more := p.conn.limit() - p.taken
		if more <= 0 {
			return n
		}
		n += more
		p.taken += more
		p.total += more
		p.sale.Sent(p.taken)
	}
}

// takeUpTo takes so many bytes, or as many as it can have.
func (p *payer) takeUpTo(most int64) (n int64) {
	p.r.Helper()
	p.ping()
	n = max(0, min(p.conn.limit()-p.taken, most))
	p.taken += n
	p.total += n
	p.sale.Sent(p.taken)
	p.ping()
	return n
}

// pay pays for all that was taken, as a correct payer does, and says whether
// the seller took it.
func (p *payer) pay() bool {
	p.r.Helper()
	for _, m := range p.step(channel.Delivered{Wire: p.total, Payable: p.total, Limit: money.MaxSatoshis, Flush: true}) {
		p.say(m)
		if m.Kind() != wire.KindPay {
			continue
		}
		ack := await[*wire.Ack](p)
		if ack == nil {
			return false
		}
		p.step(channel.Got{Msg: ack})
	}
	return true
}

// trade takes and pays until the seller lets it have no more, or it has taken
// so much.
func (p *payer) trade(most int64) {
	p.r.Helper()
	for p.total < most {
		if p.takeUpTo(most-p.total) == 0 || !p.pay() {
			return
		}
	}
}

// resume goes on with the channel on a new connection, and says whether it
// could.
func (p *payer) resume() bool {
	p.r.Helper()
	p.reconnect()
	p.say(p.proof())
	got := await[*wire.Resumed](p)
	return got != nil
}

func (p *payer) proof() *wire.Resume {
	p.r.Helper()
	proof, err := p.state.Key.SignDigest(channel.ResumeDigest(p.nonce, p.r.title.InfoHash, p.state.ID()))
	p.r.must(err)
	return &wire.Resume{Channel: p.state.ID(), Proof: proof}
}

// ours is the channel's template.
func (p *payer) ours() bsv.Channel {
	p.r.Helper()
	c, err := p.state.Template()
	p.r.must(err)
	return c
}

// received is what the seller, and creators, have on the chain of channels.
func (r *rig) received(payers ...*payer) (sum money.Satoshis) {
	r.Helper()
	var hashes []bsv.Hash160
	for _, p := range payers {
		hashes = append(hashes, p.state.Terms.PayeeHash)
	}
	if r.title.Royalty != nil {
		hashes = append(hashes, r.title.Royalty.To)
	}
	for i, h := range hashes {
		if !slices.Contains(hashes[:i], h) {
			sum += r.coinsAt(h)
		}
	}
	return sum
}

// raw is the funding.
func (p *payer) raw() *bsv.Tx {
	p.r.Helper()
	tx, err := bsv.ParseTx(p.state.Funding, wire.MaxPayload)
	p.r.must(err)
	return tx
}
