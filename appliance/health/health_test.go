package health_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/health"
)

func codes(list []health.Condition) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Code)
	}
	return out
}

func TestRaiseAndClear(t *testing.T) {
	now := time.Unix(1000, 0)
	s := health.NewSet(func() time.Time { return now })
	s.Raise(health.Condition{Code: "b", Severity: health.Warning, Title: "first words"})
	now = now.Add(time.Minute)
	s.Raise(health.Condition{Code: "a", Severity: health.Warning})
	s.Raise(health.Condition{Code: "c", Severity: health.Failure})
	s.Raise(health.Condition{Code: "d", Severity: health.Notice})
	s.Raise(health.Condition{Code: "b", Severity: health.Warning, Title: "other words"})

	list := s.List()
	if got, want := codes(list), []string{"c", "b", "a", "d"}; !slices.Equal(got, want) {
		t.Fatalf("order %v, want %v: the gravest first, then the oldest", got, want)
	}
	if b := list[1]; b.Title != "other words" || !b.Since.Equal(time.Unix(1000, 0)) {
		t.Errorf("raised again: %+v; want the new words and the first time", b)
	}

	s.Clear("b")
	s.Clear("never raised")
	if got, want := codes(s.List()), []string{"c", "a", "d"}; !slices.Equal(got, want) {
		t.Errorf("after Clear %v, want %v", got, want)
	}
	s.Raise(health.Condition{Code: "b"})
	if got := s.List()[2]; got.Code != "b" || !got.Since.Equal(now) {
		t.Errorf("raised after Clear: %+v, want a new Since", got)
	}
}

func TestSubscribe(t *testing.T) {
	s := health.NewSet(func() time.Time { return time.Unix(1, 0) })
	changed, cancel := s.Subscribe()
	pending := func() bool {
		select {
		case _, ok := <-changed:
			return ok
		default:
			return false
		}
	}
	if pending() {
		t.Error("a new subscription has something to say")
	}
	s.Raise(health.Condition{Code: "a"})
	s.Raise(health.Condition{Code: "b"})
	if !pending() || pending() {
		t.Error("two changes: want one joined signal")
	}
	s.Raise(health.Condition{Code: "a"})
	s.Clear("c")
	if pending() {
		t.Error("nothing changed, but the subscriber was woken")
	}
	s.Clear("a")
	if !pending() {
		t.Error("Clear woke nobody")
	}
	cancel()
	cancel()
	s.Clear("b")
	if _, open := <-changed; open {
		t.Error("the channel is open after cancel")
	}
}

func TestConcurrentUse(t *testing.T) {
	s := health.NewSet(func() time.Time { return time.Unix(1, 0) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				changed, cancel := s.Subscribe()
				s.Raise(health.Condition{Code: "a"})
				s.List()
				s.Clear("a")
				cancel()
				for range changed { // ends, for cancel closed it
				}
			}
		})
	}
	wg.Wait()
	if len(s.List()) != 0 {
		t.Error("something is left")
	}
}

func TestSeverityText(t *testing.T) {
	for s, want := range map[health.Severity]string{
		health.Notice: "notice", health.Warning: "warning", health.Failure: "failure", 9: "severity(9)",
	} {
		if text, err := s.MarshalText(); string(text) != want || err != nil {
			t.Errorf("%d: %q, %v; want %q", s, text, err, want)
		}
	}
}
