package e2etest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/bsv"
)

// TestSettings has bitcdnd refuse what it cannot work with, and say why.
func TestSettings(t *testing.T) {
	t.Parallel()
	key, err := bsv.NewPrivateKey([]byte("a key of exactly thirty-two byte"))
	if err != nil {
		t.Fatal(err)
	}
	good := key.Public().Hash().Address(bsv.Regtest)
	mistyped := strings.Replace(good, good[10:12], "11", 1)
	const version = "version = 1\n"
	payout := func(address string) string {
		return version + "network = 'regtest'\n[listen]\npeers = '127.0.0.1:0'\nweb = ''\n[payout]\naddress = '" + address + "'\n"
	}
	for name, tc := range map[string]struct {
		text  string
		words []string
	}{
		"checksum":   {payout(mistyped), []string{"payout.address: ", "checksum"}},
		"mainnet":    {payout(key.Public().Hash().Address(bsv.Main)), []string{"payout.address: ", "main"}},
		"P2SH":       {payout("2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"), []string{"payout.address: ", "script"}},
		"no address": {payout("mine"), []string{"payout.address: "}},
		"typo":       {version + "[listen]\npears = '127.0.0.1:0'\n", []string{"there is no such setting", "3| pears = "}},
		"syntax":     {version + "network = regtest\n", []string{"2| network = regtest"}},
		"network":    {version + "network = 'mian'\n", []string{"mian"}},
		"version":    {"version = 2\n", []string{"version: 2, this program reads 1"}},
		"idle":       {version + "[channels]\nidle_close = '1s'\n", []string{"channels.idle_close: below a minute"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &e2e.World{T: t, Ctx: t.Context(), Goods: shared, Dir: t.TempDir()}
			config := filepath.Join(w.Dir, "bitcdnd.toml")
			w.Must(os.WriteFile(config, []byte(tc.text), 0o600))
			p := w.Start(w.Dir, filepath.Join(w.Dir, "log"), "bitcdnd", "--config", config, "--data", filepath.Join(w.Dir, "box"))
			w.WantExit(p, 2)
			p.WantWords(append(tc.words, "bitcdnd: error: ", config, "bitcdnd: hint: bitcdnd --print-config shows all settings with their defaults\n")...)
		})
	}
}

// TestBusy starts a second daemon on the same data, and one on a port that is
// in use.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.Box(w.Settings(ask))
	p := w.Start(w.Dir, filepath.Join(w.Dir, "second.log"), "bitcdnd", "--config", b.Config, "--data", b.Data)
	w.WantExit(p, 3)
	p.WantWords("bitcdnd: error: ", "another bitcdnd uses this data folder", "bitcdnd: hint: stop the other one")
	p = w.Start(w.Dir, filepath.Join(w.Dir, "third.log"), "bitcdnd", "--config", b.Config, "--data", filepath.Join(w.Dir, "other"))
	w.WantExit(p, 3)
	p.WantWords("bitcdnd: error: ", b.Peers, "address already in use", "bitcdnd: hint: another program uses this address")
	if got := b.Status(); len(got.Titles) != 1 {
		t.Errorf("%+v", got)
	}
	p = w.Start(w.Dir, filepath.Join(w.Dir, "fourth.log"), "bitcdnd", "--config", filepath.Join(w.Dir, "none.toml"), "--data", filepath.Join(w.Dir, "other"))
	w.WantExit(p, 2)
	p.WantWords("none.toml: no such file or directory")
}
