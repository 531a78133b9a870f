package box

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/webui"
)

// sweepsShown is how many of the newest sweeps the status holds.
const sweepsShown = 20

// Status is part of webui.Source.
func (b *Box) Status(ctx context.Context) (webui.Status, error) {
	s := webui.Status{Name: b.opt.Settings.Name, Version: b.opt.Version, Now: b.opt.Clock(), Started: b.started,
		Chain: webui.Chain{Network: b.opt.Settings.Network.String()}, Health: b.health.List()}
	if tip := b.tip.Load(); tip != nil {
		s.Chain.Height, s.Chain.Hash, s.Chain.Time = tip.Height, tip.Hash.String(), tip.Time
	}
	s.Chain.Services = b.chainServices()
	if err := b.earnings(ctx, &s); err != nil {
		return webui.Status{}, fmt.Errorf("earnings: %w", err)
	}
	open := true
	rows, err := b.ledger.Channels(ctx, ledger.Filter{Role: ledger.Payee, Open: &open})
	if err != nil {
		return webui.Status{}, err
	}
	for _, row := range rows {
		s.Channels = append(s.Channels, webui.Channel{ID: hex.EncodeToString(row.ID[:]), Title: row.TitleName, Remote: row.Remote, State: row.State,
			Capacity: row.Capacity, Paid: row.Payee, Royalty: row.Creator, Bytes: row.Bytes, Refund: row.RefundHeight})
	}
	stats := b.server.Stats()
	s.Traffic = webui.Traffic{Connections: stats.Conns, UploadRate: b.rate.rate.Load(), Uploaded: stats.BytesSent}
	return s, nil
}

// earnings fills in what came in, by title and in all, and what was paid out.
func (b *Box) earnings(ctx context.Context, s *webui.Status) error {
	totals, err := b.ledger.Totals(ctx)
	if err != nil {
		return err
	}
	// A payout that is not in a block yet is not paid out.
	s.Earnings = webui.Earnings{Unsettled: totals.Unsettled, OnChain: max(totals.Settled-totals.SweptMined-totals.SweepFeesMined, 0),
		Swept: totals.SweptMined, Fees: totals.SweepFeesMined, Royalties: totals.Royalty}
	sweeps, err := b.ledger.OutgoingFor(ctx, ledger.Sweep, sweepsShown)
	if err != nil {
		return err
	}
	for _, o := range sweeps {
		sweep := webui.Sweep{Txid: bsv.Txid(o.Txid).String(), Fee: o.Fee, At: o.Created}
		if o.State == ledger.Mined {
			sweep.Height = o.Height
		}
		if tx, err := bsv.ParseTx(o.Raw, ledger.MaxRaw); err == nil {
			sweep.Amount, _ = tx.Paid()
		}
		s.Earnings.Sweeps = append(s.Earnings.Sweeps, sweep)
	}
	byTitle, err := b.ledger.EarningsByTitle(ctx)
	if err != nil {
		return err
	}
	earned := make(map[[20]byte]ledger.TitleEarnings, len(byTitle))
	for _, t := range byTitle {
		earned[t.Title] = t
	}
	for _, t := range b.catalogue.List() {
		e := earned[t.InfoHash]
		title := webui.Title{InfoHash: hex.EncodeToString(t.InfoHash[:]), Name: t.DisplayName(), Size: t.Length, Price: b.titles.priceOf(t),
			Sold: e.Bytes, Earned: e.Unsettled + e.Settled}
		if t.Manifest != nil {
			title.Royalty = t.Manifest.Royalty
		}
		s.Titles = append(s.Titles, title)
	}
	return nil
}
