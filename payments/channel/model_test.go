package channel_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
	"pgregory.net/rapid"
)

// modelRuns is how many times the model is run side by side, each with at least
// runSteps steps.
var modelRuns = 4

const runSteps = 25_000

// Whatever is dropped, repeated, reordered, restarted, forgotten, doubted or
// reorganised, on whichever titles: nobody loses more than the limits, no two
// commitments have one number, and the payee can always close.
func TestModel(t *testing.T) {
	t.Parallel()
	var total atomic.Int64
	t.Run("worlds", func(t *testing.T) {
		for i := range modelRuns {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					for range i { // the same seed, other worlds
						rapid.Uint64().Draw(t, "shift")
					}
					w := newWorld(t)
					for range rapid.IntRange(260, 280).Draw(t, "steps") {
						if w.over && rapid.IntRange(0, 5).Draw(t, "afterwards") == 0 {
							w = newWorld(t)
						}
						w.something()
						w.hold()
						total.Add(1)
					}
				})
			})
		}
	})
	if n := total.Load(); n < int64(modelRuns*runSteps) {
		t.Errorf("only %d steps", n)
	}
}

// The parts of a world that cost signatures are made once.
var modelKeys = sync.OnceValue(func() (keys [8]bsv.PrivateKey) {
	for i := range keys {
		k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{byte(i + 1)}, 32))
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

var modelCreators = sync.OnceValue(func() (hashes [4]bsv.Hash160) {
	for i := range hashes {
		hashes[i] = bsv.Hash160{0xc0, byte(i + 1)}
	}
	return hashes
})

type fundingOf struct {
	capacity money.Satoshis
	tx       *bsv.Tx
	prev     []bsv.Output
}

var (
	modelFundings sync.Map // capacity → *fundingOf
	modelOpenings sync.Map // opening → *opened
	modelCloses   sync.Map // hash of a commitment that was found good as a close
)

func fundingFor(capacity money.Satoshis) *fundingOf {
	if f, ok := modelFundings.Load(capacity); ok {
		return f.(*fundingOf)
	}
	k := modelKeys()
	coin := bsv.Coin{Outpoint: bsv.Outpoint{Index: 9}, Output: bsv.Output{Value: capacity * 2, Script: bsv.P2PKH(k[5].Public().Hash())}}
	outs := []bsv.Output{{Value: capacity, Script: bsv.Multisig(k[2].Public(), k[1].Public())}}
	tx, _, err := bsv.BuildPayment([]bsv.Coin{coin}, []bsv.PrivateKey{k[5]}, outs, k[5].Public().Hash(), 100)
	if err != nil {
		panic(err)
	}
	f := &fundingOf{capacity, tx, []bsv.Output{coin.Output}}
	modelFundings.Store(capacity, f)
	return f
}

// trade is what one leg came to, counted by the model.
type trade struct {
	leg         uint64
	title       [20]byte
	ask         money.Rate
	royalty     money.Rate
	bytes       int64          // served, or verified
	begin, paid money.Satoshis // all that was paid before the leg, and in it
}

func (tr trade) worth() int64 { return worth(tr.ask+tr.royalty, tr.bytes) }

// worth is in 1,024ths of a satoshi, rounded up.
func worth(price money.Rate, n int64) int64 {
	v, err := price.Due(n << 10)
	if err != nil {
		panic(err)
	}
	return int64(v)
}

// kept is a snapshot with what the model counted by then.
type kept struct {
	state  []byte
	trades []trade
}

// world is a payer, a payee and everything that can happen to them.
type world struct {
	t      *rapid.T
	now    time.Time
	height uint32
	offers []offered // titles of the seeder, with a creator each
	payer  channel.Payer
	payee  channel.Payee

	here      int // the connection's title
	terms     *wire.Terms
	connected bool
	bound     bool // the payee knows that the channel is on this connection
	resuming  bool // a Resume was not answered yet
	live      bool // the payer has heard that the channel goes on
	toPayer   []wire.Message
	toPayee   []wire.Message
	former    []wire.Message // of all connections
	checks    int            // fundings waiting for the chain's word
	gathers   bool           // the funding waits for other channels' refunds
	diskFull  bool

	allowed    int64
	unverified int64
	limit      money.Satoshis
	exposure   int64
	doubted    bool
	over       bool
	broadcast  map[channel.Purpose]*bsv.Tx

	payerKept, payeeKept []kept
	served               []trade // as the payee knows them
	verified             []trade
	losses               int // of the payer's newest state
	mangled              bool
	hostile              bool  // the payer signs what it likes, too
	creditWorth          int64 // the largest so far
	exposureWorth        int64
	signed, stored       map[uint64]wire.Pay // by number
}

type offered struct {
	title [20]byte
	terms wire.Terms
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: start, height: 200, connected: true, broadcast: map[channel.Purpose]*bsv.Tx{},
		limit: money.MaxSatoshis, signed: map[uint64]wire.Pay{}, stored: map[uint64]wire.Pay{}}
	if rapid.IntRange(0, 9).Draw(t, "poor") == 0 {
		w.limit = money.Satoshis(rapid.Int64Range(0, 500).Draw(t, "limit"))
	}
	w.exposure = rapid.SampledFrom([]int64{0, 300 << 10, 2 << 20}).Draw(t, "exposure")
	capacity := rapid.SampledFrom([]money.Satoshis{2_000, 20_000, 100_000, 1_000_000}).Draw(t, "capacity")
	for i := range rapid.IntRange(1, 4).Draw(t, "titles") {
		w.offers = append(w.offers, offerOf(t, i))
	}
	trust := rapid.SampledFrom([]money.Satoshis{0, 0, 3_000, 1_000_000}).Draw(t, "trust")
	w.hostile = rapid.IntRange(0, 4).Draw(t, "hostile") == 0
	policy := channel.Policy{CreditShare: 4, IdleClose: 24 * time.Hour, Trust: trust, MaxUnconfirmed: 5_000}
	w.begin(policy, capacity)
	return w
}

func offerOf(t *rapid.T, i int) offered {
	k := modelKeys()
	o := offered{title: [20]byte{0xaa, byte(i)}}
	o.terms = wire.Terms{Network: byte(bsv.Regtest), Identity: k[0].Public(), Payee: k[1].Public(), PayeeHash: k[3].Public().Hash(),
		MinCapacity: 2_000, MaxCapacity: 1_000_000, FeeRate: 100, TipHeight: 200, RefundWindow: 1008, CloseMargin: 144,
		UnconfirmedLimit: 1_000, Credit: 1 << 20, Expiry: start.Unix() + 600}
	o.terms.Ask = rapid.SampledFrom([]money.Rate{0, 1, 1_000, 50_000, 200_000, 1_000_000}).Draw(t, "ask")
	o.terms.Royalty = rapid.SampledFrom([]money.Rate{0, 1, 20_000, 20_000, 200_000}).Draw(t, "royalty")
	if i == 0 && o.terms.Ask+o.terms.Royalty == 0 {
		o.terms.Ask = 1
	}
	if o.terms.Royalty > 0 { // of three creators
		o.terms.CreatorHash = modelCreators()[rapid.IntRange(0, 2).Draw(t, "creator")]
	}
	return o
}

// begin opens the channel, or begins to. Openings by the same numbers share
// their signatures.
func (w *world) begin(policy channel.Policy, capacity money.Satoshis) {
	k, f := modelKeys(), fundingFor(capacity)
	w.terms = &w.offers[0].terms
	tm := w.terms
	w.payee = channel.NewPayee(k[1], policy, w.offers[0].title, tm)
	open := wire.Open{Payer: k[2].Public(), PayerHash: k[6].Public().Hash(), FundingTxid: f.tx.Txid(), Capacity: capacity,
		RefundHeight: tm.TipHeight + tm.RefundWindow, FeeRate: tm.FeeRate}
	payer, effects, err := channel.NewPayer(k[2], w.offers[0].title, tm, open, f.tx, f.prev)
	if err != nil {
		w.t.Fatal(err)
	}
	w.payer = payer
	w.payer.Exposure = w.exposure
	if rapid.IntRange(0, 7).Draw(w.t, "from the beginning") == 0 {
		w.gathers = rapid.Bool().Draw(w.t, "gathers")
		w.runPayer(w.payer, effects)
		return
	}
	key := fmt.Sprint(capacity, tm.Ask, tm.Royalty, tm.CreatorHash)
	if o, ok := modelOpenings.Load(key); ok {
		o.(*opening).resume(w, policy)
		return
	}
	w.runPayer(w.payer, effects)
	w.relay()
	if w.payer.Phase != channel.Open || w.payee.Phase != channel.Open {
		w.t.Fatalf("after the opening: %v and %v", w.payer.Phase, w.payee.Phase)
	}
	modelOpenings.Store(key, &opening{w.payer, w.payee, w.former, w.broadcast[channel.FundingTx], w.payerKept, w.payeeKept})
}

// opening is a channel that has just been opened.
type opening struct {
	payer     channel.Payer
	payee     channel.Payee
	former    []wire.Message
	funding   *bsv.Tx
	payerKept []kept
	payeeKept []kept
}

func (o *opening) resume(w *world, policy channel.Policy) {
	w.payer, w.payee, w.former = o.payer, o.payee, slices.Clone(o.former)
	w.payer.Exposure, w.payee.Policy = w.exposure, policy
	w.payerKept, w.payeeKept = slices.Clone(o.payerKept), slices.Clone(o.payeeKept)
	w.broadcast[channel.FundingTx] = o.funding
	w.live, w.bound = true, true
	w.signed[1], w.stored[1] = w.payer.Last, w.payee.Last
	w.served, w.verified = follow(nil, &w.payee.Leg, &w.payee.Last), follow(nil, &w.payer.Leg, &w.payer.Last)
	w.allowed = w.payee.Allowed()
}

// follow counts what the newest commitment pays to the leg that it is of.
func follow(trades []trade, leg *channel.Leg, last *wire.Pay) []trade {
	if last.Seq == 0 {
		return trades
	}
	total := last.Payee + last.Royalties()
	trades = slices.Clone(trades)
	if n := len(trades); n > 0 {
		trades[n-1].paid = total - trades[n-1].begin
	}
	if n := len(trades); n == 0 || trades[n-1].leg != last.Leg || trades[n-1].title != last.Title {
		trades = append(trades, trade{leg: last.Leg, title: leg.Title, ask: leg.Ask, royalty: leg.Royalty, begin: total})
	}
	return trades
}

func (w *world) payerStep(ev channel.Event) {
	before := w.payer
	next, effects := w.payer.Step(ev, w.now)
	w.ordered("payer", before.Last, next.Last)
	w.payer = next
	w.runPayer(before, effects)
	if w.payer.Phase == channel.Signed && !w.gathers {
		w.payerStep(channel.FundingReady{})
	}
}

func (w *world) runPayer(before channel.Payer, effects []channel.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Store:
			if w.diskFull {
				w.payer = before
				return
			}
			w.storePayer(e)
		case channel.Send:
			if w.connected {
				w.toPayee = append(w.toPayee, e.Msg)
			}
		case channel.Fail:
			w.failed("payer", e.Err)
		}
	}
	w.verified = follow(w.verified, &w.payer.Leg, &w.payer.Last)
}

func (w *world) storePayer(st channel.Store) {
	snap, err := w.payer.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := channel.RestorePayer(snap, w.payer.Key)
	if err == nil {
		again.Prev, again.Exposure = w.payer.Prev, w.payer.Exposure
		w.same(w.payer, again)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if st.Tx != nil {
		w.broadcast[st.Purpose] = st.Tx
	}
	w.verified = follow(w.verified, &w.payer.Leg, &w.payer.Last)
	w.payerKept = append(w.payerKept, kept{snap, w.verified})
	w.oneNumber("signed", w.signed, w.payer.Last)
}

func (w *world) payeeStep(ev channel.Event) {
	before := w.payee
	next, effects := w.payee.Step(ev, w.now)
	if next.Phase != channel.Signed {
		w.ordered("payee", before.Last, next.Last)
	}
	w.payee = next
	for _, e := range effects {
		switch e := e.(type) {
		case channel.Store:
			if w.diskFull {
				w.payee = before
				return
			}
			w.storePayee(e)
		case channel.Send:
			if w.connected {
				w.toPayer = append(w.toPayer, e.Msg)
			}
		case channel.CheckFunding:
			w.checks++
		case channel.Allow:
			if w.bound {
				w.allowed = e.Total
			}
		case channel.Revoke:
			w.allowed = 0
		case channel.Fail:
			w.failed("payee", e.Err)
		}
	}
	if w.payee.Phase == channel.Open || w.payee.Phase == channel.Closing {
		w.served = follow(w.served, &w.payee.Leg, &w.payee.Last)
	}
}

func (w *world) storePayee(st channel.Store) {
	snap, err := w.payee.Snapshot()
	if err != nil {
		w.t.Fatal(err)
	}
	again, err := channel.RestorePayee(snap, w.payee.Key, w.payee.Policy)
	if err != nil {
		w.t.Fatal(err)
	}
	w.same(w.payee, again)
	if st.Tx != nil {
		w.broadcast[st.Purpose] = st.Tx
	}
	if again.Phase != channel.Open && again.Phase != channel.Closing {
		return
	}
	w.served = follow(w.served, &w.payee.Leg, &w.payee.Last)
	w.payeeKept = append(w.payeeKept, kept{snap, w.served})
	w.oneNumber("stored", w.stored, w.payee.Last)
	w.checkClose(&again)
}

// same compares a state with what its snapshot makes of it.
func (w *world) same(a, b any) {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil || !bytes.Equal(x, y) {
		w.t.Fatalf("a snapshot changes\n%s into\n%s (%v, %v)", x, y, errX, errY)
	}
}

// checkClose has the newest commitment, as it is on the disk, verified as a
// node would when it is broadcast.
func (w *world) checkClose(s *channel.Payee) {
	b, err := wire.Encode(&s.Last)
	if err != nil {
		w.t.Fatal(err)
	}
	hash := sha256.Sum256(b[49:]) // the channel and all after number and leg
	copy(hash[:8], fmt.Sprint(s.Open.Capacity))
	if _, done := modelCloses.Load(hash); done {
		return
	}
	tx, err := s.CloseTx() // runs the interpreter
	if err != nil {
		w.t.Fatalf("the newest commitment cannot be broadcast: %v", err)
	}
	paid, err := tx.Paid()
	if fee := s.Open.FeeRate.Fee(bsv.CommitmentSize(len(tx.Outputs))); err != nil || paid > s.Open.Capacity-fee || paid < s.Open.Capacity-fee-s.Open.FeeRate.Fee(bsv.P2PKHOutputSize)-1 {
		w.t.Fatalf("value is not conserved: %v of %v, %v", paid, s.Open.Capacity, err)
	}
	want := map[string]money.Satoshis{}
	add := func(to bsv.Hash160, amount money.Satoshis) {
		if amount > 0 {
			want[bsv.P2PKH(to).String()] += amount
		}
	}
	add(s.Terms.PayeeHash, s.Last.Payee)
	for _, r := range s.Last.Creators {
		add(r.To, r.Amount)
	}
	var change money.Satoshis
	for _, o := range tx.Outputs {
		if o.Script.Equal(bsv.P2PKH(s.Open.PayerHash)) {
			change += o.Value
		} else if want[o.Script.String()] != o.Value {
			w.t.Fatalf("the close pays %v to %v", o.Value, o.Script)
		}
	}
	if paid != change+s.Last.Payee+s.Last.Royalties() || !tx.FinalAt(1) || tx.Version != 1 {
		w.t.Fatalf("close: %+v", tx)
	}
	modelCloses.Store(hash, true)
}

// ordered holds for both ends: nothing falls, and one number has one content.
func (w *world) ordered(who string, x, y wire.Pay) {
	if err := goesBack(&x, &y); err != nil {
		w.t.Fatalf("%s: %v", who, err)
	}
}

func (w *world) oneNumber(what string, seen map[uint64]wire.Pay, p wire.Pay) {
	if p.Seq == 0 {
		return
	}
	if old, ok := seen[p.Seq]; ok && (old.Payee != p.Payee || !slices.Equal(old.Creators, p.Creators)) {
		w.t.Fatalf("two commitments %d were %s: %+v and %+v", p.Seq, what, old, p)
	}
	seen[p.Seq] = p
}

// failed ends the connection. Two honest ends never make each other do that
// unless somebody lost or mangled something.
func (w *world) failed(who string, err error) {
	if w.losses == 0 && !w.mangled && !w.hostile {
		w.t.Fatalf("%s failed: %v", who, err)
	}
	w.disconnect()
}

func (w *world) relay() {
	for w.relayOne() {
	}
}

func (w *world) relayOne() bool {
	switch {
	case len(w.toPayee) > 0:
		m := w.toPayee[0]
		w.toPayee = w.toPayee[1:]
		w.former = append(w.former, m)
		w.bound = w.bound || m.Kind() == wire.KindResume || m.Kind() == wire.KindFunded
		w.payeeStep(w.got(m))
	case w.checks > 0:
		w.checks--
		w.payeeStep(channel.FundingChecked{Height: w.height})
	case len(w.toPayer) > 0:
		m := w.toPayer[0]
		w.toPayer = w.toPayer[1:]
		w.former = append(w.former, m)
		w.hear(m)
	default:
		return false
	}
	return true
}

// hear hands a message to the payer as a purchase does.
func (w *world) hear(m wire.Message) {
	switch m.(type) {
	case *wire.Resumed:
		if !w.resuming {
			return // it answers nothing
		}
		w.payerStep(w.got(m))
		w.resuming = w.diskFull && w.connected
		w.live = w.connected && !w.resuming
	case *wire.Ready:
		w.payerStep(w.got(m))
		w.live = w.connected
	default:
		w.payerStep(w.got(m))
	}
}

func (w *world) got(m wire.Message) channel.Got {
	return channel.Got{Msg: m, Title: w.offers[w.here].title, Terms: w.terms}
}

func (w *world) disconnect() {
	w.connected, w.bound, w.live, w.resuming, w.unverified = false, false, false, false, 0
	w.toPayee, w.toPayer, w.checks = nil, nil, 0
	if w.payee.Phase == channel.Checking {
		w.checks = 1 // the chain still answers
	}
}

// connect brings up a connection for a title, on which the payer proves its
// key if it has a channel that can go on.
func (w *world) connect(title int) {
	w.disconnect()
	w.connected, w.here, w.allowed = true, title, 0
	terms := w.offers[title].terms
	terms.Nonce = w.terms.Nonce
	terms.Nonce[0]++
	w.terms = &terms
	if w.payer.Last.Seq == 0 || w.payer.Refused {
		return
	}
	if err := w.payer.CanMove(w.offers[title].title, w.terms); err != nil {
		w.t.Fatalf("a channel with %d creators: %v", len(w.payer.Last.Creators), err)
	}
	id := w.payer.ID()
	proof, err := w.payer.Key.SignDigest(channel.ResumeDigest(terms.Nonce, w.offers[title].title, id))
	if err != nil {
		w.t.Fatal(err)
	}
	w.resuming = true
	w.toPayee = append(w.toPayee, &wire.Resume{Channel: id, Proof: proof})
}

func (w *world) something() {
	t := w.t
	w.diskFull = rapid.IntRange(0, 99).Draw(t, "disk") == 0
	if w.hostile && w.bound && rapid.IntRange(0, 3).Draw(t, "forges") == 0 {
		w.forge()
		return
	}
	if !w.live && len(w.toPayer)+len(w.toPayee)+w.checks == 0 && rapid.Bool().Draw(t, "again") {
		w.connect(rapid.IntRange(0, len(w.offers)-1).Draw(t, "title"))
		w.relay()
		w.inStep()
		return
	}
	do := rapid.IntRange(0, 99).Draw(t, "do")
	switch {
	case do < 12: // all goes well for a while
		for range rapid.IntRange(1, 4).Draw(t, "pieces") {
			w.serve(1<<20, false)
			w.verify(w.unverified)
			w.relay()
		}
	case do < 26:
		w.serve(rapid.Int64Range(1, 2<<20).Draw(t, "bytes"), false)
	case do < 29:
		w.serve(rapid.Int64Range(1, 1<<20).Draw(t, "lost"), true)
	case do < 44:
		w.verify(rapid.Int64Range(0, w.unverified).Draw(t, "verified"))
	case do < 56:
		w.relay()
	case do < 66:
		w.relayOne()
	case do < 72:
		w.mangle()
	case do < 78:
		if rapid.Bool().Draw(t, "flush") {
			w.flush()
			w.relay()
		}
		w.connect(rapid.IntRange(0, len(w.offers)-1).Draw(t, "title"))
		if rapid.Bool().Draw(t, "at once") {
			w.relay()
			w.inStep()
		}
	case do < 81:
		w.restartPayee(len(w.payeeKept) - 1)
	case do < 84:
		w.restartPayer(len(w.payerKept) - 1)
	case do < 85: // a disk is put back to what it was some time ago
		if n := len(w.payeeKept); n > 1 && w.payee.Phase == channel.Open {
			w.restartPayee(rapid.IntRange(0, n-2).Draw(t, "payee's"))
		}
	case do < 86:
		if n := len(w.payerKept); n > 1 && w.payer.Last.Seq > 0 && w.losses < 3 {
			w.restartPayer(rapid.IntRange(0, n-2).Draw(t, "payer's"))
		}
	case do < 90:
		w.chain()
	case do < 93:
		w.tip()
	case do < 96:
		w.clock()
	case do < 98:
		w.opening()
	case do < 99:
		w.flush()
	default:
		w.end()
	}
}

// inStep checks that a new connection brings both sides to one commitment of
// its title, and that trade goes on from there, whatever happened before.
func (w *world) inStep() {
	a, b := &w.payer, &w.payee
	if w.diskFull || !w.connected || a.Refused || a.Phase != channel.Open || b.Phase != channel.Open {
		return
	}
	title := w.offers[w.here].title
	if !w.live || a.Leg.Title != title || b.Leg.Title != title || a.Last.Seq != b.Last.Seq || a.Last.Leg != b.Last.Leg ||
		a.Last.Payee != b.Last.Payee || !slices.Equal(a.Last.Creators, b.Last.Creators) {
		w.t.Fatalf("after a new connection for %x (live %v) the payer holds %+v and the payee %+v", title[:2], w.live, a.Last, b.Last)
	}
	if left := w.allowed - b.Served; b.Confirmed && left < b.Credit() && w.allowed < b.Past.Served+b.CapacityBytes()+b.Forgiven {
		w.t.Fatalf("after a new connection the payer may have %d bytes, its credit is %d", left, b.Credit())
	}
}

// serve sends up to n bytes as far as the payee lets them go. They come, or
// are lost with the connection, and are not verified.
func (w *world) serve(n int64, lost bool) {
	n = min(n, w.allowed-w.payee.Served)
	if n <= 0 || !w.connected {
		return
	}
	if w.payee.Phase != channel.Open || w.doubted {
		w.t.Fatalf("delivered in phase %v, doubted %v", w.payee.Phase, w.doubted)
	}
	if w.payee.Leg.Title != w.offers[w.here].title {
		w.t.Fatalf("title %x is delivered at the price of %x", w.offers[w.here].title, w.payee.Leg.Title)
	}
	w.payeeStep(channel.Served{Bytes: n})
	w.served = slices.Clone(w.served)
	w.served[len(w.served)-1].bytes += n
	if w.payee.Leg.Price() > 0 && !w.payee.Confirmed && total(w.served, trade.worth) > int64(w.payee.Unconfirmed())<<10 {
		w.t.Fatalf("served for %d/1024 sat before the funding is mined, limit %v", total(w.served, trade.worth), w.payee.Unconfirmed())
	}
	if !lost && w.live {
		w.unverified += n
		w.deliver(n, 0)
	}
}

func (w *world) verify(n int64) {
	if n == 0 || !w.live {
		return
	}
	w.unverified -= n
	w.verified = slices.Clone(w.verified)
	w.verified[len(w.verified)-1].bytes += n
	w.deliver(0, n)
}

func (w *world) deliver(came, verified int64) {
	w.payerStep(channel.Delivered{Wire: w.payer.Wire + came, Payable: w.payer.Payable + verified, Limit: w.limit})
}

func (w *world) flush() {
	if w.live {
		w.payerStep(channel.Delivered{Wire: w.payer.Wire, Payable: w.payer.Payable, Limit: w.limit, Flush: true})
	}
}

// mangle does to the messages on their way what no TCP would.
func (w *world) mangle() {
	t := w.t
	queue := &w.toPayee
	if rapid.Bool().Draw(t, "to the payer") {
		queue = &w.toPayer
	}
	if n := len(*queue); n > 0 {
		i := rapid.IntRange(0, n-1).Draw(t, "message")
		switch rapid.IntRange(0, 2).Draw(t, "mangle") {
		case 0: // lost
			*queue = slices.Delete(slices.Clone(*queue), i, i+1)
		case 1: // twice
			*queue = append(slices.Clone(*queue), (*queue)[i])
		case 2: // early
			m := (*queue)[i]
			*queue = slices.Insert(slices.Delete(slices.Clone(*queue), i, i+1), 0, m)
		}
		w.mangled = true
		return
	}
	if len(w.former) == 0 || !w.connected {
		return
	}
	m := w.former[rapid.IntRange(0, len(w.former)-1).Draw(t, "former")]
	switch m.Kind() {
	case wire.KindOpen, wire.KindFunded, wire.KindPay, wire.KindResume:
		w.toPayee = append(w.toPayee, m)
	case wire.KindClose:
		return
	default:
		w.toPayer = append(w.toPayer, m)
	}
	w.mangled = true
}

// forge has the payer sign a commitment that is, in some ways, not what it
// should be, and send it.
func (w *world) forge() {
	t := w.t
	last := &w.payee.Last
	p := wire.Pay{Channel: w.payee.ID(), Seq: last.Seq + rapid.Uint64Range(0, 3).Draw(t, "seq"), Leg: last.Leg, Title: last.Title,
		Bytes: last.Bytes, Payee: last.Payee, Creators: slices.Clone(last.Creators)}
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		switch rapid.IntRange(0, 8).Draw(t, "change") {
		case 0, 1: // pays properly
			p.Bytes += rapid.Int64Range(0, 4<<20).Draw(t, "bytes")
			payee, creator, err := w.payee.Leg.Due(p.Bytes)
			if err != nil {
				continue
			}
			p.Payee = max(p.Payee, w.payee.Past.Payee+payee)
			p.Creators = w.raised(p.Creators, w.payee.Leg.Creator, creator+paidTo(w.payee.Past.Creators, w.payee.Leg.Creator))
		case 2:
			p.Bytes += rapid.Int64Range(-1<<20, 1<<62).Draw(t, "any bytes")
		case 3, 4: // begins a leg
			p.Leg, p.Bytes, p.Title = p.Seq, 0, w.offers[w.here].title
		case 5:
			p.Title = w.offers[rapid.IntRange(0, len(w.offers)-1).Draw(t, "other title")].title
		case 6:
			p.Payee += money.Satoshis(rapid.Int64Range(-3, 100).Draw(t, "payee"))
		case 7: // another creator, which may be an own address; so few that all titles still have room
			p.Creators = w.raised(p.Creators, bsv.Hash160{0xee, byte(rapid.IntRange(0, 4).Draw(t, "who"))}, 1)
		case 8:
			if n := len(p.Creators); n > 0 {
				i := rapid.IntRange(0, n-1).Draw(t, "creator")
				p.Creators[i].Amount += money.Satoshis(rapid.Int64Range(-2, 50).Draw(t, "amount"))
			}
		}
	}
	creators := make([]bsv.Royalty, len(p.Creators))
	for i, r := range p.Creators {
		creators[i] = bsv.Royalty{To: r.To, Amount: r.Amount}
	}
	c, err := w.payee.Template()
	if err == nil {
		p.Signature, err = c.SignCommitment(w.payer.Key, p.Payee, creators)
	}
	if err != nil {
		return // nobody can sign that
	}
	if b, err := wire.Encode(&p); err == nil && p.Bytes >= 0 && b != nil {
		w.payeeStep(w.got(&p))
	}
}

func paidTo(creators []wire.Royalty, to bsv.Hash160) money.Satoshis {
	for _, r := range creators {
		if r.To == to {
			return r.Amount
		}
	}
	return 0
}

func (w *world) raised(creators []wire.Royalty, to bsv.Hash160, by money.Satoshis) []wire.Royalty {
	if by == 0 {
		return creators
	}
	for i, r := range creators {
		if r.To == to {
			creators[i].Amount = max(r.Amount, by)
			return creators
		}
	}
	return append(creators, wire.Royalty{To: to, Amount: by})
}

// restartPayee makes the payee what it was at one of its Stores. What it served
// since is forgotten, on its own disk's account.
func (w *world) restartPayee(at int) {
	if at < 0 || w.payee.Phase == channel.Signed || w.payee.Phase == channel.Checking || w.payee.Phase == channel.Failed {
		return
	}
	w.disconnect()
	k := w.payeeKept[at]
	s, err := channel.RestorePayee(k.state, w.payee.Key, w.payee.Policy)
	if err != nil {
		w.t.Fatal(err)
	}
	if at < len(w.payeeKept)-1 {
		if s.Phase != channel.Open {
			return
		}
		w.mangled = true
		clear(w.stored)
	}
	w.payee, w.served, w.allowed = s, k.trades, 0
	w.payeeKept = w.payeeKept[:at+1]
	w.doubted = s.Doubted
}

func (w *world) restartPayer(at int) {
	if at < 0 {
		return
	}
	k := w.payerKept[at]
	s, err := channel.RestorePayer(k.state, w.payer.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	if at < len(w.payerKept)-1 && s.Last.Seq == 0 {
		return // it would not know that there is a channel
	}
	w.disconnect()
	s.Exposure, s.Prev = w.exposure, w.payer.Prev
	if at < len(w.payerKept)-1 {
		w.losses++
		clear(w.signed)
	} else if s.Payable < w.payer.Payable {
		w.losses++ // what was verified since is forgotten
	}
	// What has come has come: the model forgets nothing.
	w.payer = s
	w.verified = follow(w.verified, &s.Leg, &s.Last)
	w.payerKept = w.payerKept[:at+1]
}

// chain tells the payee what has become of the funding.
func (w *world) chain() {
	switch rapid.IntRange(0, 5).Draw(w.t, "chain") {
	case 0, 1, 2:
		w.payeeStep(channel.FundingMined{})
		w.doubted = w.doubted && w.diskFull
	case 3:
		w.payeeStep(channel.FundingUnmined{})
	case 4:
		w.payeeStep(channel.FundingDoubted{})
		w.doubted = w.payee.Doubted
	case 5:
		if rapid.IntRange(0, 9).Draw(w.t, "lost") > 0 {
			return
		}
		open := w.payee.Phase == channel.Open
		w.payeeStep(channel.FundingLost{})
		if open && w.allowed != 0 {
			w.t.Fatal("a payer of a lost funding is served")
		}
		if open && !w.diskFull && (w.payee.Phase != channel.Closing || w.broadcast[channel.CloseTx] == nil) {
			w.t.Fatalf("the newest commitment of a lost funding is not kept: %v", w.payee.Phase)
		}
	}
}

// tip lets the chain grow, jump, or lose its newest blocks.
func (w *world) tip() {
	t := w.t
	switch rapid.IntRange(0, 25).Draw(t, "tip") {
	case 0:
		w.height = rapid.Uint32Range(1000, 1400).Draw(t, "jump")
	case 1, 2, 3:
		w.height -= rapid.Uint32Range(1, 3).Draw(t, "reorganised")
	default:
		w.height += rapid.Uint32Range(0, 6).Draw(t, "blocks")
	}
	refund := w.payer.Open.RefundHeight
	w.payeeStep(channel.Tip{Height: w.height})
	if w.payee.Phase == channel.Open && !w.diskFull && w.height+w.payee.Terms.CloseMargin >= refund {
		w.t.Fatalf("open at height %d, refund at %d", w.height, refund)
	}
	w.payerStep(channel.Tip{Height: w.height})
	if tx := w.broadcast[channel.RefundTx]; tx != nil && w.payer.Phase == channel.Refunding && tx.LockTime != refund {
		w.t.Fatalf("refund: %+v", tx)
	}
	if w.payer.Phase == channel.Refunding && w.broadcast[channel.RefundTx] == nil {
		w.t.Fatal("no refund in the outbox")
	}
}

func (w *world) clock() {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour, -time.Hour, -time.Hour, time.Hour, 90 * 24 * time.Hour, -90 * 24 * time.Hour}).Draw(w.t, "clock"))
	if rapid.IntRange(0, 3).Draw(w.t, "looks") == 0 {
		w.payeeStep(channel.Tip{Height: w.height})
	}
}

// opening goes on with a funding that waits for others' refunds, or gives it
// up.
func (w *world) opening() {
	if rapid.IntRange(0, 2).Draw(w.t, "abandon") > 0 {
		w.payerStep(channel.FundingReady{Stored: rapid.IntRange(0, 3).Draw(w.t, "stored") == 0})
		return
	}
	w.payerStep(channel.Abandon{})
}

func (w *world) end() {
	switch rapid.IntRange(0, 20).Draw(w.t, "end") {
	case 0:
		if w.live {
			w.payerStep(channel.CloseWanted{})
		}
	case 1:
		w.payeeStep(channel.CloseWanted{})
	}
}

func total(trades []trade, of func(trade) int64) (sum int64) {
	for _, tr := range trades {
		sum += of(tr)
	}
	return sum
}

// hold checks what must be true at any time.
func (w *world) hold() {
	w.holdPayer()
	w.holdPayee()
	w.over = w.payee.Phase == channel.Closing || w.payee.Phase == channel.Failed ||
		w.payer.Phase == channel.Failed || w.payer.Phase == channel.Refunding || w.payer.Phase == channel.Closed || w.payer.Refused
}

func (w *world) holdPayer() {
	if w.hostile {
		return
	}
	t, s := w.t, &w.payer
	out := w.broadcast[channel.FundingTx] != nil
	if out && (len(s.Refund) == 0 || s.Phase == channel.Proposed || s.Phase == channel.Signed || s.Phase == channel.Failed) {
		t.Fatalf("the funding is out in phase %v, the refund has %d bytes", s.Phase, len(s.Refund))
	}
	if s.Last.Seq > 0 && s.Last.Title != s.Leg.Title {
		t.Fatalf("commitment %d of title %x in a leg of %x", s.Last.Seq, s.Last.Title, s.Leg.Title)
	}
	if s.Spent() > w.limit {
		t.Fatalf("spent %v, the limit is %v", s.Spent(), w.limit)
	}
	if s.Phase == channel.Open && s.Payable > s.Wire {
		t.Fatalf("%d bytes verified of %d", s.Payable, s.Wire)
	}
	if n := s.CapacityBytes(); s.Last.Bytes > n {
		t.Fatalf("paid for %d bytes, the channel can pay for %d", s.Last.Bytes, n)
	}
	w.exposureWorth = max(w.exposureWorth, worth(s.Leg.Price(), w.exposure))
	got := total(w.verified, trade.worth)
	// Each part of each leg is rounded up; a loss of the payer's state makes it
	// take what it had paid ahead for verified, once.
	most := got + int64(w.losses+1)*(2*w.exposureWorth+got/64) + int64(len(w.verified)+1)<<11
	if int64(s.Spent())<<10 > most {
		t.Fatalf("paid %v for what is worth %d/1024, at most %d/1024: %+v", s.Spent(), got, most, w.verified)
	}
	if w.payee.Last.Seq > s.Last.Seq && w.losses == 0 && w.payee.Phase != channel.Checking {
		t.Fatalf("payee holds commitment %d, payer has signed %d", w.payee.Last.Seq, s.Last.Seq)
	}
}

func (w *world) holdPayee() {
	t, s := w.t, &w.payee
	closed := w.broadcast[channel.CloseTx]
	if s.Phase == channel.Closing && (closed == nil || closed.Txid() != s.Close) {
		t.Fatalf("the payee is closing and %v is in the outbox", closed)
	}
	if s.Phase != channel.Open {
		return
	}
	if s.Last.Title != s.Leg.Title {
		t.Fatalf("commitment %d of title %x in a leg of %x", s.Last.Seq, s.Last.Title, s.Leg.Title)
	}
	if p := &w.payer; w.losses == 0 && !w.hostile && p.Last.Leg == s.Last.Leg && (p.Leg != s.Leg || p.Past.Payee != s.Past.Payee || !slices.Equal(p.Past.Creators, s.Past.Creators)) {
		t.Fatalf("leg %d is %+v from %+v to the payer, %+v from %+v to the payee", s.Last.Leg, p.Leg, p.Past, s.Leg, s.Past)
	}
	price := s.Leg.Price()
	earned := total(w.served, func(tr trade) int64 { return min(tr.worth(), int64(tr.paid)<<10) })
	credit := worth(price, s.Credit())
	if most := max(worth(price, s.Leg.Credit), (earned+int64(s.Policy.Trust)<<10)/4) + 2*int64(len(w.served)); credit > most || s.Credit() > channel.MaxCredit {
		t.Fatalf("a credit of %d/1024 to a payer that is worth %d/1024", credit, most)
	}
	w.creditWorth = max(w.creditWorth, credit)
	lost := total(w.served, func(tr trade) int64 { return max(0, tr.worth()-int64(tr.paid)<<10) })
	if most := 2*w.creditWorth + earned/16 + 2*int64(len(w.served)); lost > most {
		t.Fatalf("%d/1024 sat were served and not paid for, at most %d/1024: %+v", lost, most, w.served)
	}
	if price > 0 && !s.Doubted && s.Allowed() > s.Past.Served+s.Covered() && s.Allowed()-s.Past.Served-s.Covered()-s.Forgiven > s.Credit() {
		t.Fatalf("%d bytes allowed beyond the credit", s.Allowed()-s.Covered()-s.Credit())
	}
}
