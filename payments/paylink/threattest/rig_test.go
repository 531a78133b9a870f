package threattest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

const (
	// patience is how long a test waits for what must come.
	patience = 2 * time.Minute
	// poll is how often the honest programs look at the chain.
	poll = 20 * time.Millisecond
	// feeRate is what everybody here pays to miners.
	feeRate money.FeeRate = 100
	// block is the size of a block of data.
	block = 16 << 10
)

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

// party is an honest program's money: ledger, wallet, outbox, and its own view
// of the node.
type party struct {
	ledger *ledger.Ledger
	wallet *wallet.Wallet
	outbox *wallet.Outbox
	chain  *node.Backend
}

// rig is a node, and one honest seller on it.
type rig struct {
	*testing.T
	node   *regnode.Node
	clock  *clock
	thief  *node.Backend // how attackers see the node
	purse  bsv.PrivateKey
	keys   uint64 // that attackers have made
	box    *party
	title  paylink.Title
	offer  paylink.Offer
	policy channel.Policy
	danger func([]paylink.Danger) // is told what the seller tells its owner; may be nil
	seller *paylink.Seller
	stop   func() // the seller
}

// newRig starts a node and a seller. 64 MiB of the title cost 3,125 satoshis,
// and the credit of a new payer is the worth of 2 MiB, 98.
func newRig(t *testing.T, change func(*rig)) *rig {
	t.Helper()
	t.Parallel()
	r := &rig{T: t, node: regnode.ForTest(t), clock: &clock{now: time.Unix(1_800_000_000, 0)}, offer: paylink.DefaultOffer(), policy: paylink.DefaultPolicy()}
	r.title = paylink.Title{InfoHash: [20]byte{7}, Name: "a film", Length: 64 << 20, PieceLength: 1 << 20, Ask: 50_000}
	// A short window: mining it away is most of a test's time.
	r.offer.RefundWindow, r.offer.CloseMargin = 60, 20
	r.thief = r.dial()
	r.purse = r.key()
	r.box = r.party()
	if change != nil {
		change(r)
	}
	r.startSeller()
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) dial() *node.Backend {
	r.Helper()
	b, err := node.Dial(r.node.URL(), node.Options{FeeFloor: feeRate})
	r.must(err)
	r.Cleanup(b.Close)
	return b
}

// key is a fresh key of an attacker.
func (r *rig) key() bsv.PrivateKey {
	r.Helper()
	r.keys++
	raw := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.Name()), r.keys))
	k, err := bsv.NewPrivateKey(raw[:])
	r.must(err)
	return k
}

func (r *rig) party() *party {
	r.Helper()
	ctx, dir := r.Context(), r.TempDir()
	p := &party{chain: r.dial()}
	var err error
	p.ledger, err = ledger.OpenWith(ctx, filepath.Join(dir, "money.db"), r.clock.Now, ledger.Options{Interval: time.Millisecond})
	r.must(err)
	_, err = wallet.Create(ctx, dir, regnode.Network, rand.Reader)
	r.must(err)
	p.wallet, err = wallet.Open(ctx, dir, p.ledger, p.chain, wallet.Options{Clock: r.clock.Now, Log: quiet()})
	r.must(err)
	p.outbox = wallet.NewOutbox(p.ledger, p.chain, r.clock.Now, quiet())
	p.outbox.Poll = poll
	stop := background(func(ctx context.Context) { _ = p.outbox.Run(ctx) })
	r.Cleanup(func() {
		stop()
		if err := p.ledger.Close(); err != nil {
			r.Error(err)
		}
	})
	return p
}

// background runs f until the function that it returns is called.
func background(f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return sync.OnceFunc(func() { cancel(); <-done })
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (r *rig) startSeller() {
	r.Helper()
	var err error
	r.seller, err = paylink.NewSeller(paylink.SellerConfig{Ledger: r.box.ledger, Wallet: r.box.wallet, Chain: r.box.chain, Outbox: r.box.outbox,
		Offer: r.offer, Policy: r.policy, Poll: poll, Endangered: r.danger, Clock: r.clock.Now, Random: rand.Reader, Log: quiet()})
	r.must(err)
	s := r.seller
	r.stop = background(func(ctx context.Context) { _ = s.Run(ctx) })
	r.Cleanup(r.stop)
}

// buyer is an honest payer with coins, and a purse that nobody else pays to.
type buyer struct {
	*party
	*paylink.Buyer
	before money.Satoshis // its coins at the beginning
	told   func(string)   // what it tells its owner; may be nil
}

// newBuyer makes a buyer who has a million satoshis in mined coins.
func (r *rig) newBuyer() *buyer {
	r.Helper()
	p := r.party()
	outs := make([]bsv.Output, 10)
	for i := range outs {
		address, err := p.wallet.ReceiveAddress(r.Context())
		r.must(err)
		hash, err := bsv.ParseAddress(address, regnode.Network)
		r.must(err)
		outs[i] = bsv.Output{Value: 100_000, Script: bsv.P2PKH(hash)}
	}
	_, err := r.node.Send(r.Context(), outs...)
	r.must(err)
	r.mine(1)
	r.must(p.wallet.Refresh(r.Context()))
	b := &buyer{party: p, before: r.coinsOf(p)}
	r.again(b)
	return b
}

// again begins another run of a buyer's download.
func (r *rig) again(b *buyer) {
	b.Buyer = paylink.NewBuyer(paylink.BuyerConfig{Ledger: b.ledger, Wallet: b.wallet, Chain: b.chain, Outbox: b.outbox,
		MaxPrice: 1_000_000, Budget: paylink.NewBudget(100_000, 0), MaxFeeRate: 1000, MaxWindow: 2016, Clock: r.clock.Now, Log: quiet(),
		Notify: func(n paylink.Notice) {
			if !strings.Contains(n.Text, pinged) {
				r.Logf("buyer: %s", n.Text)
			}
			if b.told != nil {
				b.told(n.Text)
			}
		}})
	buyer := b.Buyer
	r.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = buyer.Suspend(ctx) // where the test has not ended it
	})
}

// coinsOf is what the chain has for a party: the sum of the unspent outputs to
// the first keys of its wallet, of which no test uses more.
func (r *rig) coinsOf(p *party) (sum money.Satoshis) {
	r.Helper()
	const keys = 24
	for _, branch := range []uint32{wallet.BranchReceive, wallet.BranchChange, wallet.BranchPayout} {
		for i := range uint32(keys) {
			k, err := p.wallet.Key(branch, i)
			r.must(err)
			sum += r.coinsAt(k.Public().Hash())
		}
	}
	return sum
}

// coinsAt is the sum of the mined unspent outputs to a key.
func (r *rig) coinsAt(hash bsv.Hash160) (sum money.Satoshis) {
	r.Helper()
	coins, err := r.thief.Unspent(r.Context(), bsv.P2PKH(hash))
	r.must(err)
	for _, c := range coins {
		if c.Height > 0 {
			sum += c.Output.Value
		}
	}
	return sum
}

func (r *rig) mine(n int) {
	r.Helper()
	r.must(r.node.Mine(r.Context(), n))
}

func (r *rig) height() uint32 {
	r.Helper()
	tip, err := r.thief.Tip(r.Context())
	r.must(err)
	return tip.Height
}

// coins are mined coins of the attackers' purse, so deep that a reorganisation
// of one block leaves them where they are.
func (r *rig) coins(n int, amount money.Satoshis) []bsv.Coin {
	r.Helper()
	outs := make([]bsv.Output, n)
	for i := range outs {
		outs[i] = bsv.Output{Value: amount, Script: bsv.P2PKH(r.purse.Public().Hash())}
	}
	tx, err := r.node.Send(r.Context(), outs...)
	r.must(err)
	r.mine(2)
	return outputs(tx)[:n]
}

// outputs are a transaction's outputs as coins.
func outputs(tx *bsv.Tx) []bsv.Coin {
	coins := make([]bsv.Coin, len(tx.Outputs))
	for i := range coins {
		coins[i] = bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: uint32(i)}, Output: tx.Outputs[i]}
	}
	return coins
}

// wait polls for what no event tells of.
func (r *rig) wait(what string, done func() bool) {
	r.Helper()
	timeout := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			r.Fatalf("it does not happen: %s", what)
		}
	}
}

// waitState waits until the node has a transaction so far.
func (r *rig) waitState(txid bsv.Txid, state chain.State) {
	r.Helper()
	r.wait(state.String(), func() bool {
		s, err := r.thief.Status(r.Context(), txid)
		return err == nil && (s.State == state || s.State == chain.Mined)
	})
}

// steal hands a transaction to the node past all programs, and says what the
// node says.
func (r *rig) steal(tx *bsv.Tx) error { return r.thief.Broadcast(r.Context(), tx, nil) }

// spend is a payment from coins of the purse back to it: one that competes with
// whatever else spends them.
func (r *rig) spend(rate money.FeeRate, coins ...bsv.Coin) *bsv.Tx {
	r.Helper()
	keys := make([]bsv.PrivateKey, len(coins))
	for i := range keys {
		keys[i] = r.purse
	}
	tx, _, err := bsv.BuildSweep(coins, keys, r.purse.Public().Hash(), rate)
	r.must(err)
	return tx
}

// mineInstead mines transactions in the place of those that the node has: the
// newest block gives way to two, of which the first has them.
func (r *rig) mineInstead(depth int, txs ...*bsv.Tx) {
	r.Helper()
	r.must(r.node.Reorganise(r.Context(), depth, regnode.ToMempool, txs...))
}

// settle has the seller close everything, and what it broadcasts mined.
func (r *rig) settle() {
	r.Helper()
	r.clock.advance(2 * time.Hour) // idle
	r.wait("all channels are closing", func() bool {
		rows, err := r.box.ledger.Channels(r.Context(), ledger.Filter{Role: ledger.Payee})
		r.must(err)
		for _, row := range rows {
			if row.State == ledger.StateOpen {
				return false
			}
		}
		return true
	})
	r.wait("what is to be broadcast is decided", func() bool {
		rows, err := r.box.ledger.OutgoingUnsettled(r.Context())
		r.must(err)
		for _, row := range rows {
			if row.State == ledger.Pending && row.Tries == 0 {
				return false
			}
		}
		return true
	})
	r.mine(1)
}

// audit compares the honest ledgers with themselves and with the chain, and
// looks at every transaction that is to close a channel.
func (r *rig) audit(parties ...*party) {
	r.Helper()
	for _, p := range parties {
		r.wait("the outbox has heard of the newest block", func() bool { return r.upToDate(p) })
		r.must(p.wallet.Refresh(r.Context()))
		r.must(p.ledger.Check(r.Context()))
		report, err := wallet.CheckChain(r.Context(), p.ledger, p.chain)
		r.must(err)
		for _, d := range report.Differences {
			r.Errorf("ledger and chain: %s", d)
		}
		closes, err := p.ledger.OutgoingFor(r.Context(), ledger.Close, 1000)
		r.must(err)
		for _, out := range closes {
			tx, err := bsv.ParseTx(out.Raw, ledger.MaxRaw)
			r.must(err)
			if len(tx.Inputs) != 1 || tx.Inputs[0].Sequence != bsv.FinalSequence || tx.Version != 1 || tx.LockTime != 0 {
				r.Errorf("a close that a refund could pin: %+v", tx)
			}
		}
	}
}

// upToDate says whether a party's outbox knows what has become of its
// transactions.
func (r *rig) upToDate(p *party) bool {
	r.Helper()
	rows, err := p.ledger.OutgoingUnsettled(r.Context())
	r.must(err)
	for _, row := range rows {
		s, err := r.thief.Status(r.Context(), row.Txid)
		r.must(err)
		if (s.State == chain.Mined) != (row.State == ledger.Mined) {
			return false
		}
	}
	return true
}

// due is what n bytes cost, price and royalty together.
func (r *rig) due(n int64) money.Satoshis {
	r.Helper()
	terms := channel.Leg{Ask: r.title.Ask}
	if r.title.Royalty != nil {
		terms.Royalty = r.title.Royalty.Rate
	}
	payee, creator, err := terms.Due(n)
	r.must(err)
	return payee + creator
}

// channelFees is the most that the transactions of one channel cost in fees:
// a funding of one coin with change, and a close or refund.
func channelFees(rate money.FeeRate) money.Satoshis {
	lock := bsv.Output{Value: 1, Script: make(bsv.Script, bsv.MultisigSize)}
	change := bsv.Output{Value: 1, Script: make(bsv.Script, bsv.P2PKHSize)}
	return rate.Fee(bsv.PaymentSize(1, lock, change)) + rate.Fee(bsv.CommitmentSize(3))
}

// ledgerPayer selects the channels in which a party pays.
var ledgerPayer = ledger.Filter{Role: ledger.Payer}
