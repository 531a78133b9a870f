package box

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/appliance/seed"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// titles shows the catalogue to the upload side.
type titles struct {
	catalogue *catalog.Catalogue
	handles   *pieces.Handles
	price     money.Rate // of titles without one of their own
	network   bsv.Network
	health    *health.Set
	log       *slog.Logger
}

var errOtherNetwork = errors.New("the manifest's royalty is paid on another network")

// Has is part of seed.Catalogue.
func (t *titles) Has(ih [20]byte) bool {
	_, ok := t.catalogue.Lookup(ih)
	return ok
}

// All is part of seed.Catalogue.
func (t *titles) All() iter.Seq[[20]byte] { return t.catalogue.All() }

// Wake is part of seed.Catalogue.
func (t *titles) Wake(ctx context.Context, ih [20]byte) (*seed.Awake, error) {
	awake, err := t.wake(ih)
	code := fmt.Sprintf("title-unusable:%x", ih)
	if err != nil {
		t.log.Error("title cannot be served", "title", fmt.Sprintf("%x", ih), "error", err)
		t.health.Raise(health.Condition{Code: code, Severity: health.Warning,
			Title:  "A title cannot be served.",
			Remedy: "Check that its disk is plugged in and that its files were not moved, or remove the title.",
			Detail: err.Error()})
		return nil, err
	}
	t.health.Clear(code)
	return awake, nil
}

func (t *titles) wake(ih [20]byte) (*seed.Awake, error) {
	title, ok := t.catalogue.Lookup(ih)
	if !ok {
		return nil, catalog.ErrNotFound
	}
	torrent, err := t.catalogue.LoadTorrent(ih)
	if err != nil {
		return nil, err
	}
	sold := paylink.Title{InfoHash: ih, Name: title.DisplayName(), Length: title.Length, PieceLength: title.PieceLength, Ask: t.priceOf(title)}
	if m := title.Manifest; m != nil && m.Royalty > 0 {
		if m.Network != t.network {
			return nil, fmt.Errorf("%w: %v, this box is on %v", errOtherNetwork, m.Network, t.network)
		}
		sold.Royalty = &paylink.Royalty{Creator: m.Creator, Rate: m.Royalty, To: m.RoyaltyTo}
	}
	store, err := pieces.Open(title.DataDir, torrent.Layout, pieces.Options{Files: t.handles, Verify: true})
	if err != nil {
		return nil, err
	}
	return &seed.Awake{Info: torrent.Info, Store: store, Title: sold}, nil
}

// Sleep is part of seed.Catalogue.
func (t *titles) Sleep(_ [20]byte, a *seed.Awake) {
	if err := a.Store.Close(); err != nil {
		t.log.Warn("closing a title's files", "title", a.Title.Name, "error", err)
	}
}

func (t *titles) priceOf(title catalog.Title) money.Rate {
	if title.Price != nil {
		return *title.Price
	}
	return t.price
}

// unservable is told of pieces whose data is not what it should be.
func (t *titles) unservable(ih [20]byte, piece int, err error) {
	title, _ := t.catalogue.Lookup(ih)
	t.log.Error("piece cannot be served", "title", title.Name, "piece", piece, "error", err)
	t.health.Raise(health.Condition{Code: fmt.Sprintf("title-damaged:%x", ih), Severity: health.Warning,
		Title:  fmt.Sprintf("%q has damaged data, which is not sold.", title.DisplayName()),
		Remedy: "Restore its files from a good copy.",
		Detail: fmt.Sprintf("piece %d: %v", piece, err)})
}
