package arc_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
)

const policy = `{"timestamp":"2026-01-02T03:04:05Z","policy":{"maxscriptsizepolicy":1,"maxtxsigopscountspolicy":1,` +
	`"maxtxsizepolicy":1,"miningFee":{"satoshis":1,"bytes":1000}}}`

// reply is what a fake service answers to one kind of request.
type reply struct {
	code   int
	body   string
	header map[string]string
}

// fake is a service that answers what a test wants; "METHOD /path" is 404 where
// that says nothing.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	replies  map[string][]reply // the last one stays
	requests []*http.Request
	bodies   []string
}

func newFake(t testing.TB, replies map[string]reply) *fake {
	t.Helper()
	f := &fake{replies: make(map[string][]reply)}
	for request, r := range replies {
		f.replies[request] = []reply{r}
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		key := r.Method + " " + r.URL.Path
		list := f.replies[key]
		if len(list) > 1 {
			f.replies[key] = list[1:]
		}
		f.requests, f.bodies = append(f.requests, r), append(f.bodies, string(body))
		f.mu.Unlock()
		if len(list) == 0 {
			http.NotFound(w, r)
			return
		}
		for name, value := range list[0].header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(list[0].code)
		_, _ = w.Write([]byte(list[0].body))
	}))
	t.Cleanup(f.Close)
	return f
}

// set has a kind of request answered so from now on, one reply after the other.
func (f *fake) set(request string, replies ...reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replies[request] = replies
}

// count is how many requests of a kind there were.
func (f *fake) count(request string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if r.Method+" "+r.URL.Path == request {
			n++
		}
	}
	return n
}

// last is the newest request of a kind, with its body.
func (f *fake) last(t testing.TB, request string) (*http.Request, string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.requests) - 1; i >= 0; i-- {
		if r := f.requests[i]; r.Method+" "+r.URL.Path == request {
			return r, f.bodies[i]
		}
	}
	t.Fatal("no request", request)
	return nil, ""
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func dial(t testing.TB, url string, opt arc.Options) *arc.Backend {
	t.Helper()
	b, err := arc.Dial(url, opt)
	if err != nil {
		t.Fatal(err)
	}
	b.SetPause(func(ctx context.Context, _ time.Duration) error { return ctx.Err() })
	t.Cleanup(b.Close)
	return b
}

// sample is a transaction and what it spends.
func sample() (*bsv.Tx, []bsv.Output) {
	tx := &bsv.Tx{
		Version: 1,
		Inputs:  []bsv.Input{{Prev: bsv.Outpoint{Txid: bsv.Txid{1}}, Sequence: bsv.FinalSequence}},
		Outputs: []bsv.Output{{Value: 900, Script: bsv.P2PKH(bsv.Hash160{2})}},
	}
	return tx, []bsv.Output{{Value: 1000, Script: bsv.P2PKH(bsv.Hash160{3})}}
}

// object writes JSON.
func object(t testing.TB, fields map[string]any) string {
	t.Helper()
	b, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
