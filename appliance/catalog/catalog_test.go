package catalog_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/payments/money"
)

func open(t *testing.T, dir string) *catalog.Catalogue {
	t.Helper()
	now := time.Unix(1_700_000_000, 5)
	c, err := catalog.Open(t.Context(), filepath.Join(dir, "titles.db"), filepath.Join(dir, "torrents"), func() time.Time {
		now = now.Add(time.Hour)
		return now
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rate(n money.Rate) *money.Rate { return &n }

func TestAddAndReopen(t *testing.T) {
	dir, data := t.TempDir(), onDisk(t)
	c := open(t, dir)
	b := torrent(t, signedInfo(t))
	added, err := c.Add(t.Context(), b, data, rate(1000))
	if err != nil {
		t.Fatal(err)
	}
	want := terms(t)
	want.Version, want.Creator = catalog.ManifestVersion, creator(t).Public()
	if added.Name != "album" || added.DisplayName() != want.Title || added.DataDir != data || added.Length != 100_000 ||
		added.PieceLength != pieceLength || added.Pieces != 4 || *added.Price != 1000 || *added.Manifest != want || added.AddedAt.IsZero() {
		t.Errorf("%+v", added)
	}
	plain, err := c.Add(t.Context(), torrent(t, plainInfo(t)), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain.Manifest != nil || plain.Price != nil || plain.DisplayName() != "album" {
		t.Errorf("%+v", plain)
	}
	check := func(c *catalog.Catalogue) {
		t.Helper()
		for _, want := range []catalog.Title{added, plain} {
			if got, ok := c.Lookup(want.InfoHash); !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("Lookup: %+v, want %+v", got, want)
			}
			loaded, err := c.LoadTorrent(want.InfoHash)
			if err != nil || loaded.InfoHash != want.InfoHash || (loaded.Manifest == nil) != (want.Manifest == nil) {
				t.Errorf("LoadTorrent: %+v, %v", loaded, err)
			}
		}
		if list := c.List(); len(list) != 2 || c.Len() != 2 || list[0].Name != "album" || list[1].InfoHash != plain.InfoHash {
			t.Errorf("List: %+v", list)
		}
	}
	check(c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	defer c.Close()
	check(c)
}

func TestAddAgain(t *testing.T) {
	c := open(t, t.TempDir())
	defer c.Close()
	b := torrent(t, signedInfo(t))
	first, err := c.Add(t.Context(), b, onDisk(t), rate(5))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Add(t.Context(), b, first.DataDir, rate(5)); err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("%+v, %v; want what was added first", again, err)
	}
	moved := onDisk(t)
	want := first
	want.DataDir = moved
	if again, err := c.Add(t.Context(), b, moved, nil); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("moved: %+v, %v; want the price kept", again, err)
	}
	if c.Len() != 1 {
		t.Errorf("%d titles", c.Len())
	}
}

func TestPriceAndRemove(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	title, err := c.Add(t.Context(), torrent(t, plainInfo(t)), onDisk(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	ih := title.InfoHash
	for _, p := range []*money.Rate{rate(0), rate(77), nil, rate(money.MaxRate)} {
		if err := c.SetPrice(t.Context(), ih, p); err != nil {
			t.Fatal(err)
		}
		if got, _ := c.Lookup(ih); !reflect.DeepEqual(got.Price, p) {
			t.Errorf("price %v, want %v", got.Price, p)
		}
	}
	if err := c.SetPrice(t.Context(), ih, rate(-1)); !errors.Is(err, money.ErrRange) {
		t.Errorf("negative price: %v", err)
	}
	if err := c.SetPrice(t.Context(), [20]byte{1}, nil); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("price of nothing: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	defer c.Close()
	if got, _ := c.Lookup(ih); got.Price == nil || *got.Price != money.MaxRate {
		t.Errorf("price after reopening %v", got.Price)
	}
	if err := c.Remove(t.Context(), ih); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Lookup(ih); ok || len(c.List()) != 0 {
		t.Error("still there")
	}
	if _, err := c.LoadTorrent(ih); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("LoadTorrent: %v", err)
	}
	if err := c.Remove(t.Context(), ih); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("Remove: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "torrents")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(title.DataDir, "album/cover.png")); err != nil {
		t.Error("the data was touched")
	}
}

func TestDataThatIsNotThere(t *testing.T) {
	c := open(t, t.TempDir())
	defer c.Close()
	b := torrent(t, plainInfo(t))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 30_000), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c2 := range map[string]struct {
		spoil func(dir string) error
		want  error
		path  string
	}{
		"missing":   {func(d string) error { return os.Remove(filepath.Join(d, "album/songs/1.flac")) }, catalog.ErrDataMissing, "1.flac"},
		"short":     {func(d string) error { return os.Truncate(filepath.Join(d, "album/cover.png"), 29_999) }, catalog.ErrDataSize, "cover.png"},
		"long":      {func(d string) error { return os.Truncate(filepath.Join(d, "album/cover.png"), 30_001) }, catalog.ErrDataSize, "cover.png"},
		"no folder": {os.RemoveAll, catalog.ErrDataMissing, ""},
		"a folder": {func(d string) error {
			p := filepath.Join(d, "album/cover.png")
			return errors.Join(os.Remove(p), os.Mkdir(p, 0o755))
		}, catalog.ErrDataMissing, "cover.png"},
		"link outside": {func(d string) error {
			p := filepath.Join(d, "album/cover.png")
			return errors.Join(os.Remove(p), os.Symlink(outside, p))
		}, nil, "cover.png"},
	} {
		dir := onDisk(t)
		if err := c2.spoil(dir); err != nil {
			t.Fatal(err)
		}
		_, err := c.Add(t.Context(), b, dir, nil)
		if err == nil || c2.want != nil && !errors.Is(err, c2.want) || !strings.Contains(err.Error(), c2.path) {
			t.Errorf("%s: %v; want %v with %q", name, err, c2.want, c2.path)
		}
	}
	if c.Len() != 0 {
		t.Error("a title without data was added")
	}
}

func TestDamagedStore(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	defer c.Close()
	b, data := torrent(t, plainInfo(t)), onDisk(t)
	title, err := c.Add(t.Context(), b, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "torrents", hex.EncodeToString(title.InfoHash[:])+".torrent")
	for name, damage := range map[string]func() error{
		"gone":    func() error { return os.Remove(path) },
		"cut":     func() error { return os.Truncate(path, 50) },
		"another": func() error { return os.WriteFile(path, torrent(t, signedInfo(t)), 0o644) },
		"flipped": func() error { return os.WriteFile(path, bytes.Replace(b, []byte("album"), []byte("albun"), 1), 0o644) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.LoadTorrent(title.InfoHash); !errors.Is(err, catalog.ErrStored) {
			t.Errorf("%s: %v, want ErrStored", name, err)
		}
		if _, err := c.Add(t.Context(), b, data, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := c.LoadTorrent(title.InfoHash); err != nil {
			t.Errorf("%s, then added again: %v", name, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	c := open(t, t.TempDir())
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Add(ctx, torrent(t, plainInfo(t)), onDisk(t), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if c.Len() != 0 {
		t.Error("added all the same")
	}
}

func TestConcurrentChanges(t *testing.T) {
	c := open(t, t.TempDir())
	defer c.Close()
	b, data := torrent(t, plainInfo(t)), onDisk(t)
	title, err := c.Add(t.Context(), b, data, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if _, err := c.Add(t.Context(), b, data, rate(money.Rate(i))); err != nil {
				t.Error(err)
			}
			if err := c.SetPrice(t.Context(), title.InfoHash, rate(9)); err != nil {
				t.Error(err)
			}
			c.List()
			c.Lookup(title.InfoHash)
		})
	}
	wg.Wait()
	if got, _ := c.Lookup(title.InfoHash); c.Len() != 1 || got.Price == nil {
		t.Errorf("%+v", got)
	}
}
