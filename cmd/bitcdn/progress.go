package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/bitcdn/bitcdn/appliance/fetch"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	// plainEvery is how often at most a line is printed where there is no
	// terminal to draw on.
	plainEvery = 5 * time.Second
	// plainWidth is taken for a terminal that does not tell its width, and
	// minWidth is the narrowest that is drawn for.
	plainWidth = 80
	minWidth   = 20
)

// bar shows a download on one line: what it does, bytes, rate, time left and
// what was spent. On a terminal the line is drawn over and over; elsewhere a
// line is printed when the state changes and every five seconds at most. It is
// not one of the ready-made bars since these measure rate and time by a clock
// of their own and have no place for the amount. Methods may be called from any
// goroutine.
type bar struct {
	w     io.Writer
	tty   bool
	now   func() time.Time
	width func() int

	mu      sync.Mutex
	last    string // drawn or printed
	state   fetch.State
	printed time.Time
	done    bool
}

// newBar returns a bar that writes to w; tty says that w is a terminal.
func newBar(w io.Writer, tty bool) *bar {
	b := &bar{w: w, tty: tty, now: time.Now, width: func() int { return plainWidth }}
	if f, ok := w.(*os.File); ok && tty {
		b.width = func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil {
				return w
			}
			return plainWidth
		}
	}
	return b
}

// Update shows p and what was spent so far.
func (b *bar) Update(p fetch.Progress, spent money.Satoshis) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done {
		return
	}
	if b.tty {
		// The last column stays free: some terminals wrap when it is written.
		b.draw(line(p, spent, max(b.width()-1, minWidth)))
		return
	}
	now := b.now()
	if p.State == b.state && now.Sub(b.printed) < plainEvery {
		return
	}
	// A state that comes and goes does not print more than a steady one.
	if !b.printed.IsZero() && p.State != fetch.Complete && now.Sub(b.printed) < plainEvery {
		return
	}
	b.state, b.printed = p.State, now
	b.last = line(p, spent, 0)
	fmt.Fprintln(b.w, b.last)
}

func (b *bar) draw(s string) {
	if s == b.last {
		return
	}
	b.last = s
	fmt.Fprint(b.w, "\r", s, "\x1b[K")
}

// Done leaves what was shown last on a line of its own. Nothing is shown after
// it.
func (b *bar) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tty && b.last != "" && !b.done {
		fmt.Fprintln(b.w)
	}
	b.done = true
}

// line is what is shown, in at most width columns; 0 is without a bar and
// without an end.
func line(p fetch.Progress, spent money.Satoshis, width int) string {
	var parts []string
	if p.State != fetch.Downloading {
		parts = append(parts, string(p.State))
	}
	if p.Total > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s", size(p.Done), size(p.Total)))
	}
	if p.State == fetch.Downloading {
		parts = append(parts, size(int64(p.Rate))+"/s")
		if p.Left >= 0 {
			parts = append(parts, countdown(p.Left)+" left")
		}
	}
	parts = append(parts, spent.String())
	text := strings.Join(parts, ", ")
	name := printable(p.Name)
	if p.Total > 0 {
		text = fmt.Sprintf("%3d%%  %s", percent(p.Done, p.Total), text)
	}
	if width <= 0 {
		if name == "" {
			return text
		}
		return name + "  " + text
	}
	// What is left of the width goes to the bar, then to the name.
	const least, most, leastName = 10, 30, 8
	room := width - columns(text) - 2
	drawn := ""
	if p.Total > 0 && room >= least+2 {
		n := min(room-2, most)
		room -= n + 4
		full := int(int64(n) * percent(p.Done, p.Total) / 100)
		drawn = "[" + strings.Repeat("#", full) + strings.Repeat(".", n-full) + "]  "
	}
	switch {
	case room < min(columns(name), leastName):
		name = ""
	case name != "":
		name = cut(name, room) + "  "
	}
	return cut(name+drawn+text, width)
}

func percent(done, total int64) int64 {
	if done >= total {
		return 100
	}
	// Not before all of it: 99 % is what is shown of 99.9.
	return int64(float64(done) / float64(total) * 100)
}

// printable drops what a hostile name could steer the terminal with.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, ""))
}

func columns(s string) int { return len([]rune(s)) }

// cut shortens s to n columns.
func cut(s string, n int) string {
	r := []rune(s)
	switch {
	case len(r) <= n:
		return s
	case n < 2:
		return ""
	}
	return string(r[:n-1]) + "…"
}

// size is a number of bytes for a person.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/unit, 0
	for v >= 999.95 && i < 5 {
		v /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTPE"[i])
}

// countdown is a time for a person, m:ss or h:mm:ss.
func countdown(d time.Duration) string {
	if d >= 100*time.Hour {
		return "days"
	}
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}
