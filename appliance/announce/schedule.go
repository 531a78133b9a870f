package announce

import (
	"cmp"
	"container/heap"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"
)

// Times are Unix nanoseconds, which take a third of a time.Time.
const never = math.MaxInt64

const (
	firstBackoff = 30 * time.Second
	lastBackoff  = time.Hour
	// refusedPause is how long a title rests that no tracker wants.
	refusedPause = 30 * time.Minute
	// probeTime is how long the other titles stay away while one finds out
	// whether a tracker is back.
	probeTime   = 2 * askTimeout
	openPerHost = 2
)

// health is how a tracker, or a host with all its trackers, has been doing.
type health struct {
	fails  uint8 // since it last worked
	failed int64 // when it last did
	retry  int64 // not asked before
	reason unique.Handle[string]
}

func (h *health) well() { h.fails, h.retry = 0, 0 }

// host is what several trackers and many titles have in common.
type host struct {
	key, address string
	refs         int // trackers
	health
	proven   bool       // its last answer was one
	external netip.Addr // ours, as it sees it
	open     int        // requests under way
	free     int64      // earliest time of the next request
	queue    queue[*title]
	position int32
}

func (h *host) when() int64 {
	if len(h.queue) == 0 {
		return never
	}
	return max(h.queue[0].due, h.free)
}

func (h *host) place() *int32 { return &h.position }

// tracker is one announce URL.
type tracker struct {
	*endpoint
	host *host
	refs int // tiers
	own  health
}

func (t *tracker) failing() bool { return t.own.fails > 0 || t.host.fails > 0 }

// retry is the time from which on the tracker may be asked.
func (t *tracker) retry() int64 { return max(t.own.retry, t.host.retry) }

// tiers are the trackers of all the titles that have the same.
type tiers struct {
	key      string
	refs     int // titles
	trackers []*tracker
	tier     []uint8 // of each of trackers
	order    []uint8 // indices of trackers, as they are tried
}

// promote moves a tracker to the front of its tier.
func (l *tiers) promote(index uint8) {
	at := slices.Index(l.order, index)
	first := at
	for first > 0 && l.tier[l.order[first-1]] == l.tier[index] {
		first--
	}
	copy(l.order[first+1:at+1], l.order[first:at])
	l.order[first] = index
}

// title is one that is announced. There are ten thousand of them.
type title struct {
	infoHash          [20]byte
	seeders, leechers int32
	position          int32
	tiers             *tiers
	host              *host    // in whose queue it waits; nil while it is under way
	at                *tracker // that knows us
	due               int64
	lastOK            int64
	err               unique.Handle[string] // zero: none
	refused           uint32                // by which of tiers.trackers, since the last success
	flying            bool
	leaving           bool // was removed, and the tracker is still to hear it
}

func (t *title) when() int64   { return t.due }
func (t *title) place() *int32 { return &t.position }

func (t *title) reason() string {
	if t.err == (unique.Handle[string]{}) {
		return ""
	}
	return t.err.Value()
}

// job is a request to be made.
type job struct {
	request
	title   *title
	tracker *tracker
	tiers   *tiers
	index   uint8 // of tracker in tiers
	began   int64
}

// schedule decides which title turns to which tracker when. It does no input
// or output, and is not safe for concurrent use.
type schedule struct {
	random    *rand.Rand
	titles    map[[20]byte]*title
	announced int // of titles, without those that are leaving
	tiers     map[string]*tiers
	trackers  map[string]*tracker
	known     map[string]*host
	hosts     queue[*host] // that have a title waiting and may take one more
	open      int
}

func newSchedule(random *rand.Rand) *schedule {
	return &schedule{random: random, titles: map[[20]byte]*title{}, tiers: map[string]*tiers{},
		trackers: map[string]*tracker{}, known: map[string]*host{}}
}

func (s *schedule) add(infoHash [20]byte, list [][]*endpoint, now int64) {
	t := s.titles[infoHash]
	if len(list) == 0 {
		s.remove(infoHash, now)
		return
	}
	key := tiersKey(list)
	if t == nil {
		t = &title{infoHash: infoHash, seeders: -1, leechers: -1, position: -1}
		s.titles[infoHash] = t
		s.announced++
	} else {
		if t.leaving {
			t.leaving = false
			s.announced++
		} else if t.tiers.key == key {
			return
		}
	}
	old := t.tiers
	t.tiers = s.hold(key, list)
	if old != nil {
		s.letGo(old)
	}
	t.refused = 0
	if !t.flying {
		t.due = now
		s.arrange(t, now)
	}
}

func tiersKey(list [][]*endpoint) string {
	var key strings.Builder
	for _, tier := range list {
		for _, e := range tier {
			key.WriteString(e.text) // holds no line break: it was parsed as a URL
			key.WriteByte('\n')
		}
		key.WriteByte('\n')
	}
	return key.String()
}

func (s *schedule) hold(key string, list [][]*endpoint) *tiers {
	l := s.tiers[key]
	if l == nil {
		l = &tiers{key: key}
		for n, tier := range list {
			first := len(l.order)
			for _, e := range tier {
				l.order = append(l.order, uint8(len(l.trackers)))
				l.tier = append(l.tier, uint8(n))
				l.trackers = append(l.trackers, s.tracker(e))
			}
			shuffled := l.order[first:]
			s.random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		}
		s.tiers[key] = l
	}
	l.refs++
	return l
}

func (s *schedule) tracker(e *endpoint) *tracker {
	t := s.trackers[e.text]
	if t == nil {
		h := s.known[e.key()]
		if h == nil {
			h = &host{key: e.key(), address: e.address(), position: -1}
			s.known[h.key] = h
		}
		h.refs++
		t = &tracker{endpoint: e, host: h}
		s.trackers[e.text] = t
	}
	t.refs++
	return t
}

func (s *schedule) letGo(l *tiers) {
	if l.refs--; l.refs > 0 {
		return
	}
	delete(s.tiers, l.key)
	for _, t := range l.trackers {
		if t.refs--; t.refs > 0 {
			continue
		}
		delete(s.trackers, t.text)
		if t.host.refs--; t.host.refs == 0 {
			delete(s.known, t.host.key)
		}
	}
}

func (s *schedule) remove(infoHash [20]byte, now int64) {
	t := s.titles[infoHash]
	if t == nil || t.leaving {
		return
	}
	t.leaving = true
	s.announced--
	if !t.flying {
		s.leave(t, now)
	}
}

// leave has the tracker told, or forgets a title that none knows.
func (s *schedule) leave(t *title, now int64) {
	if t.at == nil || t.at.retry() > now {
		s.forget(t)
		return
	}
	t.due = 0 // before those that only renew what the tracker knows
	s.enqueue(t, t.at.host)
}

func (s *schedule) forget(t *title) {
	s.dequeue(t)
	delete(s.titles, t.infoHash)
	s.letGo(t.tiers)
	t.at = nil
}

// choose finds the tracker that a title turns to next, and when that may be:
// at once, or when the first one is to be tried again.
func (s *schedule) choose(t *title, now int64) (index uint8, due int64) {
	index, due = t.tiers.order[0], never
	for _, i := range t.tiers.order {
		if t.refused&(1<<i) != 0 {
			continue
		}
		retry := t.tiers.trackers[i].retry()
		if retry <= now {
			return i, now
		}
		if retry < due {
			index, due = i, retry
		}
	}
	if t.refused != 0 { // those that work do not want it: from the beginning, later
		t.refused = 0
		return t.tiers.order[0], now + s.later(refusedPause)
	}
	t.err = t.tiers.trackers[index].worst()
	return index, due
}

// worst is the reason of the failure that lasts longest.
func (t *tracker) worst() unique.Handle[string] {
	if t.host.retry > t.own.retry {
		return t.host.reason
	}
	return t.own.reason
}

// arrange puts a title that is due into the right queue.
func (s *schedule) arrange(t *title, now int64) {
	index, due := s.choose(t, now)
	if due > now { // otherwise it keeps its place among those that wait already
		t.due = due
	}
	s.enqueue(t, t.tiers.trackers[index].host)
}

func (s *schedule) enqueue(t *title, h *host) {
	s.dequeue(t)
	t.host = h
	heap.Push(&h.queue, t)
	s.settle(h)
}

func (s *schedule) dequeue(t *title) {
	h := t.host
	if h == nil {
		return
	}
	heap.Remove(&h.queue, int(t.position))
	t.host = nil
	s.settle(h)
}

// settle puts a host into its place among the hosts, or takes it out.
func (s *schedule) settle(h *host) {
	most := 1
	if h.proven {
		most = openPerHost
	}
	switch able, in := len(h.queue) > 0 && h.open < most, h.position >= 0; {
	case able && in:
		heap.Fix(&s.hosts, int(h.position))
	case able:
		heap.Push(&s.hosts, h)
	case in:
		heap.Remove(&s.hosts, int(h.position))
	}
}

// next is when begin has something, if nothing else happens.
func (s *schedule) next() (int64, bool) {
	if len(s.hosts) == 0 || s.open >= MaxOpen {
		return 0, false
	}
	return s.hosts[0].when(), true
}

// begin takes the next request that may be made now.
func (s *schedule) begin(now int64) (job, bool) {
	for s.open < MaxOpen && len(s.hosts) > 0 && s.hosts[0].when() <= now {
		h := s.hosts[0]
		t := h.queue[0]
		j := job{title: t, tiers: t.tiers, began: now}
		if t.leaving {
			if t.at.retry() > now { // it failed meanwhile
				s.forget(t)
				continue
			}
			j.tracker, j.event = t.at, stopped
		} else {
			index, due := s.choose(t, now)
			j.tracker, j.index = t.tiers.trackers[index], index
			if due > now {
				t.due = due
				s.enqueue(t, j.tracker.host)
				continue
			}
			if j.tracker.host != h {
				s.enqueue(t, j.tracker.host)
				continue
			}
			if t.at != j.tracker {
				j.event = started
			}
		}
		s.dequeue(t)
		t.flying = true
		s.open++
		h.open++
		h.free = now + int64(Spacing)
		if j.tracker.own.fails > 0 {
			j.tracker.own.retry = now + int64(probeTime)
		}
		if h.fails > 0 {
			h.retry = now + int64(probeTime)
		}
		s.settle(h)
		j.endpoint, j.infoHash = j.tracker.endpoint, t.infoHash
		return j, true
	}
	return job{}, false
}

// finish takes in how a request went.
func (s *schedule) finish(j job, r reply, err error, now int64) {
	t, h := j.title, j.tracker.host
	s.open--
	h.open--
	t.flying = false
	s.judge(j, err, now)
	s.settle(h)
	if j.event == stopped {
		t.at = nil
		if t.leaving {
			s.forget(t)
			return
		}
		t.due = now // was added again
		s.arrange(t, now)
		return
	}
	var no *refusal
	switch {
	case err == nil:
		t.at, t.refused, t.err = j.tracker, 0, unique.Handle[string]{}
		t.seeders, t.leechers, t.lastOK = r.seeders, r.leechers, now
		if r.external.IsValid() {
			h.external = r.external
		}
		if j.tiers == t.tiers {
			t.tiers.promote(j.index)
			t.due = now + s.later(interval(r))
		} else {
			t.due = now // its trackers have changed
		}
	case errors.Is(err, errInterrupted):
		t.at = j.tracker // it may have heard us
		t.due = now
	case errors.As(err, &no):
		t.err = unique.Make(no.Error())
		t.due = now
		if t.at == j.tracker {
			t.at = nil
		}
		if j.tiers == t.tiers {
			t.refused |= 1 << j.index
		}
	default:
		t.err = unique.Make(printable(err.Error()))
		t.due = now
	}
	if t.leaving {
		s.leave(t, now)
		return
	}
	if t.due > now {
		// The tracker's own host, whichever comes first then.
		s.enqueue(t, h)
		return
	}
	s.arrange(t, now)
	if no != nil && t.due > now && no.retry > 0 {
		t.due = now + s.later(max(no.retry, MinInterval))
		s.enqueue(t, t.host)
	}
}

// judge keeps a tracker's and its host's health.
func (s *schedule) judge(j job, err error, now int64) {
	t := j.tracker
	var no *refusal
	var own *fault
	switch {
	case errors.Is(err, errInterrupted):
	case err == nil, errors.As(err, &no):
		t.own.well()
		t.host.well()
		t.host.proven = true
	case errors.As(err, &own): // the host is there
		t.host.well()
		s.fail(&t.own, err, j.began, now)
	default:
		t.host.proven = false
		s.fail(&t.host.health, err, j.began, now)
	}
}

func (s *schedule) fail(h *health, err error, began, now int64) {
	if h.fails > 0 && h.failed >= began {
		return // one of two that were under way together has been counted
	}
	h.failed = now
	pause := lastBackoff
	if h.fails < 7 { // 2^7 × 30 s is above an hour
		pause = min(firstBackoff<<h.fails, lastBackoff)
	}
	if h.fails < math.MaxUint8 {
		h.fails++
	}
	pause = pause*3/4 + time.Duration(s.random.Int64N(int64(pause/2)))
	var want *busy
	if errors.As(err, &want) {
		pause = max(pause, min(want.retry, MaxInterval))
	}
	h.retry, h.reason = now+int64(pause), unique.Make(printable(err.Error()))
}

// later is d and up to a tenth of it.
func (s *schedule) later(d time.Duration) int64 {
	return int64(d) + s.random.Int64N(int64(d/10)+1)
}

// interval is when a tracker wants to hear of a title again, within our bounds.
func interval(r reply) time.Duration {
	d := r.interval
	if d <= 0 {
		d = DefaultInterval
	}
	return min(max(d, r.minInterval, MinInterval), MaxInterval)
}

// drain empties the schedule, and returns for each host that works what is to
// be told to it, what most leechers want first.
func (s *schedule) drain() map[string][]job {
	hosts := map[string][]job{}
	for _, t := range s.titles {
		if t.at != nil && t.at.retry() == 0 {
			hosts[t.at.host.key] = append(hosts[t.at.host.key], job{title: t, tracker: t.at,
				request: request{endpoint: t.at.endpoint, infoHash: t.infoHash, event: stopped}})
		}
	}
	for _, jobs := range hosts {
		slices.SortFunc(jobs, func(a, b job) int {
			return cmp.Or(cmp.Compare(b.title.leechers, a.title.leechers), slices.Compare(a.infoHash[:], b.infoHash[:]))
		})
	}
	*s = *newSchedule(s.random)
	return hosts
}
