package e2etest

import (
	"testing"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/money"
)

// TestSharedFunding buys from three boxes that the client finds at the same
// time: one transaction on the node opens the channels with all of them.
func TestSharedFunding(t *testing.T) {
	t.Parallel()
	// On a busy machine a box may be found too late for the others' funding.
	const attempts = 3
	for range attempts {
		if buyFromThree(t, newWorld(t)) == 1 {
			return
		}
	}
	t.Errorf("no funding was shared by all boxes in %d downloads", attempts)
}

// buyFromThree returns how many fundings a download from three boxes took.
func buyFromThree(t *testing.T, w *e2e.World) int {
	for _, price := range []money.Rate{30_000, 35_000, ask} {
		s := w.Settings(price)
		s.Upload.Rate = uploadRate / 2 // so that all have their part
		w.Box(s)
	}
	c := w.Client(200_000)
	p := c.Get(generous, bigBudget)
	w.WantExit(p, 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	if len(r.Channels) != len(w.Boxes) {
		t.Errorf("%d channels", len(r.Channels))
	}
	fundings := make(map[string]int)
	for _, ch := range r.Channels {
		fundings[ch.Funding]++
	}
	for txid, channels := range fundings {
		found := 0
		for _, o := range w.Transaction(txid).Outputs {
			if _, _, ok := o.Script.MultisigKeys(); ok {
				found++
			}
		}
		if found != channels {
			t.Errorf("%d channels of a funding with %d outputs for channels", channels, found)
		}
	}
	t.Logf("%d fundings, %v spent: %+v", len(fundings), r.Spent, r.Channels)
	w.Books(c, r)
	return len(fundings)
}
