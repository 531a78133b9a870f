package e2etest

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// TestSeveralTitles buys two titles of two creators from one box in one run:
// one channel pays for both, and its close pays both creators.
func TestSeveralTitles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const otherRoyalty money.Rate = 4_000
	other, err := shared.Another(w.Ctx, w.Dir, e2e.Title{Name: "Another title", PieceLength: pieceLength, Royalty: otherRoyalty,
		Files: []e2e.File{{Name: "x", Length: 9_000_001}}})
	w.Must(err)
	b := w.Box(w.Settings(ask))
	torrent, err := os.ReadFile(other.Torrent)
	w.Must(err)
	_, err = b.Control.Add(w.Ctx, box.AddRequest{Torrent: torrent, DataDir: other.Folder})
	w.Must(err)
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget, other.Magnet)
	w.WantExit(p, 0)
	text, err := os.ReadFile(c.ReceiptFile)
	w.Must(err)
	var receipts []e2e.Receipt
	w.Must(json.Unmarshal(text, &receipts))
	if len(receipts) != 2 || len(receipts[0].Channels) != 1 || len(receipts[1].Channels) != 1 {
		t.Fatalf("%s", text)
	}
	first, second := receipts[0].Channels[0], receipts[1].Channels[0]
	if first.Channel != second.Channel || first.State != ledger.StateClosed || first.Bytes != titleLength || second.Bytes != other.Length || second.Fee != 0 {
		t.Errorf("%s", text)
	}
	wantFirst, err := royalty.Due(titleLength)
	w.Must(err)
	wantSecond, err := otherRoyalty.Due(other.Length)
	w.Must(err)
	closing := w.Mined(first.Close)
	if got := e2e.PaidTo(closing, shared.Creator); got != wantFirst || got != first.Creator {
		t.Errorf("the first creator got %v, earned %v, receipt %v", got, wantFirst, first.Creator)
	}
	if got := e2e.PaidTo(closing, other.Creator); got != wantSecond || got != second.Creator {
		t.Errorf("the second creator got %v, earned %v, receipt %v", got, wantSecond, second.Creator)
	}
	if got := closing.Outputs[0].Value; got != first.Payee+second.Payee {
		t.Errorf("the box got %v, receipts %v and %v", got, first.Payee, second.Payee)
	}
	if fee := w.Fee(closing) + w.Fee(w.Transaction(first.Funding)); fee != first.Fee {
		t.Errorf("fees of %v, receipt %v", fee, first.Fee)
	}
	spent := receipts[0].Spent + receipts[1].Spent
	if confirmed, unconfirmed := c.Balance(); confirmed != c.Pocket-spent || unconfirmed != 0 {
		t.Errorf("%v and %v are left of %v, spent %v", confirmed, unconfirmed, c.Pocket, spent)
	}
	w.Ledger(c.Data, nil)
	b.Stop()
	w.Ledger(b.Data, func(l *ledger.Ledger) {
		creators, err := l.RoyaltiesByCreator(w.Ctx, ledger.Payee)
		w.Must(err)
		if len(creators) != 2 || creators[0].Hash != shared.Creator || creators[0].Settled != wantFirst || creators[1].Hash != other.Creator || creators[1].Settled != wantSecond {
			t.Errorf("%+v", creators)
		}
	})
	t.Logf("%s", text)
}
