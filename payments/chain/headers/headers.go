// Package headers keeps the program's own chain of block headers, so that
// "mined" can mean a Merkle path into a header that has been checked and not
// the word of a service.
//
// # Own chain, agreed beginning
//
// There are two ways to know headers without a full node: to keep a chain of
// one's own and check its work, or to ask several services and compare. This
// package does the first for every block from its beginning on, and the second
// only for where that is. On the main and the test network the chain begins at
// an anchor: the header six blocks below the tip on which at least two
// independent services agree at the first start, or the owner's Checkpoint. So
// no release has to carry a fresh checkpoint, and nobody fetches years of
// headers at three requests a second. What an attacker has to do is to make two
// services lie at that one moment; afterwards only work counts. The 300 headers
// below the anchor are fetched with it and linked to it, so that the difficulty
// rule holds from the first new block on. On the regression test network the
// chain begins with the first block.
//
// # What may be relied on
//
//   - Every header has the hash that it is filed under, links to the one below
//     and meets the target in its bits, which is not easier than the network
//     allows. Its time is later than the median of the eleven before and was
//     not more than two hours ahead of the clock when it came. On the main and
//     the test network its bits follow the difficulty rule of November 2017.
//   - Of two chains the one with more work is kept, and the first one seen
//     where they have the same. A reorganisation deeper than Options.MaxReorg
//     is refused with ErrDeepReorg. A source that lies, is stuck or is on
//     another chain never shortens what is kept.
//   - The file may be lost, torn or cut at any byte: what is left of it is
//     checked when it is opened, and the rest is fetched again.
//
// Memory does not grow with the chain: the newest few hundred headers are kept
// in it, and the others read from the file.
package headers

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Defaults of Options.
const (
	DefaultMaxReorg = 288
	DefaultAgree    = 2
)

const (
	// below is how many headers under the anchor are fetched with it. The
	// difficulty rule looks back over 147.
	below = 300
	// maxOld is how many headers from before the file are remembered.
	maxOld = 1024
)

var (
	// ErrInvalid says that a source gave a header that no chain of this network
	// can have.
	ErrInvalid = errors.New("a block header breaks the rules of the network")
	// ErrFuture says that a block is from more than two hours ahead: this
	// machine's clock is slow, or the miner's fast.
	ErrFuture = errors.New("a block is more than two hours ahead of this machine's clock")
	// ErrDeepReorg says that a source has another chain than ours for longer
	// than is followed by itself.
	ErrDeepReorg = errors.New("a chain service follows another chain than this program")
	// ErrAnchor says that there is no beginning: the services disagree about
	// it, or too few of them answer.
	ErrAnchor = errors.New("too few chain services agree on a block to begin with")
	// ErrMoved says that a source contradicts what it said a moment ago: it names
	// a tip and does not have what leads there. It is chain.ErrUnavailable too.
	ErrMoved = fmt.Errorf("the chain service contradicts itself, or its chain has just changed: %w", chain.ErrUnavailable)
	// ErrClosed says that the chain has been closed.
	ErrClosed = errors.New("header chain is closed")
)

// Source is where headers come from. Every chain.Backend is one.
type Source interface {
	Tip(ctx context.Context) (chain.Header, error)
	Header(ctx context.Context, height uint32) (chain.Header, error)
}

// Batch is a Source that hands out many headers at once.
type Batch = chain.HeaderRange

// Options of a Chain.
type Options struct {
	Network bsv.Network
	// Checkpoint is the header that the chain begins at and never leaves,
	// instead of one that the services agree on. A file that does not have it
	// is begun anew. It must be above the block where the present difficulty
	// rule began (504031 on the main network).
	Checkpoint Checkpoint
	// Sources are services that are independent of one another. They are asked
	// for the anchor, for its surroundings and for headers below it.
	Sources []Source
	// Agree is how many of the Sources must tell the same; 0 means
	// DefaultAgree. 1 is for an owner whose only service is a node of his own.
	Agree int
	// MaxReorg is the deepest reorganisation in blocks that is followed; 0
	// means DefaultMaxReorg.
	MaxReorg int
	// Clock gives the present time; nil means time.Now.
	Clock func() time.Time
	// Progress, where set, is called during a Sync that fetches many headers:
	// done of total are checked and kept. It must not call the Chain's Sync,
	// Old or Close.
	Progress func(done, total int)
}

// Chain is a chain of headers. Use Open. Its methods may be called from several
// goroutines.
type Chain struct {
	opt     Options
	rules   rules
	path    string
	syncing chan struct{} // holds a token; it guards pending and the writing of the store

	pending *beginning

	mu     sync.Mutex // guards the rest; never held across a request
	store  store
	closed bool
	base   uint32       // height of the first header in the store
	anchor chain.Header // what the beginning was agreed on
	recent []entry      // the newest ones, in their order, up to the tip; empty before there is an anchor
	old    map[uint32]chain.Header
	oldest []uint32 // the keys of old, in the order in which they came
}

// entry is a header with the work of all headers up to it, counted from an
// arbitrary one.
type entry struct {
	chain.Header
	work *big.Int
}

// Open opens the chain in the file at path, which it makes where there is none
// or where it is of no use; the folder must exist. An empty path keeps the
// chain in memory. Nothing is asked of any service. Errors are ErrCheckpoint
// and those of the file system.
func Open(ctx context.Context, path string, opt Options) (*Chain, error) {
	return open(ctx, path, opt, rulesOf(opt.Network))
}

func open(ctx context.Context, path string, opt Options, r rules) (*Chain, error) {
	if opt.Agree <= 0 {
		opt.Agree = DefaultAgree
	}
	if opt.MaxReorg <= 0 {
		opt.MaxReorg = DefaultMaxReorg
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if cp := opt.Checkpoint; !cp.IsZero() && r.difficulty && cp.Height <= r.since {
		return nil, fmt.Errorf("%s is not above block %d: %w", cp, r.since, ErrCheckpoint)
	}
	c := &Chain{
		opt: opt, rules: r, path: path,
		syncing: make(chan struct{}, 1),
		old:     make(map[uint32]chain.Header),
	}
	if err := c.load(ctx); err != nil {
		return nil, fmt.Errorf("open header chain: %w", err)
	}
	return c, nil
}

// Close closes the file, after a Sync that is under way has ended.
func (c *Chain) Close() error {
	c.syncing <- struct{}{}
	defer func() { <-c.syncing }()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.store == nil {
		return nil
	}
	if err := c.store.Close(); err != nil {
		return fmt.Errorf("close header chain: %w", err)
	}
	return nil
}

// Tip returns the newest header; false while the chain has no beginning.
func (c *Chain) Tip() (chain.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.recent) == 0 {
		return chain.Header{}, false
	}
	return c.recent[len(c.recent)-1].Header, true
}

// Anchor returns the header that the chain began with; false while it has no
// beginning.
func (c *Chain) Anchor() (chain.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.anchor, len(c.recent) > 0
}

// At returns the header at height of the best chain; false above the tip and
// below what is kept, for which there is Old.
func (c *Chain) At(height uint32) (chain.Header, bool) {
	c.mu.Lock()
	if len(c.recent) == 0 || height < c.base || height > c.recent[len(c.recent)-1].Height {
		c.mu.Unlock()
		return chain.Header{}, false
	}
	if first := c.recent[0].Height; height >= first {
		defer c.mu.Unlock()
		return c.recent[height-first].Header, true
	}
	from, base := c.store, c.base
	c.mu.Unlock()
	// What is not in memory is too deep for a reorganisation to change.
	raw := make([]byte, chain.HeaderSize)
	if _, err := from.ReadAt(raw, offset(height-base)); err != nil {
		return chain.Header{}, false
	}
	h, err := chain.ParseHeader(raw, height)
	return h, err == nil
}

// Find returns the header with this hash where it is one of the newest few
// hundred of the best chain.
func (c *Chain) Find(hash chain.Hash) (chain.Header, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.recent) - 1; i >= 0; i-- {
		if c.recent[i].Hash == hash {
			return c.recent[i].Header, true
		}
	}
	return chain.Header{}, false
}

// keep is how many headers stay in memory: those that a reorganisation can
// replace, and what the rules need to see below them.
func (c *Chain) keep() int { return c.opt.MaxReorg + window + medianOf }
