package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 3
	maxHeader    = 16 << 10 // bytes
	idleConns    = 8
	idleFor      = 30 * time.Second
)

var errRedirect = errors.New("redirect is not followed")

func (c *client) newHTTP(f family) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            c.dial(f),
			TLSClientConfig:        c.opt.TLS.Clone(),
			TLSHandshakeTimeout:    askTimeout,
			MaxIdleConns:           idleConns,
			MaxIdleConnsPerHost:    openPerHost,
			IdleConnTimeout:        idleFor,
			MaxResponseHeaderBytes: maxHeader,
			ReadBufferSize:         4 << 10,
			WriteBufferSize:        4 << 10,
		},
		CheckRedirect: checkRedirect,
	}
}

// checkRedirect lets a tracker move, but neither off TLS nor into a private
// network. Names in the new URL are judged when they are resolved.
func checkRedirect(req *http.Request, via []*http.Request) error {
	refuse := func(why string) error { return fmt.Errorf("%w: %s", errRedirect, why) }
	if len(via) > maxRedirects {
		return refuse("too many")
	}
	switch {
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return refuse("scheme " + strconv.Quote(req.URL.Scheme))
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http":
		return refuse("from https to http")
	}
	name := strings.ToLower(req.URL.Hostname())
	if a, err := netip.ParseAddr(name); isLocalhost(name) || err == nil && !public(a) {
		return refuse("into a private network")
	}
	return nil
}

// askHTTP announces by BEP 3, BEP 7 and BEP 23.
func (c *client) askHTTP(ctx context.Context, f family, req request) (reply, error) {
	target := *req.url
	if query := c.query(req); target.RawQuery != "" {
		target.RawQuery += "&" + query // some trackers want what they wrote first
	} else {
		target.RawQuery = query
	}
	r := (&http.Request{Method: http.MethodGet, URL: &target, Host: target.Host, Header: http.Header{
		"User-Agent": {c.opt.UserAgent},
	}}).WithContext(ctx)
	answer, err := c.http[f].Do(r)
	if err != nil {
		if errors.Is(err, errRedirect) {
			return reply{}, &fault{plain(err)}
		}
		return reply{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxReply+1))
	if err != nil {
		return reply{}, fmt.Errorf("read answer: %w", err)
	}
	if len(body) > maxReply {
		return reply{}, faultf("%w: longer than %d bytes", errReply, maxReply)
	}
	parsed, err := parseReply(body)
	var no *refusal
	if errors.As(err, &no) {
		return reply{}, no // some refuse with a status besides
	}
	switch code := answer.StatusCode; {
	case code == http.StatusTooManyRequests || code >= 500:
		return reply{}, &busy{status: status(code), retry: c.retryAfter(answer.Header.Get("Retry-After"))}
	case code != http.StatusOK:
		return reply{}, faultf("tracker answers %s", status(code))
	case err != nil:
		return reply{}, &fault{err}
	}
	return parsed, nil
}

func status(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

// retryAfter reads that header, in seconds or as a date.
func (c *client) retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), int(MaxInterval/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(c.opt.Clock()), 0)
	}
	return 0
}

// query is what is added to the tracker's URL.
func (c *client) query(req request) string {
	var b strings.Builder
	b.Grow(256)
	b.WriteString("info_hash=")
	escape(&b, req.infoHash[:])
	b.WriteString("&peer_id=")
	escape(&b, c.opt.PeerID[:])
	fmt.Fprintf(&b, "&port=%d&uploaded=%d&downloaded=0&left=0&compact=1&numwant=0&key=%08x", c.opt.Port, req.uploaded, c.id)
	if req.event != none {
		b.WriteString("&event=" + req.event.String())
	}
	return b.String()
}

// escape writes bytes as RFC 1738 has them, which all trackers read.
func escape(b *strings.Builder, raw []byte) {
	const digits = "0123456789ABCDEF"
	for _, c := range raw {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
}
