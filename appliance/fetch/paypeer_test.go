package fetch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// payPeerOptions say what a hand-written seeder does otherwise than well.
type payPeerOptions struct {
	pay         bool         // name bc_pay, and serve once it was spoken
	stopAfter   int64        // bytes, then requests wait for ever
	hangUpAfter int64        // bytes on the first connection
	corrupt     map[int]bool // pieces that are sent with a wrong byte
	lateCancel  bool         // serve only what was cancelled
	twice       bool         // send each block twice
	slow        bool         // without the fast extension
	lieSize     int          // claimed metadata size
	flood       int          // messages sent at once
}

// payPeer is a seeder in a hundred lines, with bc_pay on extension number 9.
type payPeer struct {
	t       *testing.T
	c       *content
	data    []byte
	opt     payPeerOptions
	addr    netip.AddrPort
	stopped chan struct{}

	mu    sync.Mutex
	conns int
	open  []net.Conn
	sent  int64    // block data written
	got   []string // bc_pay messages
}

const payPeerExtension = 9

func newPayPeer(t *testing.T, c *content, opt payPeerOptions) *payPeer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &payPeer{t: t, c: c, data: c.bytes(t), opt: opt, addr: netip.MustParseAddrPort(l.Addr().String()), stopped: make(chan struct{})}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for _, c := range p.open {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns++
			first := p.conns == 1
			p.open = append(p.open, nc)
			p.mu.Unlock()
			wg.Go(func() {
				defer nc.Close()
				p.serve(nc, first)
			})
		}
	})
	return p
}

func (p *payPeer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

func (p *payPeer) sentBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

func (p *payPeer) messages() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func (p *payPeer) serve(nc net.Conn, first bool) error {
	bits := pp.NewPeerExtensionBytes(pp.ExtensionBitLtep, pp.ExtensionBitFast)
	if p.opt.slow {
		bits = pp.NewPeerExtensionBytes(pp.ExtensionBitLtep)
	}
	id := [20]byte{}
	copy(id[:], fmt.Sprintf("-TT0001-%012d", p.addr.Port()))
	if _, err := pp.Handshake(context.Background(), nc, (*metainfo.Hash)(&p.c.hash), id, bits); err != nil {
		return err
	}
	send := func(m pp.Message) error {
		b, err := m.MarshalBinary()
		if err != nil {
			return err
		}
		_, err = nc.Write(b)
		return err
	}
	hs := pp.ExtendedHandshakeMessage{M: map[pp.ExtensionName]pp.ExtensionNumber{}, MetadataSize: len(p.c.info)}
	if p.opt.pay {
		hs.M[wire.Name] = payPeerExtension
	}
	if p.opt.lieSize != 0 {
		hs.MetadataSize = p.opt.lieSize
		hs.M[pp.ExtensionNameMetadata] = 3
	}
	payload, err := bencode.Marshal(hs)
	if err != nil {
		return err
	}
	if err := send(pp.Message{Type: pp.Extended, ExtendedPayload: payload}); err != nil {
		return err
	}
	all := pp.Message{Type: pp.HaveAll}
	if p.opt.slow {
		all = pp.Message{Type: pp.Bitfield, Bitfield: make([]bool, (len(p.data)+pieceLength-1)/pieceLength)}
		for i := range all.Bitfield {
			all.Bitfield[i] = true
		}
	}
	if err := send(all); err != nil {
		return err
	}
	if !p.opt.pay {
		if err := send(pp.Message{Type: pp.Unchoke}); err != nil {
			return err
		}
	}
	ourPay := pp.ExtensionNumber(0)
	say := func(s string) error {
		return send(pp.Message{Type: pp.Extended, ExtendedID: ourPay, ExtendedPayload: []byte(s)})
	}
	var here int64
	block := func(m pp.Message) error {
		off := int(m.Index)*pieceLength + int(m.Begin)
		b := slices.Clone(p.data[off : off+int(m.Length)])
		if p.opt.corrupt[int(m.Index)] {
			b[0] ^= 1
		}
		p.mu.Lock()
		p.sent += int64(len(b))
		here += int64(len(b))
		p.mu.Unlock()
		return send(pp.Message{Type: pp.Piece, Index: m.Index, Begin: m.Begin, Piece: b})
	}
	d := pp.Decoder{R: bufio.NewReader(nc), MaxLength: 1 << 18, Pool: noPool{}}
	for {
		var m pp.Message
		if err := d.Decode(&m); err != nil {
			return err
		}
		if m.Keepalive {
			continue
		}
		switch m.Type {
		case pp.Request:
			if p.opt.stopAfter > 0 && p.sentBytes() >= p.opt.stopAfter {
				select {
				case <-p.stopped:
				default:
					close(p.stopped)
				}
				continue
			}
			if p.opt.lateCancel {
				continue
			}
			if first && p.opt.hangUpAfter > 0 && here >= p.opt.hangUpAfter {
				return errors.New("enough")
			}
			for range 1 + btoi(p.opt.twice) {
				if err := block(m); err != nil {
					return err
				}
			}
		case pp.Cancel:
			// Else the block is on its way already, and BEP 6 wants one answer.
			if p.opt.lateCancel {
				if err := block(m); err != nil {
					return err
				}
			}
		case pp.Extended:
			if m.ExtendedID == 0 {
				var h pp.ExtendedHandshakeMessage
				if err := bencode.Unmarshal(m.ExtendedPayload, &h); err != nil {
					return err
				}
				ourPay = h.M[wire.Name]
				if p.opt.pay && ourPay != 0 {
					for range 1 + p.opt.flood {
						if err := say("terms"); err != nil {
							return err
						}
					}
				}
				continue
			}
			if m.ExtendedID != payPeerExtension {
				continue
			}
			text := string(m.ExtendedPayload)
			p.mu.Lock()
			p.got = append(p.got, text)
			p.mu.Unlock()
			switch {
			case text == "agreed":
				err = send(pp.Message{Type: pp.Unchoke})
			case strings.HasPrefix(text, "pay "):
				err = say("ack " + text[4:])
			}
			if err != nil {
				return err
			}
		}
	}
}

// noPool is for a decoder that is never sent a block.
type noPool struct{}

func (noPool) Get() *[]byte { b := make([]byte, 1<<14); return &b }
func (noPool) Put(*[]byte)  {}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// purse is a payer that pays whatever is payable and remembers everything.
type purse struct {
	t      *testing.T
	refuse bool // never agrees

	mu        sync.Mutex
	purchases map[netip.AddrPort][]*purchase
	changed   chan struct{} // closed and replaced at each change
}

type purchase struct {
	s             *purse
	conn          paylink.BuyerConn
	title         paylink.Title
	messages      []string
	wire, payable int64
	acked         int64
	closed        bool
}

func newPurse(t *testing.T) *purse {
	return &purse{t: t, purchases: make(map[netip.AddrPort][]*purchase), changed: make(chan struct{})}
}

func (s *purse) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *purse) Open(conn paylink.BuyerConn, title paylink.Title) paylink.Purchase {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &purchase{s: s, conn: conn, title: title}
	s.purchases[conn.Remote()] = append(s.purchases[conn.Remote()], p)
	s.wake()
	return p
}

func (p *purchase) Message(b []byte) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.closed {
		p.s.t.Error("message after close")
	}
	p.messages = append(p.messages, string(b))
	switch text := string(b); {
	case text == "terms" && !p.s.refuse:
		p.conn.Send([]byte("agreed"))
	case strings.HasPrefix(text, "ack "):
		p.acked, _ = strconv.ParseInt(text[4:], 10, 64)
	}
	p.s.wake()
}

func (p *purchase) Received(wire, payable int64) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.closed || wire < p.wire || payable < p.payable || payable > wire {
		p.s.t.Errorf("received %d, %d after %d, %d (closed %v)", wire, payable, p.wire, p.payable, p.closed)
	}
	if payable > p.payable {
		p.conn.Send(fmt.Appendf(nil, "pay %d", payable))
	}
	p.wire, p.payable = wire, payable
	p.s.wake()
}

func (p *purchase) Close() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.closed {
		p.s.t.Error("closed twice")
	}
	p.closed = true
	p.s.wake()
}

// finish waits until everything payable is acknowledged.
func (s *purse) finish(ctx context.Context) error {
	for {
		s.mu.Lock()
		done := true
		for _, ps := range s.purchases {
			for _, p := range ps {
				done = done && (p.closed || p.acked == p.payable)
			}
		}
		changed := s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// of returns the only purchase from a peer.
func (s *purse) of(p *payPeer) *purchase {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	ps := s.purchases[p.addr]
	if len(ps) != 1 {
		s.t.Fatalf("%d purchases from %v", len(ps), p.addr)
	}
	return ps[0]
}

func checkPaid(t *testing.T, s *purse, p *payPeer) {
	t.Helper()
	b := s.of(p)
	sent := p.sentBytes()
	if b.wire != sent || b.payable != sent || b.acked != sent {
		t.Errorf("%v sent %d; wire %d, payable %d, acknowledged %d", p.addr, sent, b.wire, b.payable, b.acked)
	}
	if !b.closed {
		t.Error("purchase left open")
	}
}

func payRequest(t *testing.T, c *content, s *purse, peers ...netip.AddrPort) Request {
	r := request(t, c.source(t), peers...)
	r.Payments, r.Finish = s, s.finish
	return r
}

func TestPay(t *testing.T) {
	for _, slow := range []bool{false, true} {
		t.Run(fmt.Sprint("slow=", slow), func(t *testing.T) {
			c := makeContent(t, 20, "paid", contentFile{"a", 20*pieceLength + 5}, contentFile{"b", 333})
			p := newPayPeer(t, c, payPeerOptions{pay: true, slow: slow})
			s := newPurse(t)
			r := payRequest(t, c, s, p.addr)
			royalty := &paylink.Royalty{Rate: 5}
			r.Manifest = func([]byte) (*paylink.Royalty, string, error) { return royalty, "Paid", nil }
			res := mustFetch(t, r)
			c.same(t, r.Dir)
			checkPaid(t, s, p)
			b := s.of(p)
			if b.payable != c.length() {
				t.Errorf("payable %d of %d", b.payable, c.length())
			}
			want := paylink.Title{InfoHash: c.hash, Name: "Paid", Length: c.length(), PieceLength: pieceLength, Royalty: royalty}
			if b.title != want {
				t.Errorf("title %+v", b.title)
			}
			if !res.Peers[0].Paying {
				t.Errorf("%+v", res.Peers)
			}
			if m := p.messages(); m[0] != "agreed" || m[len(m)-1] != fmt.Sprint("pay ", c.length()) {
				t.Errorf("messages %q", m)
			}
		})
	}
}

func TestTwoPaidOneFree(t *testing.T) {
	c := makeContent(t, 21, "mixed", contentFile{"", 60*pieceLength + 9})
	p1, p2 := newPayPeer(t, c, payPeerOptions{pay: true}), newPayPeer(t, c, payPeerOptions{pay: true})
	s := newPurse(t)
	r := payRequest(t, c, s, p1.addr, p2.addr, seedStock(t, c))
	mustFetch(t, r)
	c.same(t, r.Dir)
	checkPaid(t, s, p1)
	checkPaid(t, s, p2)
}

// One seeder serves only what was cancelled with it, so that all it sends comes
// late or twice; that is owed too, and to the byte.
func TestLateBlocksAreOwed(t *testing.T) {
	c := makeContent(t, 22, "late", contentFile{"", 48*pieceLength + 9})
	late, good := newPayPeer(t, c, payPeerOptions{pay: true, lateCancel: true}), newPayPeer(t, c, payPeerOptions{pay: true})
	s := newPurse(t)
	r := payRequest(t, c, s, late.addr, good.addr)
	r.stealAfter = 10 * time.Millisecond
	mustFetch(t, r)
	c.same(t, r.Dir)
	if late.sentBytes() == 0 {
		t.Error("nothing came late")
	}
	checkPaid(t, s, late)
	checkPaid(t, s, good)
}

// A block that was asked for once and comes twice is not owed twice: the client
// ends that connection.
func TestUnaskedBlocksAreNotOwed(t *testing.T) {
	c := makeContent(t, 23, "twice", contentFile{"", 16 * pieceLength})
	bad, good := newPayPeer(t, c, payPeerOptions{pay: true, twice: true}), newPayPeer(t, c, payPeerOptions{pay: true})
	s := newPurse(t)
	r := payRequest(t, c, s, bad.addr, good.addr)
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	for _, p := range res.Peers {
		if p.Remote == bad.addr && p.Wire > bad.sentBytes()/2 {
			t.Errorf("%d on the wire of %d", p.Wire, bad.sentBytes())
		}
	}
	checkPaid(t, s, good)
}

func TestCorruptDataIsNotOwed(t *testing.T) {
	c := makeContent(t, 24, "corrupt", contentFile{"", 24 * pieceLength})
	all := make(map[int]bool)
	for i := range 24 {
		all[i] = true
	}
	bad, good := newPayPeer(t, c, payPeerOptions{pay: true, corrupt: all}), newPayPeer(t, c, payPeerOptions{pay: true})
	s := newPurse(t)
	r := payRequest(t, c, s, bad.addr, good.addr)
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	for _, p := range res.Peers {
		switch p.Remote {
		case good.addr:
			if p.Forfeited != 0 || p.Wire != p.Payable {
				t.Errorf("good peer %+v", p)
			}
		case bad.addr:
			if p.Payable > p.Wire-p.Forfeited || p.Wire > 0 && p.Forfeited == 0 {
				t.Errorf("bad peer %+v", p)
			}
		}
	}
	checkPaid(t, s, good)
}

// Terms that are refused leave an ordinary choked peer, and the other seeds.
func TestRefusedTerms(t *testing.T) {
	c := makeContent(t, 25, "refused", contentFile{"", 8 * pieceLength})
	dear := newPayPeer(t, c, payPeerOptions{pay: true})
	s := newPurse(t)
	s.refuse = true
	r := payRequest(t, c, s, dear.addr)
	r.Idle = 300 * time.Millisecond
	var mu sync.Mutex
	states := make(map[State]bool)
	r.Progress = func(p Progress) { mu.Lock(); states[p.State] = true; mu.Unlock() }
	_, err := Fetch(t.Context(), r)
	if !errors.Is(err, ErrNoPeers) || !strings.Contains(Hint(err), "price") {
		t.Errorf("%v; %s", err, Hint(err))
	}
	if !states[WaitingForPayment] {
		t.Errorf("states %v", states)
	}
	if dear.sentBytes() != 0 {
		t.Errorf("%d bytes", dear.sentBytes())
	}
	r.Idle = 20 * time.Second
	r.Peers = append(r.Peers, seedStock(t, c))
	mustFetch(t, r)
	c.same(t, r.Dir)
}

// A purchase that fails its peer is rid of it for the rest of the download.
func TestFail(t *testing.T) {
	c := makeContent(t, 26, "fail", contentFile{"", 8 * pieceLength})
	p := newPayPeer(t, c, payPeerOptions{pay: true})
	s := &failing{newPurse(t)}
	r := request(t, c.source(t), p.addr)
	r.Payments = s
	r.Idle = 300 * time.Millisecond
	if _, err := Fetch(t.Context(), r); !errors.Is(err, ErrNoPeers) {
		t.Error(err)
	}
	if n := p.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	b := s.of(p)
	if err := b.conn.Send(nil); !errors.Is(err, paylink.ErrConnClosed) {
		t.Errorf("Send after the end: %v", err)
	}
}

type failing struct{ *purse }

func (s *failing) Open(conn paylink.BuyerConn, title paylink.Title) paylink.Purchase {
	p := s.purse.Open(conn, title)
	conn.Fail(errors.New("no"))
	return p
}

// A peer that says a wrong size of the metadata does not keep it away.
func TestMetadataSizeLies(t *testing.T) {
	c := makeContent(t, 27, "lies", contentFile{"", 3 * pieceLength})
	for _, size := range []int{1 << 20, 5, -5, math.MaxInt32} {
		liar := newPayPeer(t, c, payPeerOptions{lieSize: size})
		s, err := MagnetSource(c.magnet())
		if err != nil {
			t.Fatal(err)
		}
		r := request(t, s, liar.addr)
		r.patience = 50 * time.Millisecond
		r.Source.Peers = []string{seedStock(t, c).String()}
		mustFetch(t, r)
		c.same(t, r.Dir)
	}
}

// Messages that nobody can answer yet are kept, but not without end.
func TestFlood(t *testing.T) {
	c := makeContent(t, 28, "flood", contentFile{"", 100})
	p := newPayPeer(t, c, payPeerOptions{pay: true, flood: 2 * inboxLen})
	s, err := MagnetSource(c.magnet(p.addr)) // whose metadata never comes
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, s)
	r.Payments = newPurse(t)
	r.Idle = 300 * time.Millisecond
	if _, err := Fetch(t.Context(), r); !errors.Is(err, ErrNoPeers) || !strings.Contains(err.Error(), "0 connected") {
		t.Error(err)
	}
}

func TestDialer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := netip.MustParseAddrPort(l.Addr().String())
	now := time.Unix(1e9, 0)
	d := newDialer()
	d.add(a)
	due := func(after time.Duration, want int) {
		t.Helper()
		if got := d.due(now.Add(after)); len(got) != want {
			t.Errorf("after %v: %v", after, got)
		}
	}
	due(0, 1)
	due(0, 0)
	due(redialFirst, 1)
	due(2*redialFirst, 0) // the pause has doubled
	due(3*redialFirst, 1)
	d.connected(a, now)
	due(time.Hour, 0)
	d.lost(a, now.Add(redialSteady))
	due(redialSteady, 0)
	due(redialSteady+redialFirst, 1)
	d.again(a)
	due(redialSteady, 1)

	nc, err := d.Dial(t.Context(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if got := d.conn(a.String()); got != nc || got.written.Load() != 3 {
		t.Errorf("%v", got)
	}
	nc.Close()
	if d.conn(a.String()) != nil {
		t.Error("still known")
	}
	d.refuse(a)
	due(time.Hour, 0)
	if _, err := d.Dial(t.Context(), a.String()); !errors.Is(err, errRefused) {
		t.Error(err)
	}
}
