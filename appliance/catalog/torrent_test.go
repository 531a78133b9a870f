package catalog_test

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

func TestParseTorrent(t *testing.T) {
	info := signedInfo(t)
	got, err := catalog.ParseTorrent(torrent(t, info))
	if err != nil {
		t.Fatal(err)
	}
	if got.InfoHash != sha1.Sum(info) || !bytes.Equal(got.Info, info) {
		t.Error("info hash or info bytes differ")
	}
	if got.Layout.Length() != 100_000 || got.Layout.NumPieces() != 4 || got.Layout.Single || got.Layout.Name != "album" {
		t.Errorf("layout %+v", got.Layout)
	}
	want := [][]string{{"http://tracker.example/announce", "udp://b.example:1337"}, {"https://c.example/x"}}
	if !reflect.DeepEqual(got.Trackers, want) {
		t.Errorf("trackers %q, want %q", got.Trackers, want)
	}
	if !slices.Equal(got.WebSeeds, []string{"http://seed.example/"}) || got.Private {
		t.Errorf("web seeds %q, private %v", got.WebSeeds, got.Private)
	}
	if got.Manifest == nil || got.Name() != terms(t).Title {
		t.Errorf("manifest %+v", got.Manifest)
	}
}

func TestMagnet(t *testing.T) {
	parsed, err := catalog.ParseTorrent(torrent(t, signedInfo(t)))
	if err != nil {
		t.Fatal(err)
	}
	link := parsed.Magnet("127.0.0.1:6881", "[::1]:6882")
	if strings.Contains(link, "+") || !strings.HasSuffix(link, "&x.pe=127.0.0.1:6881&x.pe=[::1]:6882") {
		t.Errorf("%s\nother programs do not read its spaces or its peers", link)
	}
	m, err := metainfo.ParseMagnetUri(link)
	if err != nil {
		t.Fatal(err)
	}
	if m.InfoHash != parsed.InfoHash || m.DisplayName != parsed.Name() || len(m.Trackers) != 3 ||
		m.Params.Get("xl") != "100000" || m.Params.Get("ws") != "http://seed.example/" ||
		!slices.Equal(m.Params["x.pe"], []string{"127.0.0.1:6881", "[::1]:6882"}) {
		t.Errorf("%+v", m)
	}
}

// What other programs make loads unchanged, with their info hash.
func TestForeignTorrents(t *testing.T) {
	data := onDisk(t)
	for i, c := range []struct {
		argv   []string
		length int64
	}{
		{[]string{"mktorrent", "-l", "15", "-p", "-a", "http://t.example/a", "-w", "http://w.example/", "-s", "src", "-o", "OUT", "IN"}, 1 << 15},
		{[]string{"mktorrent", "-l", "22", "-o", "OUT", "IN"}, 4 << 20},
		{[]string{"transmission-create", "-s", "64", "-t", "http://t.example/a", "-o", "OUT", "IN"}, 64 << 10},
		{[]string{"transmission-create", "-p", "-s", "16", "-c", "comment", "-t", "http://t.example/a", "-t", "http://u.example/a", "-o", "OUT", "IN"}, 16 << 10},
		{[]string{"transmission-create", "-s", "32", "-o", "OUT", "IN/cover.png"}, 32 << 10},
	} {
		out := filepath.Join(t.TempDir(), "x.torrent")
		argv := slices.Clone(c.argv)
		for i := range argv {
			argv[i] = strings.Replace(strings.Replace(argv[i], "OUT", out, 1), "IN", filepath.Join(data, "album"), 1)
		}
		if b, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, b)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := catalog.ParseTorrent(b)
		if err != nil {
			t.Errorf("%v: %v", c.argv, err)
			continue
		}
		theirs, err := metainfo.Load(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if got.InfoHash != theirs.HashInfoBytes() || got.Layout.PieceLength != c.length || got.Manifest != nil ||
			got.Private != slices.Contains(c.argv, "-p") {
			t.Errorf("case %d: %+v", i, got)
		}
	}
}

func TestUnusualTorrents(t *testing.T) {
	for name, info := range map[string]string{
		"odd piece length":  "d6:lengthi10e4:name1:x12:piece lengthi7e6:pieces40:" + strings.Repeat("h", 40) + "e",
		"unsorted keys":     "d4:name1:x6:lengthi10e12:piece lengthi16384e6:pieces20:" + strings.Repeat("h", 20) + "e",
		"fields of others":  "d4:junkd1:ali1eee6:lengthi10e4:name1:x12:piece lengthi16384e6:pieces20:" + strings.Repeat("h", 20) + "e",
		"pad file (BEP 47)": "d5:filesld6:lengthi10e4:pathl1:aeed4:attr1:p6:lengthi6e4:pathl4:.pad1:6eee4:name1:x12:piece lengthi16e6:pieces20:" + strings.Repeat("h", 20) + "e",
	} {
		got, err := catalog.ParseTorrent([]byte("d4:info" + info + "e"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got.InfoHash != sha1.Sum([]byte(info)) {
			t.Errorf("%s: another info hash", name)
		}
	}
}

func TestMalformedTorrents(t *testing.T) {
	rest := "12:piece lengthi16384e6:pieces20:" + strings.Repeat("h", 20) + "e"
	good := "d6:lengthi10e4:name1:x" + rest
	for name, c := range map[string]struct {
		torrent string
		want    error
	}{
		"empty":             {"", catalog.ErrTorrent},
		"no info":           {"de", catalog.ErrTorrent},
		"info not a dict":   {"d4:infoi1ee", catalog.ErrTorrent},
		"two infos":         {"d4:info" + good + "4:info" + good + "e", catalog.ErrTorrent},
		"bytes behind":      {"d4:info" + good + "ex", catalog.ErrTorrent},
		"hostile length":    {"d4:info4294967295:", catalog.ErrTorrent},
		"deep":              {"d4:info" + strings.Repeat("d1:a", 5000), catalog.ErrTorrent},
		"wrong type":        {"d4:infod6:lengthi10e4:namei5e" + rest + "e", catalog.ErrTorrent},
		"path up":           {"d4:infod5:filesld6:lengthi10e4:pathl2:..1:aeee4:name1:x" + rest + "e", pieces.ErrLayout},
		"name up":           {"d4:infod6:lengthi10e4:name2:.." + rest + "e", pieces.ErrLayout},
		"negative length":   {"d4:infod6:lengthi-10e4:name1:x" + rest + "e", pieces.ErrLayout},
		"too few hashes":    {"d4:infod6:lengthi16385e4:name1:x" + rest + "e", pieces.ErrLayout},
		"version 2 only":    {"d4:infod9:file treed1:ad0:d6:lengthi3eeee12:meta versioni2e4:name1:x12:piece lengthi16384eee", pieces.ErrVersion},
		"forged manifest":   {"d4:info" + strings.Replace(string(signedInfo(t)), "cover", "cower", 1) + "e", catalog.ErrManifestSignature},
		"too many files":    {"d4:infod5:filesl" + strings.Repeat("de", catalog.MaxFiles+1) + "e4:name1:x" + rest + "e", catalog.ErrTorrent},
		"too large":         {strings.Repeat("x", catalog.MaxTorrent+1), catalog.ErrTorrent},
		"file tree of junk": {"d4:infod9:file tree" + "l" + strings.Repeat("le", 17*catalog.MaxFiles) + "e" + "4:name1:x" + rest + "e", catalog.ErrTorrent},
	} {
		got, err := catalog.ParseTorrent([]byte(c.torrent))
		if got != nil || !errors.Is(err, catalog.ErrTorrent) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v; want ErrTorrent with %v", name, err, c.want)
		}
	}
}

func TestTrackersAreCapped(t *testing.T) {
	var tiers [][]string
	for i := range 300 {
		tiers = append(tiers, []string{fmt.Sprintf("http://%d.example/", i)})
	}
	b := encode(t, map[string]any{"announce-list": tiers, "info": bencode.Bytes(plainInfo(t))})
	got, err := catalog.ParseTorrent(b)
	if err != nil || len(got.Trackers) != 100 {
		t.Errorf("%d tiers, %v", len(got.Trackers), err)
	}
}

func FuzzParseTorrent(f *testing.F) {
	f.Add(torrent(f, plainInfo(f)))
	f.Add(torrent(f, signedInfo(f)))
	f.Add([]byte("d4:infod6:lengthi10e4:name1:x12:piece lengthi7e6:pieces40:" + strings.Repeat("h", 40) + "ee"))
	f.Add([]byte("d8:announce3:xyz13:announce-listll1:aee4:infod9:file treed1:ad0:d6:lengthi3eeee12:meta versioni2e4:name1:x12:piece lengthi16384eee"))
	f.Add([]byte("d4:info4294967295:"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := catalog.ParseTorrent(b)
		if err != nil {
			if got != nil || !errors.Is(err, catalog.ErrTorrent) {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		if err := got.Layout.Validate(); err != nil {
			t.Fatalf("taken with a bad layout: %v", err)
		}
		if got.InfoHash != sha1.Sum(got.Info) {
			t.Fatal("info hash")
		}
		if _, err := metainfo.ParseMagnetUri(got.Magnet()); err != nil {
			t.Fatalf("magnet: %v", err)
		}
		again, err := catalog.ParseInfo(got.Info)
		if err != nil || again.InfoHash != got.InfoHash {
			t.Fatalf("info alone: %v", err)
		}
	})
}
