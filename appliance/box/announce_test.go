package box_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
)

// heard is what a tracker was told.
type heard struct{ infoHash, event, port string }

// tracker tells what it hears. Before it answers that a title stops it looks
// whether the port that it was told takes connections.
func tracker(t *testing.T) (announceURL string, hears <-chan heard) {
	heards := make(chan heard, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		h := heard{hex.EncodeToString([]byte(q.Get("info_hash"))), q.Get("event"), q.Get("port")}
		if h.event == "stopped" {
			c, err := net.Dial("tcp", "127.0.0.1:"+h.port)
			if err != nil {
				t.Errorf("nobody listens while the tracker is told of a stop: %v", err)
			} else {
				c.Close()
			}
		}
		heards <- h
		_, _ = io.WriteString(w, "d8:intervali1800ee")
	}))
	t.Cleanup(s.Close)
	return s.URL + "/announce", heards
}

// title is a torrent of one file, which is written below dir.
func title(t *testing.T, dir, name, announce string) (torrent []byte, infoHash string) {
	t.Helper()
	data := []byte("the contents of " + name)
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha1.Sum(data)
	info := bencode.MustMarshal(map[string]any{"length": len(data), "name": name, "piece length": 1 << 14, "pieces": sum[:]})
	ih := sha1.Sum(info)
	return bencode.MustMarshal(map[string]any{"announce": announce, "info": bencode.Bytes(info)}), hex.EncodeToString(ih[:])
}

// run runs a box and returns its peers' port and what stops it.
func run(t *testing.T, data string, change func(*box.Settings)) (control *box.Control, port string, stop func()) {
	t.Helper()
	s := box.DefaultSettings()
	s.Network = bsv.Regtest
	s.Listen = box.ListenSettings{Peers: "127.0.0.1:0"}
	if change != nil {
		change(&s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan box.Addresses, 1), make(chan error, 1)
	go func() {
		ended <- box.Run(ctx, box.Options{Settings: s, DataDir: data, Clock: time.Now, Log: slog.New(slog.DiscardHandler),
			Words: func(string) error { return nil }, Started: func(a box.Addresses) { started <- a }})
	}()
	select {
	case a := <-started:
		_, port, _ = net.SplitHostPort(a.Peers.String())
	case err := <-ended:
		cancel()
		t.Fatal(err)
	}
	return box.NewControl(data), port, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestTrackersAreTold(t *testing.T) {
	announceURL, hears := tracker(t)
	data, content := t.TempDir(), t.TempDir()
	kept, keptHash := title(t, content, "kept", announceURL)
	gone, goneHash := title(t, content, "gone", announceURL)
	want := func(what ...heard) {
		t.Helper()
		open := map[heard]bool{}
		for _, h := range what {
			open[h] = true
		}
		for range what {
			if h := <-hears; !open[h] {
				t.Errorf("heard %+v", h)
			}
		}
	}

	control, port, stop := run(t, data, nil)
	for _, torrent := range [][]byte{kept, gone} {
		if _, err := control.Add(t.Context(), box.AddRequest{Torrent: torrent, DataDir: content}); err != nil {
			t.Fatal(err)
		}
	}
	want(heard{keptHash, "started", port}, heard{goneHash, "started", port})
	if err := control.Remove(t.Context(), box.RemoveRequest{InfoHash: goneHash}); err != nil {
		t.Fatal(err)
	}
	want(heard{goneHash, "stopped", port})
	stop()
	want(heard{keptHash, "stopped", port})

	_, port, stop = run(t, data, nil)
	want(heard{keptHash, "started", port})
	stop()
	want(heard{keptHash, "stopped", port})

	_, _, stop = run(t, data, func(s *box.Settings) { s.Announce.Trackers = false })
	stop()
	select {
	case h := <-hears:
		t.Errorf("heard %+v though no tracker is to be told", h)
	default:
	}
}

func TestToldPort(t *testing.T) {
	announceURL, hears := tracker(t)
	// Somebody maps a port to ours: here, one that takes connections.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	mapped := l.Addr().(*net.TCPAddr).Port
	data, content := t.TempDir(), t.TempDir()
	torrent, ih := title(t, content, "one", announceURL)
	control, _, stop := run(t, data, func(s *box.Settings) { s.Announce.Port = uint16(mapped) })
	if _, err := control.Add(t.Context(), box.AddRequest{Torrent: torrent, DataDir: content}); err != nil {
		t.Fatal(err)
	}
	if h := <-hears; h != (heard{ih, "started", fmt.Sprint(mapped)}) {
		t.Errorf("heard %+v", h)
	}
	stop()
}
