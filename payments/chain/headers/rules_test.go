package headers_test

import (
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

// The main network's rule gives the published values for the published course
// of times: steady blocks, one block out of order, faster ones, slow ones.
func TestDifficultyRule(t *testing.T) {
	t.Parallel()
	main := headers.RulesOf(bsv.Main)
	limit := headers.TargetOf(0x1d00ffff)
	bits := headers.BitsOf(new(big.Int).Rsh(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 224), big.NewInt(1)), 4))
	var all []headers.Entry
	block := func(seconds int, bits uint32) {
		h := chain.Header{Time: time.Unix(1269211443, 0), Bits: bits}
		var parent *headers.Entry
		if n := len(all); n > 0 {
			parent = &all[n-1]
			h.Height, h.Time = uint32(n), parent.Time.Add(time.Duration(seconds)*time.Second)
		}
		all = append(all, headers.After(parent, h))
	}
	next := func() uint32 { return main.Next(all, time.Time{}) }
	run := func(n, seconds int) {
		for range n {
			block(seconds, bits)
			bits = next()
		}
	}
	want := func(what string, want uint32) {
		t.Helper()
		if bits != want {
			t.Fatalf("%s: %08x, want %08x", what, bits, want)
		}
	}
	for range 2050 {
		block(600, bits)
	}
	initial := bits
	if got := next(); got != initial {
		t.Fatalf("steady blocks: %08x after %08x", got, initial)
	}
	run(10, 600)
	run(1, 6000) // far in the future, and
	run(1, 2*600-6000)
	run(20, 600)
	run(1, 550)
	want("out of order", initial)
	run(10, 550)
	want("slightly faster", 0x1c0fe7b1)
	run(20, 10)
	want("much faster", 0x1c0db19f)
	run(1, 6000)
	want("a slow one", 0x1c0d9222)
	run(93, 6000)
	want("slow ones", 0x1c2f13b9)
	run(1, 6000)
	want("at the bound of two days", 0x1c2ee9bf)
	run(192, 6000)
	want("to the limit", 0x1d00ffff)
	run(5, 6000)
	want("not beyond it", 0x1d00ffff)
	if headers.TargetOf(bits).Cmp(limit) != 0 {
		t.Error("the limit is another one")
	}

	// The test network lets blocks that took long be easy, whatever was before.
	test := headers.RulesOf(bsv.Test)
	last := all[2000].Time
	if got := test.Next(all[:2001], last.Add(20*time.Minute+time.Second)); got != 0x1d00ffff {
		t.Errorf("after a gap: %08x", got)
	}
	if got := test.Next(all[:2001], last.Add(20*time.Minute)); got != initial {
		t.Errorf("without a gap: %08x", got)
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for bits, want := range map[uint32]string{
		0x1d00ffff: "ffff0000000000000000000000000000000000000000000000000000",
		0x1b0404cb: "404cb000000000000000000000000000000000000000000000000",
		0x207fffff: "7fffff0000000000000000000000000000000000000000000000000000000000",
		0x03123456: "123456",
		0x02008000: "80",
		0x01120000: "12",
	} {
		got := headers.TargetOf(bits)
		if got == nil || got.Text(16) != want {
			t.Errorf("%08x: %x, want %s", bits, got, want)
			continue
		}
		if back := headers.BitsOf(got); headers.TargetOf(back).Cmp(got) != 0 {
			t.Errorf("%08x: back to %08x", bits, back)
		}
	}
	for _, bits := range []uint32{0, 0x1d000000, 0x1d80ffff, 0x04923456, 0x00123456, 0x217fffff << 1, 0xff7fffff, 0x2200ffff} {
		if got := headers.TargetOf(bits); got != nil {
			t.Errorf("%08x is taken for %x", bits, got)
		}
	}
	// The work of the first block of the main network, and of one in two hashes.
	for bits, want := range map[uint32]int64{0x1d00ffff: 0x100010001, 0x207fffff: 2} {
		if got := headers.WorkOf(bits); got.Cmp(big.NewInt(want)) != 0 {
			t.Errorf("%08x: %d, want %d", bits, got, want)
		}
	}
}

func TestHeadersThatBreakTheRules(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, 200, steady)
	before, good := m.entries[:199], m.entries[199].Header
	now := good.Time.Add(-2 * time.Hour)
	if err := rules.Check(before, good, now); err != nil {
		t.Fatal("the good one: ", err)
	}
	regtest := headers.RulesOf(bsv.Regtest)
	with := func(change func(*chain.Header)) chain.Header {
		h := good
		change(&h)
		return seal(h)
	}
	for name, c := range map[string]struct {
		rules headers.Rules
		h     chain.Header
		now   time.Time
		want  error
	}{
		"another hash":                        {rules, func() chain.Header { h := good; h.Hash[5]++; return h }(), now, headers.ErrInvalid},
		"a time that no header holds":         {rules, func() chain.Header { h := good; h.Time = h.Time.Add(1 << 32 * time.Second); return h }(), now.Add(1 << 33 * time.Second), headers.ErrInvalid},
		"not enough work":                     {rules, spoil(good), now, headers.ErrInvalid},
		"easier than the limit":               {regtest, with(func(h *chain.Header) { h.Bits = 0x20ffffff >> 1 << 1 }), now, headers.ErrInvalid},
		"far easier than the limit":           {regtest, with(func(h *chain.Header) { h.Bits = 0x2100ffff }), now, headers.ErrInvalid},
		"no bits":                             {regtest, with(func(h *chain.Header) { h.Bits = 0 }), now, headers.ErrInvalid},
		"harder than the rule":                {rules, with(func(h *chain.Header) { h.Bits = 0x203fffff }), now, headers.ErrInvalid},
		"not after the median":                {rules, with(func(h *chain.Header) { h.Time = before[199-6].Time }), now, headers.ErrInvalid},
		"after the median, before its parent": {rules, with(func(h *chain.Header) { h.Time = before[199-5].Time }), now, nil},
		"more than two hours ahead":           {rules, good, now.Add(-time.Second), headers.ErrFuture},
		"harder, with no rule":                {regtest, with(func(h *chain.Header) { h.Bits = 0x203fffff }), now, nil},
	} {
		if err := c.rules.Check(before, c.h, c.now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestCheckpointText(t *testing.T) {
	t.Parallel()
	const text = "0:000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
	c, err := headers.ParseCheckpoint(text)
	if err != nil || c.Height != 0 || c.String() != text || c.IsZero() {
		t.Fatal(c, err)
	}
	if none, err := headers.ParseCheckpoint(""); err != nil || !none.IsZero() || none.String() != "" {
		t.Error(none, err)
	}
	for _, bad := range []string{
		"x", ":", "1:", text[1:], "-1" + text[1:], "+1" + text[1:], "4294967296" + text[1:], text + "0", "1:" + text,
		"5:0000000000000000000000000000000000000000000000000000000000000000",
	} {
		if _, err := headers.ParseCheckpoint(bad); !errors.Is(err, headers.ErrCheckpoint) {
			t.Errorf("%q: %v", bad, err)
		}
		if err := new(headers.Checkpoint).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is unmarshalled", bad)
		}
	}
	for network, height := range map[bsv.Network]uint32{bsv.Main: 504031, bsv.Test: 1188697} {
		opt := headers.Options{Network: network, Checkpoint: headers.Checkpoint{Height: height, Hash: c.Hash}}
		if _, err := headers.Open(t.Context(), "", opt); !errors.Is(err, headers.ErrCheckpoint) {
			t.Errorf("%s: a checkpoint before the difficulty rule: %v", network, err)
		}
	}
}
