package e2etest

import (
	"fmt"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/money"
)

// TestAmounts buys from two boxes at different prices with a free seeder beside
// them, and has both earnings swept.
func TestAmounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, price := range []money.Rate{30_000, 50_000, 0} { // of the last, only the creator wants something
		s := w.Settings(price)
		s.Upload.Rate = uploadRate / 2 // so that all have their part
		w.Box(s)
	}
	w.SeedStock("a")
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	w.WantExit(p, 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)

	var onWire, fromFree int64
	for _, peer := range r.Peers {
		if peer.Wire != peer.Payable {
			t.Errorf("%s sent %d bytes, owed are %d", peer.Peer, peer.Wire, peer.Payable)
		}
		var billed int64
		for _, ch := range r.Channels {
			if ch.Seeder == peer.Peer {
				billed += ch.Bytes
			}
		}
		if peer.Peer == w.Free[0] {
			fromFree += peer.Wire
			if peer.Paid || billed != 0 {
				t.Errorf("the free seeder was paid for %d bytes", billed)
			}
		} else if billed != peer.Wire {
			t.Errorf("%s sent %d bytes and was paid for %d", peer.Peer, peer.Wire, billed)
		}
		onWire += peer.Wire
	}
	var uploaded int64
	for _, b := range w.Boxes {
		uploaded += b.Status().Traffic.Uploaded
	}
	if onWire-fromFree != uploaded || onWire < titleLength {
		t.Errorf("the client counts %d bytes, %d of them free, the boxes %d, the title has %d", onWire, fromFree, uploaded, titleLength)
	}
	if len(r.Channels) != 3 || fromFree == 0 {
		t.Errorf("%d channels, %d bytes for nothing", len(r.Channels), fromFree)
	}
	t.Logf("%d bytes on the wire, %d for nothing, %v spent: %+v", onWire, fromFree, r.Spent, r.Channels)

	for _, ch := range r.Channels {
		w.Mined(ch.Close)
	}
	for _, b := range w.Boxes[:2] {
		var sweep box.SweepResponse
		w.Await("sweep", func() (err error) {
			sweep, err = b.Control.Sweep(w.Ctx, box.SweepRequest{})
			return err
		})
		tx := w.Mined(sweep.Txid)
		var earned money.Satoshis
		for _, ch := range r.Channels {
			if ch.Seeder == b.Peers {
				earned += ch.Payee
			}
		}
		if got := e2e.PaidTo(tx, b.Owner.Public().Hash()); len(tx.Outputs) != 1 || got != earned-w.Fee(tx) || got != sweep.Payout || w.Fee(tx) != sweep.Fee {
			t.Errorf("sweep pays %v with a fee of %v, announced %+v, earned %v", got, w.Fee(tx), sweep, earned)
		}
		w.Await("swept earnings in the status", func() error {
			s := b.Status()
			e := s.Earnings
			if e.Swept != sweep.Payout || e.OnChain != 0 || e.Earned() != earned || len(e.Sweeps) != 1 || e.Sweeps[0].Height == 0 {
				return fmt.Errorf("%+v", e)
			}
			return nil
		})
	}
	w.Books(c, r)
}
