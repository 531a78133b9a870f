package whatsonchain

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	// newestAsked is the most headers that the service gives out by number,
	// newestAll the most in the file of the newest ones.
	newestAsked, newestAll = 100, 2000
	// oneByOne is how many headers are asked for singly in one call of Headers.
	oneByOne = 10
)

// info is the answer of /chain/info.
type info struct {
	Chain         string
	Blocks        int64
	BestBlockHash string
}

func (b *Backend) info(ctx context.Context) (height uint32, best chain.Hash, err error) {
	var answer info
	if err := b.client.get(ctx, "/chain/info", &answer); err != nil {
		return 0, chain.Hash{}, fmt.Errorf("ask for the tip: %w", err)
	}
	if answer.Chain != b.network.String() {
		return 0, chain.Hash{}, fmt.Errorf("the service is for network %.20q: %w", answer.Chain, ErrProtocol)
	}
	best, err = chain.ParseHash(answer.BestBlockHash)
	if err != nil || answer.Blocks < 0 || answer.Blocks > math.MaxInt32 {
		return 0, chain.Hash{}, fmt.Errorf("tip %d %.64q: %w", answer.Blocks, answer.BestBlockHash, ErrProtocol)
	}
	return uint32(answer.Blocks), best, nil
}

// Tip implements chain.Backend.
func (b *Backend) Tip(ctx context.Context) (chain.Header, error) {
	_, best, err := b.info(ctx)
	if err != nil {
		return chain.Header{}, err
	}
	b.mu.Lock()
	last := b.tip
	b.mu.Unlock()
	if last.Hash == best {
		return last, nil
	}
	h, err := b.header(ctx, best.String())
	switch {
	case refusedWith(err, http.StatusNotFound): // one of its machines is behind the other
		return chain.Header{}, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	case err != nil:
		return chain.Header{}, err
	case h.Hash != best:
		return chain.Header{}, fmt.Errorf("asked for block %s, got %s: %w", best, h.Hash, ErrProtocol)
	}
	b.mu.Lock()
	b.tip = h
	b.mu.Unlock()
	return h, nil
}

// Header implements chain.Backend.
func (b *Backend) Header(ctx context.Context, height uint32) (chain.Header, error) {
	if height > math.MaxInt32 {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	h, err := b.header(ctx, strconv.FormatUint(uint64(height), 10))
	if refusedWith(err, http.StatusNotFound, http.StatusBadRequest) {
		tip, _, errInfo := b.info(ctx)
		if errInfo != nil {
			return chain.Header{}, errInfo
		}
		if height > tip {
			return chain.Header{}, fmt.Errorf("block %d above the tip at %d: %w", height, tip, chain.ErrNotFound)
		}
	}
	if err != nil {
		return chain.Header{}, err
	}
	if h.Height != height {
		return chain.Header{}, fmt.Errorf("asked for block %d, got %d: %w", height, h.Height, ErrProtocol)
	}
	return h, nil
}

// header asks for a header by its hash or height.
func (b *Backend) header(ctx context.Context, id string) (chain.Header, error) {
	var answer struct {
		Hash, MerkleRoot, PreviousBlockHash, Bits string
		Height, Version, Time, Nonce              int64
		Confirmations                             *int64
	}
	if err := b.client.get(ctx, "/block/"+id+"/header", &answer); err != nil {
		return chain.Header{}, fmt.Errorf("ask for block %s: %w", id, err)
	}
	bits, errBits := strconv.ParseUint(answer.Bits, 16, 32)
	hash, errHash := chain.ParseHash(answer.Hash)
	root, errRoot := chain.ParseHash(answer.MerkleRoot)
	var prev chain.Hash
	var errPrev error
	if answer.PreviousBlockHash != "" {
		prev, errPrev = chain.ParseHash(answer.PreviousBlockHash)
	}
	if err := errors.Join(errBits, errHash, errRoot, errPrev); err != nil {
		return chain.Header{}, fmt.Errorf("block %s: %w: %w", id, ErrProtocol, err)
	}
	if answer.Height < 0 || answer.Height > math.MaxInt32 || answer.Time < 0 || answer.Time > math.MaxUint32 ||
		answer.Nonce < 0 || answer.Nonce > math.MaxUint32 || answer.Version < math.MinInt32 || answer.Version > math.MaxUint32 {
		return chain.Header{}, fmt.Errorf("block %s: a number out of range: %w", id, ErrProtocol)
	}
	if answer.Confirmations != nil && *answer.Confirmations <= 0 {
		return chain.Header{}, fmt.Errorf("block %s was replaced meanwhile: %w", id, chain.ErrUnavailable)
	}
	h := chain.Header{
		Height: uint32(answer.Height), Hash: hash, Prev: prev, MerkleRoot: root,
		Time: time.Unix(answer.Time, 0).UTC(), Version: int32(uint32(answer.Version)), Bits: uint32(bits), Nonce: uint32(answer.Nonce),
	}
	if err := h.CheckHash(); err != nil {
		return chain.Header{}, fmt.Errorf("block %s: %w: %w", id, ErrProtocol, err)
	}
	return h, nil
}

// Headers implements chain.HeaderRange. The newest 2,000 headers come in one
// piece; older ones are asked for one by one, 10 in a call.
func (b *Backend) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	if n <= 0 {
		return nil, nil
	}
	tip, best, err := b.info(ctx)
	if err != nil {
		return nil, err
	}
	if from > tip {
		return nil, fmt.Errorf("block %d above the tip at %d: %w", from, tip, chain.ErrNotFound)
	}
	if back := tip - from + 1; back > 1 && back <= newestAll {
		newest, err := b.newest(ctx, int(back), tip, best)
		if err != nil {
			return nil, err
		}
		if len(newest) > 0 && newest[0].Height <= from && newest[len(newest)-1].Height >= from {
			newest = newest[from-newest[0].Height:]
			return newest[:min(len(newest), n)], nil
		}
	}
	var headers []chain.Header
	for height := from; height <= tip && len(headers) < min(n, oneByOne); height++ {
		h, err := b.Header(ctx, height)
		if err != nil {
			return nil, err
		}
		if len(headers) > 0 && headers[len(headers)-1].Hash != h.Prev {
			return nil, fmt.Errorf("block %d was replaced meanwhile: %w", height-1, chain.ErrUnavailable)
		}
		headers = append(headers, h)
	}
	return headers, nil
}

// newest asks for at least the count newest headers. The answer says neither
// their heights nor which block is the tip by now; nil where that cannot be told.
func (b *Backend) newest(ctx context.Context, count int, tip uint32, best chain.Hash) ([]chain.Header, error) {
	path := "/block/headers/latest"
	if count <= newestAsked {
		path += "?count=" + strconv.Itoa(count)
	}
	raw, err := b.client.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the newest headers: %w", err)
	}
	if len(raw)%chain.HeaderSize != 0 || len(raw) == 2*chain.HeaderSize*count { // in hexadecimal
		if text, err := hex.DecodeString(string(raw)); err == nil {
			raw = text
		}
	}
	headers, err := linked(raw)
	if err != nil {
		return nil, err
	}
	if len(headers) == 0 {
		return nil, nil
	}
	at := slices.IndexFunc(headers, func(h chain.Header) bool { return h.Hash == best })
	if at < 0 { // older than the other answer, or newer by more than it holds
		at = len(headers) - 1
		last, err := b.header(ctx, headers[at].Hash.String())
		if refusedWith(err, http.StatusNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		tip = last.Height
	}
	first := int64(tip) - int64(at)
	if first < 0 {
		return nil, fmt.Errorf("%d headers below block %d: %w", at, tip, ErrProtocol)
	}
	for i := range headers {
		headers[i].Height = uint32(first + int64(i))
	}
	return headers, nil
}

// linked reads headers that follow one another, and puts them in their order.
func linked(raw []byte) ([]chain.Header, error) {
	if len(raw)%chain.HeaderSize != 0 || len(raw) > 2*newestAll*chain.HeaderSize {
		return nil, fmt.Errorf("%d bytes of headers: %w", len(raw), ErrProtocol)
	}
	var headers []chain.Header
	for one := range slices.Chunk(raw, chain.HeaderSize) {
		h, err := chain.ParseHeader(one, 0)
		if err != nil {
			return nil, err
		}
		headers = append(headers, h)
	}
	if len(headers) > 1 && headers[0].Prev == headers[1].Hash {
		slices.Reverse(headers)
	}
	for i := 1; i < len(headers); i++ {
		if headers[i].Prev != headers[i-1].Hash {
			return nil, fmt.Errorf("header %d of %d does not build on the one before: %w", i, len(headers), ErrProtocol)
		}
	}
	return headers, nil
}
