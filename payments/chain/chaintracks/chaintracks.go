// Package chaintracks asks a Chaintracks service for block headers. It knows
// nothing of transactions: it is the second opinion on where a program's own
// chain of headers begins, beside a service that knows everything else.
//
// What it relies on: GET /getPresentHeight and
// GET /findHeaderHexForHeight?height= answer {"status":"success","value":…}
// with a number, and with an object of version, previousHash, merkleRoot,
// time, bits, nonce, height and hash (hexadecimal in display order, numbers as
// numbers). A height above the tip has no value.
//
// Every header must have the hash that it claims. Answers are capped in size
// and time, and redirects are not followed.
package chaintracks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var _ chain.Backend = (*Backend)(nil)

var (
	// ErrURL says that an address is not of the form https://host.
	ErrURL = errors.New("not the address of a Chaintracks service (https://host)")
	// ErrProtocol says that an answer is not of the form that this package
	// knows, or contradicts itself.
	ErrProtocol = errors.New("not an answer of a Chaintracks service")
)

const (
	timeout   = 30 * time.Second
	maxAnswer = 64 << 10 // bytes; a header is some 400
)

// Backend is a Chaintracks service. Use Dial. Whatever is not about headers is
// chain.ErrUnsupported.
type Backend struct {
	base string
	key  string
	http *http.Client
}

// Dial returns the backend for a service at an address like https://host. It
// does not connect. A key is sent as a bearer token. Errors are ErrURL.
func Dial(baseURL, key string) (*Backend, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrURL
	}
	return &Backend{base: strings.TrimSuffix(u.String(), "/"), key: key, http: &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// header is a header as the service writes it.
type header struct {
	Hash, PreviousHash, MerkleRoot     string
	Height, Version, Time, Bits, Nonce int64
}

// Tip implements chain.Backend.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	var height *int64
	if err := b.get(ctx, "/getPresentHeight", &height); err != nil {
		return chain.Header{}, fmt.Errorf("ask for the tip: %w", err)
	}
	if height == nil || *height < 0 || *height > math.MaxInt32 {
		return chain.Header{}, fmt.Errorf("ask for the tip: %w", ErrProtocol)
	}
	h, err := b.Header(ctx, uint32(*height))
	if errors.Is(err, chain.ErrNotFound) { // a reorganisation in between
		err = fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	return h, err
}

// Header implements chain.Backend.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if height > math.MaxInt32 {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	var answer *header
	if err := b.get(ctx, fmt.Sprintf("/findHeaderHexForHeight?height=%d", height), &answer); err != nil {
		return chain.Header{}, fmt.Errorf("ask for block %d: %w", height, err)
	}
	if answer == nil {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	h, err := answer.read()
	if err == nil && h.Height != height {
		err = fmt.Errorf("it gave block %d: %w", h.Height, ErrProtocol)
	}
	if err != nil {
		return chain.Header{}, fmt.Errorf("ask for block %d: %w", height, err)
	}
	return h, nil
}

func (a *header) read() (chain.Header, error) {
	hash, errHash := chain.ParseHash(a.Hash)
	root, errRoot := chain.ParseHash(a.MerkleRoot)
	prev, errPrev := chain.ParseHash(a.PreviousHash)
	if err := errors.Join(errHash, errRoot, errPrev); err != nil {
		return chain.Header{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	within := func(n, low, high int64) bool { return low <= n && n <= high }
	if !within(a.Height, 0, math.MaxInt32) || !within(a.Time, 0, math.MaxUint32) || !within(a.Bits, 0, math.MaxUint32) ||
		!within(a.Nonce, 0, math.MaxUint32) || !within(a.Version, math.MinInt32, math.MaxUint32) {
		return chain.Header{}, fmt.Errorf("a number out of range: %w", ErrProtocol)
	}
	h := chain.Header{Height: uint32(a.Height), Hash: hash, Prev: prev, MerkleRoot: root, Time: time.Unix(a.Time, 0).UTC(),
		Version: int32(uint32(a.Version)), Bits: uint32(a.Bits), Nonce: uint32(a.Nonce)}
	if err := h.CheckHash(); err != nil {
		return chain.Header{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return h, nil
}

// get asks for the value of an answer. Errors are chain.ErrUnavailable where
// asking again may help, and ErrProtocol.
func (b *Backend) get(ctx context.Context, path string, value any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+path, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if b.key != "" {
		req.Header.Set("Authorization", "Bearer "+b.key)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s", chain.ErrUnavailable, resp.Status)
	case resp.StatusCode == http.StatusNotFound:
		return nil // no value
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %w", resp.Status, ErrProtocol)
	}
	answer := struct {
		Status string
		Value  any
	}{Value: value}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("status %.40q: %w", answer.Status, ErrProtocol)
	}
	return nil
}

// FeeRate implements chain.Backend: ErrUnsupported.
func (*Backend) FeeRate(context.Context) (money.FeeRate, error) { return 0, chain.ErrUnsupported }

// Broadcast implements chain.Backend: ErrUnsupported.
func (*Backend) Broadcast(context.Context, *bsv.Tx, []bsv.Output) error { return chain.ErrUnsupported }

// Status implements chain.Backend: ErrUnsupported.
func (*Backend) Status(context.Context, bsv.Txid) (chain.Status, error) {
	return chain.Status{}, chain.ErrUnsupported
}

// RawTx implements chain.Backend: ErrUnsupported.
func (*Backend) RawTx(context.Context, bsv.Txid) (*bsv.Tx, error) { return nil, chain.ErrUnsupported }

// Unspent implements chain.Backend: ErrUnsupported.
func (*Backend) Unspent(context.Context, bsv.Script) ([]chain.Coin, error) {
	return nil, chain.ErrUnsupported
}

// Spent implements chain.Backend: ErrUnsupported.
func (*Backend) Spent(context.Context, bsv.Outpoint) (bool, error) {
	return false, chain.ErrUnsupported
}
