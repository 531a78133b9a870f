package headers_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

func TestSync(t *testing.T) {
	t.Parallel()
	m := regtest(t, 700)
	for name, s := range map[string]headers.Source{
		"one by one":            m.source(),
		"in batches":            &batch{source: m.source(), most: 2000},
		"in small batches":      &batch{source: m.source(), most: 7},
		"in batches it has not": &batch{source: m.source()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, filepath.Join(t.TempDir(), "headers"), headers.Options{})
			tip, err := c.Sync(t.Context(), s)
			if err != nil || tip != m.tip() {
				t.Fatal(tip, err)
			}
			holds(t, c, m, 0)
			if h, ok := c.Find(m.at(650).Hash); !ok || h != m.at(650) {
				t.Error("a new header is not found by its hash")
			}
			if _, ok := c.Find(chain.Hash{1}); ok {
				t.Error("a header that is not there is found")
			}
		})
	}
}

// One question is enough where nothing is new, or one block.
func TestFewQuestions(t *testing.T) {
	t.Parallel()
	m := regtest(t, 20)
	s := m.source()
	c := open(t, "", headers.Options{})
	synced(t, c, s)
	s.questions()
	synced(t, c, s)
	if n := s.questions(); n != 1 {
		t.Errorf("%d questions for nothing", n)
	}
	m.extend(1, start, 0, steady)
	s.tip++
	synced(t, c, s)
	if n := s.questions(); n != 1 {
		t.Errorf("%d questions for a block", n)
	}
	wantTip(t, c, m.tip())
}

// What was checked before an interruption is not asked for again.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	m := regtest(t, 1000)
	path := filepath.Join(t.TempDir(), "headers")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := m.source()
	s.answer = func(h chain.Header) (chain.Header, error) {
		if h.Height == 475 {
			cancel()
		}
		return h, ctx.Err()
	}
	var progress []int
	c := open(t, path, headers.Options{Progress: func(done, total int) {
		if total != 1000 && total != 1000-474 {
			t.Errorf("%d of %d", done, total)
		}
		progress = append(progress, done)
	}})
	tip, err := c.Sync(ctx, s)
	if !errors.Is(err, context.Canceled) || tip != m.at(474) {
		t.Fatal(tip, err)
	}
	if !slices.IsSorted(progress) || len(progress) < 9 || progress[8] != 450 {
		t.Error("progress", progress)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Sync(t.Context(), s); !errors.Is(err, headers.ErrClosed) {
		t.Error("after Close:", err)
	}
	c = open(t, path, headers.Options{})
	wantTip(t, c, m.at(474))
	s.answer = nil
	s.questions()
	synced(t, c, s)
	holds(t, c, m, 0)
	if n := s.questions(); n > 1000-474+5 {
		t.Errorf("%d questions for the rest", n)
	}
}

func TestReorganisation(t *testing.T) {
	t.Parallel()
	m := regtest(t, 700)
	for _, depth := range []int{1, 2, 6, 100, 288} {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "headers")
			c := open(t, path, headers.Options{})
			synced(t, c, m.source())
			other := m.fork(depth, depth+1, 1, steady)
			s := other.source()
			// With no more work than ours it is not followed.
			s.tip--
			synced(t, c, s)
			wantTip(t, c, m.tip())
			s.tip++
			s.questions()
			synced(t, c, s)
			holds(t, c, other, 0)
			if n := s.questions(); n > depth+25 {
				t.Errorf("%d questions", n)
			}
			// And from the old chain nobody comes back.
			if _, err := c.Sync(t.Context(), m.source()); err != nil && (depth < 288 || !errors.Is(err, headers.ErrDeepReorg)) {
				t.Error(err)
			}
			holds(t, c, other, 0)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			holds(t, open(t, path, headers.Options{}), other, 0)
			// It goes on from there, and back if that has more work.
			again := other.fork(min(depth+1, 288), depth+2, 2, steady)
			c = open(t, path, headers.Options{})
			synced(t, c, &batch{source: again.source(), most: 100})
			holds(t, c, again, 0)
		})
	}
}

func TestDeepReorganisation(t *testing.T) {
	t.Parallel()
	m := regtest(t, 700)
	c := open(t, "", headers.Options{})
	synced(t, c, m.source())
	for _, depth := range []int{289, 500, 700} {
		tip, err := c.Sync(t.Context(), m.fork(depth, depth+50, 1, steady).source())
		if !errors.Is(err, headers.ErrDeepReorg) || tip != m.tip() {
			t.Errorf("%d: %v, %v", depth, tip, err)
		}
	}
	// Also one that is far behind on another chain.
	if _, err := c.Sync(t.Context(), m.fork(600, 10, 1, steady).source()); !errors.Is(err, headers.ErrDeepReorg) {
		t.Error(err)
	}
	holds(t, c, m, 0)
	shallow := open(t, "", headers.Options{MaxReorg: 3})
	synced(t, shallow, m.source())
	if _, err := shallow.Sync(t.Context(), m.fork(4, 9, 1, steady).source()); !errors.Is(err, headers.ErrDeepReorg) {
		t.Error(err)
	}
	other := m.fork(3, 9, 1, steady)
	synced(t, shallow, other.source())
	wantTip(t, shallow, other.tip())
}

// Work counts, not the number of blocks.
func TestWorkWins(t *testing.T) {
	t.Parallel()
	m := regtest(t, 100)
	hard := func(int) (int, uint32) { return 600, 0x200fffff } // eight times the work
	few := m.fork(20, 4, 1, hard)
	c := open(t, "", headers.Options{})
	synced(t, c, m.source())
	synced(t, c, few.source())
	holds(t, c, few, 0)
	many := m.fork(20, 31, 2, steady) // 31 of 2 against 4 of 16
	synced(t, c, many.source())
	holds(t, c, few, 0)
	many.extend(2, start, 2, steady)
	synced(t, c, &batch{source: many.source(), most: 5})
	holds(t, c, many, 0)
}

func TestBehind(t *testing.T) {
	t.Parallel()
	m := regtest(t, 400)
	c := open(t, "", headers.Options{})
	synced(t, c, m.source())
	s := m.source()
	for _, tip := range []int{399, 300, 1, 0} {
		s.tip = tip
		if got, err := c.Sync(t.Context(), s); err != nil || got != m.tip() {
			t.Errorf("a source at %d: %v, %v", tip, got, err)
		}
	}
}

// None of these shortens the chain, and what was good of it is kept.
func TestLiars(t *testing.T) {
	t.Parallel()
	m := regtest(t, 300)
	change := func(at uint32, how func(*chain.Header)) func(h chain.Header) (chain.Header, error) {
		return func(h chain.Header) (chain.Header, error) {
			if h.Height == at {
				how(&h)
			}
			return h, nil
		}
	}
	batches := func(how func([]chain.Header) []chain.Header) headers.Source {
		return &batch{source: m.source(), most: 1000, change: how}
	}
	single := func(answer func(h chain.Header) (chain.Header, error)) headers.Source {
		s := m.source()
		s.answer = answer
		return s
	}
	for name, c := range map[string]struct {
		source headers.Source
		want   error
		tip    uint32
	}{
		"a hash that is not the header's": {single(change(220, func(h *chain.Header) { h.Nonce++ })), headers.ErrInvalid, 219},
		"no work":                         {single(change(220, func(h *chain.Header) { *h = spoil(*h) })), headers.ErrInvalid, 219},
		"another parent":                  {single(change(220, func(h *chain.Header) { h.Prev[0]++; *h = seal(*h) })), chain.ErrUnavailable, 219},
		"another height":                  {single(change(220, func(h *chain.Header) { h.Height++ })), chain.ErrUnavailable, 219},
		"before its time":                 {single(change(220, func(h *chain.Header) { h.Time = start.Add(-time.Hour * 24 * 365 * 20); *h = seal(*h) })), headers.ErrInvalid, 219},
		"from the future":                 {single(change(220, func(h *chain.Header) { h.Time = clock().Add(2*time.Hour + time.Second); *h = seal(*h) })), headers.ErrFuture, 219},
		"easier than allowed":             {single(change(220, func(h *chain.Header) { h.Bits = 0x2100ffff; *h = seal(*h) })), headers.ErrInvalid, 219},
		"gone meanwhile":                  {single(func(h chain.Header) (chain.Header, error) { return h, notAbove(h, 250) }), chain.ErrUnavailable, 250},
		"out of service in between":       {single(func(h chain.Header) (chain.Header, error) { return h, unavailableAt(h, 260) }), chain.ErrUnavailable, 259},
		"a fork that is none":             {single(change(200, func(h *chain.Header) { *h = seal(chain.Header{Height: 200, Bits: h.Bits}) })), chain.ErrUnavailable, 200},
		"an empty batch":                  {batches(func([]chain.Header) []chain.Header { return nil }), headers.ErrInvalid, 200},
		"more than was asked for":         {batches(func(hs []chain.Header) []chain.Header { return append(hs, hs...) }), headers.ErrInvalid, 200},
		"a batch with a gap":              {batches(func(hs []chain.Header) []chain.Header { return slices.Delete(hs, 50, 51) }), chain.ErrUnavailable, 250},
		"a batch of another place":        {batches(func(hs []chain.Header) []chain.Header { return hs[10:] }), chain.ErrUnavailable, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := open(t, "", headers.Options{})
			honest := m.source()
			honest.tip = 200
			synced(t, own, honest)
			tip, err := own.Sync(t.Context(), c.source)
			if !errors.Is(err, c.want) || tip != m.at(c.tip) {
				t.Fatalf("%d, %v; want %d, %v", tip.Height, err, c.tip, c.want)
			}
			synced(t, own, m.source())
			holds(t, own, m, 0)
		})
	}
	own := open(t, "", headers.Options{})
	synced(t, own, m.source())
	for name, tip := range map[string]chain.Header{
		"no header":         {},
		"a tip of no work":  spoil(chain.Header{Height: 301, Prev: m.tip().Hash, Time: m.tip().Time.Add(time.Hour), Bits: 0x207fffff}),
		"a tip of no chain": seal(chain.Header{Height: 301, Time: m.tip().Time.Add(time.Hour), Bits: 0x207fffff}),
		"a tip far above":   seal(chain.Header{Height: 1<<32 - 1, Time: m.tip().Time.Add(time.Hour), Bits: 0x207fffff}),
		"a tip misplaced":   seal(chain.Header{Height: 305, Prev: m.tip().Hash, Time: m.tip().Time.Add(time.Hour), Bits: 0x207fffff}),
	} {
		if _, err := own.Sync(t.Context(), lyingTip{m.source(), tip}); err == nil {
			t.Errorf("%s is taken", name)
		}
		holds(t, own, m, 0)
	}
}

func notAbove(h chain.Header, height uint32) error {
	if h.Height > height {
		return chain.ErrNotFound
	}
	return nil
}

func unavailableAt(h chain.Header, height uint32) error {
	if h.Height == height {
		return fmt.Errorf("%w: %w", chain.ErrUnavailable, context.DeadlineExceeded)
	}
	return nil
}

type lyingTip struct {
	*source
	tip chain.Header
}

func (l lyingTip) Tip(context.Context) (chain.Header, error) { return l.tip, nil }

// A branch without end that has less work is not held in memory.
func TestEndlessBranch(t *testing.T) {
	t.Parallel()
	m := regtest(t, 10)
	hard := m.fork(5, 1, 1, func(int) (int, uint32) { return 600, 0x1f007fff }) // as much work as 65,536 of the others
	c := open(t, "", headers.Options{})
	synced(t, c, hard.source())
	long := m.fork(4, headers.MaxBranch+3000, 2, steady)
	if _, err := c.Sync(t.Context(), &batch{source: long.source(), most: 2000}); !errors.Is(err, headers.ErrInvalid) {
		t.Error(err)
	}
	holds(t, c, hard, 0)
}

// With the rule of the main network, a fork cannot make itself easier or
// harder than the rule says.
func TestSyncUnderTheDifficultyRule(t *testing.T) {
	t.Parallel()
	for _, gaps := range []bool{false, true} {
		rules := headers.EasyRules(gaps)
		fast := func(i int) (int, uint32) {
			if i%50 == 0 {
				return 1300, 0x2007ffff // more than twenty minutes
			}
			return 450, 0x2007ffff
		}
		m := grow(t, rules, start, 700, fast)
		cp := headers.Checkpoint{Height: 310, Hash: m.at(310).Hash}
		c, err := headers.OpenWith(t.Context(), "", headers.Options{Checkpoint: cp, Clock: clock}, rules)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.Tip(); ok {
			t.Fatal("a tip before the beginning")
		}
		synced(t, c, &batch{source: m.source(), most: 90})
		holds(t, c, m, 310-headers.Below)
		if m.tip().Bits == 0x207fffff {
			t.Error("the difficulty did not rise")
		}
		wrong := m.fork(5, 7, 1, fast)
		wrong.entries = wrong.entries[:len(wrong.entries)-1]
		h := m.tip()
		h.Height, h.Prev, h.Bits = wrong.tip().Height+1, wrong.tip().Hash, 0x207ffffe
		wrong.entries = append(wrong.entries, headers.After(&wrong.entries[len(wrong.entries)-1], seal(h)))
		if _, err := c.Sync(t.Context(), wrong.source()); !errors.Is(err, headers.ErrInvalid) {
			t.Errorf("bits that are not the rule's: %v", err)
		}
		right := m.fork(20, 25, 2, fast)
		synced(t, c, right.source())
		holds(t, c, right, 310-headers.Below)
		// The checkpoint is not left, however much work.
		if _, err := c.Sync(t.Context(), m.fork(400, 700, 3, fast).source()); !errors.Is(err, headers.ErrDeepReorg) {
			t.Error(err)
		}
	}
}

func TestSeveralCallers(t *testing.T) {
	t.Parallel()
	m := regtest(t, 1500)
	forks := []*mined{m.fork(100, 101, 1, steady), m.fork(200, 203, 2, steady), m}
	c := open(t, filepath.Join(t.TempDir(), "headers"), headers.Options{})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for _, n := range []int{300, 900, len(forks[i%3].entries) - 1} {
				s := forks[i%3].source()
				s.tip = n
				if _, err := c.Sync(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for height := range uint32(1300) {
				if h, ok := c.At(height); ok && h != m.at(height) {
					t.Errorf("block %d: %v", height, h)
				}
				if tip, ok := c.Tip(); ok {
					c.Find(tip.Hash)
				}
			}
		})
	}
	wg.Wait()
	holds(t, c, forks[1], 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Sync(ctx, m.source()); !errors.Is(err, context.Canceled) || !errors.Is(err, chain.ErrUnavailable) {
		t.Error(err)
	}
}

// A year of blocks after a long absence, handed out in batches. What stays in
// memory does not grow with their number.
func BenchmarkSync(b *testing.B) {
	const n = 50_000
	rules := headers.EasyRules(false)
	m := grow(b, rules, start.Add(-n*10*time.Minute), n+350, func(i int) (int, uint32) { return 540 + i%120, 0 })
	opt := headers.Options{Checkpoint: headers.Checkpoint{Height: 301, Hash: m.at(301).Hash}, Clock: clock}
	dir := b.TempDir()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		c, err := headers.OpenWith(b.Context(), filepath.Join(dir, fmt.Sprint(i)), opt, rules)
		if err != nil {
			b.Fatal(err)
		}
		before := heap()
		b.StartTimer()
		synced(b, c, &batch{source: m.source(), most: 2000})
		b.StopTimer()
		b.ReportMetric(float64(max(0, heap()-before))/n, "kept-B/header")
		if tip, _ := c.Tip(); tip != m.tip() {
			b.Fatal(tip)
		}
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/header")
}

func BenchmarkOpen(b *testing.B) {
	const n = 50_000
	m := regtest(b, n)
	path := filepath.Join(b.TempDir(), "headers")
	c := open(b, path, headers.Options{})
	synced(b, c, &batch{source: m.source(), most: 2000})
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		wantTip(b, open(b, path, headers.Options{}), m.tip())
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/n, "µs/header")
}
