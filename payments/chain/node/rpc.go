package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

// Error is an error that the node itself reports.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error gives the node's words and code.
func (e *Error) Error() string { return fmt.Sprintf("node: %.300q (%d)", e.Message, e.Code) }

// Codes that mean the same in both dialects.
const (
	codeNotConnected = -9
	codeDownloading  = -10
	codeWarmup       = -28
	codeNotFound     = -5
)

// errTooLarge says that an answer passes the cap.
var errTooLarge = errors.New("the node's answer is too large")

type client struct {
	url, user, password string
	http                *http.Client
	places              chan struct{}
	timeout             time.Duration
	most                int64
}

func newClient(u *url.URL, user, password string, opt Options) *client {
	bare := *u
	bare.User = nil
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
	if opt.Concurrency <= 0 {
		opt.Concurrency = 4
	}
	if opt.MaxResponse <= 0 {
		opt.MaxResponse = 16 << 20
	}
	transport := &http.Transport{
		MaxIdleConnsPerHost: opt.Concurrency,
		IdleConnTimeout:     time.Minute,
		TLSClientConfig:     &tls.Config{RootCAs: opt.RootCAs},
	}
	return &client{
		url: bare.String(), user: user, password: password,
		http: &http.Client{
			Transport: transport,
			// The credentials go to the configured host and nowhere else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		places:  make(chan struct{}, opt.Concurrency),
		timeout: opt.Timeout,
		most:    opt.MaxResponse,
	}
}

// call makes one request. Errors are *Error where the node answered with one,
// chain.ErrUnavailable where asking again may help (the context's error is
// wrapped too), ErrCredentials, ErrProtocol and errTooLarge.
func (c *client) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", method, chain.ErrUnavailable, ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	req.SetBasicAuth(c.user, c.password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", method, chain.ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()

	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s: %w", method, ErrCredentials)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("%s: %w: %s", method, chain.ErrUnavailable, resp.Status)
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return fmt.Errorf("%s: %w: %s", method, ErrProtocol, resp.Status)
	}
	capped := &io.LimitedReader{R: resp.Body, N: c.most}
	var answer struct {
		Result json.RawMessage `json:"result"`
		Error  *Error          `json:"error"`
	}
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch err := json.NewDecoder(capped).Decode(&answer); {
	case err == nil:
	case capped.N <= 0:
		return fmt.Errorf("%s: %w", method, errTooLarge)
	case errors.As(err, &syntax), errors.As(err, &mismatch):
		return fmt.Errorf("%s: %w: %s", method, ErrProtocol, resp.Status)
	default: // the connection ended early
		return fmt.Errorf("%s: %w: %w", method, chain.ErrUnavailable, err)
	}
	if e := answer.Error; e != nil {
		switch e.Code {
		case codeNotConnected, codeDownloading, codeWarmup:
			return fmt.Errorf("%s: %w: %w", method, chain.ErrUnavailable, e)
		}
		return fmt.Errorf("%s: %w", method, e)
	}
	if resp.StatusCode != http.StatusOK || answer.Result == nil {
		return fmt.Errorf("%s: %w: %s", method, ErrProtocol, resp.Status)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Result, result); err != nil {
		return fmt.Errorf("%s: %w: %w", method, ErrProtocol, err)
	}
	return nil
}
