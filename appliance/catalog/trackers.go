package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"strings"
)

// joinTiers writes trackers one a line, and an empty line after each tier. A
// URL that was parsed has no line break in it.
func joinTiers(tiers [][]string) string {
	var b strings.Builder
	for _, tier := range tiers {
		for _, u := range tier {
			b.WriteString(u)
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func splitTiers(text string) [][]string {
	var tiers [][]string
	for tier := range strings.SplitSeq(text, "\n\n") {
		if tier != "" {
			tiers = append(tiers, strings.Split(tier, "\n"))
		}
	}
	return tiers
}

func storeTrackers(ctx context.Context, tx *sql.Tx, ih [20]byte, tiers [][]string) error {
	_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO trackers (info_hash, tiers) VALUES (?, ?)`, ih[:], joinTiers(tiers))
	return err
}

// Trackers goes through all titles with the announce URLs of each by tier
// (BEP 12), in no order. They come from the database, in one read and without
// opening a torrent. Only of a title that was added before the database kept
// them is the torrent read, one after the other and once for all; one that is
// damaged is left out. A title added or removed meanwhile may be in it or not.
// The error is the last thing that it yields.
func (c *Catalogue) Trackers(ctx context.Context) iter.Seq2[TitleTrackers, error] {
	return func(yield func(TitleTrackers, error) bool) {
		c.mu.RLock()
		left := maps.Clone(c.index)
		c.mu.RUnlock()
		stored, err := c.readTrackers(ctx)
		if err != nil {
			yield(TitleTrackers{}, fmt.Errorf("read trackers: %w", err))
			return
		}
		for _, t := range stored {
			if _, ok := left[t.InfoHash]; !ok {
				continue
			}
			delete(left, t.InfoHash)
			if !yield(TitleTrackers{t.InfoHash, splitTiers(t.tiers)}, nil) {
				return
			}
		}
		for ih := range left {
			t, err := c.fillTrackers(ctx, ih)
			if ctx.Err() != nil {
				yield(TitleTrackers{}, ctx.Err())
				return
			}
			if err == nil && !yield(TitleTrackers{ih, t}, nil) {
				return
			}
		}
	}
}

// TitleTrackers are a title's announce URLs, by tier.
type TitleTrackers struct {
	InfoHash [20]byte
	Tiers    [][]string
}

type storedTrackers struct {
	InfoHash [20]byte
	tiers    string
}

func (c *Catalogue) readTrackers(ctx context.Context) ([]storedTrackers, error) {
	rows, err := c.db.Read().QueryContext(ctx, `SELECT info_hash, tiers FROM trackers`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	// Thousands of titles have a few lists.
	lists := map[string]string{}
	var out []storedTrackers
	var ih, tiers sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&ih, &tiers); err != nil {
			return nil, err
		}
		list, ok := lists[string(tiers)]
		if !ok {
			list = string(tiers)
			lists[list] = list
		}
		if len(ih) != 20 {
			return nil, fmt.Errorf("title %x: impossible row", []byte(ih))
		}
		out = append(out, storedTrackers{[20]byte(ih), list})
	}
	return out, rows.Err()
}

// fillTrackers reads a title's trackers from its torrent and keeps them.
func (c *Catalogue) fillTrackers(ctx context.Context, ih [20]byte) ([][]string, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	defer c.end()
	t, err := c.LoadTorrent(ih)
	if err != nil {
		return nil, err
	}
	return t.Trackers, c.db.Write(ctx, func(tx *sql.Tx) error { return storeTrackers(ctx, tx, ih, t.Trackers) })
}
