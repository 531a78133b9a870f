// Package health keeps the conditions that keep a box from working as its
// owner expects: a disk that is missing, a chain that cannot be reached, a
// channel that could not be closed in time.
//
// A condition is data, not a log line: it holds from the moment it is raised
// until it is cleared, and says in words for a person at home what is wrong
// and what to do. Who raises it also clears it.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Severity says how much of the box's work a condition touches.
type Severity uint8

const (
	// Notice is worth knowing; everything works.
	Notice Severity = iota
	// Warning is a part that works badly or will stop working if nothing is done.
	Warning
	// Failure is a part that does not work, or money at risk.
	Failure
)

// String is "notice", "warning" or "failure".
func (s Severity) String() string {
	switch s {
	case Notice:
		return "notice"
	case Warning:
		return "warning"
	case Failure:
		return "failure"
	}
	return fmt.Sprintf("severity(%d)", uint8(s))
}

// MarshalText writes the severity by its name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(text []byte) error {
	for _, known := range []Severity{Notice, Warning, Failure} {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("no severity %q", text)
}

// Condition is one thing that is not as it should be.
type Condition struct {
	// Code names the condition for programs and is unique in a Set: lower-case
	// words joined by hyphens ("chain-unreachable"). Where several of a kind
	// can hold at once, the subject follows a colon ("disk-missing:photos").
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	// Title says in one sentence what is wrong.
	Title string `json:"title"`
	// Remedy says what the owner can do; empty where it passes by itself.
	Remedy string `json:"remedy,omitempty"`
	// Detail is for whoever looks closer: the error's own words.
	Detail string `json:"detail,omitempty"`
	// Since is when the condition began to hold; a Set fills it in.
	Since time.Time `json:"since"`
}

// Set is the conditions that hold now. It is safe for concurrent use, and no
// call blocks.
type Set struct {
	clock func() time.Time

	mu          sync.Mutex
	raised      map[string]Condition
	subscribers map[chan struct{}]struct{}
}

// NewSet returns a Set in which nothing is raised. The clock dates conditions.
func NewSet(clock func() time.Time) *Set {
	return &Set{clock: clock, raised: map[string]Condition{}, subscribers: map[chan struct{}]struct{}{}}
}

// Raise says that c holds. A condition that held already keeps its Since and
// takes the rest from c, so that raising the same one again and again is
// cheap and wakes nobody.
func (s *Set) Raise(c Condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, held := s.raised[c.Code]
	if held {
		c.Since = before.Since
	} else {
		c.Since = s.clock()
	}
	if held && c == before {
		return
	}
	s.raised[c.Code] = c
	s.wake()
}

// Clear says that the condition with this code holds no longer. Clearing what
// is not raised does nothing.
func (s *Set) Clear(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.raised[code]; !held {
		return
	}
	delete(s.raised, code)
	s.wake()
}

// List returns what holds now, the gravest first, then the oldest, then by code.
func (s *Set) List() []Condition {
	s.mu.Lock()
	list := make([]Condition, 0, len(s.raised))
	for _, c := range s.raised {
		list = append(list, c)
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b Condition) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), a.Since.Compare(b.Since), cmp.Compare(a.Code, b.Code))
	})
	return list
}

// Subscribe returns a channel that receives after the set has changed, and a
// function that ends the subscription and closes the channel. Changes that
// come while one waits to be received are joined into it: receive, then List.
func (s *Set) Subscribe() (changed <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.subscribers[c] = struct{}{}
	s.mu.Unlock()
	return c, sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.subscribers, c)
		s.mu.Unlock()
		close(c)
	})
}

func (s *Set) wake() {
	for c := range s.subscribers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
