package services_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
	"github.com/bitcdn/bitcdn/payments/money"
)

// TestConformance runs the suite on what a box works with: ARC to broadcast,
// WhatsOnChain to look up, and proofs, in front of a real node.
func TestConformance(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	first := arcnode.ForTest(t, n, arcnode.Options{Key: "open-sesame"})
	second := woctest.Serve(t, n.Backend(), woctest.Options{})
	v, err := services.Open(t.Context(), services.Config{Network: regnode.Network, Headers: filepath.Join(t.TempDir(), "headers"),
		Services: []services.Service{
			{Kind: services.ARC, URL: first.URL(), Key: "open-sesame"},
			{Kind: services.WhatsOnChain, URL: second, Rate: 1e6},
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	chaintest.Run(t, chaintest.Harness{
		Backend: withFee{v},
		Mine:    func(t testing.TB, blocks int) { t.Helper(); must(t, n.Mine(t.Context(), blocks)) },
		Fund: func(t testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			t.Helper()
			coin, err := n.Fund(t.Context(), script, value)
			must(t, err)
			return coin
		},
		Reorganise: func(t testing.TB, depth int) {
			t.Helper()
			must(t, n.Reorganise(t.Context(), depth, regnode.ToMempool))
		},
		Stop:       func(t testing.TB) { first.Stop(t); must(t, n.Stop()) },
		OwnHeaders: true,
	})
	if n, last := v.Unproven(); n != 0 {
		t.Errorf("%d unproven: %s", n, last)
	}
}

// withFee tells no fee when the services are gone, as the suite wants it: a view
// goes on with the newest policy, or with the usual fee.
type withFee struct{ *services.View }

func (v withFee) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if _, err := v.Tip(ctx); err != nil {
		return 0, err
	}
	return v.View.FeeRate(ctx)
}

// TestOneDown has the services fail one by one.
func TestOneDown(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	first := arcnode.ForTest(t, n, arcnode.Options{})
	second := woctest.Serve(t, n.Backend(), woctest.Options{})
	key, err := bsv.NewPrivateKey([]byte("a key of exactly thirty-two byte"))
	if err != nil {
		t.Fatal(err)
	}
	pay := func(v *services.View) *bsv.Tx {
		coin, err := n.Fund(t.Context(), bsv.P2PKH(key.Public().Hash()), 10_000)
		if err != nil {
			t.Fatal(err)
		}
		tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{key}, key.Public().Hash(), 100)
		if err == nil {
			err = v.Broadcast(t.Context(), tx, []bsv.Output{coin.Output})
		}
		if err == nil {
			err = n.Mine(t.Context(), 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	v, err := services.Open(t.Context(), services.Config{Network: regnode.Network, Services: []services.Service{
		{Kind: services.ARC, URL: "http://127.0.0.1:1"}, // nobody
		{Kind: services.ARC, URL: first.URL()},
		{Kind: services.WhatsOnChain, URL: second, Rate: 1e6},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, stop := range []func(){func() {}, func() { first.Stop(t) }} {
		stop()
		tx := pay(v)
		if _, err := v.Tip(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s, err := v.Status(t.Context(), tx.Txid()); err != nil || s.State != chain.Mined || s.Proof == nil {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	down := 0
	for _, s := range v.Services() {
		if s.LastError != nil {
			down++
		}
	}
	if down < 2 {
		t.Errorf("%+v", v.Services())
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, network := range []bsv.Network{bsv.Main, bsv.Test} {
		kinds := make(map[string]int)
		for _, s := range services.Defaults(network) {
			if err := s.Check(); err != nil {
				t.Error(err)
			}
			if !strings.HasPrefix(s.URL, "https://") {
				t.Errorf("%v in the clear", s)
			}
			kinds[s.Kind]++
		}
		if kinds[services.ARC] == 0 || kinds[services.WhatsOnChain]+kinds[services.Chaintracks] < headers.DefaultAgree {
			t.Errorf("%v: %v", network, kinds)
		}
		v, err := services.Open(t.Context(), services.Config{Network: network}) // asks nobody
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := services.Open(t.Context(), services.Config{Network: bsv.Regtest}); !errors.Is(err, services.ErrNone) {
		t.Error(err)
	}
}

// TestNoHeadersFile opens a view whose file of headers cannot be read.
func TestNoHeadersFile(t *testing.T) {
	t.Parallel()
	v, err := services.Open(t.Context(), services.Config{Network: bsv.Main, Headers: t.TempDir()}) // a folder
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

func TestUnusable(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]services.Service{
		"kind":               {Kind: "explorer", URL: "https://host"},
		"no kind":            {URL: "https://host"},
		"no host":            {Kind: services.ARC, URL: "https://"},
		"scheme":             {Kind: services.ARC, URL: "ftp://host"},
		"not an address":     {Kind: services.ARC, URL: "https://ho st/secret\x00"},
		"key in the address": {Kind: services.ARC, URL: "https://secret@host"},
		"key in the clear":   {Kind: services.ARC, URL: "http://host", Key: "secret"},
		"rate":               {Kind: services.WhatsOnChain, URL: "https://host/v1/bsv/main", Rate: -1},
		"slow":               {Kind: services.WhatsOnChain, URL: "https://host/v1/bsv/main", Rate: 1e-12},
		"node":               {Kind: services.Node, URL: "host:8332"},
		"password":           {Kind: services.Node, URL: "ftp://user:secret@host"},
		"network":            {Kind: services.WhatsOnChain, URL: "https://host/v1/bsv/test"},
	} {
		_, err := services.Open(t.Context(), services.Config{Network: bsv.Main, Services: []services.Service{s, {Kind: services.Chaintracks, URL: "https://host"}}})
		if !errors.Is(err, services.ErrService) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nothing that gives headers.
	if _, err := services.Open(t.Context(), services.Config{Services: []services.Service{{Kind: services.ARC, URL: "https://host"}}}); !errors.Is(err, services.ErrService) {
		t.Error(err)
	}
	// One that gives them, which nobody confirms.
	alone := services.Config{Services: []services.Service{{Kind: services.Chaintracks, URL: "https://host"}}}
	if _, err := services.Open(t.Context(), alone); !errors.Is(err, services.ErrService) {
		t.Error(err)
	}
	alone.Checkpoint = "900000:00000000000000000b010edee7422c59ec9131742e35f3e0d5837d710b961406"
	if v, err := services.Open(t.Context(), alone); err != nil {
		t.Error(err)
	} else if err := v.Close(); err != nil {
		t.Error(err)
	}
	if _, err := services.Open(t.Context(), services.Config{Checkpoint: "800000"}); !errors.Is(err, headers.ErrCheckpoint) {
		t.Error(err)
	}
	if err := (services.Service{Kind: services.ARC, URL: "http://192.168.1.2:9090", Key: "k"}).Check(); err != nil {
		t.Errorf("a service of the owner's own network: %v", err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "services.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("[[service]]\nkind = 'arc'\nurl = 'https://host'\nkey = 'k'\n[[service]]\nkind = 'node'\nurl = 'http://u:p@host:1'\n")
	list, err := services.Load(path)
	if err != nil || len(list) != 2 || list[0] != (services.Service{Kind: services.ARC, URL: "https://host", Key: "k"}) {
		t.Fatalf("%v, %v", list, err)
	}
	for name, text := range map[string]string{
		"syntax":  "[[service]\nkey = 'secret'\n",
		"unknown": "[[service]]\nkind = 'arc'\nurl = 'https://host'\ntoken = 'secret'\n",
		"kind":    "[[service]]\nkind = 'other'\nurl = 'https://host'\nkey = 'secret'\n",
		"type":    "service = 'secret'\n",
		"long":    strings.Repeat("# secret\n", 10_000),
	} {
		write(text)
		if _, err := services.Load(path); !errors.Is(err, services.ErrService) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	write("")
	if _, err := services.Load(path); !errors.Is(err, services.ErrNone) {
		t.Error(err)
	}
	if _, err := services.Load(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
