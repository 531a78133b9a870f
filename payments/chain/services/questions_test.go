package services_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc/arcnode"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/chain/services"
	"github.com/bitcdn/bitcdn/payments/chain/whatsonchain/woctest"
	"github.com/bitcdn/bitcdn/payments/money"
)

// counter stands before a service and counts what it is asked.
type counter struct {
	mu    sync.Mutex
	asked map[string]int
}

// before counts the requests to a service at an address, and passes them on.
func (c *counter) before(t testing.TB, name, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	to := &url.URL{Scheme: u.Scheme, Host: u.Host}
	proxy := httputil.NewSingleHostReverseProxy(to)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked[name]++
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + strings.TrimSuffix(u.Path, "/")
}

func (c *counter) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	asked := c.asked
	c.asked = make(map[string]int)
	return asked
}

// TestQuestions holds what each of the program's questions costs at services
// like the default ones: two of ARC (a, b) and WhatsOnChain (w), which answers
// three a second.
//
// With a box that looks for a block every ten seconds this is, of the 10,800
// requests that WhatsOnChain answers in an hour, and with six blocks: 366 where
// nothing is open, at most 732 where something is on its way. The funding of a
// channel costs it one at each look while it is not mined, two more once it is,
// and none after that.
func TestQuestions(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	count := &counter{asked: make(map[string]int)}
	v, err := services.Open(t.Context(), services.Config{Network: regnode.Network, Services: []services.Service{
		{Kind: services.ARC, URL: count.before(t, "a", arcnode.ForTest(t, n, arcnode.Options{}).URL())},
		{Kind: services.ARC, URL: count.before(t, "b", arcnode.ForTest(t, n, arcnode.Options{}).URL())},
		{Kind: services.WhatsOnChain, URL: count.before(t, "w", woctest.Serve(t, n.Backend(), woctest.Options{})), Rate: 1e6},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	key, err := bsv.NewPrivateKey([]byte("a key of exactly thirty-two byte"))
	if err != nil {
		t.Fatal(err)
	}
	script := bsv.P2PKH(key.Public().Hash())
	var tx *bsv.Tx
	var coin bsv.Coin
	mine := func() {
		if err := n.Mine(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	status := func(want chain.State) func() error {
		return func() error {
			s, err := v.Status(t.Context(), tx.Txid())
			if s.State != want {
				t.Errorf("%s instead of %s", s.State, want)
			}
			return err
		}
	}
	tip := func() error { _, err := v.Tip(t.Context()); return err }
	fee := func() error { _, err := v.FeeRate(t.Context()); return err }
	for _, c := range []struct {
		name string
		do   func() error
		most map[string]int
	}{
		{"fund", func() (err error) { coin, err = n.Fund(t.Context(), script, 10_000); return err }, nil},
		{"begin", tip, map[string]int{"w": 10}},
		{"the tip again", tip, map[string]int{"w": 1}},
		{"the tip after a block", func() error { mine(); return tip() }, map[string]int{"w": 2}},
		{"the fee", fee, map[string]int{"a": 2}},
		{"the fee again", fee, map[string]int{}},
		{"a broadcast", func() (err error) {
			if tx, _, err = bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{key}, key.Public().Hash(), 100); err != nil {
				return err
			}
			return v.Broadcast(t.Context(), tx, []bsv.Output{coin.Output})
		}, map[string]int{"a": 1, "b": 2, "w": 2}},
		{"the status of what is on its way", status(chain.Seen), map[string]int{"a": 1, "b": 1, "w": 1}},
		{"once it is mined", func() error { mine(); return status(chain.Mined)() }, map[string]int{"a": 1, "w": 2}},
		{"and again", status(chain.Mined), map[string]int{}},
		{"its coin", func() error {
			coins, err := v.Unspent(t.Context(), script)
			if len(coins) != 1 || coins[0].Height == 0 {
				t.Error(coins)
			}
			return err
		}, map[string]int{"w": 2}},
		{"its coin again", func() error { _, err := v.Unspent(t.Context(), script); return err }, map[string]int{"w": 1}},
	} {
		count.take()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := count.take()
		t.Logf("%s: %v", c.name, got)
		for _, name := range slices.Sorted(maps.Keys(got)) {
			if c.most != nil && got[name] > c.most[name] {
				t.Errorf("%s: %d questions of %s, not %d", c.name, got[name], name, c.most[name])
			}
		}
	}
}

// Where requests are few, all that look for a new block within seconds share one.
func TestTipIsShared(t *testing.T) {
	t.Parallel()
	n := regnode.ForTest(t)
	count := &counter{asked: make(map[string]int)}
	var passed atomic.Int64 // the clock runs by being looked at
	clock := func() time.Time {
		return time.Unix(1_800_000_000, 0).Add(time.Duration(passed.Add(1)) * 20 * time.Millisecond)
	}
	v, err := services.Open(t.Context(), services.Config{Network: regnode.Network, Clock: clock, Services: []services.Service{
		{Kind: services.WhatsOnChain, URL: count.before(t, "w", woctest.Serve(t, n.Backend(), woctest.Options{})), Rate: 10},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	for i := range 20 {
		if i == 1 {
			count.take()
		}
		if _, err := v.Tip(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := count.take(); len(got) != 0 {
		t.Error(got)
	}
}

// What a service says of its fee neither keeps a close from being mined nor
// makes a payment dear.
func TestFalseFees(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]money.FeeRate{"1": 100, "250": 250, "100000000": 1000} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"policy":{"miningFee":{"satoshis":` + said + `,"bytes":1000}}}`))
		}))
		t.Cleanup(server.Close)
		v, err := services.Open(t.Context(), services.Config{Network: bsv.Regtest, Services: []services.Service{
			{Kind: services.ARC, URL: server.URL}, {Kind: services.WhatsOnChain, URL: "http://127.0.0.1:1/v1/bsv/regtest"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = v.Close() })
		if got, err := v.FeeRate(t.Context()); err != nil || got != want {
			t.Errorf("%s: %d, %v", said, got, err)
		}
	}
}
