package catalog_test

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/anacrolix/torrent/bencode"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/payments/bsv"
)

func creator(tb testing.TB) bsv.PrivateKey {
	tb.Helper()
	k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func encode(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := bencode.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// content is a folder of two files, 100,000 bytes in all.
func content() map[string][]byte {
	return map[string][]byte{
		"album/cover.png":    bytes.Repeat([]byte("c"), 30_000),
		"album/songs/1.flac": bytes.Repeat([]byte("s"), 70_000),
	}
}

const pieceLength = 32768

// plainInfo is the info dict of content, without a manifest.
func plainInfo(tb testing.TB) []byte {
	data := append(append([]byte(nil), content()["album/cover.png"]...), content()["album/songs/1.flac"]...)
	var hashes []byte
	for len(data) > 0 {
		n := min(len(data), pieceLength)
		sum := sha1.Sum(data[:n])
		hashes, data = append(hashes, sum[:]...), data[n:]
	}
	return encode(tb, map[string]any{
		"files": []map[string]any{
			{"length": 30_000, "path": []string{"cover.png"}},
			{"length": 70_000, "path": []string{"songs", "1.flac"}},
		},
		"name": "album", "piece length": pieceLength, "pieces": hashes,
	})
}

func terms(tb testing.TB) catalog.Manifest {
	return catalog.Manifest{
		Royalty: 250, RoyaltyTo: creator(tb).Public().Hash(), Network: bsv.Regtest, Title: "Ein Lied für Ünö",
	}
}

func signedInfo(tb testing.TB) []byte {
	tb.Helper()
	info, err := catalog.SignManifest(plainInfo(tb), terms(tb), creator(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return info
}

func torrent(tb testing.TB, info []byte) []byte {
	return encode(tb, map[string]any{
		"announce":      "http://tracker.example/announce",
		"announce-list": [][]string{{"http://tracker.example/announce", "udp://b.example:1337"}, {"not a url"}, {"https://c.example/x"}},
		"info":          bencode.Bytes(info),
		"url-list":      "http://seed.example/",
	})
}

// onDisk writes content below a new folder and returns that.
func onDisk(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, data := range content() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func bstr(s string) string { return fmt.Sprintf("%d:%s", len(s), s) }
