package fetch

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/torrent"
	pp "github.com/anacrolix/torrent/peer_protocol"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/payments/wire"
)

const (
	tickEvery = 250 * time.Millisecond
	// settleFor bounds the wait for peers to answer requests that were
	// cancelled. A peer without the fast extension never does.
	settleFor = 2 * time.Second
	// metadataPatience is how long one claimed metadata size is believed while
	// peers claim another and no metadata comes.
	metadataPatience = 3 * time.Second
	resolveFor       = 10 * time.Second
	// stealAfter is how old a request must be to be given to another peer.
	stealAfter = 2 * time.Second
	// nudgeAfter is after how long without data the client is made to look
	// whether a request has got that old: by itself it does not.
	nudgeAfter = time.Second
	// maxMetadata is the largest metadata that the client takes.
	maxMetadata = 16 << 20
)

// download is one Fetch.
type download struct {
	r      Request
	log    *slog.Logger
	state  stateDir
	dialer *dialer
	tally  *tally

	client *torrent.Client
	t      *torrent.Torrent

	// known is closed when the metadata is: blocks and title are set before.
	known   chan struct{}
	blocks  *blocks
	title   paylink.Title
	info    []byte
	private bool

	fatal  chan error // has the error that ends the download
	moved  atomic.Int64
	finish atomic.Bool // the last stage has begun

	mu       sync.Mutex
	sessions map[*torrent.PeerConn]*session
	metadata struct {
		size   int // the claim that is believed; 0 is none yet
		since  time.Time
		wrong  map[int]bool
		others bool // another claim was made
	}
	ended   bool
	already bool

	wg sync.WaitGroup
}

func newDownload(r Request) *download {
	d := &download{
		r:        r,
		log:      r.Log,
		state:    stateDir{r.State, r.Source.InfoHash},
		dialer:   newDialer(),
		tally:    newTally(),
		known:    make(chan struct{}),
		fatal:    make(chan error, 1),
		sessions: make(map[*torrent.PeerConn]*session),
	}
	d.metadata.wrong = make(map[int]bool)
	d.touch()
	return d
}

// touch says that something moved.
func (d *download) touch() { d.moved.Store(time.Now().UnixNano()) }

// spawn runs f so that Fetch does not return before it.
func (d *download) spawn(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return
	}
	d.wg.Go(f)
}

// give ends the download with an error; the first one counts.
func (d *download) give(err error) {
	select {
	case d.fatal <- err:
	default:
	}
}

func (d *download) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.r.State, 0o755); err != nil {
		return diskError(fmt.Errorf("create state folder: %w", err))
	}
	lock, err := lockFile(d.state.path(".lock"))
	if err != nil {
		if errors.Is(err, ErrBusy) {
			err = &hintError{err, "Wait for the other download of the same torrent, or end it."}
		}
		return err
	}
	defer lock.Close()

	info := d.r.Source.InfoBytes
	if info == nil {
		info = d.state.info()
	}
	if info != nil {
		if err := d.learn(info); err != nil {
			return err
		}
		if d.blocks.complete() {
			d.already = true
			return errors.Join(d.keep(true), d.blocks.close())
		}
	}
	err = d.fetch(ctx)
	if d.blocks != nil {
		complete := d.blocks.complete()
		if e := d.keep(complete); err == nil {
			err = e
		}
		if e := d.blocks.close(); err == nil {
			err = e
		}
	}
	if d.r.Progress != nil {
		d.r.Progress(d.look(&meter{}))
	}
	return err
}

// keep makes what is there durable, once nothing is written any more.
func (d *download) keep(complete bool) error {
	if complete {
		if err := d.blocks.trim(); err != nil {
			return fmt.Errorf("finish download: %w", err)
		}
	}
	return d.blocks.save(true)
}

// learn takes the metadata.
func (d *download) learn(infoBytes []byte) error {
	if sha1.Sum(infoBytes) != d.r.Source.InfoHash {
		return fmt.Errorf("%w: metadata does not have the info hash", ErrTorrent)
	}
	info, l, err := parseInfo(infoBytes)
	if err != nil {
		return err
	}
	title := paylink.Title{InfoHash: d.r.Source.InfoHash, Name: l.Name, Length: l.Length(), PieceLength: l.PieceLength}
	if d.r.Manifest != nil {
		royalty, name, err := d.r.Manifest(infoBytes)
		if err != nil {
			return &hintError{
				fmt.Errorf("%w: %w", ErrManifest, err),
				"The title's terms are not what its creator signed; ask the publisher for a good link.",
			}
		}
		title.Royalty = royalty
		if name != "" {
			title.Name = name
		}
	}
	if err := d.state.saveInfo(infoBytes); err != nil {
		return diskError(err)
	}
	b, err := openBlocks(d.r.Dir, d.state, l, d.r.openBlocks)
	if err != nil {
		return err
	}
	b.verified = func(i int) { d.touch(); d.blame(d.tally.good(i)) }
	b.failed = func(i int) { d.touch(); d.blame(d.tally.bad(i)) }
	d.tally.setPieces(l.NumPieces())
	d.private = info.Private != nil && *info.Private
	d.mu.Lock()
	d.blocks, d.title, d.info = b, title, infoBytes
	d.mu.Unlock()
	close(d.known)
	return nil
}

// blame drops the peers that sent wrong data.
func (d *download) blame(liars []*connTally) {
	if len(liars) == 0 {
		return
	}
	var live []*session
	d.mu.Lock()
	for _, s := range d.sessions {
		if slices.Contains(liars, s.tally) {
			live = append(live, s)
		}
	}
	d.mu.Unlock()
	for _, c := range liars { // also those that have hung up
		d.dialer.refuse(c.addr)
	}
	for _, s := range live {
		s.Fail(errLied)
	}
}

// fetch runs the client until the download is over one way or the other.
func (d *download) fetch(ctx context.Context) error {
	cl, err := torrent.NewClient(d.config())
	if err != nil {
		return fmt.Errorf("start BitTorrent client: %w", err)
	}
	d.client = cl
	background, stop := context.WithCancel(context.Background())
	defer func() {
		stop()
		cl.Close()
		d.mu.Lock()
		d.ended = true
		d.mu.Unlock()
		d.wg.Wait()
	}()
	cl.AddDialer(d.dialer)
	if len(d.r.Source.Trackers) > 0 {
		cl.AddListener(announced{max(d.r.AnnouncePort, 1)})
	}
	for _, a := range d.r.Peers {
		d.dialer.add(a)
	}
	var named []string
	for _, p := range d.r.Source.Peers {
		if a, err := netip.ParseAddrPort(p); err == nil {
			d.dialer.add(a)
		} else {
			named = append(named, p)
		}
	}
	d.t, _, err = cl.AddTorrentSpec(&torrent.TorrentSpec{
		AddTorrentOpts: torrent.AddTorrentOpts{
			InfoHash:         d.r.Source.InfoHash,
			InfoBytes:        d.info,
			DeferStorageOpen: true,
		},
		Trackers:    d.r.Source.Trackers,
		DisplayName: d.r.Source.Name,
		Webseeds:    d.r.WebSeeds,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	d.t.SetOnWriteChunkError(func(err error) {
		d.give(diskError(fmt.Errorf("write download: %w", err)))
	})
	d.spawn(func() { d.resolve(background, named) })
	if d.r.DHT && !d.private {
		if err := d.startDHT(background); err != nil {
			d.log.Warn("no DHT", "err", err)
		}
	}
	d.spawn(func() { d.report(background) })

	err = d.wait(ctx)
	d.finish.Store(true)
	if err != nil {
		d.t.DisallowDataDownload()
	}
	d.log.Debug("download over", "err", err)
	if e := d.settle(ctx, err != nil); err == nil {
		err = e
	}
	return err
}

// wait returns nil when the download is complete.
func (d *download) wait(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	gotInfo := d.t.GotInfo()
	var complete <-chan struct{}
	var useful int64
	grew := time.Now()
	for {
		now := time.Now()
		if n := d.tally.usefulBytes(); n != useful {
			useful, grew = n, now
		} else if now.Sub(grew) >= min(nudgeAfter, d.r.stealAfter) && complete != nil {
			// Upload is off as it is; what counts is that the client goes over
			// the requests of all connections, which has no call of its own.
			d.t.DisallowDataUpload()
			grew = now
		}
		d.redial(now)
		d.doubtMetadata(now)
		if d.r.Idle > 0 && now.Sub(time.Unix(0, d.moved.Load())) > d.r.Idle {
			return d.noPeers()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-d.fatal:
			return err
		case <-gotInfo:
			gotInfo = nil
			if d.info == nil {
				if err := d.learn(d.t.Metainfo().InfoBytes); err != nil {
					return err
				}
			}
			d.touch()
			if err := d.t.OpenStorage(ctx, d.blocks); err != nil {
				return fmt.Errorf("start download: %w", err)
			}
			d.t.DownloadAll()
			complete = d.t.Complete().On()
			d.spawn(d.saveLoop)
		case <-complete:
			return nil
		case <-tick.C:
		}
	}
}

func (d *download) noPeers() error {
	d.mu.Lock()
	n, paying := len(d.sessions), 0
	for _, s := range d.sessions {
		if s.paying {
			paying++
		}
	}
	d.mu.Unlock()
	err := fmt.Errorf("%w: nothing came for %v from %d connected peers", ErrNoPeers, d.r.Idle, n)
	switch {
	case paying > 0:
		return &hintError{err, "The seeders want to be paid: raise the price or the budget, or look whether the wallet has coins."}
	case n > 0:
		return &hintError{err, "The connected peers give nothing: try again later, or look for other seeders."}
	}
	return &hintError{err, "No seeder was reached: is one running, and is its address right? Add one with --peer."}
}

// saveLoop makes durable what has come, every SaveEvery.
func (d *download) saveLoop() {
	tick := time.NewTicker(d.r.SaveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-d.client.Closed():
			return
		}
		if err := d.blocks.save(false); err != nil {
			d.give(err)
			return
		}
	}
}

// settle lets the last blocks come in and the last payments go out.
func (d *download) settle(ctx context.Context, early bool) error {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if early {
		time.AfterFunc(d.r.FinishGrace, cancel)
	} else {
		stop := context.AfterFunc(ctx, func() { time.AfterFunc(d.r.FinishGrace, cancel) })
		defer stop()
	}
	ctx = last
	if d.r.Payments != nil {
		wait, cancel := context.WithTimeout(ctx, settleFor)
		for _, c := range d.tally.settling() {
			select {
			case <-c:
			case <-wait.Done():
			}
		}
		cancel()
		for _, s := range d.paying() {
			s.reported(ctx)
		}
	}
	if d.r.Finish == nil {
		return nil
	}
	return d.r.Finish(ctx)
}

func (d *download) paying() []*session {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*session
	for _, s := range d.sessions {
		if s.paying {
			out = append(out, s)
		}
	}
	return out
}

func (d *download) setPaying(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.paying = true
}

// redial gives the client the addresses whose turn it is. The client itself
// tries each address once.
func (d *download) redial(now time.Time) {
	due := d.dialer.due(now)
	if len(due) == 0 {
		return
	}
	peers := make([]torrent.PeerInfo, len(due))
	for i, a := range due {
		// Trusted is not trust: it keeps the client from banning the whole IP
		// address for a bad block. We drop the very peer instead.
		peers[i] = torrent.PeerInfo{Addr: a, Source: torrent.PeerSourceDirect, Trusted: true}
	}
	d.t.AddPeers(peers)
}

// resolve looks up the peers of the source that have a name.
func (d *download) resolve(ctx context.Context, named []string) {
	for _, p := range named {
		host, port, err := net.SplitHostPort(p)
		if err != nil {
			continue
		}
		lookup, cancel := context.WithTimeout(ctx, resolveFor)
		n, err := net.DefaultResolver.LookupPort(lookup, "tcp", port)
		var ips []netip.Addr
		if err == nil {
			ips, err = net.DefaultResolver.LookupNetIP(lookup, "ip", host)
		}
		cancel()
		if err != nil {
			d.log.Info("peer not found", "peer", p, "err", err)
			continue
		}
		for _, ip := range ips {
			d.dialer.add(netip.AddrPortFrom(ip.Unmap(), uint16(n)))
		}
	}
}

// callbacks are called with the client's lock held.
func (d *download) callbacks() torrent.Callbacks {
	return torrent.Callbacks{
		PeerConnAdded:                []func(*torrent.PeerConn){d.onConn},
		PeerConnClosed:               d.onClose,
		ReadExtendedHandshake:        d.onHandshake,
		PeerConnReadExtensionMessage: []func(torrent.PeerConnReadExtensionMessageEvent){d.onExtension},
		ReadMessage:                  d.onMessage,
		SentRequest: []func(torrent.PeerRequestEvent){func(e torrent.PeerRequestEvent) {
			if s := d.sessionOf(e.Peer); s != nil {
				d.tally.requested(s.tally, e.Request)
			}
		}},
		ReceivedUsefulData: []func(torrent.ReceivedUsefulDataEvent){func(e torrent.ReceivedUsefulDataEvent) {
			d.touch()
			d.tally.needed(e.Message)
		}},
	}
}

func (d *download) sessionOf(p *torrent.Peer) *session {
	pc, ok := p.TryAsPeerConn()
	if !ok {
		return nil
	}
	return d.session(pc)
}

func (d *download) session(pc *torrent.PeerConn) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[pc]
}

func (d *download) onConn(pc *torrent.PeerConn) {
	text := pc.RemoteAddr.String()
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return
	}
	s := &session{
		d: d, pc: pc, conn: d.dialer.conn(text), addr: addr,
		tally:  d.tally.connect(addr),
		inbox:  make(chan []byte, inboxLen),
		outbox: make(chan []byte, outboxLen),
		flush:  make(chan chan struct{}),
		closed: make(chan struct{}),
		choked: true,
	}
	d.dialer.add(addr)
	d.dialer.connected(addr, time.Now())
	d.mu.Lock()
	d.sessions[pc] = s
	d.mu.Unlock()
	if d.r.Payments != nil {
		m := *pc.LocalLtepProtocolMap
		m.Index = append([]pp.ExtensionName(nil), m.Index...)
		m.AddUserProtocol(wire.Name)
		pc.LocalLtepProtocolMap = &m
	}
	d.log.Debug("connected", "peer", addr)
}

func (d *download) onClose(pc *torrent.PeerConn) {
	d.mu.Lock()
	s := d.sessions[pc]
	delete(d.sessions, pc)
	d.mu.Unlock()
	if s == nil {
		return
	}
	s.closeOnce.Do(func() {
		d.tally.disconnect(s.tally)
		d.dialer.lost(s.addr, time.Now())
		close(s.closed)
		d.log.Debug("disconnected", "peer", s.addr)
	})
}

func (d *download) onHandshake(pc *torrent.PeerConn, h *pp.ExtendedHandshakeMessage) {
	s := d.session(pc)
	if s == nil {
		return
	}
	d.hearMetadataSize(s, h)
	if d.r.Payments != nil && h.M[wire.Name] != 0 {
		s.startOnce.Do(func() { d.spawn(s.pay) })
	}
}

func (d *download) onExtension(e torrent.PeerConnReadExtensionMessageEvent) {
	name, _, err := e.PeerConn.LocalLtepProtocolMap.LookupId(e.ExtensionNumber)
	if err != nil {
		return
	}
	switch name {
	case wire.Name:
		s := d.session(e.PeerConn)
		if s == nil {
			return
		}
		select {
		case s.inbox <- append([]byte(nil), e.Payload...):
			d.touch()
		default:
			s.Fail(errFlood)
		}
	case pp.ExtensionNameMetadata:
		d.mu.Lock()
		d.metadata.since = time.Now()
		d.mu.Unlock()
	}
}

func (d *download) onMessage(pc *torrent.PeerConn, m *pp.Message) {
	if m.Keepalive {
		return
	}
	switch m.Type {
	case pp.Piece, pp.Reject, pp.Choke, pp.Unchoke:
	default:
		return
	}
	s := d.session(pc)
	if s == nil {
		return
	}
	switch m.Type {
	case pp.Piece:
		d.tally.received(s.tally, m)
	case pp.Reject:
		d.tally.rejected(s.tally, torrent.Request{Index: m.Index, ChunkSpec: torrent.ChunkSpec{Begin: m.Begin, Length: m.Length}})
	case pp.Choke, pp.Unchoke:
		d.mu.Lock()
		s.choked = m.Type == pp.Choke
		d.mu.Unlock()
	}
}

// hearMetadataSize keeps one peer's lie about the metadata's size from undoing
// what another sent: the client believes whoever spoke last. A claim that
// differs from the one that is believed is withheld from it.
func (d *download) hearMetadataSize(s *session, h *pp.ExtendedHandshakeMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.metadata = h.MetadataSize
	if h.MetadataSize <= 0 || h.MetadataSize > maxMetadata || d.info != nil {
		return
	}
	m := &d.metadata
	switch {
	case m.wrong[h.MetadataSize]:
		h.MetadataSize = 0
	case m.size == 0:
		m.size, m.since = h.MetadataSize, time.Now()
	case m.size != h.MetadataSize:
		m.others = true
		h.MetadataSize = 0
	}
}

// doubtMetadata gives up a claimed metadata size that led to nothing.
func (d *download) doubtMetadata(now time.Time) {
	d.mu.Lock()
	m := &d.metadata
	if d.info != nil || m.size == 0 || !m.others || now.Sub(m.since) < d.r.patience {
		d.mu.Unlock()
		return
	}
	wrong := m.size
	m.wrong[wrong] = true
	m.size, m.others = 0, false
	var liars, others []*session
	for _, s := range d.sessions {
		if s.metadata == wrong {
			liars = append(liars, s)
		} else {
			others = append(others, s)
		}
	}
	d.mu.Unlock()
	for _, s := range liars {
		s.Fail(fmt.Errorf("metadata of %d bytes never came", wrong))
	}
	for _, s := range others { // these say their size again
		<-s.end()
		d.dialer.again(s.addr)
	}
}

// end hangs up and returns a channel that is closed when that is done.
func (s *session) end() <-chan struct{} {
	s.pc.Close()
	return s.closed
}

// result is called when everything is over.
func (d *download) result() Result {
	res := Result{InfoHash: d.r.Source.InfoHash, Name: d.r.Source.Name, InfoBytes: d.info, AlreadyComplete: d.already, Peers: d.tally.peers()}
	if d.blocks != nil {
		res.Name = d.title.Name
		res.Path = filepath.Join(d.r.Dir, d.blocks.layout.Name)
		res.Length = d.title.Length
		res.Have, _ = d.blocks.progress()
		res.Complete = d.blocks.complete()
	}
	return res
}

// report calls Request.Progress until ctx ends.
func (d *download) report(ctx context.Context) {
	if d.r.Progress == nil {
		return
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var m meter
	for {
		d.r.Progress(d.look(&m))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look takes a sample.
func (d *download) look(m *meter) Progress {
	m.add(time.Now(), d.tally.usefulBytes())
	p := Progress{Name: d.r.Source.Name, Left: -1, Rate: m.rate()}
	d.mu.Lock()
	b := d.blocks
	if b != nil {
		p.Name, p.Total = d.title.Name, d.title.Length
	}
	p.Peers = len(d.sessions)
	choked := 0
	for _, s := range d.sessions {
		if s.paying {
			p.Paying++
		}
		if s.choked {
			choked++
		}
	}
	ended := d.ended
	d.mu.Unlock()
	unknown := 0
	if b != nil {
		p.Done, unknown = b.progress()
		if !ended && unknown == 0 && d.t != nil {
			p.Done = max(p.Done, d.t.BytesCompleted())
		}
	}
	switch {
	case b != nil && b.complete():
		p.State = Complete
		if !ended {
			p.State = Settling
		}
		p.Left = 0
	case b == nil && p.Peers > 0:
		p.State = GettingMetadata
	case unknown > 0:
		p.State = Checking
	case p.Peers == 0:
		p.State = FindingPeers
	case p.Paying > 0 && choked == p.Peers && m.still():
		p.State = WaitingForPayment
	default:
		p.State = Downloading
	}
	if d.finish.Load() && !ended && d.r.Finish != nil {
		p.State = Settling
	}
	if left := p.Total - p.Done; p.Left < 0 && p.Rate >= 1 && p.Total > 0 {
		p.Left = time.Duration(float64(left) / p.Rate * float64(time.Second))
	}
	return p
}
