package e2etest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
)

// TestServices sells to and pays from wallets that have no node of their own:
// they broadcast through ARC, look up at WhatsOnChain, and believe proofs.
func TestServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	arc := arcnode.ForTest(t, w.Node, arcnode.Options{Key: "of-the-box"}).URL()
	woc := woctest.Serve(t, w.Node.Backend(), woctest.Options{})
	s := w.Settings(ask)
	s.Chain.Node = ""
	s.Chain.Services = []services.Service{{Kind: services.ARC, URL: arc, Key: "of-the-box"}, {Kind: services.WhatsOnChain, URL: woc, Rate: 1000}}
	w.Box(s)
	c := w.Client(200_000)
	c.Services = filepath.Join(w.Dir, "services.toml")
	w.Must(os.WriteFile(c.Services, fmt.Appendf(nil, `
[[service]]
kind = "arc"
url = %q
key = "of-the-box"
[[service]]
kind = "whatsonchain"
url = %q
rate = 1000
`, arc, woc), 0o600))
	w.WantExit(c.Get(generous, bigBudget), 0)
	r := c.ReadReceipt()
	w.CompareFiles(r)
	if len(r.Channels) != 1 || r.Channels[0].Bytes != titleLength {
		t.Errorf("%+v", r.Channels)
	}
	w.Books(c, r)
}
