package fetch

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/dht/v2"
	"github.com/anacrolix/dht/v2/krpc"
	peer_store "github.com/anacrolix/dht/v2/peer-store"
	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
	"go.uber.org/goleak"

	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}

// childEnv makes this test binary a download that can be killed: torrent file,
// folder, state folder and peer.
const childEnv = "BITCDN_TEST_FETCH"

func child() int {
	args := filepath.SplitList(os.Getenv(childEnv))
	b, err := os.ReadFile(args[0])
	if err != nil {
		return 3
	}
	s, err := TorrentSource(b)
	if err != nil {
		return 3
	}
	peer, err := netip.ParseAddrPort(strings.ReplaceAll(args[3], "_", ":"))
	if err != nil {
		return 3
	}
	if _, err := Fetch(context.Background(), Request{Source: s, Dir: args[1], State: args[2], Peers: []netip.AddrPort{peer}, SaveEvery: time.Millisecond}); err != nil {
		return 1
	}
	return 0
}

// content is a torrent made for a test.
type content struct {
	name    string
	files   map[string][]byte // by path below name; "" for a single file
	info    []byte
	torrent []byte
	hash    [20]byte
}

type contentFile struct {
	path string
	size int
}

const pieceLength = 64 << 10

// makeContent makes a torrent of pieces of 64 KiB with random bytes.
func makeContent(t *testing.T, seed uint64, name string, files ...contentFile) *content {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{byte(seed)})
	c := &content{name: name, files: make(map[string][]byte)}
	info := metainfo.Info{Name: name, PieceLength: pieceLength}
	var all []byte
	for _, f := range files {
		b := make([]byte, f.size)
		rnd.Read(b)
		c.files[f.path] = b
		all = append(all, b...)
		if f.path == "" {
			info.Length = int64(f.size)
		} else {
			info.Files = append(info.Files, metainfo.FileInfo{Path: strings.Split(f.path, "/"), Length: int64(f.size)})
		}
	}
	for off := 0; off < len(all); off += pieceLength {
		sum := sha1.Sum(all[off:min(off+pieceLength, len(all))])
		info.Pieces = append(info.Pieces, sum[:]...)
	}
	var err error
	if c.info, err = bencode.Marshal(info); err != nil {
		t.Fatal(err)
	}
	c.hash = sha1.Sum(c.info)
	mi := metainfo.MetaInfo{InfoBytes: c.info}
	if c.torrent, err = bencode.Marshal(mi); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *content) write(t *testing.T, dir string) {
	t.Helper()
	for p, b := range c.files {
		name := filepath.Join(dir, c.name, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// same fails the test unless exactly the content's files lie in dir.
func (c *content) same(t *testing.T, dir string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(filepath.Join(dir, c.name), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != len(c.files) {
		t.Errorf("%d files, want %d", n, len(c.files))
	}
	for p, want := range c.files {
		got, err := os.ReadFile(filepath.Join(dir, c.name, filepath.FromSlash(p)))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%q differs: %d bytes, want %d", p, len(got), len(want))
		}
	}
}

func (c *content) length() int64 {
	var n int64
	for _, b := range c.files {
		n += int64(len(b))
	}
	return n
}

// bytes is the content as one run, in the order of the info dictionary.
func (c *content) bytes(t *testing.T) []byte {
	t.Helper()
	var info metainfo.Info
	if err := bencode.Unmarshal(c.info, &info); err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range info.UpvertedFiles() {
		all = append(all, c.files[filepath.ToSlash(filepath.Join(f.Path...))]...)
	}
	return all
}

func (c *content) magnet(peers ...netip.AddrPort) string {
	s := fmt.Sprintf("magnet:?xt=urn:btih:%x&dn=%s", c.hash, c.name)
	for _, p := range peers {
		s += "&x.pe=" + p.String()
	}
	return s
}

func (c *content) source(t *testing.T) Source {
	t.Helper()
	s, err := TorrentSource(c.torrent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// seedStock seeds the content with the stock client.
func seedStock(t *testing.T, c *content, change ...func(*torrent.ClientConfig)) netip.AddrPort {
	t.Helper()
	dir := t.TempDir()
	c.write(t, dir)
	cfg := torrent.NewDefaultClientConfig()
	cfg.ListenHost = torrent.LoopbackListenHost
	cfg.ListenPort = 0
	cfg.DisableIPv6 = true
	cfg.DisableUTP = true
	cfg.NoDHT = true
	cfg.DisableTrackers = true
	cfg.NoDefaultPortForwarding = true
	cfg.Seed = true
	cfg.Slogger = slog.New(slog.DiscardHandler)
	files := storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	cfg.DefaultStorage = files
	for _, f := range change {
		f(cfg)
	}
	cl, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cl.Close()
		files.Close()
	})
	var mi metainfo.MetaInfo
	if err := bencode.Unmarshal(c.torrent, &mi); err != nil {
		t.Fatal(err)
	}
	tt, err := cl.AddTorrent(&mi)
	if err != nil {
		t.Fatal(err)
	}
	if err := tt.VerifyDataContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(cl.LocalPort()))
}

func request(t *testing.T, s Source, peers ...netip.AddrPort) Request {
	t.Helper()
	return Request{
		Source: s, Dir: t.TempDir(), State: t.TempDir(), Peers: peers,
		Idle: 20 * time.Second, SaveEvery: 20 * time.Millisecond,
	}
}

func mustFetch(t *testing.T, r Request) Result {
	t.Helper()
	res, err := Fetch(t.Context(), r)
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	if !res.Complete || res.Have != res.Length {
		t.Fatalf("not complete: %+v", res)
	}
	return res
}

var manyFilesContent = []contentFile{
	{"a/one", 3*pieceLength + 17}, {"a/empty", 0}, {"b/c/two", 1}, {"b/three", 5 * pieceLength}, {"zero", 0}, {"last", 100_000},
}

func TestFreeFromTorrent(t *testing.T) {
	c := makeContent(t, 1, "many", manyFilesContent...)
	var mu sync.Mutex
	var seen []Progress
	r := request(t, c.source(t), seedStock(t, c))
	r.Progress = func(p Progress) { mu.Lock(); seen = append(seen, p); mu.Unlock() }
	finished := 0
	r.Finish = func(context.Context) error { finished++; return nil }
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if res.Name != "many" || res.Length != c.length() || res.Path != filepath.Join(r.Dir, "many") || res.AlreadyComplete {
		t.Errorf("result %+v", res)
	}
	if finished != 1 {
		t.Errorf("Finish called %d times", finished)
	}
	if last := seen[len(seen)-1]; last.State != Complete || last.Done != c.length() || last.Total != c.length() {
		t.Errorf("last progress %+v", last)
	}
	if len(res.Peers) != 1 || res.Peers[0].Wire != c.length() || res.Peers[0].Payable != c.length() || res.Peers[0].Paying {
		t.Errorf("peers %+v", res.Peers)
	}

	// Again: nothing is dialled, nothing is asked for.
	r.Peers = nil
	r.Idle = time.Nanosecond
	if res := mustFetch(t, r); !res.AlreadyComplete {
		t.Errorf("second fetch %+v", res)
	}
}

func TestMagnet(t *testing.T) {
	c := makeContent(t, 2, "single", contentFile{"", 7*pieceLength + 3})
	peer := seedStock(t, c)
	s, err := MagnetSource(c.magnet(peer))
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, s)
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if !bytes.Equal(res.InfoBytes, c.info) {
		t.Error("metadata differs")
	}
	// The metadata is kept, so that a magnet is enough without any peer.
	r.Source.Peers = nil
	if res := mustFetch(t, r); !res.AlreadyComplete {
		t.Errorf("second fetch %+v", res)
	}
}

func TestEncryption(t *testing.T) {
	c := makeContent(t, 3, "enc", contentFile{"", 3 * pieceLength})
	for _, tc := range []struct {
		name string
		ours Encryption
		box  torrent.HeaderObfuscationPolicy
		flag string // E is RC4, e an obfuscated header
	}{
		{"plain to any", PreferPlain, torrent.HeaderObfuscationPolicy{}, "=I,v1"},
		{"plain falls back", PreferPlain, torrent.HeaderObfuscationPolicy{Preferred: true, RequirePreferred: true}, "=I,e,v1"},
		{"required", RequireRC4, torrent.HeaderObfuscationPolicy{}, "=I,E,v1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			flags := make(chan string, 16)
			peer := seedStock(t, c, func(cfg *torrent.ClientConfig) {
				cfg.HeaderObfuscationPolicy = tc.box
				cfg.Callbacks.CompletedHandshake = func(pc *torrent.PeerConn, _ metainfo.Hash) {
					if string(pc.PeerID[:len(peerIDPrefix)]) == peerIDPrefix {
						flags <- pc.String()
					}
				}
			})
			r := request(t, c.source(t), peer)
			r.Encryption = tc.ours
			mustFetch(t, r)
			c.same(t, r.Dir)
			if got := <-flags; !strings.Contains(got, tc.flag) {
				t.Errorf("%s without %q", got, tc.flag)
			}
		})
	}
}

func TestTwoFreeSeeders(t *testing.T) {
	c := makeContent(t, 4, "two", contentFile{"x", 40 * pieceLength}, contentFile{"y", 12345})
	r := request(t, c.source(t), seedStock(t, c), seedStock(t, c))
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	var payable int64
	for _, p := range res.Peers {
		if p.Wire != p.Payable || p.Forfeited != 0 {
			t.Errorf("%+v", p)
		}
		payable += p.Payable
	}
	if payable < c.length() {
		t.Errorf("payable %d of %d", payable, c.length())
	}
}

// A download that is called off goes on where it stood.
func TestResumeAfterCancel(t *testing.T) {
	c := makeContent(t, 5, "resume", contentFile{"", 64 * pieceLength})
	p := newPayPeer(t, c, payPeerOptions{stopAfter: 20 * pieceLength})
	r := request(t, c.source(t), p.addr)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-p.stopped
		cancel()
	}()
	var grace error
	r.Finish = func(ctx context.Context) error { grace = ctx.Err(); return nil }
	res, err := Fetch(ctx, r)
	if !errors.Is(err, context.Canceled) || res.Complete {
		t.Fatalf("%+v, %v", res, err)
	}
	if grace != nil {
		t.Errorf("Finish had a context that was over: %v", grace)
	}
	if res.Have == 0 {
		t.Fatalf("nothing verified: %+v", res)
	}
	r.Finish = nil
	r.Peers = []netip.AddrPort{seedStock(t, c)}
	again := mustFetch(t, r)
	c.same(t, r.Dir)
	// Less where a piece was on disk and not yet checked.
	if got, most := again.Peers[0].Wire, c.length()-res.Have; got > most {
		t.Errorf("fetched %d again, want at most %d", got, most)
	}
}

// What a kill leaves behind: data without a record of it, or a record that is
// older than the data.
func TestResumeWithoutRecord(t *testing.T) {
	c := makeContent(t, 6, "killed", contentFile{"a", 10 * pieceLength}, contentFile{"b", 10 * pieceLength})
	r := request(t, c.source(t))
	c.write(t, r.Dir)
	if err := os.Truncate(filepath.Join(r.Dir, "killed", "b"), 4*pieceLength); err != nil {
		t.Fatal(err)
	}
	r.Peers = []netip.AddrPort{seedStock(t, c)}
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if got := res.Peers[0].Wire; got != 6*pieceLength {
		t.Errorf("fetched %d, want %d", got, 6*pieceLength)
	}
}

func TestChangedDataIsRechecked(t *testing.T) {
	c := makeContent(t, 7, "changed", contentFile{"a", 4 * pieceLength}, contentFile{"b", 4 * pieceLength})
	seeder := seedStock(t, c)
	r := request(t, c.source(t), seeder)
	mustFetch(t, r)
	name := filepath.Join(r.Dir, "changed", "b")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("not what it was"), pieceLength+100)
	f.WriteAt([]byte("longer than it was"), 4*pieceLength)
	f.Close()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(name, later, later); err != nil {
		t.Fatal(err)
	}
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if res.AlreadyComplete || res.Peers[0].Wire != pieceLength {
		t.Errorf("%+v", res)
	}
}

func TestHostileTorrents(t *testing.T) {
	base := makeContent(t, 8, "x", contentFile{"", 100})
	var info metainfo.Info
	if err := bencode.Unmarshal(base.info, &info); err != nil {
		t.Fatal(err)
	}
	bad := func(change func(*metainfo.Info)) []byte {
		i := info
		change(&i)
		b, err := bencode.Marshal(metainfo.MetaInfo{InfoBytes: bencode.MustMarshal(i)})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"parent":   bad(func(i *metainfo.Info) { i.Name = ".." }),
		"absolute": bad(func(i *metainfo.Info) { i.Name = "/etc/x" }),
		"inside": bad(func(i *metainfo.Info) {
			i.Length = 0
			i.Files = []metainfo.FileInfo{{Path: []string{"..", "y"}, Length: 100}}
		}),
		"hashes":   bad(func(i *metainfo.Info) { i.Pieces = i.Pieces[:19] }),
		"negative": bad(func(i *metainfo.Info) { i.Length = -1 }),
		"huge":     bad(func(i *metainfo.Info) { i.Length = 1 << 60 }),
		"empty":    []byte("de"),
		"no":       nil,
		"junk":     append(bytes.Clone(base.torrent), "junk"...),
		"nested":   bytes.Repeat([]byte("l"), 1<<20),
	} {
		if _, err := TorrentSource(b); !errors.Is(err, ErrTorrent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, m := range []string{"", "magnet:?", "magnet:?xt=urn:btih:00", "http://x", "magnet:?xt=urn:btih:0000000000000000000000000000000000000000"} {
		if _, err := MagnetSource(m); !errors.Is(err, ErrTorrent) {
			t.Errorf("%q: %v", m, err)
		}
	}
}

func TestWrongMetadata(t *testing.T) {
	c := makeContent(t, 9, "x", contentFile{"", 100})
	s := c.source(t)
	s.InfoHash[0]++
	if _, err := Fetch(t.Context(), request(t, s)); !errors.Is(err, ErrTorrent) {
		t.Error(err)
	}
}

func TestManifest(t *testing.T) {
	c := makeContent(t, 10, "x", contentFile{"", 100})
	r := request(t, c.source(t), seedStock(t, c))
	r.Manifest = func(info []byte) (*paylink.Royalty, string, error) {
		if !bytes.Equal(info, c.info) {
			t.Error("other info")
		}
		return nil, "", errors.New("forged")
	}
	if _, err := Fetch(t.Context(), r); !errors.Is(err, ErrManifest) || Hint(err) == "" {
		t.Error(err)
	}
	r.Manifest = func([]byte) (*paylink.Royalty, string, error) { return nil, "A Title", nil }
	if res := mustFetch(t, r); res.Name != "A Title" {
		t.Error(res.Name)
	}
}

func TestNoPeers(t *testing.T) {
	c := makeContent(t, 11, "x", contentFile{"", 100})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := netip.MustParseAddrPort(l.Addr().String())
	l.Close()
	r := request(t, c.source(t), nobody)
	r.Idle = 50 * time.Millisecond
	if _, err := Fetch(t.Context(), r); !errors.Is(err, ErrNoPeers) || Hint(err) == "" {
		t.Error(err)
	}
}

func TestOneAtATime(t *testing.T) {
	c := makeContent(t, 12, "x", contentFile{"", 100})
	r := request(t, c.source(t))
	lock, err := lockFile(stateDir{r.State, c.hash}.path(".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Fetch(t.Context(), r); !errors.Is(err, ErrBusy) || Hint(err) == "" {
		t.Error(err)
	}
}

// fullDisk takes so many bytes and no more.
type fullDisk struct {
	blockStore
	mu   sync.Mutex
	room int
}

func (f *fullDisk) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.room < len(p) {
		return 0, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	f.room -= len(p)
	return f.blockStore.WriteAt(p, off)
}

func TestDiskFull(t *testing.T) {
	c := makeContent(t, 13, "full", contentFile{"", 32 * pieceLength})
	r := request(t, c.source(t), seedStock(t, c))
	r.openBlocks = func(dir string, l pieces.Layout) (blockStore, error) {
		s, err := openPieces(dir, l)
		return &fullDisk{blockStore: s, room: 24 * pieceLength}, err
	}
	res, err := Fetch(t.Context(), r)
	if !errors.Is(err, ErrDiskFull) || Hint(err) == "" || res.Complete {
		t.Fatalf("%+v, %v", res, err)
	}
	r.openBlocks = nil
	again := mustFetch(t, r)
	c.same(t, r.Dir)
	if want := c.length() - res.Have; again.Peers[0].Wire > want {
		t.Errorf("fetched %d again, want at most %d", again.Peers[0].Wire, want)
	}
}

// failingSync claims what it has not done.
type failingSync struct{ blockStore }

func (failingSync) Sync(int) error { return io.ErrClosedPipe }

// The record never claims what was not synced.
func TestRecordFollowsSync(t *testing.T) {
	c := makeContent(t, 14, "sync", contentFile{"", 4 * pieceLength})
	r := request(t, c.source(t), seedStock(t, c))
	r.openBlocks = func(dir string, l pieces.Layout) (blockStore, error) {
		s, err := openPieces(dir, l)
		return failingSync{s}, err
	}
	if _, err := Fetch(t.Context(), r); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatal(err)
	}
	if rec := (stateDir{r.State, c.hash}).resume(4); rec != nil && rec.done.count() != 0 {
		t.Errorf("record claims %d pieces", rec.done.count())
	}
}

// A seeder that goes away and comes back is found again.
func TestRedial(t *testing.T) {
	c := makeContent(t, 15, "redial", contentFile{"", 8 * pieceLength})
	p := newPayPeer(t, c, payPeerOptions{hangUpAfter: 3 * pieceLength})
	r := request(t, c.source(t), p.addr)
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if p.connections() < 2 || len(res.Peers) != 1 {
		t.Errorf("%d connections, %+v", p.connections(), res.Peers)
	}
}

// A download that is killed goes on, and fetches no more than what was not yet
// on disk.
func TestResumeAfterKill(t *testing.T) {
	c := makeContent(t, 16, "kill", contentFile{"a", 40*pieceLength + 11}, contentFile{"b", 40 * pieceLength}, contentFile{"e", 0})
	p := newPayPeer(t, c, payPeerOptions{stopAfter: 50 * pieceLength})
	file := filepath.Join(t.TempDir(), "t.torrent")
	if err := os.WriteFile(file, c.torrent, 0o644); err != nil {
		t.Fatal(err)
	}
	r := request(t, c.source(t))
	cmd := exec.Command(os.Args[0])
	list := strings.Join([]string{file, r.Dir, r.State, strings.ReplaceAll(p.addr.String(), ":", "_")}, string(filepath.ListSeparator))
	cmd.Env = append(os.Environ(), childEnv+"="+list)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.stopped:
	case <-time.After(time.Minute):
		t.Error("the download did not get that far")
	}
	cmd.Process.Kill()
	cmd.Wait()
	r.Peers = []netip.AddrPort{seedStock(t, c)}
	res := mustFetch(t, r)
	c.same(t, r.Dir)
	if got := res.Peers[0].Wire; got >= c.length() {
		t.Errorf("fetched all of %d again", got)
	}
}

// The client has no way in.
func TestNeverListens(t *testing.T) {
	r := request(t, makeContent(t, 17, "x", contentFile{"", 1}).source(t))
	if err := r.check(); err != nil {
		t.Fatal(err)
	}
	cl, err := torrent.NewClient(newDownload(r).config())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if len(cl.Listeners()) != 0 || len(cl.ListenAddrs()) != 0 || len(cl.DhtServers()) != 0 {
		t.Errorf("listens on %v", cl.ListenAddrs())
	}
}

// onePeer is what a DHT node knows.
type onePeer struct{ krpc.NodeAddr }

func (onePeer) AddPeer(peer_store.InfoHash, krpc.NodeAddr)     {}
func (o onePeer) GetPeers(peer_store.InfoHash) []krpc.NodeAddr { return []krpc.NodeAddr{o.NodeAddr} }

func TestDHT(t *testing.T) {
	c := makeContent(t, 18, "dht", contentFile{"", 3 * pieceLength})
	peer := seedStock(t, c)
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	store := onePeer{krpc.NodeAddr{IP: peer.Addr().AsSlice(), Port: int(peer.Port())}}
	cfg := dht.NewDefaultServerConfig()
	cfg.Conn, cfg.PeerStore, cfg.NoSecurity = pc, store, true
	cfg.StartingNodes = func() ([]dht.Addr, error) { return nil, nil }
	node, err := dht.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	r := request(t, c.source(t))
	r.DHT = true
	r.DHTNodes = []netip.AddrPort{netip.MustParseAddrPort(pc.LocalAddr().String())}
	mustFetch(t, r)
	c.same(t, r.Dir)
}

func TestResumeRecord(t *testing.T) {
	r := &resume{infoHash: [20]byte{1, 2, 3}, pieces: 11, done: newBitmap(11), saved: time.Unix(123, 456), closed: true}
	r.done.set(0)
	r.done.set(10)
	b := r.encode()
	got, err := decodeResume(b)
	if err != nil || got.infoHash != r.infoHash || got.pieces != 11 || !bytes.Equal(got.done, r.done) || !got.saved.Equal(r.saved) || !got.closed {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x20
		if _, err := decodeResume(bad); err == nil {
			t.Errorf("byte %d changed and not seen", i)
		}
		if _, err := decodeResume(b[:i]); err == nil {
			t.Errorf("cut at %d and not seen", i)
		}
	}
}

func FuzzResumeRecord(f *testing.F) {
	f.Add((&resume{pieces: 9, done: newBitmap(9), saved: time.Unix(1, 2)}).encode())
	f.Add([]byte(resumeMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeResume(b)
		if err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%x", b)
		}
	})
}

func FuzzTorrentSource(f *testing.F) {
	f.Add([]byte("d4:infod6:lengthi1e4:name1:x12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"))
	f.Add([]byte("d8:announce3:http4:infodee"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := TorrentSource(b)
		if err == nil && sha1.Sum(s.InfoBytes) != s.InfoHash {
			t.Error("info hash")
		}
	})
}

func FuzzMagnetSource(f *testing.F) {
	f.Add("magnet:?xt=urn:btih:0102030405060708090a0b0c0d0e0f1011121314&x.pe=[::1]:1&tr=udp://x:1&dn=y")
	f.Add("magnet:?xt=urn:btih:AEBAGBAFAYDQQCIKBMGA2DQPCAIREEYU")
	f.Fuzz(func(t *testing.T, s string) {
		src, err := MagnetSource(s)
		if err == nil && src.InfoHash == ([20]byte{}) {
			t.Error("no info hash")
		}
	})
}
