package e2etest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
			w := &world{T: t, ctx: t.Context(), dir: t.TempDir()}
			config := filepath.Join(w.dir, "bitcdnd.toml")
			w.must(os.WriteFile(config, []byte(tc.text), 0o600))
			p := start(t, w.dir, filepath.Join(w.dir, "log"), "bitcdnd", "--config", config, "--data", filepath.Join(w.dir, "box"))
			w.wantExit(p, 2)
			wantWords(t, p, append(tc.words, "bitcdnd: error: ", config, "bitcdnd: hint: bitcdnd --print-config shows all settings with their defaults\n")...)
		})
	}
}

// TestBusy starts a second daemon on the same data, and one on a port that is
// in use.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.box(w.settings(ask))
	p := start(t, w.dir, filepath.Join(w.dir, "second.log"), "bitcdnd", "--config", b.config, "--data", b.data)
	w.wantExit(p, 3)
	wantWords(t, p, "bitcdnd: error: ", "another bitcdnd uses this data folder", "bitcdnd: hint: stop the other one")
	p = start(t, w.dir, filepath.Join(w.dir, "third.log"), "bitcdnd", "--config", b.config, "--data", filepath.Join(w.dir, "other"))
	w.wantExit(p, 3)
	wantWords(t, p, "bitcdnd: error: ", b.peers, "address already in use", "bitcdnd: hint: another program uses this address")
	if got := b.status(); len(got.Titles) != 1 {
		t.Errorf("%+v", got)
	}
	p = start(t, w.dir, filepath.Join(w.dir, "fourth.log"), "bitcdnd", "--config", filepath.Join(w.dir, "none.toml"), "--data", filepath.Join(w.dir, "other"))
	w.wantExit(p, 2)
	wantWords(t, p, "none.toml: no such file or directory")
}
