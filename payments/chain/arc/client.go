package arc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// maxAnswer is the largest answer in bytes that is read.
	maxAnswer = 1 << 20
	// maxPlaces is how many requests may be under way at once.
	maxPlaces = 4
	// Where a service asks for less and does not say how long, or for too long.
	defaultWait = 5 * time.Second
	maxWait     = 10 * time.Minute
)

// errGone says that a path is not there: it is another service than it was taken
// for.
var errGone = errors.New("no such path")

type client struct {
	base, key, token string
	http             *http.Client
	places           chan struct{}
	timeout          time.Duration
	clock            func() time.Time

	mu    sync.Mutex
	after time.Time // no requests before, at the service's own wish
}

func newClient(base string, opt Options, token string) *client {
	return &client{
		base: base, key: opt.Key, token: token,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:                 http.ProxyFromEnvironment,
				MaxIdleConnsPerHost:   maxPlaces,
				IdleConnTimeout:       time.Minute,
				ResponseHeaderTimeout: opt.Timeout, // for the event stream too
				ForceAttemptHTTP2:     true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		places:  make(chan struct{}, maxPlaces),
		timeout: opt.Timeout,
		clock:   opt.Clock,
	}
}

// request is one request; a nil body makes it a GET.
type request struct {
	path   string
	body   []byte
	header map[string]string
}

// answer is what came back, whatever its code.
type answer struct {
	code int
	body []byte
}

// call makes a request. Errors are chain.ErrUnavailable where asking again may
// help (the context's error is wrapped too), ErrCredentials, ErrProtocol and
// errGone; all other codes are the caller's to judge.
func (c *client) call(ctx context.Context, r request) (answer, error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%w: %w", chain.ErrUnavailable, ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.do(ctx, r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", chain.ErrUnavailable, c.clean(err))
	}
	if len(body) > maxAnswer {
		return answer{}, fmt.Errorf("more than %d bytes: %w", maxAnswer, ErrProtocol)
	}
	a := answer{resp.StatusCode, body}
	return a, c.judge(a, resp)
}

// do sends a request, unless the service has asked for a rest.
func (c *client) do(ctx context.Context, r request) (*http.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	c.mu.Lock()
	rest := c.after.Sub(c.clock())
	c.mu.Unlock()
	if rest > 0 {
		return nil, fmt.Errorf("the service asks to wait %s more: %w", rest.Round(time.Second), chain.ErrUnavailable)
	}
	method, body := http.MethodGet, io.Reader(nil)
	if r.body != nil {
		method, body = http.MethodPost, bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+r.path, body)
	if err != nil {
		return nil, c.clean(err)
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", chain.ErrUnavailable, c.clean(err))
	}
	return resp, nil
}

// judge turns the codes that mean the same for every request into errors.
func (c *client) judge(a answer, resp *http.Response) error {
	switch {
	case a.code == http.StatusUnauthorized, a.code == http.StatusForbidden:
		return ErrCredentials
	case a.code == http.StatusTooManyRequests, a.code >= 500:
		c.rest(a.code, resp.Header.Get("Retry-After"))
		return fmt.Errorf("%w: %s", chain.ErrUnavailable, codeText(a.code))
	case a.code == http.StatusRequestTimeout, a.code == http.StatusTooEarly:
		return fmt.Errorf("%w: %s", chain.ErrUnavailable, codeText(a.code))
	case a.code >= 300 && a.code < 400, a.code < 200:
		return fmt.Errorf("%w: %s", ErrProtocol, codeText(a.code))
	case a.code == http.StatusNotFound, a.code == http.StatusMethodNotAllowed:
		return errGone
	}
	return nil
}

// codeText is the code in the protocol's words, not in the service's.
func codeText(code int) string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))
}

// rest keeps to Retry-After, in seconds or as a date.
func (c *client) rest(code int, after string) {
	now := c.clock()
	wait := time.Duration(0)
	if code == http.StatusTooManyRequests {
		wait = defaultWait
	}
	if seconds, err := strconv.ParseUint(after, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if date, err := http.ParseTime(after); err == nil {
		wait = date.Sub(now)
	}
	wait = min(wait, maxWait)
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := now.Add(wait); wait > 0 && until.After(c.after) {
		c.after = until
	}
}

// clean takes from an error what must not be shown: the URL, which may hold the
// token, and what the service may have repeated. Its cause stays.
func (c *client) clean(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return &cleaned{err, c.text(err.Error())}
}

type cleaned struct {
	cause error
	text  string
}

func (c *cleaned) Error() string { return c.text }
func (c *cleaned) Unwrap() error { return c.cause }

// text makes words of the service fit to be shown: without the key and the
// token, should it repeat them.
func (c *client) text(parts ...string) string {
	text := strings.Join(parts, ": ")
	for _, secret := range []string{c.key, c.token} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	return text
}

// decode reads the answer's JSON, of which only the first value counts.
func (a answer) decode(into any) error {
	if err := json.NewDecoder(bytes.NewReader(a.body)).Decode(into); err != nil {
		return fmt.Errorf("%s without the JSON that belongs there: %w", codeText(a.code), ErrProtocol)
	}
	return nil
}
