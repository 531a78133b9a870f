package catalog

import (
	"context"
	"database/sql"
	"fmt"
	"time"
	"unique"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// record is a Title as the index keeps it. Thousands of them lie in memory, so
// what titles have in common, their folder and their creator's terms, is kept once.
type record struct {
	names       string // file or folder name, then the manifest's title
	dataDir     unique.Handle[string]
	terms       unique.Handle[terms]
	length      int64
	price       money.Rate // -1: the box's default
	added       int64      // Unix seconds
	pieceLength uint32     // pieces.MaxPieceLength fits
	nameLength  uint16     // bytes of names; pieces.MaxElement fits
}

type terms struct {
	signed    bool // false: there is no manifest
	creator   bsv.PublicKey
	network   bsv.Network
	royaltyTo bsv.Hash160
	royalty   money.Rate
}

func newRecord(t *Title) *record {
	r := &record{
		names:       t.Name,
		dataDir:     unique.Make(t.DataDir),
		length:      t.Length,
		price:       -1,
		added:       t.AddedAt.Unix(),
		pieceLength: uint32(t.PieceLength),
		nameLength:  uint16(len(t.Name)),
	}
	if t.Price != nil {
		r.price = *t.Price
	}
	var all terms
	if m := t.Manifest; m != nil {
		all = terms{true, m.Creator, m.Network, m.RoyaltyTo, m.Royalty}
		r.names += m.Title
	}
	r.terms = unique.Make(all)
	return r
}

func (r *record) title(ih [20]byte) Title {
	t := Title{
		InfoHash:    ih,
		Name:        r.names[:r.nameLength],
		DataDir:     r.dataDir.Value(),
		Length:      r.length,
		PieceLength: int64(r.pieceLength),
		Pieces:      int((r.length + int64(r.pieceLength) - 1) / int64(r.pieceLength)),
		AddedAt:     time.Unix(r.added, 0),
	}
	if r.price >= 0 {
		price := r.price
		t.Price = &price
	}
	if all := r.terms.Value(); all.signed {
		t.Manifest = &Manifest{
			Version:   ManifestVersion,
			Creator:   all.creator,
			Royalty:   all.royalty,
			RoyaltyTo: all.royaltyTo,
			Network:   all.network,
			Title:     r.names[r.nameLength:],
		}
	}
	return t
}

func readIndex(ctx context.Context, d *sql.DB) (map[[20]byte]*record, error) {
	rows, err := d.QueryContext(ctx, `SELECT info_hash, name, data_dir, length, piece_length, price,
		creator, royalty, royalty_to, network, title, added_at FROM titles`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	index := map[[20]byte]*record{}
	for rows.Next() {
		t, err := scanTitle(rows)
		if err != nil {
			return nil, err
		}
		index[t.InfoHash] = newRecord(t)
	}
	return index, rows.Err()
}

func scanTitle(rows *sql.Rows) (*Title, error) {
	var (
		t                            Title
		infoHash, creator, royaltyTo []byte
		price, royalty               sql.NullInt64
		network, name                sql.NullString
		added                        int64
	)
	err := rows.Scan(&infoHash, &t.Name, &t.DataDir, &t.Length, &t.PieceLength, &price,
		&creator, &royalty, &royaltyTo, &network, &name, &added)
	if err != nil {
		return nil, err
	}
	if len(infoHash) != len(t.InfoHash) || t.PieceLength < 1 || t.Length < 1 {
		return nil, fmt.Errorf("title %x: impossible row", infoHash)
	}
	copy(t.InfoHash[:], infoHash)
	t.AddedAt = time.Unix(added, 0)
	if price.Valid {
		rate := money.Rate(price.Int64)
		t.Price = &rate
	}
	if creator == nil {
		return &t, nil
	}
	m := &Manifest{Version: ManifestVersion, Royalty: money.Rate(royalty.Int64), Title: name.String}
	if m.Creator, err = bsv.ParsePublicKey(creator); err != nil {
		return nil, fmt.Errorf("title %x: %w", infoHash, err)
	}
	if m.Network, err = bsv.ParseNetwork(network.String); err != nil {
		return nil, fmt.Errorf("title %x: %w", infoHash, err)
	}
	if len(royaltyTo) != len(m.RoyaltyTo) {
		return nil, fmt.Errorf("title %x: royalty address of %d bytes", infoHash, len(royaltyTo))
	}
	copy(m.RoyaltyTo[:], royaltyTo)
	t.Manifest = m
	return &t, nil
}
