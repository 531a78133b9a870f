package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/backup"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// world is a chain, in memory or a node's.
type world interface {
	backend() chain.Backend
	fund(t *testing.T, script bsv.Script, value money.Satoshis) *bsv.Tx // mined; output 0
	mine(t *testing.T, blocks int)
}

type inMemory struct{ *memory.Chain }

func (m inMemory) backend() chain.Backend { return m.Chain }
func (m inMemory) mine(_ *testing.T, n int) {
	m.Mine(n)
}
func (m inMemory) fund(t *testing.T, script bsv.Script, value money.Satoshis) *bsv.Tx {
	t.Helper()
	coin := m.Fund(script, value)
	tx, err := m.RawTx(context.Background(), coin.Outpoint.Txid)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

type onNode struct{ *regnode.Node }

func (n onNode) backend() chain.Backend { return n.Backend() }
func (n onNode) mine(t *testing.T, blocks int) {
	t.Helper()
	if err := n.Mine(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
}
func (n onNode) fund(t *testing.T, script bsv.Script, value money.Satoshis) *bsv.Tx {
	t.Helper()
	tx, err := n.Send(t.Context(), bsv.Output{Value: value, Script: script})
	if err != nil {
		t.Fatal(err)
	}
	n.mine(t, 1)
	return tx
}

// machine is a box or a payer, with a wallet and a ledger in a folder.
type machine struct {
	*testing.T
	ctx    context.Context
	world  world
	clock  func() time.Time
	dir    string
	words  string
	ledger *ledger.Ledger
	wallet *wallet.Wallet
	outbox *wallet.Outbox
	key    *backup.Key
	sales  int
}

// gap keeps scans short.
const gap = 40

func newMachine(t *testing.T, w world, clock func() time.Time, dir string) *machine {
	t.Helper()
	m := &machine{T: t, ctx: context.Background(), world: w, clock: clock, dir: dir}
	var err error
	m.words, err = wallet.Create(m.ctx, dir, bsv.Regtest, bytes.NewReader(bytes.Repeat([]byte{7}, 64)))
	m.must(err)
	m.open()
	return m
}

func (m *machine) open() {
	m.Helper()
	var err error
	m.ledger, err = ledger.OpenWith(m.ctx, filepath.Join(m.dir, "money.db"), m.clock, ledger.Options{Interval: time.Millisecond})
	m.must(err)
	m.wallet, err = wallet.Open(m.ctx, m.dir, m.ledger, m.world.backend(), wallet.Options{Clock: m.clock, Gap: gap})
	m.must(err)
	m.outbox = wallet.NewOutbox(m.ledger, m.world.backend(), m.clock, slog.New(slog.DiscardHandler))
	m.key, err = backup.NewKey(bsv.Regtest, m.wallet.Secret)
	m.must(err)
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// destroy is what happens to machines.
func (m *machine) destroy() {
	m.Helper()
	m.must(m.ledger.Check(m.ctx))
	m.must(m.ledger.Close())
	m.must(os.RemoveAll(m.dir))
}

func (m *machine) step() {
	m.Helper()
	m.outbox.Kick()
	_, err := m.outbox.Step(m.ctx)
	m.must(err)
}

// backup writes a backup of the state into a file.
func (m *machine) backup() string {
	m.Helper()
	return m.write("state", func(w io.Writer) error {
		return backup.Write(m.ctx, w, m.key, m.ledger, "the owner's address", m.clock(), bytes.NewReader(bytes.Repeat([]byte{3}, 64)))
	})
}

func (m *machine) history() string {
	m.Helper()
	return m.write("history", func(w io.Writer) error {
		return backup.WriteHistory(m.ctx, w, m.key, m.ledger, m.TempDir(), m.clock(), bytes.NewReader(bytes.Repeat([]byte{4}, 64)))
	})
}

func (m *machine) write(name string, fill func(io.Writer) error) string {
	m.Helper()
	f, err := os.Create(filepath.Join(m.TempDir(), name))
	m.must(err)
	m.must(fill(f))
	m.must(f.Close())
	return f.Name()
}

// recovered is a machine made of words and backups.
type recovered struct {
	dir    string
	result backup.Result
	err    error
}

func (m *machine) recovery(dir string, files ...string) backup.Recovery {
	return backup.Recovery{Words: m.words, Network: bsv.Regtest, Dir: dir, Files: files, Chain: m.world.backend(), Gap: gap,
		Poll: 10 * time.Millisecond, Clock: m.clock, Random: bytes.NewReader(bytes.Repeat([]byte{9}, 1024)), Log: slog.New(slog.DiscardHandler)}
}

func (m *machine) recover(files ...string) recovered {
	m.Helper()
	r := recovered{dir: filepath.Join(m.TempDir(), "new")}
	r.result, r.err = backup.Recover(m.ctx, m.recovery(r.dir, files...))
	if r.err != nil || !r.result.Done {
		m.Fatalf("%+v, %v", r.result, r.err)
	}
	m.reopen(r.dir, func(l *ledger.Ledger, w *wallet.Wallet) {})
	return r
}

// reopen opens a recovered folder as the daemon would, and checks its books.
func (m *machine) reopen(dir string, look func(*ledger.Ledger, *wallet.Wallet)) {
	m.Helper()
	l, err := ledger.OpenWith(m.ctx, filepath.Join(dir, "money.db"), m.clock, ledger.Options{Interval: time.Millisecond})
	m.must(err)
	defer func() { m.must(l.Close()) }()
	w, err := wallet.Open(m.ctx, dir, l, m.world.backend(), wallet.Options{Clock: m.clock, Gap: gap})
	m.must(err)
	m.must(l.Check(m.ctx))
	look(l, w)
}

func key(t testing.TB, fill byte) bsv.PrivateKey {
	t.Helper()
	k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var (
	title   = [20]byte{1, 2, 3}
	creator = bsv.Hash160{0xcc}
)

const (
	capacity     = 20_000
	refundHeight = 400
)

// sale is a channel that the machine is paid by.
type sale struct {
	m     *machine
	index uint32
	payer bsv.PrivateKey
	state channel.Payee
	c     bsv.Channel
	// refund is the payer's, signed by both.
	refund *bsv.Tx
}

func (m *machine) agree(mine bsv.PrivateKey, mineHash bsv.Hash160, other bsv.PrivateKey, payee bool) (wire.Terms, wire.Open, bsv.Channel, *bsv.Tx) {
	m.Helper()
	payerKey, payeeKey := other, mine
	payerHash, payeeHash := other.Public().Hash(), mineHash
	if !payee {
		payerKey, payeeKey, payerHash, payeeHash = mine, other, mineHash, other.Public().Hash()
	}
	t := wire.Terms{Network: byte(bsv.Regtest), Identity: payeeKey.Public(), Payee: payeeKey.Public(), PayeeHash: payeeHash, Ask: 1000, Royalty: 100,
		CreatorHash: creator, MinCapacity: 1000, MaxCapacity: 1 << 30, FeeRate: 100, RefundWindow: 300, CloseMargin: 10, UnconfirmedLimit: 1000,
		Credit: channel.MinCredit, Signature: []byte{1}}
	o := wire.Open{Payer: payerKey.Public(), PayerHash: payerHash, Capacity: capacity, RefundHeight: refundHeight, FeeRate: 100}
	tx := m.world.fund(m.T, bsv.Multisig(payerKey.Public(), payeeKey.Public()), capacity)
	o.FundingTxid = tx.Txid()
	c := bsv.Channel{Payer: payerKey.Public(), Payee: payeeKey.Public(), Funding: bsv.Outpoint{Txid: o.FundingTxid}, Capacity: capacity,
		PayerHash: payerHash, PayeeHash: payeeHash, RefundHeight: refundHeight, FeeRate: 100}
	a, err := c.SignRefund(payerKey)
	m.must(err)
	b, err := c.SignRefund(payeeKey)
	m.must(err)
	refund, err := c.CompleteRefund(a, b)
	m.must(err)
	m.must(c.Validate())
	_ = tx
	return t, o, c, refund
}

func (m *machine) keys() (index uint32, mine bsv.PrivateKey, hash bsv.Hash160) {
	m.Helper()
	index, err := m.wallet.NextIndex(m.ctx, wallet.BranchChannel)
	m.must(err)
	mine, err = m.wallet.Key(wallet.BranchChannel, index)
	m.must(err)
	out, err := m.wallet.Key(wallet.BranchPayout, index)
	m.must(err)
	return index, mine, out.Public().Hash()
}

// sell opens a channel and takes a payment.
func (m *machine) sell(payee, royalty money.Satoshis) *sale {
	m.Helper()
	m.sales++
	s := &sale{m: m, payer: key(m, byte(0x40+m.sales))}
	index, mine, hash := m.keys()
	s.index = index
	terms, open, c, refund := m.agree(mine, hash, s.payer, true)
	s.c, s.refund = c, refund
	funding, err := m.world.backend().RawTx(m.ctx, open.FundingTxid)
	m.must(err)
	s.state = channel.NewPayee(mine, channel.Policy{}, title, &terms)
	s.state.Open, s.state.Phase, s.state.Funding, s.state.Confirmed, s.state.Active = open, channel.Open, funding.Bytes(), true, m.clock()
	s.pay(payee, royalty)
	return s
}

func (s *sale) id() [32]byte { return s.state.ID() }

func pays(royalty money.Satoshis) ([]bsv.Royalty, []wire.Royalty) {
	if royalty == 0 {
		return nil, nil
	}
	return []bsv.Royalty{{To: creator, Amount: royalty}}, []wire.Royalty{{To: creator, Amount: royalty}}
}

// pay stores the next commitment.
func (s *sale) pay(payee, royalty money.Satoshis) {
	s.m.Helper()
	c, err := s.state.Template()
	s.m.must(err)
	close, sent := pays(royalty)
	sig, err := c.SignCommitment(s.payer, payee, close)
	s.m.must(err)
	s.state.Last = wire.Pay{Channel: s.id(), Seq: s.state.Last.Seq + 1, Leg: 1, Title: title, Bytes: s.state.Last.Bytes + 1<<20, Payee: payee,
		Creators: sent, Signature: sig}
	s.save()
}

func (s *sale) save() {
	s.m.Helper()
	snapshot, err := s.state.Snapshot()
	s.m.must(err)
	last := &s.state.Last
	row := ledger.Channel{ID: s.id(), Role: ledger.Payee, State: ledger.StateOpen, Title: title, TitleName: "a film", Remote: "127.0.0.1:9",
		PeerKey: s.payer.Public(), KeyIndex: s.index, FundingTxid: s.state.Open.FundingTxid, Capacity: capacity, RefundHeight: refundHeight,
		Rate: 1000, Royalty: 100, Seq: last.Seq, Bytes: last.Bytes, Payee: last.Payee, Creator: last.Royalties(), Snapshot: snapshot}
	for _, r := range last.Creators {
		row.Creators = append(row.Creators, ledger.CreatorAmount{Hash: r.To, Amount: r.Amount})
	}
	s.m.must(s.m.ledger.SaveChannel(s.m.ctx, row))
}

// close broadcasts the newest commitment past the machine's books.
func (s *sale) close() *bsv.Tx {
	s.m.Helper()
	tx, err := s.state.CloseTx()
	s.m.must(err)
	s.m.must(s.m.world.backend().Broadcast(s.m.ctx, tx, []bsv.Output{{Value: s.c.Capacity, Script: s.c.Lock()}}))
	return tx
}

// closing puts the close into the outbox, from where it has not gone yet.
func (s *sale) closing() *bsv.Tx {
	s.m.Helper()
	tx, err := s.state.CloseTx()
	s.m.must(err)
	s.state.Phase, s.state.Close = channel.Closing, tx.Txid()
	snapshot, err := s.state.Snapshot()
	s.m.must(err)
	row, err := s.m.ledger.Channel(s.m.ctx, s.id())
	s.m.must(err)
	row.State, row.CloseTxid, row.Snapshot = ledger.StateClosing, tx.Txid(), snapshot
	s.m.must(s.m.ledger.Apply(s.m.ctx, ledger.Batch{Channels: []ledger.Channel{row}, Outbox: []ledger.Outgoing{{Txid: tx.Txid(), Raw: tx.Bytes(),
		Purpose: ledger.Close, Channel: s.id(), PrevOutputs: wallet.AppendOutput(nil, bsv.Output{Value: s.c.Capacity, Script: s.c.Lock()}),
		Outputs: []ledger.Coin{{Txid: tx.Txid(), Value: tx.Outputs[0].Value, Script: tx.Outputs[0].Script, Branch: wallet.BranchPayout, KeyIndex: s.index,
			Origin: ledger.OriginEarning}}}}}))
	return tx
}

// sweep spends what a close paid to the machine, as a payout does.
func (s *sale) sweep(close *bsv.Tx) {
	s.m.Helper()
	k, err := s.m.wallet.Key(wallet.BranchPayout, s.index)
	s.m.must(err)
	coin := bsv.Coin{Outpoint: bsv.Outpoint{Txid: close.Txid()}, Output: close.Outputs[0]}
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, key(s.m, 0x77).Public().Hash(), 100)
	s.m.must(err)
	s.m.must(s.m.world.backend().Broadcast(s.m.ctx, tx, []bsv.Output{coin.Output}))
}

// line is what a recovery says of a sale.
func (s *sale) line(r recovered) backup.Line {
	s.m.Helper()
	return lineOf(s.m, r, s.id())
}

func lineOf(m *machine, r recovered, id [32]byte) backup.Line {
	m.Helper()
	for _, l := range r.result.Lines {
		if l.Channel == id {
			return l
		}
	}
	m.Fatalf("no line for %x in %+v", id[:4], r.result.Lines)
	return backup.Line{}
}

// onChain is what spends a sale's funding.
func (s *sale) onChain() *bsv.Tx {
	s.m.Helper()
	backend := s.m.world.backend()
	if d, ok := backend.(dumb); ok {
		backend = d.Backend
	}
	by, spent, err := chain.SpenderOf(s.m.ctx, backend, s.c.Funding)
	if err != nil || !spent {
		s.m.Fatalf("funding is spent: %v, %v", spent, err)
	}
	tx, err := s.m.world.backend().RawTx(s.m.ctx, by)
	s.m.must(err)
	return tx
}

func paid(tx *bsv.Tx, to bsv.Hash160) (sum money.Satoshis) {
	for _, o := range tx.Outputs {
		if h, ok := o.Script.P2PKHHash(); ok && h == to {
			sum += o.Value
		}
	}
	return sum
}

// wantClosed checks a sale's close and what the recovery says of it.
func (s *sale) wantClosed(r recovered, state string, payee, royalty money.Satoshis) {
	s.m.Helper()
	tx := s.onChain()
	l := s.line(r)
	if l.State != state || l.Txid != tx.Txid() || l.Chain != payee || !l.Done {
		s.m.Errorf("%+v, want %q with %v by %v", l, state, payee, tx.Txid())
	}
	if got, gotRoyalty := paid(tx, s.state.Terms.PayeeHash), paid(tx, creator); got != payee || gotRoyalty != royalty {
		s.m.Errorf("close pays %v and %v, want %v and %v", got, gotRoyalty, payee, royalty)
	}
}

// buy opens a channel that the machine pays in. It returns the seller's key.
func (m *machine) buy(payee money.Satoshis) (channel.Payer, bsv.Channel, bsv.PrivateKey) {
	m.Helper()
	m.sales++
	seller := key(m, byte(0x40+m.sales))
	index, mine, hash := m.keys()
	terms, open, c, refund := m.agree(mine, hash, seller, false)
	sig, err := c.SignCommitment(mine, payee, nil)
	m.must(err)
	s := channel.Payer{Key: mine, Terms: terms, Leg: channel.LegOf(title, &terms), Phase: channel.Open, Open: open, Refund: refund.Bytes(), Credit: channel.MinCredit}
	s.Last = wire.Pay{Channel: s.ID(), Seq: 2, Leg: 1, Title: title, Bytes: 1 << 20, Payee: payee, Signature: sig}
	snapshot, err := s.Snapshot()
	m.must(err)
	m.must(m.ledger.SaveChannel(m.ctx, ledger.Channel{ID: s.ID(), Role: ledger.Payer, State: ledger.StateOpen, Title: title, TitleName: "bought",
		PeerKey: terms.Identity, KeyIndex: index, FundingTxid: open.FundingTxid, Capacity: capacity, RefundHeight: refundHeight, Rate: 1000,
		Seq: 2, Bytes: 1 << 20, Payee: payee, Snapshot: snapshot}))
	return s, c, seller
}

// dumb is a chain service that cannot say what spends an output.
type dumb struct{ chain.Backend }

func (d dumb) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	return chain.UsedOf(ctx, d.Backend, scripts)
}

// limited is a world with such a service.
type limited struct{ world }

func (l limited) backend() chain.Backend { return dumb{l.world.backend()} }

func describe(lines []backup.Line) (text string) {
	for _, l := range lines {
		text += fmt.Sprintf("\n%x %v %q: %v, on the chain %v, %s", l.Channel[:4], l.Role, l.Title, l.Backup, l.Chain, l.State)
	}
	return text
}
