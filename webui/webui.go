// Package webui serves a box's pages on the local network. For now that is one
// status page, which changes nothing:
//
//	/               the status page, which reloads itself every five seconds
//	/api/v1/status  the same as JSON; fields are added, never renamed
//	/healthz        200 while the box answers, 503 when it does not
//
// There is no log-in, so what is shown must be fit for anybody on the local
// network. Pages of other sites cannot read it: a request must name the box by
// an address or name that belongs to the local network, which stops DNS
// rebinding, and nothing may be framed. The pages run no script and load
// nothing from elsewhere.
package webui

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
)

//go:embed status.html
var statusHTML string

//go:embed style.css
var styleCSS []byte

// DefaultTimeout is how long a Source may take where Options say nothing.
const DefaultTimeout = 3 * time.Second

// Options of the pages. The zero value is good.
type Options struct {
	// Hosts are names by which the box may be asked for besides localhost,
	// NAME.local and the addresses of local networks.
	Hosts []string
	// Timeout is how long the Source may take for one request; DefaultTimeout
	// where it is zero.
	Timeout time.Duration
	// Log takes what could not be shown; nil for nowhere.
	Log *slog.Logger
}

type pages struct {
	source  Source
	hosts   map[string]bool
	timeout time.Duration
	log     *slog.Logger
	page    *template.Template
	etag    string // of the style sheet
}

// New returns the pages over source. GET and HEAD are all they answer.
func New(source Source, opt Options) http.Handler {
	p := &pages{source: source, hosts: map[string]bool{}, timeout: opt.Timeout, log: opt.Log}
	for _, h := range opt.Hosts {
		p.hosts[plainHost(h)] = true
	}
	if p.timeout <= 0 {
		p.timeout = DefaultTimeout
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.page = template.Must(template.New("status").Funcs(template.FuncMap{
		"size": size, "sat": sat, "price": price, "short": short, "ago": ago, "time": stamp,
	}).Parse(statusHTML))
	sum := sha256.Sum256(styleCSS)
	p.etag = strconv.Quote(hex.EncodeToString(sum[:8]))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.status)
	mux.HandleFunc("GET /style.css", p.style)
	mux.HandleFunc("GET /api/v1/status", p.api)
	mux.HandleFunc("GET /healthz", p.healthz)
	return p.guard(mux)
}

// NewServer returns a server for the pages whose limits keep a slow or greedy
// client from holding anything for long.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	if log != nil {
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	return s
}

// guard sets the headers that every answer has, and refuses foreign hosts.
func (p *pages) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !p.allowed(r.Host) {
			http.Error(w, "This box is not known by that name. Ask for it by its address, or by its name ending in .local.", http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "Nothing can be changed here.", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// allowed reports whether a Host header is one that only somebody on the local
// network, or the owner, could have meant. A foreign site can make its own name
// resolve to the box, but the browser then still sends that name.
func (p *pages) allowed(hostport string) bool {
	host := plainHost(hostport)
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
	}
	name, local := strings.CutSuffix(host, ".local")
	return host == "localhost" || local && name != "" || p.hosts[host]
}

// plainHost is a Host header without its port, brackets and final dot, in
// lower case.
func plainHost(hostport string) string {
	host := hostport
	if i := strings.LastIndexByte(host, ':'); i >= 0 && (strings.IndexByte(host, ':') == i || strings.HasPrefix(host, "[") && host[i-1] == ']') {
		host = host[:i]
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func (p *pages) read(w http.ResponseWriter, r *http.Request) (Status, bool) {
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	s, err := p.source.Status(ctx)
	if err != nil {
		// What failed may hold paths and addresses: it goes to the log.
		p.log.WarnContext(r.Context(), "status not available", "err", err)
		http.Error(w, "The box cannot tell its status at the moment.", http.StatusServiceUnavailable)
		return Status{}, false
	}
	return s, true
}

func (p *pages) status(w http.ResponseWriter, r *http.Request) {
	s, ok := p.read(w, r)
	if !ok {
		return
	}
	var b bytes.Buffer // so that a page is whole or an error, never half of it
	if err := p.page.Execute(&b, s); err != nil {
		p.log.ErrorContext(r.Context(), "status page", "err", err)
		http.Error(w, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	answer(w, "text/html; charset=utf-8", b.Bytes())
}

func (p *pages) api(w http.ResponseWriter, r *http.Request) {
	s, ok := p.read(w, r)
	if !ok {
		return
	}
	s.Titles, s.Channels, s.Health = listed(s.Titles), listed(s.Channels), listed(s.Health)
	s.Chain.Services = listed(s.Chain.Services)
	s.Earnings.Sweeps = listed(s.Earnings.Sweeps)
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		p.log.ErrorContext(r.Context(), "status as JSON", "err", err)
		http.Error(w, "The answer could not be made.", http.StatusInternalServerError)
		return
	}
	answer(w, "application/json", append(b, '\n'))
}

// listed makes an empty list of none, so that JSON has [] and never null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (p *pages) healthz(w http.ResponseWriter, r *http.Request) {
	if _, ok := p.read(w, r); ok {
		answer(w, "text/plain; charset=utf-8", []byte("ok\n"))
	}
}

func (p *pages) style(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", p.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(styleCSS))
}

func answer(w http.ResponseWriter, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the client has gone: nobody to tell
}

// Earned is the sum of what was earned, whatever became of it since.
func (e Earnings) Earned() money.Satoshis {
	return e.Unsettled + e.OnChain + e.Swept + e.Fees
}

// Uptime is how long the program has been running.
func (s Status) Uptime() time.Duration { return s.Now.Sub(s.Started) }

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f, i = f/unit, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}

func sat(s money.Satoshis) string { return s.String() }

func price(r money.Rate) string {
	if r == 0 {
		return "free"
	}
	return r.String()
}

func short(hash string) string {
	if len(hash) <= 20 {
		return hash
	}
	return hash[:10] + "…" + hash[len(hash)-8:]
}

func ago(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return "never"
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
