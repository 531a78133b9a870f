package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

func hash(n int) (ih [20]byte) {
	binary.BigEndian.PutUint32(ih[:], uint32(n))
	return ih
}

// call is a request that a rig's trackers were asked.
type call struct {
	host  string
	title int
	event event
	at    time.Duration // since epoch
}

// rig is an Announcer whose trackers are a function and whose time is moved on
// by the test.
type rig struct {
	*Announcer
	now    time.Time
	answer func(request) (reply, error)
	calls  []call
}

func newRig(tb testing.TB, answer func(request) (reply, error)) *rig {
	r := &rig{now: epoch, answer: answer}
	var err error
	r.Announcer, err = New(Options{Port: 42070, Random: rand.NewChaCha8([32]byte{1}), Clock: func() time.Time { return r.now }})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// step does what can be done now.
func (r *rig) step() {
	for {
		j, ok := r.begin()
		if !ok {
			return
		}
		r.calls = append(r.calls, call{j.endpoint.host, int(binary.BigEndian.Uint32(j.infoHash[:])), j.event, r.now.Sub(epoch)})
		answer, err := r.answer(j.request)
		r.finish(j, answer, err)
	}
}

// run moves the time on by d, from event to event.
func (r *rig) run(d time.Duration) {
	end := r.now.Add(d)
	for r.step(); ; r.step() {
		next, ok := r.next()
		if !ok || next.After(end) {
			r.now = end
			return
		}
		r.now = next
	}
}

// take returns what was asked since it was last called.
func (r *rig) take() []call {
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *rig) wantCalls(t *testing.T, want ...string) {
	t.Helper()
	got := []string{}
	for _, c := range r.take() {
		text := fmt.Sprintf("%s %d", c.host, c.title)
		if c.event != none {
			text += " " + c.event.String()
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("asked %q, want %q", got, want)
	}
}

func fine(request) (reply, error) {
	return reply{interval: 30 * time.Minute, seeders: 3, leechers: 7}, nil
}

var errDown = errors.New("down")

func TestStartedThenRenewed(t *testing.T) {
	r := newRig(t, fine)
	r.Add(hash(1), [][]string{{"http://a.example/announce"}})
	if s, ok := r.Stats(hash(1)); !ok || s.Seeders != -1 || !s.LastOK.IsZero() || s.Tracker != "" {
		t.Errorf("before: %+v, %v", s, ok)
	}
	r.run(29 * time.Minute)
	r.wantCalls(t, "a.example 1 started")
	s, ok := r.Stats(hash(1))
	if !ok || s.Seeders != 3 || s.Leechers != 7 || !s.LastOK.Equal(epoch) || s.LastError != "" || s.Tracker != "a.example:80" {
		t.Errorf("%+v, %v", s, ok)
	}
	if wait := s.Next.Sub(epoch); wait < 30*time.Minute || wait > 33*time.Minute {
		t.Errorf("next after %v", wait)
	}
	r.run(5 * time.Minute)
	r.wantCalls(t, "a.example 1")
}

func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		name          string
		interval, min time.Duration
		want          time.Duration
	}{
		{"as told", 20 * time.Minute, 10 * time.Minute, 20 * time.Minute},
		{"min above", 20 * time.Minute, 40 * time.Minute, 40 * time.Minute},
		{"none", 0, 0, DefaultInterval},
		{"too often", time.Second, 0, MinInterval},
		{"too seldom", 24 * time.Hour, 24 * time.Hour, MaxInterval},
	} {
		if got := interval(reply{interval: c.interval, minInterval: c.min}); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// BEP 12: tiers in turn, and what answered moves to the front of its tier.
func TestTiers(t *testing.T) {
	down := map[string]bool{}
	r := newRig(t, func(q request) (reply, error) {
		if down[q.host] {
			return reply{}, errDown
		}
		return fine(q)
	})
	tiers := [][]string{{"http://a.example/announce", "udp://b.example:7"}, {"http://c.example/announce"}}
	r.Add(hash(1), tiers)
	r.step()
	first := r.take()[0].host
	second := map[string]string{"a.example": "b.example", "b.example": "a.example"}[first]
	if second == "" {
		t.Fatalf("began with %q", first)
	}

	down[first] = true
	r.run(34 * time.Minute)
	r.wantCalls(t, first+" 1", second+" 1 started")
	down[first] = false // the other one stays in front
	r.run(34 * time.Minute)
	r.wantCalls(t, second+" 1")

	down[first], down[second] = true, true
	r.run(34 * time.Minute)
	r.wantCalls(t, second+" 1", first+" 1 started", "c.example 1 started")
	// Of the first tier one is asked whether it is back, and then the other,
	// once each; the title stays where it is known.
	r.run(34 * time.Minute)
	r.wantCalls(t, second+" 1 started", first+" 1 started", "c.example 1")
	down[first] = false
	r.run(4 * time.Hour)
	calls := r.take()
	last := calls[len(calls)-1]
	if last.host != first {
		t.Errorf("did not come back to the first tier: %v", calls)
	}
	if !slices.ContainsFunc(calls, func(c call) bool { return c.host == first && c.event == started }) {
		t.Errorf("came back without a start: %v", calls)
	}
}

func TestShuffledWithinTier(t *testing.T) {
	r := newRig(t, fine)
	began := map[string]int{}
	for i := range 100 {
		// Another tracker behind makes it another list.
		r.Add(hash(i), [][]string{{"http://a.example/announce", "http://b.example/announce"}, {fmt.Sprintf("http://c.example/announce/%d", i)}})
	}
	r.run(time.Minute)
	for _, c := range r.take() {
		began[c.host]++
	}
	if began["a.example"] < 30 || began["b.example"] < 30 || began["c.example"] > 0 {
		t.Errorf("%v", began)
	}
}

func TestFailingTrackerCostsOneTry(t *testing.T) {
	down := true
	r := newRig(t, func(q request) (reply, error) {
		if q.host == "dead.example" && down {
			return reply{}, errDown
		}
		return fine(q)
	})
	const titles = 1000
	for i := range titles {
		r.Add(hash(i), [][]string{{"udp://dead.example:1"}, {"http://alive.example/announce"}})
	}
	r.run(20 * time.Minute)
	count := map[string]int{}
	for _, c := range r.take() {
		count[c.host]++
	}
	// 30 s, doubling, within 20 minutes; asked when a title is due anyway.
	if count["dead.example"] < 2 || count["dead.example"] > 7 || count["alive.example"] != titles {
		t.Errorf("%v", count)
	}

	// Without another tracker the titles wait, and are all announced when it is back.
	only := newRig(t, r.answer)
	for i := range titles {
		only.Add(hash(i), [][]string{{"udp://dead.example:1"}})
	}
	only.run(time.Hour)
	calls := only.take()
	if len(calls) < 6 || len(calls) > 9 {
		t.Errorf("%d requests in an hour", len(calls))
	}
	for i := 2; i < len(calls); i++ {
		if calls[i].at-calls[i-1].at < time.Duration(float64(calls[i-1].at-calls[i-2].at)*0.9) {
			t.Errorf("request %d after %v", i, calls[i].at-calls[i-1].at)
		}
	}
	if s, _ := only.Stats(hash(7)); s.LastError != "down" || !s.LastOK.IsZero() {
		t.Errorf("%+v", s)
	}
	down = false
	only.run(90 * time.Minute)
	for i := range titles {
		if s, _ := only.Stats(hash(i)); s.LastOK.IsZero() || s.LastError != "" {
			t.Fatalf("title %d: %+v", i, s)
		}
	}
}

// What is wrong with one URL says nothing of another one at that host.
func TestFaultIsOfOneURL(t *testing.T) {
	r := newRig(t, func(q request) (reply, error) {
		if q.url.Path == "/announce/gone" {
			return reply{}, faultf("404")
		}
		return fine(q)
	})
	for i := range 20 {
		r.Add(hash(i), [][]string{{"http://a.example/announce/gone"}})
		r.Add(hash(100+i), [][]string{{"http://a.example/announce"}})
	}
	r.run(20 * time.Second)
	gone, ok := 0, 0
	for _, c := range r.take() {
		if c.title < 100 {
			gone++
		} else {
			ok++
		}
	}
	if gone != 1 || ok != 20 {
		t.Errorf("%d to what is gone, %d to what works", gone, ok)
	}
}

func TestBusyHostIsLeftAlone(t *testing.T) {
	r := newRig(t, func(request) (reply, error) {
		return reply{}, &busy{status: "503", retry: 50 * time.Minute}
	})
	r.Add(hash(1), [][]string{{"http://a.example/announce"}})
	r.run(49 * time.Minute)
	r.wantCalls(t, "a.example 1 started")
}

// A failure reason is of one title; the tracker works for the others.
func TestRefusal(t *testing.T) {
	retry := time.Duration(0)
	r := newRig(t, func(q request) (reply, error) {
		if q.host == "a.example" && q.infoHash == hash(1) {
			return reply{}, &refusal{reason: "not registered", retry: retry}
		}
		return fine(q)
	})
	r.Add(hash(1), [][]string{{"http://a.example/announce"}, {"http://b.example/announce"}})
	r.Add(hash(2), [][]string{{"http://a.example/announce"}})
	r.run(time.Minute)
	r.wantCalls(t, "a.example 1 started", "b.example 1 started", "a.example 2 started")
	r.run(35 * time.Minute)
	if calls := r.take(); len(calls) != 3 {
		t.Errorf("%v", calls)
	}

	alone := newRig(t, r.answer)
	alone.Add(hash(1), [][]string{{"http://a.example/announce"}})
	alone.run(29 * time.Minute)
	alone.wantCalls(t, "a.example 1 started")
	if s, _ := alone.Stats(hash(1)); s.LastError != "tracker refuses: not registered" || s.Tracker != "" {
		t.Errorf("%+v", s)
	}
	retry = 2 * time.Hour
	alone.run(5 * time.Minute)
	alone.wantCalls(t, "a.example 1 started")
	alone.run(115 * time.Minute)
	alone.wantCalls(t)
	alone.run(15 * time.Minute)
	alone.wantCalls(t, "a.example 1 started")
}

func TestRefusedHereAndDownThere(t *testing.T) {
	r := newRig(t, func(q request) (reply, error) {
		if q.host == "a.example" {
			return reply{}, &refusal{reason: "no"}
		}
		return reply{}, errDown
	})
	r.Add(hash(1), [][]string{{"http://a.example/announce"}, {"http://b.example/announce"}})
	r.run(3 * time.Hour)
	asked := map[string]int{}
	for _, c := range r.take() {
		asked[c.host]++
	}
	if asked["a.example"] < 5 || asked["a.example"] > 7 || asked["b.example"] < 3 {
		t.Errorf("%v", asked)
	}
}

func TestRemove(t *testing.T) {
	ok := true
	r := newRig(t, func(q request) (reply, error) {
		if !ok {
			return reply{}, errDown
		}
		return fine(q)
	})
	a := [][]string{{"http://a.example/announce"}}
	r.Add(hash(1), a)
	r.step()
	r.wantCalls(t, "a.example 1 started")
	r.Remove(hash(1))
	r.Remove(hash(1))
	r.Remove(hash(9))
	if _, known := r.Stats(hash(1)); known || r.Len() != 0 {
		t.Error("still known")
	}
	r.run(time.Hour)
	r.wantCalls(t, "a.example 1 stopped")

	// One that no tracker has heard of is forgotten in silence.
	r.Add(hash(2), a)
	r.Remove(hash(2))
	r.run(time.Hour)
	r.wantCalls(t)

	// Added again before the tracker was told.
	r.Add(hash(3), a)
	r.step()
	r.Remove(hash(3))
	r.Add(hash(3), a)
	r.run(time.Minute)
	r.wantCalls(t, "a.example 3 started", "a.example 3")
	if r.Len() != 1 {
		t.Errorf("%d titles", r.Len())
	}

	// A stop is tried once.
	ok = false
	r.Remove(hash(3))
	r.run(3 * time.Hour)
	r.wantCalls(t, "a.example 3 stopped")
	r.wantEmpty(t)
}

func (r *rig) wantEmpty(t *testing.T) {
	t.Helper()
	s := r.schedule
	if len(s.titles)+len(s.tiers)+len(s.trackers)+len(s.known)+len(s.hosts)+s.open+s.announced != 0 {
		t.Errorf("left: %+v", s)
	}
}

// Changes that come while a request is under way.
func TestChangesInFlight(t *testing.T) {
	a, b := [][]string{{"http://a.example/announce"}}, [][]string{{"http://b.example/announce"}}
	var during func()
	r := newRig(t, func(q request) (reply, error) {
		if f := during; f != nil {
			during = nil
			f()
		}
		return fine(q)
	})
	during = func() { r.Remove(hash(1)) }
	r.Add(hash(1), a)
	r.run(time.Minute)
	r.wantCalls(t, "a.example 1 started", "a.example 1 stopped")
	r.wantEmpty(t)

	during = func() { r.Add(hash(1), b) }
	r.Add(hash(1), a)
	r.run(time.Minute)
	r.wantCalls(t, "a.example 1 started", "b.example 1 started")

	r.Remove(hash(1))
	during = func() { r.Add(hash(1), b) } // while it says that it stops
	r.run(time.Minute)
	r.wantCalls(t, "b.example 1 stopped", "b.example 1 started")

	r.Add(hash(1), nil)
	r.run(time.Minute)
	r.wantCalls(t, "b.example 1 stopped")
	r.wantEmpty(t)
}

func TestNoUsableTracker(t *testing.T) {
	r := newRig(t, fine)
	r.Add(hash(1), nil)
	r.Add(hash(2), [][]string{{"wss://a.example/announce", "ftp://b.example/announce"}, {"udp://c.example"}})
	r.run(time.Hour)
	r.wantCalls(t)
	r.wantEmpty(t)
}

func TestManyTitles(t *testing.T) {
	const titles, rounds = 10_000, 4
	r := newRig(t, fine)
	for i := range titles {
		r.Add(hash(i), [][]string{{"udp://a.example:7"}})
	}
	began := time.Now()
	r.run(rounds * time.Hour)
	calls := r.take()
	perHour, perSecond, perTitle := [rounds]int{}, map[time.Duration]int{}, map[int]int{}
	for _, c := range calls {
		perHour[min(c.at/time.Hour, rounds-1)]++
		perSecond[c.at.Truncate(time.Second)]++
		perTitle[c.title]++
	}
	most := 0
	for _, n := range perSecond {
		most = max(most, n)
	}
	t.Logf("announces per hour %v, at most %d in a second, in %v", perHour, most, time.Since(began))
	// Every 30 to 33 minutes each, after a first time each that takes 1,000 s.
	for i, n := range perHour {
		if n < titles*17/10 || n > titles*2 && i > 0 {
			t.Errorf("hour %d: %d announces", i, n)
		}
	}
	if most > int(time.Second/Spacing)+1 {
		t.Errorf("%d in a second", most)
	}
	for i := range titles {
		if perTitle[i] < 7 || perTitle[i] > 8 {
			t.Fatalf("title %d: %d announces in %d hours", i, perTitle[i], rounds)
		}
	}
	// Spread: in the last hour no minute has more than twice the mean.
	perMinute := map[time.Duration]int{}
	for _, c := range calls {
		if c.at >= (rounds-1)*time.Hour {
			perMinute[c.at.Truncate(time.Minute)]++
		}
	}
	for m, n := range perMinute {
		if n > 2*perHour[rounds-1]/60 {
			t.Errorf("minute %v: %d", m, n)
		}
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	r := newRig(t, fine)
	for i := range 100 {
		r.Add(hash(i), [][]string{{fmt.Sprintf("http://h%d.example/announce", i%20)}})
	}
	var jobs []job
	perHost := map[string]int{}
	for {
		j, ok := r.begin()
		if !ok {
			break
		}
		jobs = append(jobs, j)
		if perHost[j.endpoint.host]++; perHost[j.endpoint.host] > 1 {
			t.Error("two at once at a host that has not answered yet")
		}
	}
	if len(jobs) != MaxOpen {
		t.Errorf("%d under way", len(jobs))
	}
	if _, ok := r.next(); ok {
		t.Error("there is a next one though none may be begun")
	}
	answer, _ := fine(request{})
	for _, j := range jobs {
		r.finish(j, answer, nil)
	}
	r.run(time.Hour)
	if n := len(r.take()); n < 92 {
		t.Errorf("%d more in an hour", n)
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// titleMemory is what a title costs of n that have the same trackers.
func titleMemory(tb testing.TB, n int) int64 {
	r := newRig(tb, fine)
	before := heapBytes()
	for i := range n {
		r.Add(hash(i), [][]string{{"http://a.example/announce", "udp://b.example:7"}, {"http://c.example/announce"}})
		if i%64 == 0 {
			r.step()
		}
	}
	r.run(2 * time.Hour)
	r.take()
	each := int64(heapBytes()-before) / int64(n)
	runtime.KeepAlive(r)
	return each
}

func TestTitleIsSmall(t *testing.T) {
	const most = 200
	each := titleMemory(t, 10_000)
	t.Logf("%d bytes a title", each)
	if each > most {
		t.Errorf("%d bytes a title, want at most %d", each, most)
	}
}

func BenchmarkTitleMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(titleMemory(b, 10_000)), "B/title")
	}
}

// A tracker for 10,000 titles goes down: they all turn to the other one.
func BenchmarkFallOver(b *testing.B) {
	down := false
	for b.Loop() {
		b.StopTimer()
		down = false
		r := newRig(b, func(q request) (reply, error) {
			if down && q.host == "a.example" {
				return reply{}, errDown
			}
			return fine(q)
		})
		for i := range 10_000 {
			r.Add(hash(i), [][]string{{"udp://a.example:7"}, {"udp://b.example:7"}})
		}
		r.run(20 * time.Minute)
		down = true
		r.now = r.now.Add(time.Hour) // all of them are due
		b.StartTimer()
		r.step()
	}
}
