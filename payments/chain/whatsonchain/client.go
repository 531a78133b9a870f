package whatsonchain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// maxAnswer is the largest answer in bytes: a transaction in hexadecimal, or
	// some 15,000 outputs.
	maxAnswer = 4 << 20
	// maxParts bounds the elements of a JSON answer, of which the shortest take
	// thirty times the memory that they take on the wire.
	maxParts = 200_000
)

// errLarge says that an answer passes the limits.
var errLarge = fmt.Errorf("too much: %w", ErrProtocol)

// tries is how often a request is made that is refused as one too many.
const tries = 3

// refusal is an answer with a status that is not 200.
type refusal struct {
	status int
	text   string
}

// maxText is the most that is read of a refusal.
const maxText = 4 << 10

func (r *refusal) Error() string { return fmt.Sprintf("WhatsOnChain: %d: %.300q", r.status, r.text) }

// Unwrap says what the refusal means where no method knows better.
func (r *refusal) Unwrap() error {
	if r.status >= 500 || r.status == http.StatusRequestTimeout {
		return chain.ErrUnavailable
	}
	return ErrProtocol
}

// refusedWith reports whether err is a refusal with one of these statuses.
func refusedWith(err error, statuses ...int) bool {
	r := new(refusal)
	if !errors.As(err, &r) {
		return false
	}
	for _, s := range statuses {
		if r.status == s {
			return true
		}
	}
	return false
}

type client struct {
	base, key string
	http      *http.Client
	timeout   time.Duration
	clock     func() time.Time
	pace      *pace
}

func newClient(base string, opt Options) *client {
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
	if opt.Rate <= 0 {
		opt.Rate = 3
		if opt.Key != "" {
			opt.Rate = 10
		}
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	c := &client{
		base: base, key: opt.Key, timeout: opt.Timeout, clock: opt.Clock,
		pace: newPace(opt.Rate, max(opt.Burst, 1), opt.Clock),
		http: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		}},
	}
	if opt.HTTP != nil {
		own := *opt.HTTP
		c.http = &own
	}
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// get asks with GET and reads a JSON answer into result.
func (c *client) get(ctx context.Context, path string, result any) error {
	raw, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return decode(raw, path, result)
}

// post asks with POST and reads a JSON answer into result.
func (c *client) post(ctx context.Context, path string, question, result any) error {
	raw, err := c.ask(ctx, http.MethodPost, path, question)
	if err != nil {
		return err
	}
	return decode(raw, path, result)
}

func decode(raw []byte, path string, result any) error {
	if bytes.Count(raw, []byte{','}) > maxParts {
		return fmt.Errorf("%s: more than %d values: %w", path, maxParts, errLarge)
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrProtocol, err)
	}
	return nil
}

// ask makes a request when its turn has come and returns the body of the
// answer. Errors are *refusal, chain.ErrUnavailable where asking again may help
// (the context's error is wrapped too), ErrCredentials and ErrProtocol.
func (c *client) ask(ctx context.Context, method, path string, question any) ([]byte, error) {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	for try := 1; ; try++ {
		if err := c.pace.wait(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		answer, err := c.once(ctx, method, path, body)
		busy := new(tooMany)
		if !errors.As(err, &busy) {
			if refused := new(refusal); err == nil || errors.As(err, &refused) {
				c.pace.answered()
			}
			return answer, err
		}
		if pause := c.pace.refused(busy.after); pause > longPause || try == tries {
			return nil, fmt.Errorf("%s: %w: it asks for a pause of %s", path, chain.ErrUnavailable, pause.Round(time.Second))
		}
	}
}

// tooMany is the status 429.
type tooMany struct{ after time.Duration }

func (*tooMany) Error() string { return "too many requests" }

func (c *client) once(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, chain.ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return nil, &tooMany{after: c.retryAfter(resp.Header.Get("Retry-After"))}
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%s: %w: %s", path, ErrCredentials, resp.Status)
	case resp.StatusCode < 200, resp.StatusCode >= 300 && resp.StatusCode < 400:
		return nil, fmt.Errorf("%s: %w: %s", path, ErrProtocol, resp.Status)
	case resp.StatusCode >= 400:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // what came of it will do
		return nil, fmt.Errorf("%s: %w", path, &refusal{resp.StatusCode, string(bytes.TrimSpace(text))})
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, chain.ErrUnavailable, err)
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", path, maxAnswer, errLarge)
	}
	return bytes.TrimSpace(answer), nil
}

// retryAfter reads the header of that name: seconds, or a date.
func (c *client) retryAfter(text string) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 16); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return at.Sub(c.clock())
	}
	return 0
}
