package webui_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
	"github.com/bitcdn/bitcdn/webui"
)

type source func(ctx context.Context) (webui.Status, error)

func (s source) Status(ctx context.Context) (webui.Status, error) { return s(ctx) }

func sample() webui.Status {
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	return webui.Status{
		Name: "attic", Version: "v0", Now: now, Started: now.Add(-3 * time.Hour),
		Chain: webui.Chain{Network: "regtest", Height: 107, Hash: strings.Repeat("ab", 32), Time: now.Add(-5 * time.Minute), Services: []webui.ChainService{
			{Name: "arc one.example", LastAnswer: now.Add(-4 * time.Second)},
			{Name: "arc two.example", Down: true, LastAnswer: now.Add(-time.Hour), Error: "it wants a key"},
			{Name: "whatsonchain three.example"},
		}},
		Earnings: webui.Earnings{
			Unsettled: 1500, OnChain: 20000, Swept: 300000, Fees: 60, Royalties: 777,
			Sweeps: []webui.Sweep{
				{Txid: strings.Repeat("cd", 32), Amount: 200000, Fee: 40, At: now, Height: 0},
				{Txid: strings.Repeat("ef", 32), Amount: 100000, Fee: 20, At: now, Height: 105},
			},
		},
		Titles: []webui.Title{
			{InfoHash: strings.Repeat("01", 20), Name: "A film", Size: 3 << 30, Price: 1000, Royalty: 250, Sold: 5 << 20, Earned: 12345},
			{InfoHash: strings.Repeat("02", 20), Name: "Free", Size: 1 << 20},
		},
		Channels: []webui.Channel{{ID: "c1", Title: "A film", Remote: "192.0.2.7:6881", State: "open", Capacity: 50000, Paid: 1234, Royalty: 56, Bytes: 7 << 20, Refund: 251}},
		Traffic:  webui.Traffic{Connections: 4, UploadRate: 2 << 20, Uploaded: 9 << 30},
	}
}

func handler(s webui.Status, opt webui.Options) http.Handler {
	return webui.New(source(func(context.Context) (webui.Status, error) { return s, nil }), opt)
}

func ask(h http.Handler, method, host, path string) *http.Response {
	r := httptest.NewRequest(method, "http://placeholder"+path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestStatusPage(t *testing.T) {
	r := ask(handler(sample(), webui.Options{}), "GET", "localhost:8080", "/")
	page := body(t, r)
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%s, %v", r.Status, r.Header)
	}
	for _, want := range []string{
		"attic", "regtest network, block 107 (5 min ago)", "started 3 h ago", "Everything works",
		"321,560 sat", "1,500 sat", "20,000 sat", "300,000 sat", "777 sat", "60 sat",
		strings.Repeat("cd", 32), strings.Repeat("ef", 32), "waiting", ">105<",
		"A film", "3.0 GiB", "1,000 sat/GiB", "250 sat/GiB", "5.0 MiB", "12,345 sat", "free",
		"192.0.2.7:6881", "7.0 MiB", "1,234 sat", "56 sat", "50,000 sat", ">251<",
		"2.0 MiB/s", "<dd>4</dd>", `http-equiv="refresh" content="5"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "ZgotmplZ"} {
		if strings.Contains(page, never) {
			t.Errorf("the page has %q", never)
		}
	}
}

func TestEmptyBox(t *testing.T) {
	page := body(t, ask(handler(webui.Status{}, webui.Options{}), "GET", "localhost", "/"))
	for _, want := range []string{"BitCDN", "No titles yet", "Nobody is paying", "Nothing has been paid out", "tip not known"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
}

func TestHostileTextIsEscaped(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror='a'>`
	s := sample()
	s.Name, s.Version, s.Chain.Network, s.Chain.Hash = evil, evil, evil, evil
	s.Chain.Services = []webui.ChainService{{Name: evil, Error: evil}}
	s.Titles = []webui.Title{{Name: evil, InfoHash: evil}}
	s.Channels = []webui.Channel{{ID: evil, Title: evil, Remote: evil, State: evil}}
	s.Earnings.Sweeps = []webui.Sweep{{Txid: evil}}
	s.Health = []health.Condition{{Code: evil, Title: evil, Remedy: evil, Detail: evil, Severity: health.Failure}}
	page := body(t, ask(handler(s, webui.Options{}), "GET", "localhost", "/"))
	for _, bad := range []string{"<script", "<img", "onerror='", `=""><`} {
		if strings.Contains(page, bad) {
			t.Errorf("%q reached the page", bad)
		}
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 10 {
		t.Errorf("the text is shown %d times", n)
	}
	api := body(t, ask(handler(s, webui.Options{}), "GET", "localhost", "/api/v1/status"))
	if strings.Contains(api, "<script") {
		t.Error("JSON that could be taken for HTML")
	}
}

func TestChainServices(t *testing.T) {
	page := body(t, ask(handler(sample(), webui.Options{}), "GET", "localhost", "/"))
	for _, want := range []string{"arc one.example</td>", ">answers<", "passed over: it wants a key", "none yet", ">not asked yet<"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	s := sample()
	s.Chain.Services = nil
	if page := body(t, ask(handler(s, webui.Options{}), "GET", "localhost", "/")); strings.Contains(page, "chain services") {
		t.Error("a table without services")
	}
}

func TestHealthConditions(t *testing.T) {
	s := sample()
	s.Health = []health.Condition{{
		Code: "chain-unreachable", Severity: health.Failure, Title: "The chain cannot be reached.",
		Remedy: "Check the network cable.", Detail: "connection refused", Since: s.Now.Add(-2 * time.Minute),
	}}
	page := body(t, ask(handler(s, webui.Options{}), "GET", "localhost", "/"))
	for _, want := range []string{`class="condition failure"`, "The chain cannot be reached.", "Check the network cable.", "since 2 min ago", "connection refused"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	if strings.Contains(page, "Everything works") {
		t.Error("everything works, it says")
	}
}

func TestAPI(t *testing.T) {
	s := sample()
	s.Health = []health.Condition{{Code: "x", Severity: health.Warning, Title: "t", Since: s.Now}}
	r := ask(handler(s, webui.Options{}), "GET", "localhost", "/api/v1/status")
	if r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", r.Header)
	}
	var got struct {
		Earnings struct {
			OnChain int64 `json:"on_chain"`
			Sweeps  []struct{ Txid string }
		}
		Titles []struct {
			InfoHash string `json:"info_hash"`
			Price    int64
			Sold     int64
		}
		Channels []struct {
			Refund uint32 `json:"refund_height"`
		}
		Traffic struct {
			UploadRate int64 `json:"upload_rate"`
		}
		Health []struct{ Code, Severity string }
	}
	if err := json.Unmarshal([]byte(body(t, r)), &got); err != nil {
		t.Fatal(err)
	}
	if got.Earnings.OnChain != 20000 || len(got.Earnings.Sweeps) != 2 || got.Titles[0].Price != 1000 ||
		got.Titles[0].Sold != 5<<20 || got.Channels[0].Refund != 251 || got.Traffic.UploadRate != 2<<20 ||
		got.Health[0].Severity != "warning" {
		t.Errorf("%+v", got)
	}
}

func TestAPIHasListsAlways(t *testing.T) {
	if text := body(t, ask(handler(webui.Status{}, webui.Options{}), "GET", "localhost", "/api/v1/status")); strings.Contains(text, "null") {
		t.Error(text)
	}
}

func TestForeignHostsAreRefused(t *testing.T) {
	h := handler(sample(), webui.Options{Hosts: []string{"Box.Example.org"}})
	for host, want := range map[string]int{
		"localhost":               200,
		"LOCALHOST:8080":          200,
		"localhost.":              200,
		"127.0.0.1:8080":          200,
		"127.8.9.1":               200,
		"[::1]:8080":              200,
		"[::1]":                   200,
		"::1":                     200,
		"192.168.1.20":            200,
		"10.0.0.3:80":             200,
		"172.31.0.1":              200,
		"169.254.3.4":             200,
		"[fe80::1%25eth0]:80":     200,
		"[fd00::5]:80":            200,
		"[::ffff:10.0.0.1]":       200,
		"attic.local":             200,
		"attic.local.:8080":       200,
		"box.example.org:80":      200,
		"":                        421,
		".local":                  421,
		"attic.local.example.com": 421,
		"example.com":             421,
		"example.com:80":          421,
		"localhost.example.com":   421,
		"127.0.0.1.example.com":   421,
		"8.8.8.8":                 421,
		"172.32.0.1":              421,
		"[2001:db8::1]:80":        421,
		"[::ffff:8.8.8.8]":        421,
		"0.0.0.0":                 421,
		"2130706433":              421,
		"x.box.example.org":       421,
	} {
		for _, path := range []string{"/", "/api/v1/status", "/healthz", "/style.css", "/other"} {
			expect := want
			if expect == 200 && path == "/other" {
				expect = 404
			}
			r := ask(h, "GET", host, path)
			if r.StatusCode != expect {
				t.Errorf("host %q, %s: %d, want %d", host, path, r.StatusCode, expect)
			}
			if want != 200 && strings.Contains(body(t, r), "attic ") {
				t.Errorf("host %q was told something", host)
			}
		}
	}
}

func TestHeaders(t *testing.T) {
	h := handler(sample(), webui.Options{})
	for _, path := range []string{"/", "/api/v1/status", "/healthz", "/style.css", "/none"} {
		for _, host := range []string{"localhost", "example.com"} {
			r := ask(h, "GET", host, path)
			csp := r.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") || strings.Contains(csp, "unsafe") ||
				r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("X-Frame-Options") != "DENY" ||
				r.Header.Get("Cache-Control") == "" {
				t.Errorf("%s %s: %v", host, path, r.Header)
			}
		}
	}
}

func TestOnlyReading(t *testing.T) {
	h := handler(sample(), webui.Options{})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		for _, path := range []string{"/", "/api/v1/status", "/none"} {
			if r := ask(h, method, "localhost", path); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %s, Allow %q", method, path, r.Status, r.Header.Get("Allow"))
			}
		}
	}
	if r := ask(h, "HEAD", "localhost", "/"); r.StatusCode != http.StatusOK || r.Header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %s, %v", r.Status, r.Header)
	}
}

func TestStyleSheetIsCached(t *testing.T) {
	h := handler(sample(), webui.Options{})
	first := ask(h, "GET", "localhost", "/style.css")
	if first.StatusCode != http.StatusOK || first.Header.Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(body(t, first), "light-dark(") {
		t.Fatalf("%s %v", first.Status, first.Header)
	}
	r := httptest.NewRequest("GET", "http://localhost/style.css", nil)
	r.Header.Set("If-None-Match", first.Header.Get("ETag"))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusNotModified {
		t.Errorf("the second time: %d", w.Code)
	}
}

func TestSourceThatFails(t *testing.T) {
	h := webui.New(source(func(context.Context) (webui.Status, error) {
		return webui.Status{}, errors.New("open /secret/place: no such file")
	}), webui.Options{})
	for _, path := range []string{"/", "/api/v1/status", "/healthz"} {
		r := ask(h, "GET", "localhost", path)
		if text := body(t, r); r.StatusCode != http.StatusServiceUnavailable || strings.Contains(text, "secret") {
			t.Errorf("%s: %s %q", path, r.Status, text)
		}
	}
}

func TestSourceThatHangs(t *testing.T) {
	h := webui.New(source(func(ctx context.Context) (webui.Status, error) {
		<-ctx.Done()
		return webui.Status{}, ctx.Err()
	}), webui.Options{Timeout: time.Millisecond})
	if r := ask(h, "GET", "localhost", "/healthz"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s", r.Status)
	}
}

func TestServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := webui.NewServer(handler(sample(), webui.Options{}), nil)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	if srv.ReadHeaderTimeout == 0 || srv.ReadTimeout == 0 || srv.WriteTimeout == 0 || srv.IdleTimeout == 0 || srv.MaxHeaderBytes == 0 {
		t.Error("a limit is missing")
	}
	client := &http.Client{Transport: &http.Transport{}}
	for method, empty := range map[string]bool{"GET": false, "HEAD": true} {
		req, err := http.NewRequest(method, "http://"+ln.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if text := body(t, r); r.StatusCode != 200 || (text == "") != empty {
			t.Errorf("%s: %s %q", method, r.Status, text)
		}
		r.Body.Close()
	}
	client.CloseIdleConnections()
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
