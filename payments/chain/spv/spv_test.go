package spv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/spv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// service is a chain service whose blocks hold what a test puts into them, and
// which says of them what the test wants.
type service struct {
	mu     sync.Mutex
	blocks []block
	txs    map[bsv.Txid]*bsv.Tx
	asked  map[string]int

	status  func(txid bsv.Txid, s chain.Status) (chain.Status, error)
	proof   func(txid bsv.Txid, p *chain.Proof) (*chain.Proof, error)
	raw     func(txid bsv.Txid, tx *bsv.Tx) (*bsv.Tx, error)
	header  func(h chain.Header) (chain.Header, error)
	unspent []chain.Coin
}

type block struct {
	chain.Header
	txids []bsv.Txid
}

func newService(t testing.TB) *service {
	genesis, ok := regtest(t, now).Tip()
	if !ok {
		t.Fatal("no first block")
	}
	return &service{
		blocks: []block{{Header: genesis}},
		txs:    make(map[bsv.Txid]*bsv.Tx),
		asked:  make(map[string]int),
	}
}

// transaction makes one that nobody has seen.
func transaction(n uint32, outputs ...bsv.Output) *bsv.Tx {
	return &bsv.Tx{
		Version: 1,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Txid: bsv.Txid{9}, Index: n}, Script: make(bsv.Script, 100), Sequence: bsv.FinalSequence}},
		Outputs: append([]bsv.Output{{Value: 1000, Script: bsv.P2PKH(bsv.Hash160{byte(n)})}}, outputs...),
	}
}

// mine makes a block of these transactions, a coinbase before them.
func (s *service) mine(txs ...*bsv.Tx) chain.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	parent := s.blocks[len(s.blocks)-1]
	coinbase := transaction(uint32(len(s.blocks)))
	coinbase.Inputs[0].Prev = bsv.Outpoint{Index: bsv.FinalSequence}
	b := block{Header: chain.Header{
		Height: parent.Height + 1, Prev: parent.Hash, Time: parent.Time.Add(10 * time.Minute), Version: 1, Bits: parent.Bits,
	}}
	for _, tx := range append([]*bsv.Tx{coinbase}, txs...) {
		s.txs[tx.Txid()] = tx
		b.txids = append(b.txids, tx.Txid())
	}
	p, err := chain.NewProof(0, chain.Hash{}, b.txids, 0)
	if err != nil {
		panic(err)
	}
	if b.MerkleRoot, err = p.Root(b.txids[0]); err != nil {
		panic(err)
	}
	for {
		sealed, err := chain.ParseHeader(b.Bytes(), b.Height)
		if err != nil {
			panic(err)
		}
		if sealed.Hash[31] < 0x7f { // 207fffff
			b.Header = sealed
			break
		}
		b.Nonce++
	}
	s.blocks = append(s.blocks, b)
	return b.Header
}

// fork returns a service with the newest depth blocks replaced by n others.
func (s *service) fork(depth, n int) *service {
	f := &service{
		blocks: slices.Clone(s.blocks[:len(s.blocks)-depth]),
		txs:    make(map[bsv.Txid]*bsv.Tx), asked: make(map[string]int),
	}
	for i := range n {
		f.mine(transaction(uint32(1<<20 + i)))
	}
	return f
}

func (s *service) enter(ctx context.Context, what string) error {
	s.mu.Lock()
	s.asked[what]++
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	return nil
}

func (s *service) questions() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = make(map[string]int)
	return asked
}

func (s *service) Tip(ctx context.Context) (chain.Header, error) {
	defer s.mu.Unlock()
	if err := s.enter(ctx, "tip"); err != nil {
		return chain.Header{}, err
	}
	return s.blocks[len(s.blocks)-1].Header, nil
}

func (s *service) Header(ctx context.Context, height uint32) (chain.Header, error) {
	defer s.mu.Unlock()
	if err := s.enter(ctx, "header"); err != nil {
		return chain.Header{}, err
	}
	if int64(height) >= int64(len(s.blocks)) {
		return chain.Header{}, chain.ErrNotFound
	}
	if s.header != nil {
		return s.header(s.blocks[height].Header)
	}
	return s.blocks[height].Header, nil
}

func (s *service) find(txid bsv.Txid) (chain.Status, *chain.Proof) {
	for _, b := range s.blocks {
		if at := slices.Index(b.txids, txid); at >= 0 {
			p, err := chain.NewProof(b.Height, b.Hash, b.txids, at)
			if err != nil {
				panic(err)
			}
			return chain.Status{State: chain.Mined, Height: b.Height, Block: b.Hash}, p
		}
	}
	return chain.Status{}, nil
}

func (s *service) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	defer s.mu.Unlock()
	if err := s.enter(ctx, "status"); err != nil {
		return chain.Status{}, err
	}
	status, proof := s.find(txid)
	status.Proof = proof
	if s.status != nil {
		return s.status(txid, status)
	}
	return status, nil
}

func (s *service) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	defer s.mu.Unlock()
	if err := s.enter(ctx, "raw"); err != nil {
		return nil, err
	}
	if s.raw != nil {
		return s.raw(txid, s.txs[txid])
	}
	if tx := s.txs[txid]; tx != nil {
		return tx, nil
	}
	return nil, chain.ErrNotFound
}

func (s *service) Unspent(ctx context.Context, _ bsv.Script) ([]chain.Coin, error) {
	defer s.mu.Unlock()
	return slices.Clone(s.unspent), s.enter(ctx, "unspent")
}

func (s *service) FeeRate(context.Context) (money.FeeRate, error)         { return 7, nil }
func (s *service) Broadcast(context.Context, *bsv.Tx, []bsv.Output) error { return nil }
func (s *service) Spent(context.Context, bsv.Outpoint) (bool, error)      { return true, nil }

// prover is a service that can be asked for proofs alone.
type prover struct{ *service }

func (p prover) Proof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	defer p.mu.Unlock()
	if err := p.enter(ctx, "proof"); err != nil {
		return nil, err
	}
	_, proof := p.find(txid)
	if p.proof != nil {
		return p.proof(txid, proof)
	}
	if proof == nil {
		return nil, chain.ErrNotFound
	}
	return proof, nil
}

type rig struct {
	*spv.Backend
	t   *testing.T
	s   *service
	log bytes.Buffer
}

func newRig(t *testing.T, wrap func(*service) chain.Backend, opt spv.Options, sources ...headers.Source) *rig {
	t.Helper()
	r := &rig{t: t, s: newService(t)}
	opt.Log = slog.New(slog.NewTextHandler(&r.log, nil))
	if opt.Clock == nil {
		opt.Clock = now
	}
	var b chain.Backend = r.s
	if wrap != nil {
		b = wrap(r.s)
	}
	r.Backend = spv.New(b, regtest(t, now, sources...), opt)
	return r
}

func (r *rig) want(tx *bsv.Tx, want chain.State, in chain.Header) {
	r.t.Helper()
	got, err := r.Status(r.t.Context(), tx.Txid())
	if err != nil || got.State != want {
		r.t.Fatalf("%s, %v; want %s", got.State, err, want)
	}
	if want != chain.Mined {
		if got.Height != 0 || got.Proof != nil || !got.Block.IsZero() {
			r.t.Fatalf("%s with %v", got.State, got)
		}
		return
	}
	if got.Height != in.Height || got.Block != in.Hash || got.Proof == nil {
		r.t.Fatalf("mined in %d %s; want %d %s", got.Height, got.Block, in.Height, in.Hash)
	}
	if err := got.Proof.Check(tx.Txid(), in); err != nil {
		r.t.Fatal(err)
	}
}

func TestMinedWithoutProof(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{})
	tx := transaction(1)
	h := r.s.mine(tx, transaction(2))
	r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) { s.Proof = nil; return s, nil }
	for range 3 {
		r.want(tx, chain.Seen, h)
	}
	if n, why := r.Unproven(); n != 1 || !strings.Contains(why, "no proof") {
		t.Error(n, why)
	}
	if n := strings.Count(r.log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d lines in the log:\n%s", n, r.log.String())
	}
	// It is not called mined any more.
	r.s.status = func(_ bsv.Txid, _ chain.Status) (chain.Status, error) {
		return chain.Status{State: chain.Conflicted, Competing: []bsv.Txid{{1}}}, nil
	}
	if s, err := r.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Conflicted || len(s.Competing) != 1 {
		t.Error(s, err)
	}
	if n, why := r.Unproven(); n != 0 || why != "" {
		t.Error(n, why)
	}
	r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) { s.Proof = nil; return s, nil }
	r.want(tx, chain.Seen, h)
	r.s.status = nil
	r.want(tx, chain.Mined, h)
	if n, _ := r.Unproven(); n != 0 {
		t.Error(n, "unproven")
	}
	// What is proven is not asked for again, whatever the service says now.
	r.s.questions()
	r.s.status = func(bsv.Txid, chain.Status) (chain.Status, error) { return chain.Status{State: chain.Conflicted}, nil }
	r.want(tx, chain.Mined, h)
	if n := len(r.s.questions()); n != 0 {
		t.Error(n, "questions")
	}
}

// A proof that proves something else.
func TestWrongProofs(t *testing.T) {
	t.Parallel()
	a, b := transaction(1), transaction(2)
	alien := newService(t)
	alienBlock := alien.mine(a, b)
	for name, lie := range map[string]func(s *service, p *chain.Proof){
		"of another transaction": func(s *service, p *chain.Proof) {
			_, other := s.find(b.Txid())
			*p = *other
		},
		"an index that does not fit": func(_ *service, p *chain.Proof) { p.Index += 1 << len(p.Path) },
		"another index":              func(_ *service, p *chain.Proof) { p.Index ^= 1 },
		"another path":               func(_ *service, p *chain.Proof) { p.Path[0][0]++ },
		"no path":                    func(_ *service, p *chain.Proof) { p.Path, p.Index = nil, 0 },
		"a path without end":         func(_ *service, p *chain.Proof) { p.Path = make([]chain.Hash, 1000) },
		"into another block":         func(s *service, p *chain.Proof) { p.Height, p.Block = 1, s.blocks[1].Hash },
		"of a block above the tip":   func(_ *service, p *chain.Proof) { p.Height, p.Block = 1_000_000, chain.Hash{1} },
		"into a block of no chain":   func(_ *service, p *chain.Proof) { _, other := alien.find(a.Txid()); *p = *other },
		"into no chain, by its height": func(_ *service, p *chain.Proof) {
			_, other := alien.find(a.Txid())
			*p = *other
			p.Block, p.Height = chain.Hash{}, 5
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(s *service) chain.Backend { return prover{s} }, spv.Options{})
			for range 4 {
				r.s.mine()
			}
			h := r.s.mine(a, b)
			r.s.mine()
			if h.Height != 5 || alienBlock.Height != 1 {
				t.Fatal(h.Height)
			}
			for _, inStatus := range []bool{true, false} {
				r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) {
					if !inStatus {
						s.Proof = nil
						return s, nil
					}
					lie(r.s, s.Proof)
					return s, nil
				}
				r.s.proof = func(_ bsv.Txid, p *chain.Proof) (*chain.Proof, error) { lie(r.s, p); return p, nil }
				r.want(a, chain.Seen, h)
				if n, why := r.Unproven(); n != 1 || why == "" {
					t.Error(n, why)
				}
			}
			r.s.proof = nil
			r.want(a, chain.Mined, h)
		})
	}
}

// The height and block are those of the header that the proof ends in.
func TestServiceIsCorrected(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(s *chain.Status){
		"another height":        func(s *chain.Status) { s.Height += 2 },
		"another block":         func(s *chain.Status) { s.Block[0]++ },
		"no height and block":   func(s *chain.Status) { s.Height, s.Block = 0, chain.Hash{} },
		"no height in a BUMP":   func(s *chain.Status) { s.Height, s.Block, s.Proof.Block = 0, chain.Hash{}, chain.Hash{} },
		"a TSC proof":           func(s *chain.Status) { s.Proof.Height = 0 },
		"a TSC proof, no place": func(s *chain.Status) { s.Height, s.Block, s.Proof.Height = 0, chain.Hash{}, 0 },
		"a bare path":           func(s *chain.Status) { s.Proof.Height, s.Proof.Block = 0, chain.Hash{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, spv.Options{})
			tx := transaction(1)
			h := r.s.mine(tx)
			for range 3 {
				r.s.mine()
			}
			r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) { lie(&s); return s, nil }
			r.want(tx, chain.Mined, h)
		})
	}
}

func TestProver(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(s *service) chain.Backend { return prover{s} }, spv.Options{})
	tx := transaction(1)
	h := r.s.mine(tx)
	r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) { s.Proof = nil; return s, nil }
	for _, failure := range []error{chain.ErrUnsupported, chain.ErrNotFound, chain.ErrUnavailable, context.DeadlineExceeded} {
		r.s.proof = func(bsv.Txid, *chain.Proof) (*chain.Proof, error) { return nil, failure }
		r.want(tx, chain.Seen, h)
		if n, why := r.Unproven(); n != 1 || !strings.Contains(why, failure.Error()) {
			t.Error(n, why)
		}
		if _, err := r.Proof(t.Context(), tx.Txid()); !errors.Is(err, chain.ErrNotFound) {
			t.Error(err)
		}
	}
	r.s.proof = func(bsv.Txid, *chain.Proof) (*chain.Proof, error) { return nil, nil }
	r.want(tx, chain.Seen, h)
	// The caller's own time is over: that says nothing of the transaction.
	ctx, cancel := context.WithCancel(t.Context())
	r.s.proof = func(bsv.Txid, *chain.Proof) (*chain.Proof, error) { cancel(); return nil, ctx.Err() }
	if s, err := r.Status(ctx, tx.Txid()); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Error(s, err)
	}
	r.s.proof = nil
	r.want(tx, chain.Mined, h)
	if p, err := r.Proof(t.Context(), tx.Txid()); err != nil || p.Check(tx.Txid(), h) != nil {
		t.Error(p, err)
	}
}

// Headers that do not come leave a proof without an end.
func TestHeadersMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{})
	r.s.mine()
	tx := transaction(1)
	h := r.s.mine(tx)
	r.s.mine()
	for _, failure := range []error{chain.ErrUnavailable, context.DeadlineExceeded, chain.ErrNotFound} {
		r.s.header = func(chain.Header) (chain.Header, error) { return chain.Header{}, failure }
		r.want(tx, chain.Seen, h)
		if _, err := r.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
			t.Error(err)
		}
	}
	r.s.header = nil
	r.want(tx, chain.Mined, h)
}

// Its bytes could be two hashes, so that a path from it proves nothing.
func TestSixtyFourBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{})
	tx := &bsv.Tx{Version: 1, Inputs: []bsv.Input{{Sequence: 1}}, Outputs: []bsv.Output{{Script: make(bsv.Script, 4)}}}
	if tx.Size() != 64 {
		t.Fatal(tx.Size())
	}
	h := r.s.mine(tx)
	if err := r.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	r.want(tx, chain.Seen, h)
	if _, why := r.Unproven(); !strings.Contains(why, "64 bytes") {
		t.Error(why)
	}
	// The other way round: an inner node is passed off as a transaction.
	left, right := transaction(1), transaction(2)
	h = r.s.mine(left, right, transaction(3))
	_, p := r.s.find(left.Txid())
	above := chain.Proof{Index: p.Index & 1, Path: p.Path[:1]}
	node, err := above.Root(left.Txid())
	if err != nil {
		t.Fatal(err)
	}
	r.s.status = func(bsv.Txid, chain.Status) (chain.Status, error) {
		return chain.Status{State: chain.Mined, Height: h.Height, Block: h.Hash,
			Proof: &chain.Proof{Height: h.Height, Index: p.Index >> 1, Path: p.Path[1:]}}, nil
	}
	if s, err := r.Status(t.Context(), bsv.Txid(node)); err != nil || s.State != chain.Seen {
		t.Error(s, err) // nobody has bytes for it that are a transaction
	}
}

func TestRawTxIsChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{})
	tx := transaction(1)
	h := r.s.mine(tx)
	if got, err := r.RawTx(t.Context(), tx.Txid()); err != nil || got.Txid() != tx.Txid() {
		t.Error(got, err)
	}
	r.s.raw = func(bsv.Txid, *bsv.Tx) (*bsv.Tx, error) { return transaction(2), nil }
	if _, err := r.RawTx(t.Context(), tx.Txid()); !errors.Is(err, spv.ErrForged) || !errors.Is(err, chain.ErrUnavailable) {
		t.Error(err)
	}
	r.want(tx, chain.Seen, h)
	r.s.raw = func(bsv.Txid, *bsv.Tx) (*bsv.Tx, error) { return nil, chain.ErrUnsupported }
	r.want(tx, chain.Seen, h)
	// What was broadcast from here is known.
	if err := r.Broadcast(t.Context(), tx, nil); err != nil {
		t.Fatal(err)
	}
	r.want(tx, chain.Mined, h)
}

// A fork with less work proves nothing; with more it voids what was proven.
func TestForks(t *testing.T) {
	t.Parallel()
	var front chain.Backend
	r := newRig(t, func(s *service) chain.Backend { front = s; return &switched{&front} }, spv.Options{})
	kept, lost := transaction(1), transaction(2)
	first := r.s.mine(kept)
	for range 3 {
		r.s.mine()
	}
	second := r.s.mine(lost)
	r.want(kept, chain.Mined, first)
	r.want(lost, chain.Mined, second)

	weak := r.s.fork(2, 2)
	forged := transaction(3)
	weak.blocks = weak.blocks[:len(weak.blocks)-1]
	inWeak := weak.mine(forged)
	front = weak
	if tip, err := r.Tip(t.Context()); err != nil || tip != second {
		t.Fatal(tip, err)
	}
	r.want(forged, chain.Seen, inWeak)
	r.want(lost, chain.Mined, second)

	strong := r.s.fork(2, 3)
	tip := strong.mine(forged)
	front = strong
	if got, err := r.Tip(t.Context()); err != nil || got != tip {
		t.Fatal(got, err)
	}
	r.want(forged, chain.Mined, tip)
	r.want(lost, chain.Unknown, tip)
	r.want(kept, chain.Mined, first)
	strong.mine(lost)
	again := strong.blocks[len(strong.blocks)-1].Header
	r.want(lost, chain.Mined, again)
	// From the old chain nothing can be proven any more.
	front = r.s
	if got, err := r.Tip(t.Context()); err != nil || got != again {
		t.Fatal(got, err)
	}
	r.want(lost, chain.Mined, again)
	if err := r.Trouble(); err != nil {
		t.Error(err)
	}
}

// switched stands in front of services that take turns.
type switched struct{ to *chain.Backend }

func (s *switched) Tip(ctx context.Context) (chain.Header, error) { return (*s.to).Tip(ctx) }
func (s *switched) Header(ctx context.Context, height uint32) (chain.Header, error) {
	return (*s.to).Header(ctx, height)
}
func (s *switched) FeeRate(ctx context.Context) (money.FeeRate, error) { return (*s.to).FeeRate(ctx) }
func (s *switched) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	return (*s.to).Broadcast(ctx, tx, prev)
}
func (s *switched) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	return (*s.to).Status(ctx, txid)
}
func (s *switched) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	return (*s.to).RawTx(ctx, txid)
}
func (s *switched) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	return (*s.to).Unspent(ctx, script)
}
func (s *switched) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	return (*s.to).Spent(ctx, o)
}

// Where the first service's headers cannot be followed, those of another one
// are, and the trouble is told.
func TestTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bad  func(s *service) *service
		want error
	}{
		"another chain": {func(s *service) *service { return s.fork(300, 400) }, headers.ErrDeepReorg},
		"no work": {func(s *service) *service {
			f := s.fork(0, 3)
			f.header = func(h chain.Header) (chain.Header, error) { h.Nonce++; return h, nil }
			return f
		}, headers.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := newService(t)
			for range 320 {
				good.mine()
			}
			var front chain.Backend = good
			b := spv.New(&switched{&front}, regtest(t, now), spv.Options{Clock: now})
			if _, err := b.Tip(t.Context()); err != nil {
				t.Fatal(err)
			}
			front = c.bad(good)
			tip, err := b.Tip(t.Context())
			if !errors.Is(err, c.want) || !errors.Is(err, chain.ErrUnavailable) || !errors.Is(b.Trouble(), c.want) {
				t.Fatal(tip, err, b.Trouble())
			}
			own, _ := b.Header(t.Context(), 320)
			if own != good.blocks[320].Header {
				t.Error("headers were lost")
			}

			h := regtest(t, now)
			if _, err := h.Sync(t.Context(), good); err != nil {
				t.Fatal(err)
			}
			next := good.mine()
			b = spv.New(&switched{&front}, h, spv.Options{Clock: now, Sources: []headers.Source{front, good}})
			tip, err = b.Tip(t.Context())
			if err != nil || tip != next || !errors.Is(b.Trouble(), c.want) {
				t.Fatal(tip, err, b.Trouble())
			}
			front = good
			if _, err := b.Tip(t.Context()); err != nil || b.Trouble() != nil {
				t.Error(err, b.Trouble())
			}
		})
	}
}

// A first service that is stuck does not keep the others' blocks away.
func TestStuckService(t *testing.T) {
	t.Parallel()
	good := newService(t)
	good.mine()
	stuck := good.fork(0, 0)
	at := good.blocks[1].Time
	clock := func() time.Time { return at }
	b := spv.New(stuck, regtest(t, now), spv.Options{Clock: clock, Sources: []headers.Source{stuck, good}})
	tip := func(want chain.Header) {
		t.Helper()
		if got, err := b.Tip(t.Context()); err != nil || got != want {
			t.Fatal(got, err)
		}
	}
	tip(good.blocks[1].Header)
	next := good.mine()
	at = at.Add(59 * time.Minute)
	tip(good.blocks[1].Header)
	at = at.Add(time.Minute)
	tip(next)
	// They are not asked all the time.
	at = next.Time.Add(2 * time.Hour)
	tip(next)
	good.questions()
	for range 5 {
		tip(next)
	}
	if n := good.questions()["tip"]; n != 0 {
		t.Error(n, "questions")
	}
	at = at.Add(10 * time.Minute)
	tip(next)
	if n := good.questions()["tip"]; n != 1 {
		t.Error(n, "questions")
	}
}

func TestUnspent(t *testing.T) {
	t.Parallel()
	at := now()
	r := newRig(t, func(s *service) chain.Backend { return prover{s} }, spv.Options{Clock: func() time.Time { return at }})
	second := bsv.Output{Value: 2000, Script: bsv.P2PKH(bsv.Hash160{77})}
	a, b := transaction(1, second), transaction(2)
	h := r.s.mine(a)
	later := r.s.mine(b)
	base := r.s.txs[r.s.blocks[1].txids[0]]
	pending := transaction(5)
	coin := func(tx *bsv.Tx, index uint32, height uint32) chain.Coin {
		return chain.Coin{Coin: bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid(), Index: index}, Output: tx.Outputs[index]}, Height: height}
	}
	coinbase := coin(base, 0, h.Height)
	coinbase.Coinbase = true
	check := func(want ...chain.Coin) {
		t.Helper()
		got, err := r.Unspent(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want, chain.Compare)
		if !slices.EqualFunc(got, want, func(a, b chain.Coin) bool {
			return a.Outpoint == b.Outpoint && a.Height == b.Height && a.Coinbase == b.Coinbase && a.Output.Value == b.Output.Value
		}) {
			t.Fatalf("%v\nwant\n%v", got, want)
		}
	}
	honest := []chain.Coin{coin(a, 0, h.Height), coin(a, 1, h.Height), coin(b, 0, later.Height), coin(pending, 0, 0), coinbase}
	r.s.unspent = honest
	check(honest...)
	if asked := r.s.questions(); asked["proof"] != 3 || asked["raw"] > 4 || asked["status"] != 0 {
		t.Error("questions", asked)
	}
	check(honest...)
	if asked := r.s.questions(); len(asked) != 1 {
		t.Error("questions when all is known", asked)
	}
	// Heights that the service has wrong, or does not have yet.
	r.s.unspent = []chain.Coin{coin(a, 0, 2), coin(b, 0, 0)}
	check(coin(a, 0, h.Height), coin(b, 0, later.Height))
	// Coins that are none.
	more := coin(a, 0, h.Height)
	more.Output.Value++
	other := coin(a, 0, h.Height)
	other.Output.Script = bsv.P2PKH(bsv.Hash160{9})
	beyond := coin(a, 0, h.Height)
	beyond.Outpoint.Index = 1<<32 - 1
	r.s.unspent = []chain.Coin{more, other, beyond, coin(b, 0, later.Height)}
	check(coin(b, 0, later.Height))

	// Mined as the service says, without a proof.
	c := transaction(7)
	third := r.s.mine(c)
	newBase := coin(r.s.txs[r.s.blocks[3].txids[0]], 0, third.Height)
	newBase.Coinbase = true
	r.s.proof = func(bsv.Txid, *chain.Proof) (*chain.Proof, error) { return nil, chain.ErrUnavailable }
	r.s.unspent = []chain.Coin{coin(b, 0, later.Height), coin(c, 0, third.Height), newBase}
	r.s.questions()
	check(coin(b, 0, later.Height), coin(c, 0, 0))
	if n, _ := r.Unproven(); n != 2 {
		t.Error(n, "unproven")
	}
	check(coin(b, 0, later.Height), coin(c, 0, 0))
	if n := r.s.questions()["proof"]; n != 2 {
		t.Error("asked for a proof that has just failed:", n)
	}
	at = at.Add(time.Minute)
	r.s.proof = nil
	check(r.s.unspent...)

	// Where Status has the proofs.
	r.s.proof = func(bsv.Txid, *chain.Proof) (*chain.Proof, error) { return nil, chain.ErrUnsupported }
	d := transaction(8)
	fourth := r.s.mine(d)
	r.s.unspent = []chain.Coin{coin(d, 0, fourth.Height)}
	check(r.s.unspent...)

	// The time of the caller is over in the middle.
	e := transaction(9)
	fifth := r.s.mine(e)
	ctx, cancel := context.WithCancel(t.Context())
	r.s.proof = func(_ bsv.Txid, p *chain.Proof) (*chain.Proof, error) { cancel(); return nil, ctx.Err() }
	r.s.unspent = []chain.Coin{coin(e, 0, fifth.Height)}
	if coins, err := r.Unspent(ctx, nil); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Error(coins, err)
	}
	r.s.proof = nil
	check(r.s.unspent...)
}

// What was mined before the header chain begins is proven with headers that the
// services agree on.
func TestBeforeTheAnchor(t *testing.T) {
	t.Parallel()
	s := newService(t)
	tx := transaction(1)
	s.mine()
	old := s.mine(tx)
	for range 500 {
		s.mine()
	}
	cp := headers.Checkpoint{Height: 450, Hash: s.blocks[450].Hash}
	twin := &service{blocks: s.blocks, asked: make(map[string]int)}
	h, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest, Clock: now, Checkpoint: cp, Sources: []headers.Source{s, twin}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	r := &rig{Backend: spv.New(s, h, spv.Options{Clock: now}), t: t, s: s}
	if got, err := r.Header(t.Context(), 460); err != nil || got != s.blocks[460].Header { // nothing was asked before
		t.Fatal(got, err)
	}
	twin.header = func(h chain.Header) (chain.Header, error) { return h, chain.ErrUnavailable }
	r.want(tx, chain.Seen, old)
	if _, err := r.Header(t.Context(), 2); !errors.Is(err, chain.ErrUnavailable) {
		t.Error(err)
	}
	twin.header = nil
	r.want(tx, chain.Mined, old)
	r.want(tx, chain.Mined, old)
	if got, err := r.Header(t.Context(), 2); err != nil || got != old {
		t.Error(got, err)
	}
	if _, err := r.Header(t.Context(), 503); !errors.Is(err, chain.ErrNotFound) {
		t.Error(err)
	}
	hs, err := r.Headers(t.Context(), 490, 100)
	if err != nil || len(hs) != 13 || hs[12] != s.blocks[502].Header {
		t.Error(len(hs), err)
	}
	if hs, err = r.Headers(t.Context(), 490, 5); err != nil || len(hs) != 5 {
		t.Error(len(hs), err)
	}
}

// Memory does not grow with what was ever proven.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{Proofs: 10})
	var txs []*bsv.Tx
	for i := range uint32(50) {
		txs = append(txs, transaction(i))
	}
	h := r.s.mine(txs...)
	for _, tx := range txs {
		r.want(tx, chain.Mined, h)
	}
	for _, tx := range txs {
		r.want(tx, chain.Mined, h)
	}
	r.s.status = func(_ bsv.Txid, s chain.Status) (chain.Status, error) {
		return chain.Status{State: chain.Mined, Height: 1}, nil
	}
	for i := range uint32(2000) {
		if _, err := r.Status(t.Context(), bsv.Txid{1, 2, byte(i), byte(i >> 8)}); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := r.Unproven(); n != 1024 {
		t.Error(n)
	}
	if n := r.Remembered(); n > 10 {
		t.Errorf("%d proofs", n)
	}
}

func TestWhatIsPassedOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, spv.Options{})
	ctx := t.Context()
	if rate, err := r.FeeRate(ctx); err != nil || rate != 7 {
		t.Error(rate, err)
	}
	if spent, err := r.Spent(ctx, bsv.Outpoint{}); err != nil || !spent {
		t.Error(spent, err)
	}
	_, errBulk := r.UnspentBulk(ctx, nil)
	_, errUsed := r.UsedBulk(ctx, nil)
	_, _, errBy := r.SpentBy(ctx, bsv.Outpoint{})
	_, errFree := r.Consolidation(ctx)
	errWatch := r.Watch(ctx, func(bsv.Txid) {})
	for _, err := range []error{errBulk, errUsed, errBy, errFree, errWatch} {
		if !errors.Is(err, chain.ErrUnsupported) {
			t.Error(err)
		}
	}
	c := memory.New(now)
	lock := bsv.P2PKH(bsv.Hash160{1})
	coin := c.Fund(lock, 5000)
	b := spv.New(c, regtest(t, now), spv.Options{})
	if used, err := b.UsedBulk(ctx, []bsv.Script{lock, {1}}); err != nil || !slices.Equal(used, []bool{true, false}) {
		t.Error(used, err)
	}
	if by, spent, err := b.SpentBy(ctx, coin.Outpoint); err != nil || spent || !by.IsZero() {
		t.Error(by, spent, err)
	}
}

func TestSeveralCallers(t *testing.T) {
	t.Parallel()
	c := memory.New(now)
	b := spv.New(c, regtest(t, now), spv.Options{Proofs: 5, Clock: now})
	lock := bsv.P2PKH(bsv.Hash160{1})
	var ids []bsv.Txid
	for range 12 {
		ids = append(ids, c.Fund(lock, 5000).Outpoint.Txid)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				for _, id := range ids {
					if s, err := b.Status(t.Context(), id); err != nil || s.State < chain.Seen {
						t.Error(s, err)
					}
				}
				if _, err := b.Unspent(t.Context(), lock); err != nil {
					t.Error(err)
				}
				if _, err := b.Tip(t.Context()); err != nil {
					t.Error(err)
				}
				b.Unproven()
			}
		})
		wg.Go(func() {
			if i == 0 {
				c.Reorganise(3)
			}
			c.Mine(1)
		})
	}
	wg.Wait()
	c.Mine(1)
	if _, err := b.Tip(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if s, err := b.Status(t.Context(), id); err != nil || s.State != chain.Mined {
			t.Error(s, err)
		}
	}
}

// A service that names coins without end, whose proofs never come, keeps nobody
// from the others, and is not asked for each of them.
func TestEndlessCoins(t *testing.T) {
	t.Parallel()
	at := now()
	r := newRig(t, func(s *service) chain.Backend { return prover{s} }, spv.Options{Clock: func() time.Time { return at }})
	good := transaction(1)
	h := r.s.mine(good)
	coin := func(tx *bsv.Tx, height uint32) chain.Coin {
		return chain.Coin{Coin: bsv.Coin{Outpoint: bsv.Outpoint{Txid: tx.Txid()}, Output: tx.Outputs[0]}, Height: height}
	}
	r.s.proof = func(txid bsv.Txid, p *chain.Proof) (*chain.Proof, error) {
		if p == nil {
			return nil, chain.ErrNotFound
		}
		return p, nil
	}
	for i := range uint32(5000) {
		height := h.Height
		if i >= 40 {
			height = 0
		}
		r.s.unspent = append(r.s.unspent, coin(transaction(100+i), height))
	}
	r.s.unspent = append(r.s.unspent, coin(good, h.Height))
	proven := false
	for round := 0; !proven; round++ {
		r.s.questions()
		coins, err := r.Unspent(t.Context(), nil)
		if err != nil || len(coins) > 1001 || round > 5 {
			t.Fatal(len(coins), round, err)
		}
		if n := r.s.questions()["proof"]; n > 17 {
			t.Errorf("%d proofs asked for in one answer", n)
		}
		proven = coins[0].Height == h.Height && coins[0].Outpoint.Txid == good.Txid()
		at = at.Add(20 * time.Second)
	}
	if n, _ := r.Unproven(); n == 0 {
		t.Error("nothing is said of it")
	}
	at = at.Add(3 * time.Hour)
	if n, last := r.Unproven(); n != 0 || last != "" {
		t.Error(n, last, "hours after anybody asked")
	}
}

// Those who ask for the tip at the same time cost the services two questions,
// and within Options.Fresh none at all; none of them is told of an older tip than
// there was when they asked.
func TestTipIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		slow := &slowTip{service: s}
		b := spv.New(slow, regtest(t, now), spv.Options{Clock: time.Now})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := b.Tip(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := s.questions()["tip"]; n > 2 {
			t.Error(n, "questions of 50")
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() { _, _ = b.Tip(t.Context()) })
		synctest.Wait()
		wg.Go(func() {
			if _, err := b.Tip(short); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, chain.ErrUnavailable) {
				t.Error(err)
			}
		})
		synctest.Wait()
		late := s.mine() // after the look has begun, before it ends
		wg.Go(func() {
			if tip, err := b.Tip(t.Context()); err != nil || tip.Hash != late.Hash {
				t.Error(tip, err)
			}
		})
		wg.Wait()

		s.questions()
		fresh := spv.New(s, regtest(t, now), spv.Options{Clock: time.Now, Fresh: 8 * time.Second})
		for range 20 {
			if _, err := fresh.Tip(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := s.questions()["tip"]; n != 3 {
			t.Error(n, "questions in 20 seconds")
		}
	})
}

type slowTip struct{ *service }

func (s *slowTip) Tip(ctx context.Context) (chain.Header, error) {
	tip, err := s.service.Tip(ctx)
	time.Sleep(10 * time.Second)
	return tip, err
}

// A service that names the tip of another network's chain, whose work is real,
// and has nothing that leads there, or takes its time over every answer, does not
// keep the header chain from growing.
func TestTipOfNowhere(t *testing.T) {
	t.Parallel()
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow ", slow), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				good := newService(t)
				for range 50 {
					good.mine()
				}
				at := good.blocks[50].Time.Add(time.Minute)
				clock := func() time.Time { return at }
				foreign := good.fork(40, 60)
				liar := &elsewhere{service: good, tip: foreign.blocks[60].Header}
				if slow {
					liar.wait = 25 * time.Second
				}
				h := regtest(t, now)
				if _, err := h.Sync(t.Context(), good); err != nil {
					t.Fatal(err)
				}
				b := spv.New(liar, h, spv.Options{Clock: clock, Sources: []headers.Source{liar, good}})
				next := good.mine()
				before := time.Now()
				if tip, err := b.Tip(t.Context()); err != nil || tip != next {
					t.Fatal(tip, err)
				}
				if took := time.Since(before); took > 3*time.Minute {
					t.Error(took)
				}
			})
		})
	}
}

type elsewhere struct {
	*service
	tip  chain.Header
	wait time.Duration
}

func (e *elsewhere) Tip(ctx context.Context) (chain.Header, error) {
	return e.tip, e.pause(ctx)
}

func (e *elsewhere) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if err := e.pause(ctx); err != nil {
		return chain.Header{}, err
	}
	if height > 50 {
		return chain.Header{}, chain.ErrNotFound
	}
	if e.wait > 0 && height > 0 {
		return e.tip, nil // another one, everywhere
	}
	return e.service.Header(ctx, height)
}

func (e *elsewhere) pause(ctx context.Context) error {
	if e.wait == 0 {
		return nil
	}
	select {
	case <-time.After(e.wait):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
	}
}

// spends is a service that says of every output that it is spent, and by what.
type spends struct {
	chain.Backend
	by *bsv.Tx
}

func (s spends) SpentBy(context.Context, bsv.Outpoint) (bsv.Txid, bool, error) {
	return s.by.Txid(), true, nil
}

func (s spends) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	if txid == s.by.Txid() {
		return s.by, nil
	}
	return s.Backend.RawTx(ctx, txid)
}

// No service takes a coin away by its word.
func TestFalseSpender(t *testing.T) {
	t.Parallel()
	c := memory.New(now)
	key, err := bsv.NewPrivateKey([]byte("a key of exactly thirty-two byte"))
	if err != nil {
		t.Fatal(err)
	}
	coin := c.Fund(bsv.P2PKH(key.Public().Hash()), 10_000)
	good, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{key}, bsv.Hash160{1}, 100)
	if err != nil {
		t.Fatal(err)
	}
	changed := *good // as who has no key can make one
	changed.Outputs = []bsv.Output{{Value: 5, Script: bsv.P2PKH(bsv.Hash160{2})}}
	for name, v := range map[string]struct {
		by   *bsv.Tx
		good bool
	}{
		"the truth":         {good, true},
		"no signature":      {&changed, false},
		"of something else": {transaction(1), false},
	} {
		b := spv.New(spends{c, v.by}, regtest(t, now), spv.Options{Clock: now})
		spent, err := b.Spent(t.Context(), coin.Outpoint)
		if spent != v.good || v.good != (err == nil) || err != nil && (!errors.Is(err, spv.ErrForged) || !errors.Is(err, chain.ErrUnavailable)) {
			t.Errorf("%s: %v, %v", name, spent, err)
		}
		by, spent, err := b.SpentBy(t.Context(), coin.Outpoint)
		if spent != v.good || v.good != (err == nil) || v.good != (by == v.by.Txid()) {
			t.Errorf("%s: %s, %v, %v", name, by, spent, err)
		}
	}
}
