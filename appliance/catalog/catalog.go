// Package catalog knows the titles of a box: their torrents, the creators'
// terms in them, where their data lies, and what they cost.
//
// A title is registered with Add and is found by its info hash with Lookup,
// which reads memory only and costs some 200 bytes a title, so that a box can
// hold ten thousand titles of which a few are in use. What a title in use
// needs besides, its pieces and metadata, LoadTorrent reads from the disk.
//
// Torrents and manifests come from strangers. Every length in them is held
// against a limit, and against the bytes that are there, before memory is
// allocated for it.
package catalog

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/db"
	"github.com/bitcdn/bitcdn/storage/durable"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

var (
	// ErrNotFound says that no title has this info hash.
	ErrNotFound = errors.New("no such title")
	// ErrDataMissing says that a file of the title is not there.
	ErrDataMissing = errors.New("data is missing")
	// ErrDataSize says that a file of the title has another size than its
	// torrent says.
	ErrDataSize = errors.New("data has another size")
	// ErrStored says that the catalogue's own copy of a torrent is gone or was
	// changed. Adding the torrent again repairs it.
	ErrStored = errors.New("stored torrent is damaged")
)

// Title is one torrent that the box knows.
type Title struct {
	InfoHash    [20]byte
	Name        string // of the file or folder in DataDir
	DataDir     string // absolute; the folder that contains Name
	Length      int64  // bytes
	PieceLength int64  // bytes
	Pieces      int
	Price       *money.Rate // nil: the box's default price
	Manifest    *Manifest   // nil: no creator's terms, no royalty
	AddedAt     time.Time   // to the second
}

// DisplayName is what the title is called: by its manifest, or else by its
// file or folder.
func (t *Title) DisplayName() string {
	if t.Manifest != nil && t.Manifest.Title != "" {
		return t.Manifest.Title
	}
	return t.Name
}

// Catalogue is a box's titles. It is safe for concurrent use.
type Catalogue struct {
	db       *db.DB
	torrents string
	clock    func() time.Time
	// change holds one token: whoever has it may change a title, so that
	// database, folder and index change together.
	change chan struct{}

	mu    sync.RWMutex
	index map[[20]byte]*record
}

func migrations() []string {
	return []string{
		`CREATE TABLE titles (
			info_hash    BLOB PRIMARY KEY CHECK (length(info_hash) = 20),
			name         TEXT NOT NULL,
			data_dir     TEXT NOT NULL,
			length       INTEGER NOT NULL,
			piece_length INTEGER NOT NULL,
			price        INTEGER,        -- satoshis per GiB; null: the box's default
			creator      BLOB,           -- this and what follows: null without a manifest
			royalty      INTEGER,        -- satoshis per GiB
			royalty_to   BLOB,
			network      TEXT,
			title        TEXT,
			added_at     INTEGER NOT NULL -- Unix seconds
		) STRICT, WITHOUT ROWID`,
		// Beside the titles, as only who announces wants them. A title without a
		// row is one that was added before there was this table.
		`CREATE TABLE trackers (
			info_hash BLOB PRIMARY KEY CHECK (length(info_hash) = 20),
			tiers     TEXT NOT NULL  -- a URL a line, an empty line after each tier
		) STRICT, WITHOUT ROWID`,
	}
}

// Open opens the catalogue in the SQLite file dbPath, with the torrents' own
// files in the folder torrentsDir; both are created. The clock dates additions.
func Open(ctx context.Context, dbPath, torrentsDir string, clock func() time.Time) (*Catalogue, error) {
	torrents, err := filepath.Abs(torrentsDir)
	if err != nil {
		return nil, fmt.Errorf("open catalogue: %w", err)
	}
	if err := os.MkdirAll(torrents, 0o755); err != nil {
		return nil, fmt.Errorf("open catalogue: %w", err)
	}
	// Titles come one by one from the owner, and each brings a file that is
	// flushed by itself: waiting for others to share a flush would only make
	// adding a thousand of them take minutes.
	d, err := db.Open(ctx, dbPath, db.Options{Migrations: migrations(), Durable: true, Interval: time.Millisecond})
	if err != nil {
		return nil, fmt.Errorf("open catalogue: %w", err)
	}
	c := &Catalogue{db: d, torrents: torrents, clock: clock, change: make(chan struct{}, 1)}
	if c.index, err = readIndex(ctx, d.Read()); err != nil {
		return nil, errors.Join(fmt.Errorf("read catalogue: %w", err), d.Close())
	}
	return c, nil
}

// Close closes the database. Lookup and List go on to answer.
func (c *Catalogue) Close() error { return c.db.Close() }

// Add registers a title: the torrent file's bytes, the folder that contains
// its file or folder, and its price, nil for the box's default. Adding a title
// again is no error: it moves the title to dataDir, sets the price if one is
// given, and leaves the rest. Errors are those of ParseTorrent, and
// ErrDataMissing and ErrDataSize with the path of the first file of which it
// is true; the data is not hashed.
func (c *Catalogue) Add(ctx context.Context, torrent []byte, dataDir string, price *money.Rate) (Title, error) {
	if price != nil && !price.Valid() {
		return Title{}, fmt.Errorf("price of %d: %w", int64(*price), money.ErrRange)
	}
	t, err := ParseTorrent(torrent)
	if err != nil {
		return Title{}, err
	}
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return Title{}, fmt.Errorf("add %q: %w", t.Layout.Name, err)
	}
	if err := checkData(dir, &t.Layout); err != nil {
		return Title{}, fmt.Errorf("add %q: %w", t.Layout.Name, err)
	}
	title := Title{
		InfoHash:    t.InfoHash,
		Name:        t.Layout.Name,
		DataDir:     dir,
		Length:      t.Layout.Length(),
		PieceLength: t.Layout.PieceLength,
		Pieces:      t.Layout.NumPieces(),
		Price:       price,
		Manifest:    t.Manifest,
	}
	if err := c.begin(ctx); err != nil {
		return Title{}, err
	}
	defer c.end()
	title.AddedAt = time.Unix(c.clock().Unix(), 0)
	if old, ok := c.Lookup(t.InfoHash); ok {
		title.AddedAt = old.AddedAt
		if price == nil {
			title.Price = old.Price
		}
	}
	// The file first: a title that is registered can be woken, and a file too
	// many does no harm.
	if err := durable.Replace(c.torrentPath(t.InfoHash), torrent, 0o600); err != nil {
		return Title{}, fmt.Errorf("store torrent: %w", err)
	}
	err = c.store(ctx, &title, func(tx *sql.Tx) error { return storeTrackers(ctx, tx, t.InfoHash, t.Trackers) })
	if err != nil {
		return Title{}, fmt.Errorf("store title: %w", err)
	}
	return title, nil
}

// Remove forgets a title. Its data stays where it is. ErrNotFound.
func (c *Catalogue) Remove(ctx context.Context, ih [20]byte) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	if _, ok := c.Lookup(ih); !ok {
		return ErrNotFound
	}
	err := c.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM trackers WHERE info_hash = ?`, ih[:]); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM titles WHERE info_hash = ?`, ih[:])
		return err
	})
	if err != nil {
		return fmt.Errorf("remove title: %w", err)
	}
	c.mu.Lock()
	delete(c.index, ih)
	c.mu.Unlock()
	if err := os.Remove(c.torrentPath(ih)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stored torrent: %w", err)
	}
	return nil
}

// SetPrice sets a title's price; nil for the box's default. ErrNotFound, and
// money.ErrRange.
func (c *Catalogue) SetPrice(ctx context.Context, ih [20]byte, price *money.Rate) error {
	if price != nil && !price.Valid() {
		return fmt.Errorf("price of %d: %w", int64(*price), money.ErrRange)
	}
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.end()
	title, ok := c.Lookup(ih)
	if !ok {
		return ErrNotFound
	}
	title.Price = price
	if err := c.store(ctx, &title, nil); err != nil {
		return fmt.Errorf("store price: %w", err)
	}
	return nil
}

// Lookup finds a title in memory.
func (c *Catalogue) Lookup(ih [20]byte) (Title, bool) {
	c.mu.RLock()
	r := c.index[ih]
	c.mu.RUnlock()
	if r == nil {
		return Title{}, false
	}
	return r.title(ih), true
}

// All lists the info hashes of all titles, in no order. A title added or
// removed meanwhile may be in it or not.
func (c *Catalogue) All() iter.Seq[[20]byte] {
	return func(yield func([20]byte) bool) {
		c.mu.RLock()
		hashes := slices.Collect(maps.Keys(c.index))
		c.mu.RUnlock()
		for _, ih := range hashes {
			if !yield(ih) {
				return
			}
		}
	}
}

// Len is the number of titles.
func (c *Catalogue) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.index)
}

// List returns all titles, by name and then by info hash.
func (c *Catalogue) List() []Title {
	c.mu.RLock()
	list := make([]Title, 0, len(c.index))
	for ih, r := range c.index {
		list = append(list, r.title(ih))
	}
	c.mu.RUnlock()
	slices.SortFunc(list, func(a, b Title) int {
		return cmp.Or(cmp.Compare(a.DisplayName(), b.DisplayName()), bytes.Compare(a.InfoHash[:], b.InfoHash[:]))
	})
	return list
}

// LoadTorrent reads a title's torrent from the disk. ErrNotFound, and
// ErrStored where the file is not what was added.
func (c *Catalogue) LoadTorrent(ih [20]byte) (*Torrent, error) {
	if _, ok := c.Lookup(ih); !ok {
		return nil, ErrNotFound
	}
	f, err := os.Open(c.torrentPath(ih))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStored, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxTorrent+1))
	if err != nil {
		return nil, fmt.Errorf("read stored torrent: %w", err)
	}
	t, err := ParseTorrent(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStored, err)
	}
	if t.InfoHash != ih {
		return nil, fmt.Errorf("%w: it has the info hash %x", ErrStored, t.InfoHash)
	}
	return t, nil
}

func (c *Catalogue) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.change <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Catalogue) end() { <-c.change }

// store writes a title to the database, together with what besides does if it
// is not nil, and then to the index.
func (c *Catalogue) store(ctx context.Context, t *Title, besides func(*sql.Tx) error) error {
	var price, creator, royalty, royaltyTo, network, name any
	if t.Price != nil {
		price = int64(*t.Price)
	}
	if m := t.Manifest; m != nil {
		creator, royalty, royaltyTo = m.Creator[:], int64(m.Royalty), m.RoyaltyTo[:]
		network, name = m.Network.String(), m.Title
	}
	err := c.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO titles
			(info_hash, name, data_dir, length, piece_length, price, creator, royalty, royalty_to, network, title, added_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			t.InfoHash[:], t.Name, t.DataDir, t.Length, t.PieceLength, price,
			creator, royalty, royaltyTo, network, name, t.AddedAt.Unix())
		if err != nil || besides == nil {
			return err
		}
		return besides(tx)
	})
	if err != nil {
		return err
	}
	r := newRecord(t)
	c.mu.Lock()
	c.index[t.InfoHash] = r
	c.mu.Unlock()
	return nil
}

func (c *Catalogue) torrentPath(ih [20]byte) string {
	return filepath.Join(c.torrents, hex.EncodeToString(ih[:])+".torrent")
}

// checkData looks, by size alone, whether all files are there. Links are
// followed within the title's folder only, as when they are served.
func checkData(dir string, l *pieces.Layout) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("folder %q: %w", dir, ErrDataMissing)
	}
	if err != nil {
		return err
	}
	defer root.Close()
	for i := range l.Files {
		f := &l.Files[i]
		if f.Pad || f.Length == 0 { // an empty file that is not there keeps nobody from anything
			continue
		}
		name := path.Join(append([]string{l.Name}, f.Path...)...)
		info, err := root.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && !info.Mode().IsRegular():
			return fmt.Errorf("%q: %w", filepath.Join(dir, name), ErrDataMissing)
		case err != nil:
			return fmt.Errorf("%q: %w", filepath.Join(dir, name), err)
		case info.Size() != f.Length:
			return fmt.Errorf("%q has %d bytes instead of %d: %w", filepath.Join(dir, name), info.Size(), f.Length, ErrDataSize)
		}
	}
	return nil
}
