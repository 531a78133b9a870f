package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// meter shows how far something of a known size has come, on a terminal only.
type meter struct {
	w     io.Writer
	what  string
	tty   bool
	drawn time.Time
}

const meterEvery = 200 * time.Millisecond

func newMeter(w io.Writer, what string) *meter {
	f, ok := w.(*os.File)
	return &meter{w: w, what: what, tty: ok && term.IsTerminal(int(f.Fd()))}
}

func (m *meter) update(done, total int64) {
	if now := time.Now(); m.tty && (done == total || now.Sub(m.drawn) >= meterEvery) {
		m.drawn = now
		fmt.Fprintf(m.w, "\r\x1b[K%s %s of %s (%d%%)", m.what, size(done), size(total), percent(done, total))
	}
}

func (m *meter) done() {
	if m.tty && !m.drawn.IsZero() {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}
