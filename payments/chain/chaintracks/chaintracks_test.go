package chaintracks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintracks"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
)

// serve answers for a chain as such a service does. change, where set, may
// spoil an answer.
func serve(t *testing.T, c chain.Backend, change func(map[string]any)) *chaintracks.Backend {
	t.Helper()
	value := func(h chain.Header) map[string]any {
		v := map[string]any{"hash": h.Hash.String(), "previousHash": h.Prev.String(), "merkleRoot": h.MerkleRoot.String(), "height": h.Height,
			"version": h.Version, "time": h.Time.Unix(), "bits": h.Bits, "nonce": h.Nonce}
		if change != nil {
			change(v)
		}
		return v
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /getPresentHeight", func(w http.ResponseWriter, r *http.Request) {
		tip, err := c.Tip(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "value": tip.Height})
	})
	mux.HandleFunc("GET /findHeaderHexForHeight", func(w http.ResponseWriter, r *http.Request) {
		height, err := strconv.ParseUint(r.FormValue("height"), 10, 32)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		h, err := c.Header(r.Context(), uint32(height))
		if err != nil {
			fmt.Fprint(w, `{"status":"success"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "value": value(h)})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	b, err := chaintracks.Dial(server.URL+"/", "")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newChain(t *testing.T) chain.Backend {
	t.Helper()
	m := memory.New(func() time.Time { return time.Unix(1_700_000_000, 0) })
	m.Mine(3)
	return m
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	b := serve(t, c, nil)
	want, err := c.Tip(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Tip(t.Context()); err != nil || got != want {
		t.Fatalf("tip %v, %v; want %v", got, err, want)
	}
	for height := range want.Height {
		want, err := c.Header(t.Context(), height)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := b.Header(t.Context(), height); err != nil || got != want {
			t.Fatalf("header %v, %v; want %v", got, err, want)
		}
	}
	for _, height := range []uint32{want.Height + 1, 1<<32 - 1} {
		if _, err := b.Header(t.Context(), height); !errors.Is(err, chain.ErrNotFound) {
			t.Errorf("block %d: %v", height, err)
		}
	}
}

func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(map[string]any){
		"another height": func(v map[string]any) { v["height"] = 2 },
		"no height":      func(v map[string]any) { v["height"] = -1 },
		"another nonce":  func(v map[string]any) { v["nonce"] = 7 },
		"short hash":     func(v map[string]any) { v["hash"] = "00" },
		"text for bits":  func(v map[string]any) { v["bits"] = "207fffff" },
		"large version":  func(v map[string]any) { v["version"] = int64(1) << 40 },
		"much":           func(v map[string]any) { v["hash"] = strings.Repeat("0", 100_000) },
	} {
		if _, err := serve(t, newChain(t), change).Header(t.Context(), 1); !errors.Is(err, chaintracks.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnavailable(t *testing.T) {
	t.Parallel()
	answers := map[string]http.HandlerFunc{
		"busy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"down": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"gone": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, answer := range answers {
		server := httptest.NewServer(answer)
		b, err := chaintracks.Dial(server.URL, "key")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Tip(t.Context()); !errors.Is(err, chain.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		server.Close()
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if _, err := serve(t, newChain(t), nil).Tip(ctx); !errors.Is(err, chain.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
}

func TestElsewhere(t *testing.T) {
	t.Parallel()
	asked := false
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer server.Close()
	b, err := chaintracks.Dial(server.URL, "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Tip(t.Context()); !errors.Is(err, chaintracks.ErrProtocol) || asked {
		t.Errorf("redirected: %v, followed %v", err, asked)
	}
	for _, address := range []string{"", "host", "ftp://host", "https://", "https://user:secret@host", "https://host/?a=b", "\x00"} {
		if _, err := chaintracks.Dial(address, ""); !errors.Is(err, chaintracks.ErrURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := b.Spent(t.Context(), bsv.Outpoint{}); !errors.Is(err, chain.ErrUnsupported) {
		t.Error(err)
	}
}
