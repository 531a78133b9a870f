package catalog_test

import (
	"database/sql"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/anacrolix/torrent/bencode"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/storage/db"
)

func trackersOf(t *testing.T, c *catalog.Catalogue) map[[20]byte][][]string {
	t.Helper()
	all := map[[20]byte][][]string{}
	for title, err := range c.Trackers(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[title.InfoHash] = title.Tiers
	}
	return all
}

func TestTrackers(t *testing.T) {
	dir, data := t.TempDir(), onDisk(t)
	c := open(t, dir)
	signed, err := c.Add(t.Context(), torrent(t, signedInfo(t)), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	bare, err := c.Add(t.Context(), encode(t, map[string]any{"info": bencode.Bytes(plainInfo(t))}), data, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[[20]byte][][]string{
		signed.InfoHash: {{"http://tracker.example/announce", "udp://b.example:1337"}, {"https://c.example/x"}},
		bare.InfoHash:   nil,
	}
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if err := c.SetPrice(t.Context(), signed.InfoHash, rate(5)); err != nil {
		t.Fatal(err)
	}
	// They do not come from the torrents.
	for _, title := range []catalog.Title{signed, bare} {
		if err := os.Rename(torrentFile(dir, title.InfoHash), torrentFile(dir, title.InfoHash)+".away"); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = open(t, dir)
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("opened again: %v", got)
	}
	// A torrent that is added again brings its trackers.
	if _, err := c.Add(t.Context(), torrent(t, plainInfo(t)), data, nil); err != nil {
		t.Fatal(err)
	}
	want[bare.InfoHash] = want[signed.InfoHash]
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("added again: %v", got)
	}
	if err := c.Remove(t.Context(), bare.InfoHash); err != nil {
		t.Fatal(err)
	}
	delete(want, bare.InfoHash)
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("after one was removed: %v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// A database of before the table gets what is in the torrents, once; what is
// damaged is passed over.
func TestTrackersOfOldTitles(t *testing.T) {
	dir, data := t.TempDir(), onDisk(t)
	c := open(t, dir)
	for _, info := range [][]byte{signedInfo(t), plainInfo(t)} {
		if _, err := c.Add(t.Context(), torrent(t, info), data, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := trackersOf(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	forget := func() {
		d, err := db.Open(t.Context(), filepath.Join(dir, "titles.db"), db.Options{Migrations: make([]string, 2)})
		if err != nil {
			t.Fatal(err)
		}
		err = d.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), `DELETE FROM trackers`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	c = open(t, dir)
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("from the torrents: %v", got)
	}
	for ih := range want {
		if err := os.Remove(torrentFile(dir, ih)); err != nil {
			t.Fatal(err)
		}
	}
	if got := trackersOf(t, c); !reflect.DeepEqual(got, want) {
		t.Errorf("the second time: %v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	forget()
	c = open(t, dir)
	if got := trackersOf(t, c); len(got) != 0 {
		t.Errorf("without torrents: %v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func torrentFile(dir string, ih [20]byte) string {
	return filepath.Join(dir, "torrents", hex.EncodeToString(ih[:])+".torrent")
}
