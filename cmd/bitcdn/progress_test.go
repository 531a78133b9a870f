package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/fetch"
)

func TestLine(t *testing.T) {
	p := fetch.Progress{
		State: fetch.Downloading, Name: "Big Buck\x1b[2J Bunny\n", Done: 68 << 20, Total: 150 << 20,
		Rate: 12.5 * (1 << 20), Left: 67 * time.Second,
	}
	for _, tc := range []struct {
		width int
		want  string
	}{
		{0, "Big Buck[2J Bunny   45%  68.0 MiB of 150.0 MiB, 12.5 MiB/s, 1:07 left, 1,234 sat"},
		{100, "[#############.................]   45%  68.0 MiB of 150.0 MiB, 12.5 MiB/s, 1:07 left, 1,234 sat"},
		{120, "Big Buck[2J Bunny  [#############.................]   45%  68.0 MiB of 150.0 MiB, 12.5 MiB/s, 1:07 left, 1,234 sat"},
		{80, "[######.........]   45%  68.0 MiB of 150.0 MiB, 12.5 MiB/s, 1:07 left, 1,234 sat"},
		{20, " 45%  68.0 MiB of 1…"},
	} {
		got := line(p, 1234, tc.width)
		if tc.width > 0 && columns(got) > tc.width {
			t.Errorf("width %d: %d columns", tc.width, columns(got))
		}
		if strings.ContainsAny(got, "\x1b\n") {
			t.Errorf("control characters in %q", got)
		}
		if got != tc.want {
			t.Errorf("width %d: %q", tc.width, got)
		}
	}
	if got, want := line(fetch.Progress{State: fetch.FindingPeers, Name: "x", Left: -1}, 0, 79), "x  finding peers, 0 sat"; got != want {
		t.Errorf("%q", got)
	}
	if got, want := line(fetch.Progress{State: fetch.Complete, Name: "x", Done: 10, Total: 10}, 1, 0), "x  100%  complete, 10 B of 10 B, 1 sat"; got != want {
		t.Errorf("%q", got)
	}
}

func TestPercentNeverEarly(t *testing.T) {
	if got := percent(1<<50-1, 1<<50); got != 99 {
		t.Error(got)
	}
	if got := percent(1, 1); got != 100 {
		t.Error(got)
	}
}

func TestSizeAndCountdown(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 5 << 40: "5.0 TiB", 1<<63 - 1: "8.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0:00", 59400 * time.Millisecond: "0:59", time.Hour: "1:00:00", 1000 * time.Hour: "days"} {
		if got := countdown(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestBarOnTerminal(t *testing.T) {
	var w bytes.Buffer
	b := newBar(&w, true)
	p := fetch.Progress{State: fetch.Downloading, Name: "x", Done: 1, Total: 2, Left: -1}
	b.Update(p, 5)
	b.Update(p, 5) // the same is not drawn again
	b.Done()
	b.Done()
	b.Update(p, 6)
	got := w.String()
	if strings.Count(got, "\r") != 1 || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "\rx  [") || !strings.HasSuffix(got, "5 sat\x1b[K\n") {
		t.Errorf("%q", got)
	}
}

func TestBarElsewhere(t *testing.T) {
	var w bytes.Buffer
	now := time.Unix(1e9, 0)
	b := newBar(&w, false)
	b.now = func() time.Time { return now }
	p := fetch.Progress{State: fetch.FindingPeers, Name: "x", Left: -1}
	b.Update(p, 0)
	for range 20 { // four seconds
		now = now.Add(200 * time.Millisecond)
		p.State, p.Total = fetch.Downloading, 100
		p.Done++
		b.Update(p, 0)
	}
	now = now.Add(time.Second)
	b.Update(p, 3)
	p.State, p.Done = fetch.Complete, 100
	b.Update(p, 4)
	b.Update(p, 4)
	b.Done()
	want := "x  finding peers, 0 sat\n" +
		"x   20%  20 B of 100 B, 0 B/s, 3 sat\n" +
		"x  100%  complete, 100 B of 100 B, 4 sat\n"
	if got := w.String(); got != want {
		t.Errorf("%q", got)
	}
}
