package foreigntest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/publish"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// What is asked, what buyers are ready to pay, and what they own.
const (
	price    money.Rate     = 20_000
	royalty  money.Rate     = 5_000
	maxPrice money.Rate     = 30_000
	budget   money.Satoshis = 20_000
	pocket   money.Satoshis = 200_000
)

// rig is what all tests of this package stand on.
type rig struct {
	node   *regnode.Node
	bitcdn string // the paying client's path
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return &rig{node: regnode.ForTest(t), bitcdn: os.Getenv(bitcdnEnv)}
}

// seller is a box that runs in this process.
type seller struct {
	peers   string // host:port
	control *box.Control
}

// startBox runs a box until the test ends.
func (r *rig) startBox(t *testing.T, change func(*box.Settings)) *seller {
	t.Helper()
	settings := box.DefaultSettings()
	settings.Network = regnode.Network
	settings.Listen = box.ListenSettings{Peers: "127.0.0.1:0"}
	settings.Chain.Node, settings.Chain.Poll = r.node.URL(), box.Duration(200*time.Millisecond)
	settings.Price.Default = price
	if change != nil {
		change(&settings)
	}
	if err := settings.Check(); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	var log journal
	ctx, stop := context.WithCancel(context.Background())
	started, ended := make(chan box.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- box.Run(ctx, box.Options{Settings: settings, DataDir: data, Version: "test", Clock: time.Now,
			Log:     slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Words:   func(string) error { return nil },
			Started: func(a box.Addresses) { started <- a }})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error("the box:", err)
		}
		if t.Failed() {
			t.Logf("the box's log:\n%s", log.tail(8000))
		}
	})
	s := &seller{control: box.NewControl(data)}
	select {
	case a := <-started:
		s.peers = a.Peers.String()
	case err := <-ended:
		ended <- nil
		t.Fatal("the box does not start:", err)
	}
	wait, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := await(wait, "the box sees the chain", func() error {
		status, err := s.control.Status(wait)
		if err == nil && status.Chain.Height == 0 {
			err = errors.New("no block")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

// sell registers a title in a box. A nil price is the box's default.
func (s *seller) sell(t *testing.T, title *title, price *money.Rate) {
	t.Helper()
	if _, err := s.control.Add(t.Context(), box.AddRequest{Torrent: title.torrent(""), DataDir: filepath.Dir(title.path), Price: price}); err != nil {
		t.Fatal(err)
	}
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) tail(n int) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := j.text.Bytes()
	return bytes.Clone(b[max(0, len(b)-n):])
}

// title is a torrent with its data.
type title struct {
	path   string // of the data
	info   []byte
	hash   metainfo.Hash
	length int64
	file   []byte // as a foreign program made it; nil for our own
}

// name is the torrent's, and that of the folder that clients make.
func (t *title) name() string { return filepath.Base(t.path) }

// torrent is the title's torrent file, with a tracker if one is given.
func (t *title) torrent(tracker string) []byte {
	if t.file != nil && tracker == "" {
		return t.file
	}
	return bencode.MustMarshal(metainfo.MetaInfo{InfoBytes: t.info, Announce: tracker})
}

// magnet is our own link to the title, with a tracker or a peer, or neither.
func (t *title) magnet(tracker string, peers ...string) (string, error) {
	torrent, err := catalog.ParseTorrent(t.torrent(tracker))
	if err != nil {
		return "", err
	}
	return torrent.Magnet(peers...), nil
}

// publishTitle makes a torrent of our own, with a creator's signed manifest.
func publishTitle(t *testing.T, path string, pieceLength int64, royalty money.Rate) *title {
	t.Helper()
	key, err := bsv.NewPrivateKey(bytes.Repeat([]byte{7}, bsv.PrivateKeySize))
	if err != nil {
		t.Fatal(err)
	}
	opt := publish.Options{Path: path, PieceLength: pieceLength, Key: &key, Title: "Ein Titel – 題名", Network: regnode.Network}
	if royalty > 0 {
		opt.Royalty, opt.RoyaltyTo = royalty, key.Public().Hash()
	}
	made, err := publish.Make(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return &title{path: path, info: made.Torrent.Info, hash: made.Torrent.InfoHash, length: made.Torrent.Layout.Length()}
}

// foreignTitle is a torrent that another program made of the data at path.
func foreignTitle(t *testing.T, path, torrent string) *title {
	t.Helper()
	b, err := os.ReadFile(torrent)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := catalog.ParseTorrent(b)
	if err != nil {
		t.Fatal(err)
	}
	return &title{path: path, info: parsed.Info, hash: parsed.InfoHash, length: parsed.Layout.Length(), file: b}
}

// file is one file of made-up content.
type file struct {
	path string
	size int64
}

// content writes files below a new folder of a name, the same bytes every time.
func content(t *testing.T, name string, files ...file) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), name)
	for i, f := range files {
		path := filepath.Join(root, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, f.size)
		_, _ = rand.NewChaCha8([32]byte{byte(i), byte(f.size)}).Read(b) // it never fails
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// compare reads two folders to the last byte. Only empty files may be missing
// in the copy, and only where missingEmpty allows it.
func compare(original, copied string, missingEmpty bool) error {
	count := 0
	err := filepath.WalkDir(original, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		count++
		got, err := os.ReadFile(filepath.Join(copied, rel))
		switch {
		case errors.Is(err, fs.ErrNotExist) && len(want) == 0 && missingEmpty:
			count--
			return nil
		case err != nil:
			return err
		case !bytes.Equal(want, got):
			return fmt.Errorf("%s: %d bytes differ from the original's %d", rel, len(got), len(want))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return filepath.WalkDir(copied, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if count--; count < 0 {
				return fmt.Errorf("more files than the original has, %s perhaps", path)
			}
		}
		return err
	})
}

// receipt is the part of the paying client's receipt that is looked at.
type receipt struct {
	Path     string         `json:"path"`
	Length   int64          `json:"length"`
	Complete bool           `json:"complete"`
	Spent    money.Satoshis `json:"spent"`
	Channels []struct {
		Bytes   int64          `json:"bytes"`
		Payee   money.Satoshis `json:"payee"`
		Creator money.Satoshis `json:"creator"`
		Close   string         `json:"close_txid"`
	} `json:"channels"`
	Peers []struct {
		Wire int64 `json:"wire"`
	} `json:"peers"`
}

// buy runs the paying client with a new wallet until it has the title from the
// box, and compares what it has as compare does.
func (r *rig) buy(ctx context.Context, t *testing.T, s *seller, title *title, link string, missingEmpty bool) receipt {
	t.Helper()
	home := t.TempDir()
	account := []string{"--data", filepath.Join(home, "wallet"), "--network", "regtest", "--node", r.node.URL()}
	asked := start(ctx, t, home, r.bitcdn, append([]string{"wallet", "address"}, account...)...)
	if err := asked.wait(ctx); err != nil {
		t.Fatal(err)
	}
	to, err := bsv.ParseAddress(string(asked.lastLine("")), regnode.Network)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.node.PayMined(ctx, to, pocket); err != nil {
		t.Fatal(err)
	}
	said := filepath.Join(home, "receipt.json")
	if err := os.Mkdir(filepath.Join(home, "bought"), 0o755); err != nil {
		t.Fatal(err)
	}
	get := start(ctx, t, home, r.bitcdn, append([]string{"get", link, "--output", filepath.Join(home, "bought"), "--peer", s.peers,
		"--max-price", fmt.Sprint(int64(maxPrice)), "--budget", fmt.Sprint(int64(budget)), "--receipt", said}, account...)...)
	if err := get.wait(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	var bill receipt
	if err := json.Unmarshal(b, &bill); err != nil {
		t.Fatal(err)
	}
	if err := bill.check(title); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if err := compare(title.path, filepath.Join(home, "bought", title.name()), missingEmpty); err != nil {
		t.Fatal(err)
	}
	if err := s.control.Check(ctx); err != nil {
		t.Error("the box's ledger:", err)
	}
	return bill
}

func (r *receipt) check(title *title) error {
	if !r.Complete || r.Length != title.length || len(r.Channels) != 1 || len(r.Peers) != 1 {
		return errors.New("not a complete download over one channel")
	}
	c := r.Channels[0]
	switch {
	case c.Bytes < title.length || c.Bytes != r.Peers[0].Wire:
		return fmt.Errorf("%d bytes paid for, %d received, the title has %d", c.Bytes, r.Peers[0].Wire, title.length)
	case c.Payee <= 0 || c.Close == "" || r.Spent < c.Payee+c.Creator:
		return errors.New("not paid")
	}
	return nil
}

// writeTorrent writes the title's torrent file and returns its path.
func (t *title) writeTorrent(dir, tracker string) (string, error) {
	path := filepath.Join(dir, t.hash.String()[:8]+".torrent")
	return path, os.WriteFile(path, t.torrent(tracker), 0o644)
}
