package pieces

import (
	"os"
	"sync"
)

// DefaultHandles is how many files Handles keeps open where nothing else is
// said: far below the usual limit of 1,024 descriptors.
const DefaultHandles = 256

// hashBuffer is the size of the buffers that pieces are hashed through.
const hashBuffer = 128 << 10

// Handles keeps files open across all titles, the least recently used one
// closed first, so that a title of 11,000 files needs no 11,000 descriptors.
// A file in use is never closed; where more files than the cap are in use at
// once, the excess is closed as soon as it is let go. It is safe for
// concurrent use. The nil value is not usable.
type Handles struct {
	max     int
	hashing chan struct{} // held while a piece is hashed
	buffers sync.Pool     // *[]byte of hashBuffer bytes

	mu   sync.Mutex
	open map[handleKey]*handle
	// idle is the ring of handles without users, most recently used first.
	idle handle
}

type handleKey struct {
	store *Store
	file  int
}

// handle is one open file. Its fields but f, fd and key belong to Handles.mu.
type handle struct {
	f          *os.File
	fd         int // of f, asked for once: File.Fd costs system calls
	key        handleKey
	write      bool
	users      int
	dropped    bool // no longer in the map: closed when the last user leaves
	prev, next *handle
}

// NewHandles returns a cache of at most limit open files; DefaultHandles where
// limit is not positive.
func NewHandles(limit int) *Handles {
	if limit <= 0 {
		limit = DefaultHandles
	}
	h := &Handles{max: limit, hashing: make(chan struct{}, 2), open: make(map[handleKey]*handle)}
	h.buffers.New = func() any { b := make([]byte, hashBuffer); return &b }
	h.idle.prev, h.idle.next = &h.idle, &h.idle
	return h
}

// Open is the number of files that are open now.
func (h *Handles) Open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// acquire returns the open file, opening it where needed; the caller lets it
// go with release. A file opened for writing serves readers too.
func (h *Handles) acquire(s *Store, file int, write bool) (*handle, error) {
	key := handleKey{s, file}
	h.mu.Lock()
	if e := h.open[key]; e != nil && (e.write || !write) {
		h.use(e)
		h.mu.Unlock()
		return e, nil
	}
	h.mu.Unlock()

	f, err := s.openFile(file, write)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	if e := h.open[key]; e != nil {
		if e.write || !write { // somebody else was faster
			h.use(e)
			h.mu.Unlock()
			f.Close()
			return e, nil
		}
		h.drop(e)
	}
	for len(h.open) >= h.max && h.idle.prev != &h.idle {
		h.drop(h.idle.prev)
	}
	e := &handle{f: f, fd: int(f.Fd()), key: key, write: write, users: 1}
	h.open[key] = e
	h.mu.Unlock()
	return e, nil
}

func (h *Handles) release(e *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.users--
	switch {
	case e.users > 0:
	case e.dropped:
		e.f.Close()
	case len(h.open) > h.max:
		delete(h.open, e.key)
		e.f.Close()
	default:
		e.prev, e.next = &h.idle, h.idle.next
		e.prev.next, e.next.prev = e, e
	}
}

// use takes e, whose file is open, for one more user.
func (h *Handles) use(e *handle) {
	if e.users == 0 {
		h.unlink(e)
	}
	e.users++
}

// drop forgets e, and closes it where nobody uses it.
func (h *Handles) drop(e *handle) {
	delete(h.open, e.key)
	e.dropped = true
	if e.users == 0 {
		h.unlink(e)
		e.f.Close()
	}
}

func (h *Handles) unlink(e *handle) {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}

// closeStore drops every file of s.
func (h *Handles) closeStore(s *Store) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, e := range h.open {
		if key.store == s {
			h.drop(e)
		}
	}
}
