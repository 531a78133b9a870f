package fetch

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"
)

// reportEvery is after how many bytes a purchase hears of new data at the
// latest.
const reportEvery = 128 << 10

// maxFailures is how often a piece with several senders may fail before one of
// them is given up on without proof.
const maxFailures = 3

// tally counts for each connection what came over it and what of that is owed.
//
// A block is owed when it is what the piece turned out to be, also if it came
// twice; so a digest of each block is kept until its piece is verified. The
// methods are called from the client's callbacks with its lock held, and from
// its hashers without: they never call the client and never block.
type tally struct {
	seed maphash.Seed

	mu       sync.Mutex
	verified bitmap // nil until the metadata is known
	pieces   map[int]*pieceTally
	conns    map[*connTally]struct{}
	done     map[netip.AddrPort]*PeerBytes // of connections that ended
	useful   int64                         // bytes of blocks that were needed
	// last is the block that the client is about to judge.
	last struct {
		msg  *pp.Message
		hash uint64
	}
}

// pieceTally is what is known of a piece that is not verified yet.
type pieceTally struct {
	blocks []blockTally
	kept   map[uint32]uint64 // digest of the block that was written, by offset
	failed int
}

type blockTally struct {
	from  *connTally
	begin uint32
	size  int64
	hash  uint64
}

// connTally is one connection's count. All fields but addr and report belong
// to tally.mu.
type connTally struct {
	addr   netip.AddrPort
	paying bool
	// open counts, for each block, the requests that were neither served nor
	// rejected. A request that we cancelled stays open, since the block may be
	// on its way.
	open     map[torrent.Request]int
	openSum  int
	wire     int64
	payable  int64
	forfeit  int64
	reported int64 // wire at the time of the last report
	// report has a token when the counts have something new to tell.
	report chan struct{}
	// settled is closed, if not nil, when no request is open any more.
	settled chan struct{}
}

func newTally() *tally {
	return &tally{
		seed:   maphash.MakeSeed(),
		pieces: make(map[int]*pieceTally),
		conns:  make(map[*connTally]struct{}),
		done:   make(map[netip.AddrPort]*PeerBytes),
	}
}

// setPieces gives the number of pieces.
func (t *tally) setPieces(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.verified = newBitmap(n)
}

func (t *tally) connect(addr netip.AddrPort) *connTally {
	c := &connTally{addr: addr, open: make(map[torrent.Request]int), report: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[c] = struct{}{}
	return c
}

func (t *tally) disconnect(c *connTally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.conns[c]; !ok {
		return
	}
	delete(t.conns, c)
	clear(c.open)
	c.openSum = 0
	c.settle()
	t.account(t.done, c)
}

func (t *tally) account(sums map[netip.AddrPort]*PeerBytes, c *connTally) {
	if c.wire == 0 && !c.paying {
		return
	}
	p := sums[c.addr]
	if p == nil {
		p = &PeerBytes{Remote: c.addr}
		sums[c.addr] = p
	}
	p.Paying = p.Paying || c.paying
	p.Wire += c.wire
	p.Payable += c.payable
	p.Forfeited += c.forfeit
}

// peers returns the counts by address.
func (t *tally) peers() []PeerBytes {
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := make(map[netip.AddrPort]*PeerBytes)
	for a, p := range t.done {
		q := *p
		sums[a] = &q
	}
	for c := range t.conns {
		t.account(sums, c)
	}
	out := make([]PeerBytes, 0, len(sums))
	for _, p := range sums {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b PeerBytes) int { return a.Remote.Compare(b.Remote) })
	return out
}

func (t *tally) requested(c *connTally, r torrent.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.open[r]++
	c.openSum++
}

// answered takes one request for r off, and says whether there was one.
func (c *connTally) answered(r torrent.Request) bool {
	n := c.open[r]
	if n == 0 {
		return false
	}
	if n == 1 {
		delete(c.open, r)
	} else {
		c.open[r] = n - 1
	}
	c.openSum--
	return true
}

func (c *connTally) settle() {
	if c.openSum == 0 && c.settled != nil {
		close(c.settled)
		c.settled = nil
	}
}

func (c *connTally) notify() {
	select {
	case c.report <- struct{}{}:
	default:
	}
}

// rejected is called for each reject message (BEP 6).
func (t *tally) rejected(c *connTally, r torrent.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.answered(r) && c.openSum == 0 {
		c.notify()
		c.settle()
	}
}

// received is called for each piece message, before the client looks at it.
// Blocks that nobody asked for count for nothing: the client drops the peer.
func (t *tally) received(c *connTally, m *pp.Message) {
	hash := maphash.Bytes(t.seed, m.Piece)
	r := torrent.Request{Index: m.Index, ChunkSpec: torrent.ChunkSpec{Begin: m.Begin, Length: pp.Integer(len(m.Piece))}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last.msg, t.last.hash = m, hash
	i := int(m.Index)
	if t.verified == nil || i < 0 || i >= len(t.verified)*8 || !c.answered(r) {
		return
	}
	size := int64(len(m.Piece))
	c.wire += size
	if t.verified.has(i) {
		// Asked for twice and not needed any more. The piece is gone from
		// memory, and a block is not worth reading it again.
		c.payable += size
	} else {
		p := t.piece(i)
		p.blocks = append(p.blocks, blockTally{c, uint32(m.Begin), size, hash})
	}
	if c.openSum == 0 || c.wire-c.reported >= reportEvery || t.verified.has(i) {
		c.notify()
	}
	c.settle()
}

func (t *tally) piece(i int) *pieceTally {
	p := t.pieces[i]
	if p == nil {
		p = &pieceTally{kept: make(map[uint32]uint64)}
		t.pieces[i] = p
	}
	return p
}

// needed is called when the client keeps a block, whoever sent it.
func (t *tally) needed(m *pp.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.useful += int64(len(m.Piece))
	i := int(m.Index)
	if t.verified == nil || i < 0 || i >= len(t.verified)*8 || t.verified.has(i) {
		return
	}
	hash := t.last.hash
	if t.last.msg != m { // of a web seed
		hash = maphash.Bytes(t.seed, m.Piece)
	}
	t.piece(i).kept[uint32(m.Begin)] = hash
}

// good is called when a piece had its hash. It returns the connections that
// sent something else for it at any time.
func (t *tally) good(i int) (liars []*connTally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.verified.set(i)
	p := t.pieces[i]
	if p == nil {
		return nil
	}
	delete(t.pieces, i)
	for _, b := range p.blocks {
		if p.kept[b.begin] == b.hash {
			b.from.payable += b.size
		} else {
			b.from.forfeit += b.size
			if !slices.Contains(liars, b.from) {
				liars = append(liars, b.from)
			}
		}
		b.from.notify()
	}
	return liars
}

// bad is called when a piece did not have its hash. It returns the connections
// that are to blame, as far as that is clear.
func (t *tally) bad(i int) (liars []*connTally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.verified.clear(i)
	p := t.pieces[i]
	if p == nil || len(p.blocks) == 0 {
		return nil
	}
	p.failed++
	var least *connTally
	senders := make(map[*connTally]struct{})
	for _, b := range p.blocks {
		senders[b.from] = struct{}{}
		if least == nil || b.from.payable < least.payable {
			least = b.from
		}
	}
	if len(senders) > 1 && p.failed < maxFailures {
		return nil // the good piece will show who it was
	}
	p.failed = 0
	p.blocks = slices.DeleteFunc(p.blocks, func(b blockTally) bool {
		if b.from == least {
			least.forfeit += b.size
			return true
		}
		return false
	})
	return []*connTally{least}
}

// counts returns what a purchase is told. It clears the token.
func (t *tally) counts(c *connTally) (wire, payable int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.reported = c.wire
	return c.wire, c.payable
}

// received bytes that were needed, of all peers.
func (t *tally) usefulBytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.useful
}

// settling returns a channel for each connection with open requests, which is
// closed when there are none, or the connection has ended.
func (t *tally) settling() []<-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []<-chan struct{}
	for c := range t.conns {
		if c.openSum == 0 {
			continue
		}
		if c.settled == nil {
			c.settled = make(chan struct{})
		}
		out = append(out, c.settled)
	}
	return out
}

func (t *tally) setPaying(c *connTally) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.paying = true
}
