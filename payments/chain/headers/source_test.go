package headers_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

var start = time.Unix(1_700_000_000, 0).UTC()

// mined is a chain of headers from height 0 on.
type mined struct {
	rules   headers.Rules
	entries []headers.Entry
}

func steady(int) (seconds int, bits uint32) { return 600, 0 }

// grow mines n headers. The time between them, and the bits where the rules
// leave a choice, are course's to say.
func grow(t testing.TB, rules headers.Rules, from time.Time, n int, course func(i int) (seconds int, bits uint32)) *mined {
	t.Helper()
	m := &mined{rules: rules}
	m.extend(n, from, 0, course)
	return m
}

func (m *mined) extend(n int, from time.Time, branch uint32, course func(i int) (seconds int, bits uint32)) {
	for range n {
		h := chain.Header{Height: uint32(len(m.entries)), Time: from, Version: 1, Bits: 0x207fffff}
		binary.LittleEndian.PutUint32(h.MerkleRoot[:], branch)
		var parent *headers.Entry
		if len(m.entries) > 0 {
			parent = &m.entries[len(m.entries)-1]
			seconds, bits := course(len(m.entries))
			h.Prev, h.Time = parent.Hash, parent.Time.Add(time.Duration(seconds)*time.Second)
			if bits != 0 {
				h.Bits = bits
			}
		}
		if m.rules.Difficulty() && len(m.entries) >= headers.Window && h.Height > 100 {
			h.Bits = m.rules.Next(m.entries[len(m.entries)-headers.Window:], h.Time)
		}
		m.entries = append(m.entries, headers.After(parent, seal(h)))
	}
}

// fork returns the chain with its newest depth headers replaced by n others.
func (m *mined) fork(depth, n int, branch uint32, course func(i int) (seconds int, bits uint32)) *mined {
	f := &mined{rules: m.rules, entries: slices.Clone(m.entries[:len(m.entries)-depth])}
	f.extend(n, start, branch, course)
	return f
}

func (m *mined) tip() chain.Header             { return m.entries[len(m.entries)-1].Header }
func (m *mined) at(height uint32) chain.Header { return m.entries[height].Header }
func (m *mined) source() *source               { return &source{chain: m, tip: len(m.entries) - 1} }

func meets(h chain.Header) bool {
	target := headers.TargetOf(h.Bits)
	if target == nil {
		return true
	}
	display := h.Hash
	slices.Reverse(display[:])
	return new(big.Int).SetBytes(display[:]).Cmp(target) <= 0
}

func hashed(h chain.Header) chain.Header {
	sealed, err := chain.ParseHeader(h.Bytes(), h.Height)
	if err != nil {
		panic(err)
	}
	return sealed
}

// seal finds a nonce.
func seal(h chain.Header) chain.Header {
	for h = hashed(h); !meets(h); h = hashed(h) {
		h.Nonce++
	}
	return h
}

// spoil finds a nonce that is none.
func spoil(h chain.Header) chain.Header {
	for h = hashed(h); meets(h); h = hashed(h) {
		h.Nonce++
	}
	return h
}

// source serves a chain one by one and counts what it is asked.
type source struct {
	mu    sync.Mutex
	chain *mined
	tip   int
	asked int
	// answer, where set, changes what Header says.
	answer func(h chain.Header) (chain.Header, error)
}

func (s *source) Tip(ctx context.Context) (chain.Header, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return chain.Header{}, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	s.asked++
	return s.chain.entries[s.tip].Header, nil
}

func (s *source) Header(ctx context.Context, height uint32) (chain.Header, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return chain.Header{}, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	s.asked++
	if height > uint32(s.tip) {
		return chain.Header{}, fmt.Errorf("block %d: %w", height, chain.ErrNotFound)
	}
	h := s.chain.at(height)
	if s.answer != nil {
		return s.answer(h)
	}
	return h, nil
}

func (s *source) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

// batch serves many at once, most of them its own limit.
type batch struct {
	*source
	most   int
	change func([]chain.Header) []chain.Header
}

func (b *batch) Headers(ctx context.Context, from uint32, n int) ([]chain.Header, error) {
	if b.most == 0 {
		return nil, chain.ErrUnsupported
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", chain.ErrUnavailable, err)
	}
	b.asked++
	if from > uint32(b.tip) {
		return nil, chain.ErrNotFound
	}
	var hs []chain.Header
	for height := from; height <= uint32(b.tip) && len(hs) < min(n, b.most); height++ {
		hs = append(hs, b.chain.at(height))
	}
	if b.change != nil {
		hs = b.change(hs)
	}
	return hs, nil
}

// regtest is a chain on the first block of the regression test network.
func regtest(t testing.TB, n int) *mined {
	t.Helper()
	c, err := headers.Open(t.Context(), "", headers.Options{Network: bsv.Regtest})
	if err != nil {
		t.Fatal(err)
	}
	genesis, ok := c.Tip()
	if !ok {
		t.Fatal("no first block")
	}
	m := &mined{rules: headers.RulesOf(bsv.Regtest), entries: []headers.Entry{headers.After(nil, genesis)}}
	m.extend(n, start, 0, steady)
	return m
}

func clock() time.Time { return start.Add(10 * 365 * 24 * time.Hour) }

func open(t testing.TB, path string, opt headers.Options) *headers.Chain {
	t.Helper()
	if opt.Network == bsv.Main {
		opt.Network = bsv.Regtest
	}
	opt.Clock = clock
	c, err := headers.Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func wantTip(t testing.TB, c *headers.Chain, want chain.Header) {
	t.Helper()
	if tip, ok := c.Tip(); !ok || tip != want {
		t.Fatalf("tip %d %s; want %d %s", tip.Height, tip.Hash, want.Height, want.Hash)
	}
}

func synced(t testing.TB, c *headers.Chain, s headers.Source) {
	t.Helper()
	if _, err := c.Sync(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// holds checks that all headers of m from this height on are in c.
func holds(t testing.TB, c *headers.Chain, m *mined, from uint32) {
	t.Helper()
	for height := from; height <= m.tip().Height; height++ {
		if h, ok := c.At(height); !ok || h != m.at(height) {
			t.Fatalf("block %d: %v, %v; want %v", height, h, ok, m.at(height))
		}
	}
	if _, ok := c.At(m.tip().Height + 1); ok {
		t.Fatal("a block above the tip")
	}
}
