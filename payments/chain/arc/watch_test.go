package arc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/arc"
)

// streams is an Arcade whose event stream says on each connection what a test
// wants, and then ends or goes silent.
type streams struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []http.Header
	tokens []string
}

type connection struct {
	code   int // 200 where it is 0
	kind   string
	header map[string]string
	body   string
	silent bool // stays open
}

func newStreams(t *testing.T, list ...connection) *streams {
	s := new(streams)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/policy":
			_, _ = w.Write([]byte(policy))
			return
		case "/events":
		default:
			http.NotFound(w, r)
			return
		}
		s.mu.Lock()
		s.seen, s.tokens = append(s.seen, r.Header), append(s.tokens, r.URL.Query().Get("callbackToken"))
		c := list[min(len(s.seen), len(list))-1]
		s.mu.Unlock()
		if c.kind == "" {
			c.kind = "text/event-stream"
		}
		w.Header().Set("Content-Type", c.kind)
		for name, value := range c.header {
			w.Header().Set(name, value)
		}
		w.WriteHeader(max(200, c.code))
		_, _ = w.Write([]byte(c.body))
		w.(http.Flusher).Flush()
		if c.silent {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return s
}

func statusEvent(id string, txid bsv.Txid) string {
	return fmt.Sprintf("id: %s\nevent: status\ndata: {\"txid\":\"%s\",\"txStatus\":\"MINED\",\"timestamp\":\"x\"}\n\n", id, txid)
}

func TestWatchReconnects(t *testing.T) {
	t.Parallel()
	var ours []*bsv.Tx
	number := make(map[bsv.Txid]byte)
	id := func(n byte) bsv.Txid { return ours[n].Txid() }
	for n := range byte(6) {
		ours = append(ours, &bsv.Tx{Version: 1, Inputs: make([]bsv.Input, 1), LockTime: uint32(n)})
		number[id(n)] = n
	}
	s := newStreams(t,
		connection{body: ": keepalive\n\n" + statusEvent("6", bsv.Txid{9}) + statusEvent("7", id(1)) + statusEvent("8", id(2)) + "data: {\"txid\":\"half"},
		connection{code: 503}, connection{code: 500}, connection{kind: "text/html", body: "<html>"}, connection{code: 204},
		connection{body: strings.Repeat("x", 300<<10) + "\n\n"},
		connection{body: strings.Repeat("data: x\n", 300<<10)},
		connection{body: statusEvent("x\ty", id(3)) + strings.Replace(statusEvent("9", bsv.Txid{9}), "status", "other", 1) + "data: {}\n\ndata: x\n\n"},
		connection{body: statusEvent("10", id(4)), silent: true},
		connection{body: "\r\nevent:status\r\ndata:{\"txid\":\r\ndata: \"" + id(5).String() + "\"}\r\nid:11\r\n\r\n"},
	)
	b := dial(t, s.URL, arc.Options{Key: key})
	for _, tx := range ours {
		b.MarkSent(tx)
	}
	b.SetIdle(200 * time.Millisecond)
	var waits []time.Duration
	b.SetPause(func(ctx context.Context, d time.Duration) error { waits = append(waits, d); return ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	var got []byte
	err := b.Watch(ctx, func(txid bsv.Txid) {
		n, ok := number[txid]
		if !ok {
			t.Error("told of what was not sent")
		}
		got = append(got, n)
		if n == 5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if !slices.Equal(got, []byte{1, 2, 3, 4, 5}) {
		t.Error("told of", got)
	}
	var last []string
	for i, h := range s.seen {
		last = append(last, h.Get("Last-Event-ID"))
		if s.tokens[i] != b.Token() || h.Get("Authorization") != "Bearer "+key {
			t.Error(s.tokens[i], h)
		}
	}
	if want := []string{"", "8", "8", "8", "8", "8", "8", "8", "8", "10"}; !slices.Equal(last, want) {
		t.Errorf("last events %q, want %q", last, want)
	}
	const sec = time.Second
	// Doubled until something is heard, and not for ever.
	want := []time.Duration{sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec, 32 * sec, sec, sec, sec}
	if !slices.Equal(waits, want) {
		t.Errorf("pauses %v, want %v", waits, want)
	}
}

func TestWatchBacksOff(t *testing.T) {
	t.Parallel()
	b := dial(t, newStreams(t, connection{code: 500}).URL, arc.Options{})
	var longest time.Duration
	n := 0
	b.SetPause(func(_ context.Context, d time.Duration) error {
		longest = max(longest, d)
		if n++; n == 50 {
			return context.DeadlineExceeded
		}
		return nil
	})
	if err := b.Watch(t.Context(), func(bsv.Txid) {}); err == nil || longest != time.Minute {
		t.Error(err, longest)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]struct {
		url  string
		want error
	}{
		"ARC":                       {arcService(t).URL, chain.ErrUnsupported},
		"an Arcade without streams": {arcadeService(t).URL, chain.ErrUnsupported},
		"a key that is refused":     {newStreams(t, connection{code: 401}).URL, arc.ErrCredentials},
		"a key that is refused later": {newStreams(t, connection{body: ": hello\n\n"}, connection{code: 403}).URL,
			arc.ErrCredentials},
	} {
		if err := dial(t, v.url, arc.Options{}).Watch(t.Context(), func(bsv.Txid) {}); !errors.Is(err, v.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := dial(t, "http://127.0.0.1:1", arc.Options{}).Watch(ctx, func(bsv.Txid) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// A service that is away when it begins.
	b := dial(t, "http://127.0.0.1:1", arc.Options{})
	tries := 0
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	b.SetPause(func(ctx context.Context, _ time.Duration) error {
		if tries++; tries == 5 {
			cancel()
		}
		return ctx.Err()
	})
	if err := b.Watch(ctx, func(bsv.Txid) {}); !errors.Is(err, context.Canceled) || tries != 5 {
		t.Error(err, tries)
	}
}
