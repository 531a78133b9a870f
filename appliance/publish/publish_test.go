package publish_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/publish"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// folder writes files of these sizes, of seeded bytes, below a new folder "show".
func folder(t *testing.T, sizes map[string]int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "show")
	names := make([]string, 0, len(sizes))
	for name := range sizes {
		names = append(names, name)
	}
	slices.Sort(names)
	random := rand.NewChaCha8([32]byte{1})
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b := make([]byte, sizes[name])
		_, _ = random.Read(b)
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func usual(t *testing.T) string {
	return folder(t, map[string]int{
		"a/x": 100_000, "a.txt": 3, "b/c/deep": 70_000, "b/one": 16384, "z": 1, "ünö": 40_000,
	})
}

func creator(t *testing.T) *bsv.PrivateKey {
	t.Helper()
	k, err := bsv.NewPrivateKey(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if b, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, b)
	}
}

func load(t *testing.T, path string) (*metainfo.MetaInfo, *metainfo.Info) {
	t.Helper()
	mi, err := metainfo.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := mi.UnmarshalInfo()
	if err != nil {
		t.Fatal(err)
	}
	return mi, &info
}

// mktorrent is the specification: the info hash is the same.
func TestSameAsMktorrent(t *testing.T) {
	show := folder(t, map[string]int{
		"a/x": 100_000, "a.txt": 3, "B": 32768, "empty": 0, "b/c/deep": 70_000, "b/none": 0, "z": 1, "ünö": 40_000,
	})
	for _, path := range []string{show, filepath.Join(show, "a/x"), filepath.Join(show, "B")} {
		for _, power := range []int{15, 18} {
			for _, private := range []bool{false, true} {
				out := filepath.Join(t.TempDir(), "x.torrent")
				argv := []string{"mktorrent", "-l", strconv.Itoa(power), "-o", out}
				if private {
					argv = append(argv, "-p")
				}
				run(t, append(argv, path)...)
				mi, _ := load(t, out)
				got, err := publish.Make(t.Context(), publish.Options{Path: path, PieceLength: 1 << power, Private: private})
				if err != nil {
					t.Fatal(err)
				}
				if want := mi.HashInfoBytes(); got.Torrent.InfoHash != want {
					t.Errorf("%s, 2^%d, private %v: info hash %x, mktorrent %x", filepath.Base(path), power, private, got.Torrent.InfoHash, want)
				}
			}
		}
	}
}

// Transmission always writes the private flag, so the info hash is the same for
// private torrents, and all that it hashes for others. (It also sorts without
// regard to case and letters beyond ASCII first, and leaves empty files out.)
func TestSameAsTransmission(t *testing.T) {
	show := folder(t, map[string]int{"a/x": 100_000, "a.txt": 3, "b/c/deep": 70_000, "b/one": 16384, "z": 1})
	for _, path := range []string{show, filepath.Join(show, "a/x")} {
		for _, kib := range []int{16, 64} {
			for _, private := range []bool{false, true} {
				out := filepath.Join(t.TempDir(), "x.torrent")
				argv := []string{"transmission-create", "-s", strconv.Itoa(kib), "-o", out}
				if private {
					argv = append(argv, "-p", "-t", "http://tracker.example/announce")
				}
				run(t, append(argv, path)...)
				mi, info := load(t, out)
				got, err := publish.Make(t.Context(), publish.Options{Path: path, PieceLength: int64(kib) << 10, Private: private})
				if err != nil {
					t.Fatal(err)
				}
				layout, err := pieces.LayoutOf(info)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(layout, got.Torrent.Layout) {
					t.Errorf("%s, %d KiB: layouts differ", filepath.Base(path), kib)
				}
				if want := mi.HashInfoBytes(); private && got.Torrent.InfoHash != want {
					t.Errorf("%s, %d KiB: info hash %x, Transmission %x", filepath.Base(path), kib, got.Torrent.InfoHash, want)
				}
			}
		}
	}
}

// The library's own hashing agrees, also at piece lengths that are no power of two.
func TestSameAsLibrary(t *testing.T) {
	show := usual(t)
	for _, length := range []int64{16 << 10, 48 << 10, 80 << 10, 50_001, 1 << 20} {
		got, err := publish.Make(t.Context(), publish.Options{Path: show, PieceLength: length})
		if err != nil {
			t.Fatal(err)
		}
		mi, err := metainfo.Load(bytes.NewReader(got.Bytes))
		if err != nil {
			t.Fatal(err)
		}
		info := metainfo.Info{PieceLength: length}
		if err := info.BuildFromFilePath(show); err != nil {
			t.Fatal(err)
		}
		theirs, err := pieces.LayoutOf(&info)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(theirs, got.Torrent.Layout) || mi.HashInfoBytes() != got.Torrent.InfoHash {
			t.Errorf("piece length %d: the library sees something else", length)
		}
	}
}

func TestManifestAndMagnet(t *testing.T) {
	key := creator(t)
	to := key.Public().Hash()
	opt := publish.Options{
		Path: usual(t), Key: key, Title: "The Show", Royalty: 250, RoyaltyTo: to, Network: bsv.Regtest,
		Trackers: []string{"http://t.example/announce", "udp://u.example:80"}, WebSeeds: []string{"https://w.example/"},
		Peers: []string{"127.0.0.1:6881", "[::1]:6882"}, Clock: func() time.Time { return time.Unix(1_700_000_000, 0) },
	}
	got, err := publish.Make(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalog.ReadManifest(got.Torrent.Info)
	want := catalog.Manifest{Version: 1, Creator: key.Public(), Royalty: 250, RoyaltyTo: to, Network: bsv.Regtest, Title: "The Show"}
	if err != nil || *m != want {
		t.Errorf("%+v, %v; want %+v", m, err, want)
	}
	mi, err := metainfo.Load(bytes.NewReader(got.Bytes))
	if err != nil {
		t.Fatal(err)
	}
	if mi.CreationDate != 1_700_000_000 || len(mi.UpvertedAnnounceList()) != 2 || !slices.Equal(mi.UrlList, opt.WebSeeds) {
		t.Errorf("%+v", mi)
	}
	magnet, err := metainfo.ParseMagnetUri(got.Magnet)
	if err != nil {
		t.Fatal(err)
	}
	if magnet.InfoHash != got.Torrent.InfoHash || magnet.DisplayName != "The Show" || !slices.Equal(magnet.Trackers, opt.Trackers) ||
		!slices.Equal(magnet.Params["x.pe"], opt.Peers) || magnet.Params.Get("xl") != fmt.Sprint(got.Torrent.Layout.Length()) {
		t.Errorf("%+v", magnet)
	}
	for i := range got.Torrent.Info {
		changed := bytes.Clone(got.Torrent.Info)
		changed[i] ^= 1
		if m, _ := catalog.ReadManifest(changed); m != nil {
			t.Fatalf("byte %d is not signed", i)
		}
	}
}

func TestReproducible(t *testing.T) {
	opt := publish.Options{Path: usual(t), Key: creator(t), PieceLength: 16 << 10}
	first, err := publish.Make(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	second, err := publish.Make(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes, second.Bytes) {
		t.Error("the same folder gives different torrents")
	}
}

func TestChosenPieceLength(t *testing.T) {
	for _, c := range []struct{ size, want int64 }{
		{1, 16 << 10}, {32 << 20, 32 << 10}, {1 << 30, 1 << 20}, {1 << 36, 16 << 20},
	} {
		// A sparse file: planned and laid out, and then cancelled before it is read.
		path := filepath.Join(t.TempDir(), "sparse")
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, c.size)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var first int64
		_, err := publish.Make(ctx, publish.Options{Path: path, Progress: func(done, total int64) {
			if first == 0 {
				first = done
			}
			if total != c.size {
				t.Errorf("total %d, want %d", total, c.size)
			}
			cancel()
		}})
		cancel()
		if c.size > c.want && !errors.Is(err, context.Canceled) {
			t.Errorf("%d bytes: %v", c.size, err)
		}
		if first != min(c.want, c.size) {
			t.Errorf("%d bytes: pieces of %d, want %d", c.size, first, c.want)
		}
	}
}

func TestProgress(t *testing.T) {
	var last, calls int64
	got, err := publish.Make(t.Context(), publish.Options{Path: usual(t), PieceLength: 16 << 10, Progress: func(done, total int64) {
		if done <= last || done > total {
			t.Errorf("%d after %d of %d", done, last, total)
		}
		last = done
		calls++
	}})
	if err != nil || last != got.Torrent.Layout.Length() || calls != int64(got.Torrent.Layout.NumPieces()) {
		t.Errorf("%d calls, last %d, %v", calls, last, err)
	}
}

func TestRefusedOptions(t *testing.T) {
	show, key := usual(t), creator(t)
	for name, opt := range map[string]publish.Options{
		"piece length small":   {PieceLength: 8 << 10},
		"piece length large":   {PieceLength: 32 << 20},
		"piece length below 0": {PieceLength: -16 << 10},
		"royalty, no key":      {Royalty: 5},
		"title, no key":        {Title: "x"},
		"royalty to nobody":    {Royalty: 5, Key: key},
		"negative royalty":     {Royalty: -5, Key: key, RoyaltyTo: key.Public().Hash()},
		"bad title":            {Title: "a\nb", Key: key},
		"tracker":              {Trackers: []string{"ftp://x/"}},
		"web seed":             {WebSeeds: []string{"udp://x:1"}},
		"peer":                 {Peers: []string{"127.0.0.1"}},
	} {
		opt.Path = show
		opt.Progress = func(int64, int64) { t.Errorf("%s: hashed before it was refused", name) }
		if _, err := publish.Make(t.Context(), opt); !errors.Is(err, publish.ErrOptions) {
			t.Errorf("%s: %v, want ErrOptions", name, err)
		}
	}
}

func TestRefusedData(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  error
		says  string
	}{
		"link in":       {func(d string) error { return os.Symlink("z", filepath.Join(d, "link")) }, publish.ErrFileType, "symbolic link"},
		"link out":      {func(d string) error { return os.Symlink(t.TempDir(), filepath.Join(d, "link")) }, publish.ErrFileType, "symbolic link"},
		"pipe":          {func(d string) error { return syscall.Mkfifo(filepath.Join(d, "a/pipe"), 0o600) }, publish.ErrFileType, "pipe"},
		"not UTF-8":     {func(d string) error { return os.WriteFile(filepath.Join(d, "b\xff"), nil, 0o600) }, publish.ErrName, "UTF-8"},
		"not UTF-8 dir": {func(d string) error { return os.Mkdir(filepath.Join(d, "b\xff"), 0o700) }, publish.ErrName, "UTF-8"},
		"backslash":     {func(d string) error { return os.WriteFile(filepath.Join(d, `a\b`), nil, 0o600) }, publish.ErrName, "unusable"},
		"no bytes": {func(d string) error {
			return errors.Join(os.RemoveAll(d), os.Mkdir(d, 0o755), os.WriteFile(filepath.Join(d, "e"), nil, 0o600))
		}, publish.ErrEmpty, ""},
		"nothing": {os.RemoveAll, os.ErrNotExist, ""},
	} {
		show := usual(t)
		if err := c.spoil(show); err != nil {
			t.Fatal(err)
		}
		_, err := publish.Make(t.Context(), publish.Options{Path: show})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestSocketIsRefused(t *testing.T) {
	dir, err := os.MkdirTemp("", "s") // socket addresses are short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, path := range []string{dir, filepath.Join(dir, "s")} {
		if _, err := publish.Make(t.Context(), publish.Options{Path: path}); !errors.Is(err, publish.ErrFileType) {
			t.Errorf("%v, want ErrFileType", err)
		}
	}
}

func TestPathMayBeALink(t *testing.T) {
	show := usual(t)
	link := filepath.Join(t.TempDir(), "other name")
	if err := os.Symlink(show, link); err != nil {
		t.Fatal(err)
	}
	got, err := publish.Make(t.Context(), publish.Options{Path: link})
	if err != nil || got.Torrent.Layout.Name != "other name" {
		t.Errorf("%+v, %v", got, err)
	}
}

// Each change comes after the first piece has been read.
func TestChangesAreNoticed(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"grown later":   func(d string) error { return grow(filepath.Join(d, "z")) },
		"grown before":  func(d string) error { return grow(filepath.Join(d, "a.txt")) },
		"grown at work": func(d string) error { return grow(filepath.Join(d, "a/x")) },
		"cut":           func(d string) error { return os.Truncate(filepath.Join(d, "b/c/deep"), 10) },
		"touched":       func(d string) error { return os.Chtimes(filepath.Join(d, "z"), time.Time{}, time.Unix(5, 0)) },
		"replaced": func(d string) error {
			p := filepath.Join(d, "b/one")
			return errors.Join(os.WriteFile(p+".new", make([]byte, 16384), 0o600), os.Rename(p+".new", p))
		},
		"added":        func(d string) error { return os.WriteFile(filepath.Join(d, "new"), nil, 0o600) },
		"added first":  func(d string) error { return os.WriteFile(filepath.Join(d, "0"), nil, 0o600) },
		"removed read": func(d string) error { return os.Remove(filepath.Join(d, "a.txt")) },
	} {
		show := usual(t)
		done := false
		_, err := publish.Make(t.Context(), publish.Options{Path: show, PieceLength: 16 << 10, Progress: func(int64, int64) {
			if !done {
				done = true
				if err := change(show); err != nil {
					t.Error(err)
				}
			}
		}})
		if !errors.Is(err, publish.ErrChanged) {
			t.Errorf("%s: %v, want ErrChanged", name, err)
		}
	}
}

func grow(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := publish.Make(ctx, publish.Options{Path: usual(t), PieceLength: 16 << 10, Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
