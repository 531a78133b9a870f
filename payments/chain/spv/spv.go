// Package spv is a view of the chain that believes no service that something is
// mined. Its tip and its headers are those of the program's own header chain,
// and a transaction is Mined where a Merkle path leads from it to one of those
// headers.
//
// # What is proven and what is not
//
//   - Status: Mined is proven, with the block and height of the header that the
//     path ends in, whatever the service said of them. What a service calls
//     mined without a proof that holds is Seen. All other states are the
//     service's word.
//   - Unspent: a coin's height, value and script are proven where the height
//     is not 0. That it is unspent is the service's word, as is all of a coin
//     without a height. A coin that its own transaction contradicts is left
//     out, and so is a coinbase without a proof: nobody could tell when it can
//     be spent.
//   - RawTx: the bytes have the txid that was asked for.
//   - Spent and SpentBy: what is named as the spender has the output among its
//     inputs, and its signature holds or it is proven to be mined, so that no
//     service can take a coin away by its word. That an output is not spent, or
//     is where the service names no spender, is the service's word.
//   - UsedBulk, Consolidation and FeeRate are the service's word. A lie there
//     costs time or a fee; it moves no money.
//
// A transaction of exactly 64 bytes could be an inner node of a Merkle tree and
// is never proven, so that its bytes must be known besides the path: they are
// asked for once.
//
// A proof holds as long as its block is in the best chain, and is not asked for
// again. A reorganisation that the header chain follows voids the proofs of the
// blocks that it replaces; what they proved is asked for anew. The header chain
// learns of blocks with each Tip, and when a proof ends in a block that it does
// not know.
package spv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/money"
)

var _ chain.Backend = (*Backend)(nil)

const (
	// DefaultProofs is how many proofs are remembered where Options do not say.
	// One of a block with 10,000 transactions takes about 700 bytes.
	DefaultProofs = 8192
	// maxNotes bounds what is remembered of other transactions.
	maxNotes = 1024
	// staleTip is the age of the newest block from which on other services than
	// the first are asked for newer ones, and lookAround how often.
	staleTip, lookAround = time.Hour, 10 * time.Minute
	// recentTip is the age of the newest block up to which a source has to bring
	// what is missing within patience.
	recentTip, patience = 24 * time.Hour, time.Minute
	// retry is how long a coin whose proof has failed is left alone, twice as
	// long each time up to lastRetry.
	retry, lastRetry = 30 * time.Second, time.Hour
	// forgotten is the age from which on a failed proof does not count: nobody
	// asks for it any more.
	forgotten = 2 * lastRetry
)

// ErrForged says that what a service sent is not what was asked for.
var ErrForged = errors.New("the chain service's answer is not what it claims to be")

// Options of a Backend.
type Options struct {
	// Sources are asked for headers, each by itself, where those of the
	// services break the rules, lead to another chain, or have brought no block
	// for an hour. They are the services behind, one by one.
	Sources []headers.Source
	// Fresh is for how long Tip answers from the last look at the services
	// without another one; 0 means not at all. Those who ask while a look is
	// under way share the next one in any case.
	Fresh time.Duration
	// Proofs is how many proofs are remembered; 0 means DefaultProofs.
	Proofs int
	// Clock gives the present time; nil means time.Now.
	Clock func() time.Time
	// Log is told of what is not proven; nil means nobody.
	Log *slog.Logger
}

// Backend is a chain.Backend that proves. Use New.
type Backend struct {
	services chain.Backend
	headers  *headers.Chain
	opt      Options
	turn     chan struct{} // holds a token while the services are asked for headers

	mu       sync.Mutex
	proven   map[bsv.Txid]*proven
	sized    map[bsv.Txid]bool // broadcast from here, and not of 64 bytes
	unproven map[bsv.Txid]failure
	last     string // reason in unproven
	trouble  error
	around   time.Time // when the sources were last asked
	began    int       // looks at the services for headers
	done     int       // the newest of them that succeeded
	looked   time.Time // when that one began
}

// proven is a transaction with a proof that held when it was checked.
type proven struct {
	proof   *chain.Proof
	outputs map[uint32][32]byte // digests of those that the transaction has
}

type failure struct {
	reason string
	at     time.Time
	times  int
}

// New returns a view of what the services say, checked against the header
// chain, which the caller closes after its last use.
func New(services chain.Backend, h *headers.Chain, opt Options) *Backend {
	if opt.Proofs <= 0 {
		opt.Proofs = DefaultProofs
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Backend{
		services: services,
		headers:  h,
		opt:      opt,
		turn:     make(chan struct{}, 1),
		proven:   make(map[bsv.Txid]*proven),
		sized:    make(map[bsv.Txid]bool),
		unproven: make(map[bsv.Txid]failure),
	}
}

// Unproven returns how many transactions a service calls mined without a proof
// that holds, at most 1,024, and why the newest of them was not believed. What
// nobody has asked for in two hours does not count.
func (b *Backend) Unproven() (n int, last string) {
	now := b.opt.Clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	for txid, f := range b.unproven {
		if now.Sub(f.at) >= forgotten {
			delete(b.unproven, txid)
		}
	}
	if len(b.unproven) == 0 {
		return 0, ""
	}
	return len(b.unproven), b.last
}

// Trouble returns what is wrong with the headers that the services have, as of
// the last Tip: headers.ErrDeepReorg, ErrInvalid, ErrFuture, ErrCheckpoint or
// ErrAnchor; nil where nothing is, or where they could not be asked. It stands
// also while another source's headers are followed.
func (b *Backend) Trouble() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble
}

// Tip implements chain.Backend: it brings the header chain up to date and
// returns its newest header. Every error is chain.ErrUnavailable too; those of
// package headers say more.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	if err := ctx.Err(); err != nil {
		return chain.Header{}, fmt.Errorf("ask for the tip: %w: %w", chain.ErrUnavailable, err)
	}
	if b.isFresh() {
		if tip, ok := b.headers.Tip(); ok {
			return tip, nil
		}
	}
	tip, err := b.look(ctx)
	if err != nil && !errors.Is(err, chain.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	if err != nil {
		return chain.Header{}, err
	}
	return tip, nil
}

func (b *Backend) isFresh() bool {
	now := b.opt.Clock()
	b.mu.Lock()
	defer b.mu.Unlock()
	age := now.Sub(b.looked)
	return b.done > 0 && age >= 0 && age < b.opt.Fresh
}

// look brings the header chain up to date with one look at the services that
// begins after the call, whoever makes it.
func (b *Backend) look(ctx context.Context) (chain.Header, error) {
	b.mu.Lock()
	next := b.began + 1
	b.mu.Unlock()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return chain.Header{}, fmt.Errorf("fetch block headers: %w: %w", chain.ErrUnavailable, ctx.Err())
	}
	b.mu.Lock()
	if b.done >= next {
		b.mu.Unlock()
		tip, _ := b.headers.Tip()
		return tip, nil
	}
	b.began++
	this, at := b.began, b.opt.Clock()
	b.mu.Unlock()
	tip, err := b.sync(ctx)
	if err == nil {
		b.mu.Lock()
		b.done, b.looked = this, at
		b.mu.Unlock()
	}
	return tip, err
}

func (b *Backend) sync(ctx context.Context) (chain.Header, error) {
	tip, slow, err := b.follow(ctx, b.services)
	verdict := err
	if !isVerdict(err) {
		verdict = nil
	}
	b.note(verdict, err)
	switch {
	case errors.Is(err, headers.ErrAnchor):
		return tip, err
	case verdict != nil, slow, errors.Is(err, headers.ErrMoved): // others may be better
	case err != nil || !b.isStale(tip):
		return tip, err
	}
	for _, s := range b.opt.Sources {
		other, _, otherErr := b.follow(ctx, s)
		if otherErr == nil {
			tip, err = other, nil
		}
	}
	return tip, err
}

// follow is a Sync for which a source has only a while where there is little to
// fetch. slow says that this time was over.
func (b *Backend) follow(ctx context.Context, s headers.Source) (tip chain.Header, slow bool, err error) {
	own, cancel := ctx, context.CancelFunc(func() {})
	if last, ok := b.headers.Tip(); ok && b.opt.Clock().Sub(last.Time) < recentTip {
		own, cancel = context.WithTimeout(ctx, patience)
	}
	defer cancel()
	tip, err = b.headers.Sync(own, s)
	return tip, err != nil && own.Err() != nil && ctx.Err() == nil, err
}

// isVerdict reports whether a header chain refused what a source has, and did
// not merely fail to get it.
func isVerdict(err error) bool {
	for _, kind := range []error{headers.ErrInvalid, headers.ErrDeepReorg, headers.ErrCheckpoint, headers.ErrFuture, headers.ErrAnchor} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// note keeps the verdict for Trouble. A service that did not answer has not
// become better by that.
func (b *Backend) note(verdict, err error) {
	b.mu.Lock()
	before := b.trouble
	if verdict != nil || err == nil {
		b.trouble = verdict
	}
	b.mu.Unlock()
	if verdict != nil && (before == nil || before.Error() != verdict.Error()) {
		b.opt.Log.Warn("the block headers of the chain services are not followed", "error", verdict)
	}
}

// isStale reports whether the newest block is so old that other sources should
// be asked, which is not done all the time.
func (b *Backend) isStale(tip chain.Header) bool {
	now := b.opt.Clock()
	if now.Sub(tip.Time) < staleTip {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.around) < lookAround {
		return false
	}
	b.around = now
	return true
}

// Header implements chain.Backend from the header chain. The services are asked
// only for headers from before its beginning, and while it has none.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if err := ctx.Err(); err != nil {
		return chain.Header{}, fmt.Errorf("block %d: %w: %w", height, chain.ErrUnavailable, err)
	}
	if h, ok := b.headers.At(height); ok {
		return h, nil
	}
	if _, ok := b.headers.Tip(); !ok {
		if _, err := b.Tip(ctx); err != nil {
			return chain.Header{}, err
		}
	}
	h, err := b.headers.Old(ctx, b.services, height)
	if err != nil && !errors.Is(err, chain.ErrNotFound) && !errors.Is(err, chain.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	return h, err
}

// FeeRate implements chain.Backend.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	return b.services.FeeRate(ctx)
}

// Broadcast implements chain.Backend.
func (b *Backend) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	if tx.Size() != ambiguousSize {
		b.mu.Lock()
		makeRoom(b.sized, maxNotes)
		b.sized[tx.Txid()] = true
		b.mu.Unlock()
	}
	return b.services.Broadcast(ctx, tx, prev)
}

// RawTx implements chain.Backend. ErrForged, which is chain.ErrUnavailable too,
// where the service sends another transaction.
func (b *Backend) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	tx, err := b.services.RawTx(ctx, txid)
	if err != nil {
		return nil, err
	}
	if got := tx.Txid(); got != txid {
		return nil, fmt.Errorf("transaction %s instead of %s: %w: %w", got, txid, chain.ErrUnavailable, ErrForged)
	}
	return tx, nil
}

// Spent implements chain.Backend. Where the service names what spends the output,
// it is checked as in SpentBy.
func (b *Backend) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	by, spent, err := chain.SpenderOf(ctx, b.services, o)
	if err == nil && spent && !by.IsZero() {
		err = b.checkSpender(ctx, o, by)
	}
	return spent && err == nil, err
}

// makeRoom drops any one entry of a map that has reached its bound. It need not
// be the oldest: who goes through more than there is room for, in the same
// order every time, finds some of them that way.
func makeRoom[K comparable, V any](m map[K]V, bound int) {
	for key := range m {
		if len(m) < bound {
			return
		}
		delete(m, key)
	}
}
