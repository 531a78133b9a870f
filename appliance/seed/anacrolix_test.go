package seed

import (
	"bytes"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/mse"
	"github.com/anacrolix/torrent/storage"
)

// memory is a storage of the stock client that keeps the data in memory.
type memory struct {
	mu   sync.Mutex
	data []byte
	done map[int]bool
}

func (m *memory) OpenTorrent(_ context.Context, info *metainfo.Info, _ metainfo.Hash) (storage.TorrentImpl, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data, m.done = make([]byte, info.TotalLength()), make(map[int]bool)
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl { return memoryPiece{m, p} },
		Close: func() error { return nil },
	}, nil
}

type memoryPiece struct {
	m *memory
	p metainfo.Piece
}

func (p memoryPiece) ReadAt(b []byte, off int64) (int, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	if n := copy(b, p.m.data[p.p.Offset()+off:]); n < len(b) {
		return n, io.EOF
	}
	return len(b), nil
}

func (p memoryPiece) WriteAt(b []byte, off int64) (int, error) {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return copy(p.m.data[p.p.Offset()+off:], b), nil
}

func (p memoryPiece) mark(done bool) error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.done[p.p.Index()] = done
	return nil
}

func (p memoryPiece) MarkComplete() error    { return p.mark(true) }
func (p memoryPiece) MarkNotComplete() error { return p.mark(false) }

func (p memoryPiece) Completion() storage.Completion {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return storage.Completion{Ok: true, Complete: p.m.done[p.p.Index()]}
}

// The stock client gets a free title from its info hash alone.
func TestStockClientDownloads(t *testing.T) {
	tt := makeTitle(t, "free", 64<<10, 2_000_000, 0, 17, 500_000)
	for name, set := range map[string]func(*torrent.ClientConfig){
		"plain": func(c *torrent.ClientConfig) {
			c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{RequirePreferred: true}
		},
		"obfuscated": func(c *torrent.ClientConfig) {
			c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{RequirePreferred: true, Preferred: true}
		},
		"encrypted": func(c *torrent.ClientConfig) {
			c.HeaderObfuscationPolicy = torrent.HeaderObfuscationPolicy{RequirePreferred: true, Preferred: true}
			c.CryptoProvides = mse.CryptoMethodRC4
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, Options{}, tt)
			m := &memory{}
			cfg := torrent.NewDefaultClientConfig()
			cfg.DataDir = t.TempDir()
			cfg.DefaultStorage = m
			cfg.DisableUTP, cfg.DisableIPv6, cfg.NoDHT, cfg.DisableTrackers, cfg.NoDefaultPortForwarding = true, true, true, true, true
			cfg.DisableAcceptRateLimiting = true
			cfg.DisableWebtorrent, cfg.DisableWebseeds = true, true
			cfg.ListenHost = func(string) string { return "127.0.0.1" }
			cfg.ListenPort = 0
			set(cfg)
			cl, err := torrent.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			to, _ := cl.AddTorrentInfoHash(tt.ih)
			var addr torrent.PeerInfo
			addr.Addr = torrent.StringAddr(h.addr)
			to.AddPeers([]torrent.PeerInfo{addr})
			timeout := time.After(60 * time.Second)
			select {
			case <-to.GotInfo():
			case <-timeout:
				t.Fatal("no metadata")
			}
			to.DownloadAll()
			select {
			case <-to.Complete().On():
			case <-timeout:
				t.Fatalf("not complete: %+v", h.Stats())
			}
			if !bytes.Equal(m.data, tt.data) {
				t.Error("other bytes than the title's")
			}
			cl.Close()
			h.stop()
			if got := h.Stats().BytesSent; got < int64(len(tt.data)) {
				t.Errorf("counted %d bytes of %d", got, len(tt.data))
			}
		})
	}
}
