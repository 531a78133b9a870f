package headers_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

type silent struct{}

func (silent) Tip(context.Context) (chain.Header, error) {
	return chain.Header{}, chain.ErrUnavailable
}

func (silent) Header(context.Context, uint32) (chain.Header, error) {
	return chain.Header{}, chain.ErrUnavailable
}

func anchored(t *testing.T, opt headers.Options) *headers.Chain {
	t.Helper()
	opt.Clock = clock
	c, err := headers.OpenWith(t.Context(), filepath.Join(t.TempDir(), "headers"), opt, headers.EasyRules(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestAnchor(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, 600, steady)
	other := m.fork(100, 110, 1, steady)
	at := func(tip int) *source {
		s := m.source()
		s.tip = tip
		return s
	}
	for name, c := range map[string]struct {
		sources []headers.Source
		agree   int
		anchor  uint32 // 0: ErrAnchor
	}{
		"two":                         {[]headers.Source{at(599), at(599)}, 0, 593},
		"one a block behind":          {[]headers.Source{at(599), at(598)}, 0, 592},
		"three, one silent":           {[]headers.Source{silent{}, at(599), at(599)}, 0, 593},
		"three, one far behind":       {[]headers.Source{at(3), at(599), at(599)}, 0, 593},
		"one is enough for its owner": {[]headers.Source{at(599)}, 1, 593},
		"one is not enough":           {[]headers.Source{at(599)}, 0, 0},
		"one and a silent one":        {[]headers.Source{at(599), silent{}}, 0, 0},
		"none":                        {nil, 0, 0},
		"they disagree":               {[]headers.Source{at(599), other.source()}, 0, 0},
		"one of three disagrees":      {[]headers.Source{at(599), at(599), other.source()}, 0, 0},
		"two behind the rule":         {[]headers.Source{at(90), at(90)}, 0, 0},
		"two at the first block":      {[]headers.Source{at(0), at(0)}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := anchored(t, headers.Options{Sources: c.sources, Agree: c.agree})
			tip, err := own.Sync(t.Context(), at(599))
			if c.anchor == 0 {
				if !errors.Is(err, headers.ErrAnchor) || tip != (chain.Header{}) {
					t.Fatal(tip, err)
				}
				if _, ok := own.Tip(); ok {
					t.Error("there is a tip")
				}
				return
			}
			if err != nil || tip != m.tip() {
				t.Fatal(tip, err)
			}
			if h, ok := own.Anchor(); !ok || h != m.at(c.anchor) {
				t.Errorf("anchor %v", h)
			}
			holds(t, own, m, c.anchor-headers.Below)
		})
	}
}

// The surroundings of the anchor are proved by its links: who lies about them
// is passed over, and what came before an interruption is kept.
func TestAroundTheAnchor(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, 600, steady)
	other := m.fork(500, 500, 1, steady)
	other.entries = append(other.entries[:590], m.entries[590:]...)
	for name, liar := range map[string]headers.Source{
		"one by one": other.source(),
		"in batches": &batch{source: other.source(), most: 50},
		"silent":     silent{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			honest := m.source()
			own := anchored(t, headers.Options{Sources: []headers.Source{liar, honest, m.source()}})
			_, err := own.Sync(t.Context(), liar)
			if _, ok := own.Anchor(); !ok {
				t.Fatal(err)
			}
			synced(t, own, honest)
			holds(t, own, m, 593-headers.Below)
		})
	}

	own := anchored(t, headers.Options{Sources: []headers.Source{m.source(), m.source()}, Agree: 2})
	ctx, cancel := context.WithCancel(t.Context())
	s := m.source()
	s.answer = func(h chain.Header) (chain.Header, error) {
		if h.Height == 400 {
			cancel()
			return h, ctx.Err()
		}
		return h, nil
	}
	if _, err := own.Sync(ctx, s); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.answer = nil
	s.questions()
	synced(t, own, s)
	if n := s.questions(); n > 400-293+10 {
		t.Errorf("%d questions for the rest", n)
	}
	holds(t, own, m, 293)
}

// A reorganisation around the anchor is followed as far as the rule can be
// checked.
func TestReorganisationBelowTheAnchor(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, 600, steady)
	own := anchored(t, headers.Options{Sources: []headers.Source{m.source(), m.source()}})
	synced(t, own, m.source())
	// The lowest header is 293; the rule wants 147 of them.
	if _, err := own.Sync(t.Context(), m.fork(599-(293+145), 200, 1, steady).source()); !errors.Is(err, headers.ErrDeepReorg) {
		t.Error(err)
	}
	wantTip(t, own, m.tip())
	other := m.fork(599-(293+146), 200, 1, steady)
	synced(t, own, other.source())
	holds(t, own, other, 293)
}

func TestOld(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, 1500, steady)
	other := m.fork(1400, 1400, 1, steady)
	honest := m.source()
	own := anchored(t, headers.Options{Sources: []headers.Source{honest, m.source()}})
	if _, err := own.Old(t.Context(), honest, 5); !errors.Is(err, headers.ErrAnchor) {
		t.Error("before the beginning:", err)
	}
	synced(t, own, honest)
	anchor, _ := own.Anchor()
	base := anchor.Height - headers.Below
	if _, ok := own.At(base - 1); ok {
		t.Fatal("a header below the first")
	}
	want := func(height uint32, s headers.Source) {
		t.Helper()
		h, err := own.Old(t.Context(), s, height)
		if err != nil || h != m.at(height) {
			t.Fatalf("block %d: %v, %v", height, h, err)
		}
	}
	// What is kept needs nobody.
	want(base+5, silent{})
	if _, err := own.Old(t.Context(), honest, 1500); !errors.Is(err, chain.ErrNotFound) {
		t.Error("above the tip:", err)
	}
	// One that links to a known one needs one source, which cannot lie; who does
	// is passed over.
	want(base-1, other.source())
	lone := anchored(t, headers.Options{Sources: []headers.Source{other.source()}, Agree: 1, Checkpoint: headers.Checkpoint{Height: 1300, Hash: m.at(1300).Hash}})
	synced(t, lone, m.source())
	if _, err := lone.Old(t.Context(), other.source(), 1300-headers.Below-1); !errors.Is(err, headers.ErrInvalid) {
		t.Error("another chain's:", err)
	}
	honest.answer = func(h chain.Header) (chain.Header, error) { return h, chain.ErrUnavailable } // one of two that have to agree
	if _, err := own.Old(t.Context(), m.source(), base-10); !errors.Is(err, headers.ErrAnchor) {
		t.Error("one service only:", err)
	}
	want(base-1, m.source())
	want(base-2, m.source())
	want(base-2, silent{}) // remembered
	honest.answer = nil
	want(base-10, silent{})
	honest.answer = func(h chain.Header) (chain.Header, error) { return other.at(h.Height), nil }
	if _, err := own.Old(t.Context(), m.source(), base-20); !errors.Is(err, headers.ErrAnchor) {
		t.Error("two that disagree:", err)
	}
	honest.answer = func(h chain.Header) (chain.Header, error) { h.Height++; return h, nil }
	if _, err := own.Old(t.Context(), m.source(), base-20); !errors.Is(err, headers.ErrAnchor) {
		t.Error("another height:", err)
	}
	honest.answer = nil

	// Both give a header that costs nothing to make.
	hard := grow(t, rules, start, 900, func(int) (int, uint32) { return 600, 0x2003ffff })
	cheap := hard.at(50)
	cheap.Bits = 0x207fffff
	cheap = seal(cheap)
	lie := func(h chain.Header) (chain.Header, error) {
		if h.Height == cheap.Height {
			return cheap, nil
		}
		return h, nil
	}
	a, b := hard.source(), hard.source()
	a.answer, b.answer = lie, lie
	own = anchored(t, headers.Options{Sources: []headers.Source{a, b}})
	synced(t, own, a)
	anchor, _ = own.Anchor()
	if work := headers.WorkOf(anchor.Bits).Int64(); work <= 16*2 {
		t.Fatal("the anchor's work is", work)
	}
	if _, err := own.Old(t.Context(), a, cheap.Height); !errors.Is(err, headers.ErrInvalid) {
		t.Error("a header of a hundredth of the anchor's work:", err)
	}
}

// A block that anybody can mine, or of the test network, is no beginning on the
// main network, whoever agrees on it.
func TestAnchorIsSerious(t *testing.T) {
	t.Parallel()
	if rules := headers.RulesOf(bsv.Main); rules.IsSerious(0x1d00ffff) || !rules.IsSerious(0x18021fdb) || !rules.IsSerious(0x180d6b1f) {
		t.Error("main") // the easiest, and two of 2018 and 2023
	}
	if rules := headers.RulesOf(bsv.Test); !rules.IsSerious(0x1d00ffff) {
		t.Error("test")
	}
	m := grow(t, headers.EasyRules(false), start, 600, steady)
	own, err := headers.OpenWith(t.Context(), "", headers.Options{Clock: clock, Sources: []headers.Source{m.source(), m.source()}}, headers.SeriousRules())
	if err != nil {
		t.Fatal(err)
	}
	if tip, err := own.Sync(t.Context(), m.source()); !errors.Is(err, headers.ErrAnchor) {
		t.Fatal(tip, err)
	}
}

// An anchor that is replaced while what is under it is fetched is given up for
// another one.
func TestAnchorIsReplaced(t *testing.T) {
	t.Parallel()
	m := grow(t, headers.EasyRules(false), start, 600, steady)
	other := m.fork(20, 25, 1, steady)
	a, b := m.source(), m.source()
	own := anchored(t, headers.Options{Sources: []headers.Source{a, b}})
	away := func(h chain.Header) (chain.Header, error) {
		if h.Height < 593 {
			return h, chain.ErrUnavailable
		}
		return h, nil
	}
	a.answer, b.answer = away, away
	if _, err := own.Sync(t.Context(), a); err == nil {
		t.Fatal("begun with nothing")
	}
	for _, s := range []*source{a, b} {
		s.chain, s.tip, s.answer = other, len(other.entries)-1, nil
	}
	if _, err := own.Sync(t.Context(), a); !errors.Is(err, headers.ErrInvalid) {
		t.Fatal(err)
	}
	synced(t, own, a)
	wantTip(t, own, other.tip())
}

func TestOldIsBounded(t *testing.T) {
	t.Parallel()
	rules := headers.EasyRules(false)
	m := grow(t, rules, start, headers.MaxOld+500, steady)
	own := anchored(t, headers.Options{Sources: []headers.Source{m.source()}, Agree: 1})
	synced(t, own, m.source())
	for height := range uint32(headers.MaxOld + 50) {
		if h, err := own.Old(t.Context(), m.source(), height); err != nil || h != m.at(height) {
			t.Fatal(height, err)
		}
	}
	if _, n := own.InMemory(); n != headers.MaxOld {
		t.Errorf("%d old headers in memory", n)
	}
}
