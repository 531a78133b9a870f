// Package pieces reads and writes the pieces of a title on disk.
//
// A title's files are seen as one run of bytes (Layout). A Store reads and
// writes that run with pread and pwrite, hands out file sections for sendfile,
// and says of a piece whether what lies on the disk has the hash that the
// torrent promises. Nothing is kept in memory but what the kernel's page cache
// keeps anyway, and no file is mapped: a truncated file is an error, never a
// signal and never wrong bytes.
//
// Paths are opened below the store's root folder (os.Root): neither a path of
// the torrent nor a symbolic link leads out of it.
package pieces

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrMissing says that a file does not exist, is no regular file, or is
	// shorter than the torrent says.
	ErrMissing = errors.New("data is missing")
	// ErrCorrupt says that a piece on the disk does not have its hash.
	ErrCorrupt = errors.New("data is corrupt")
	// ErrReadOnly says that a store was not opened for writing.
	ErrReadOnly = errors.New("title is read-only")
	// ErrRange says that a piece or an offset lies outside the title.
	ErrRange = errors.New("outside the title")
	// ErrSections says that a run of bytes lies in too many files to have them
	// all open at once.
	ErrSections = errors.New("too many files")
)

// Options of a Store.
type Options struct {
	// Write lets WriteAt create folders and files.
	Write bool
	// Files is the cache of open files, shared by all titles; nil for one of
	// the store's own.
	Files *Handles
	// Verify makes Check hash pieces. Without it Check believes the disk.
	Verify bool
	// Clock is the time of day; nil for time.Now. It only spaces the checks of
	// a piece that was found corrupt.
	Clock func() time.Time
}

// Store is one title's data on disk. It is safe for concurrent use.
type Store struct {
	layout Layout
	length int64
	starts []int64 // offset of each file, and the length at the end
	root   *os.Root
	files  *Handles
	opt    Options
	checks checks

	mu       sync.Mutex
	seen     []stamp             // of each file when it was opened last; nil until one was
	unsynced map[string]struct{} // folders with entries that no Sync has covered
}

// stamp tells a file from one that has taken its place.
type stamp struct{ changed, size int64 }

// Open opens the title l whose file or folder l.Name lies in the folder root.
// No file is opened yet. Where opt.Write is set, root and the title's empty
// files are created. Errors are ErrLayout, ErrMissing where root does not
// exist, and those of the file system.
func Open(root string, l Layout, opt Options) (*Store, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if opt.Write {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return nil, fmt.Errorf("create title's folder: %w", err)
		}
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open title's folder: %w: %w", ErrMissing, err)
		}
		return nil, fmt.Errorf("open title's folder: %w", err)
	}
	if opt.Files == nil {
		opt.Files = NewHandles(0)
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	s := &Store{layout: l, root: r, files: opt.Files, opt: opt, starts: make([]int64, len(l.Files)+1)}
	for i := range l.Files {
		s.starts[i+1] = s.starts[i] + l.Files[i].Length
	}
	s.length = s.starts[len(l.Files)]
	s.checks.init(l.NumPieces())
	if opt.Write {
		if err := s.createEmpty(); err != nil {
			r.Close()
			return nil, err
		}
	}
	return s, nil
}

// Layout is the layout that the store was opened with. It must not be changed.
func (s *Store) Layout() *Layout { return &s.layout }

// Length is the title's size in bytes.
func (s *Store) Length() int64 { return s.length }

// Close closes the title's files; those in use are closed when they are let
// go. No other method may be called after it but Release.
func (s *Store) Close() error {
	s.files.closeStore(s)
	return s.root.Close()
}

func (s *Store) path(i int) string {
	if s.layout.Single {
		return s.layout.Name
	}
	return s.layout.Name + "/" + strings.Join(s.layout.Files[i].Path, "/")
}

func (s *Store) createEmpty() error {
	for i := range s.layout.Files {
		if f := &s.layout.Files[i]; f.Length == 0 && !f.Pad {
			file, err := s.openFile(i, true)
			if err != nil {
				return err
			}
			if err := file.Close(); err != nil {
				return fmt.Errorf("create %s: %w", s.path(i), err)
			}
		}
	}
	return nil
}

// openFile opens file i, and creates it where write is set.
func (s *Store) openFile(i int, write bool) (*os.File, error) {
	name := s.path(i)
	// O_NONBLOCK: a named pipe in a title's folder must not hold up the opener.
	flags := os.O_RDONLY | syscall.O_NONBLOCK | LargeFile
	if write {
		flags = os.O_RDWR | os.O_CREATE | syscall.O_NONBLOCK | LargeFile
	}
	f, err := s.root.OpenFile(name, flags, 0o644)
	if write && errors.Is(err, fs.ErrNotExist) {
		if err := s.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, fmt.Errorf("create folder: %w", err)
		}
		f, err = s.root.OpenFile(name, flags, 0o644)
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open file: %w: %w", ErrMissing, err)
		}
		return nil, fmt.Errorf("open file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open file: %w", err)
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is no regular file: %w", name, ErrMissing)
	}
	if !s.opt.Write {
		s.compare(i, stamp{info.ModTime().UnixNano(), info.Size()})
	}
	if write && info.Size() == 0 { // perhaps created just now
		s.mu.Lock()
		if s.unsynced == nil {
			s.unsynced = make(map[string]struct{})
		}
		for dir := path.Dir(name); ; dir = path.Dir(dir) {
			s.unsynced[dir] = struct{}{}
			if dir == "." {
				break
			}
		}
		s.mu.Unlock()
	}
	return f, nil
}

// compare forgets the pieces of file i where that is not what it was when it
// was opened before.
func (s *Store) compare(i int, now stamp) {
	s.mu.Lock()
	if s.seen == nil {
		s.seen = make([]stamp, len(s.layout.Files))
	}
	before := s.seen[i]
	s.seen[i] = now
	s.mu.Unlock()
	if before != now && before != (stamp{}) && s.layout.Files[i].Length > 0 {
		s.checks.forget(int(s.starts[i]/s.layout.PieceLength), int((s.starts[i+1]-1)/s.layout.PieceLength))
	}
}

// fileAt is the index of the file with data at off, which lies in the title.
func (s *Store) fileAt(off int64) int {
	return sort.Search(len(s.layout.Files), func(i int) bool { return s.starts[i+1] > off })
}

// ReadAt reads like io.ReaderAt from the title's bytes. Besides io.EOF its
// errors are ErrMissing and those of the file system. It allocates nothing
// where the files are open.
func (s *Store) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrRange
	}
	if off >= s.length {
		return 0, io.EOF
	}
	done := 0
	for i := s.fileAt(off); done < len(p) && off < s.length; i++ {
		n := int(min(int64(len(p)-done), s.starts[i+1]-off))
		if n == 0 {
			continue
		}
		part := p[done : done+n]
		if s.layout.Files[i].Pad {
			clear(part)
		} else if n, err := s.readFile(i, part, off-s.starts[i]); err != nil {
			return done + n, err
		}
		done += n
		off += int64(n)
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (s *Store) readFile(i int, p []byte, off int64) (int, error) {
	h, err := s.files.acquire(s, i, false)
	if err != nil {
		return 0, err
	}
	defer s.files.release(h)
	n, err := h.f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == io.EOF {
		return n, fmt.Errorf("%s is too short: %w", s.path(i), ErrMissing)
	}
	return n, fmt.Errorf("read piece: %w", err)
}

// WriteAt writes like io.WriterAt to the title's bytes and creates the folders
// and files that it needs. What is written to a pad file is dropped. Errors are
// ErrReadOnly, ErrRange and those of the file system.
func (s *Store) WriteAt(p []byte, off int64) (int, error) {
	if !s.opt.Write {
		return 0, ErrReadOnly
	}
	if off < 0 || off > s.length || int64(len(p)) > s.length-off {
		return 0, ErrRange
	}
	if len(p) == 0 {
		return 0, nil
	}
	first, last := int(off/s.layout.PieceLength), int((off+int64(len(p))-1)/s.layout.PieceLength)
	s.checks.forget(first, last)
	done := 0
	for i := s.fileAt(off); done < len(p); i++ {
		n := int(min(int64(len(p)-done), s.starts[i+1]-off))
		if n == 0 {
			continue
		}
		if !s.layout.Files[i].Pad {
			n, err := s.writeFile(i, p[done:done+n], off-s.starts[i])
			if err != nil {
				return done + n, err
			}
		}
		done += n
		off += int64(n)
	}
	// Once more: a check that ran meanwhile saw half of the old bytes.
	s.checks.forget(first, last)
	return done, nil
}

func (s *Store) writeFile(i int, p []byte, off int64) (int, error) {
	h, err := s.files.acquire(s, i, true)
	if err != nil {
		return 0, err
	}
	defer s.files.release(h)
	n, err := h.f.WriteAt(p, off)
	if err != nil {
		return n, fmt.Errorf("write piece: %w", err)
	}
	return n, nil
}

// Section is a run of bytes in one file, for sendfile.
type Section struct {
	File *os.File // nil for a pad file: Len zeros
	Off  int64    // bytes from the beginning of File
	Len  int64    // bytes, above zero

	handle *handle
}

// MaxSections is how many files Sections opens for one run of bytes. A block of
// files of a few bytes each could otherwise take all descriptors that there are.
const MaxSections = 16

// Sections appends to dst where the n bytes at off lie. Their files stay open
// until Release, which must be called also when an error is returned with a
// shorter list. Where there are more than MaxSections files the error is
// ErrSections, and ReadAt is the way. A file that has been replaced since it was
// checked is noticed when it is opened: Ready tells afterwards. Sections does
// not say whether the files are long enough. It allocates nothing where dst has
// room and the files are open.
func (s *Store) Sections(dst []Section, off, n int64) ([]Section, error) {
	if off < 0 || n < 0 || off > s.length || n > s.length-off {
		return dst, ErrRange
	}
	if n == 0 {
		return dst, nil
	}
	before := len(dst)
	for i := s.fileAt(off); n > 0; i++ {
		k := min(n, s.starts[i+1]-off)
		if k == 0 {
			continue
		}
		if len(dst)-before == MaxSections {
			return dst, ErrSections
		}
		sec := Section{Off: off - s.starts[i], Len: k}
		if !s.layout.Files[i].Pad {
			h, err := s.files.acquire(s, i, false)
			if err != nil {
				return dst, err
			}
			sec.File, sec.handle = h.f, h
		}
		dst = append(dst, sec)
		off += k
		n -= k
	}
	return dst, nil
}

// Fd is the descriptor of File, which is not nil.
func (s *Section) Fd() int { return s.handle.fd }

// Release lets the files of sections go.
func (s *Store) Release(sections []Section) {
	for i := range sections {
		if h := sections[i].handle; h != nil {
			s.files.release(h)
		}
		sections[i] = Section{}
	}
}

// Missing lists the files, by index, that do not lie on the disk with their
// full length. It looks at names and sizes only.
func (s *Store) Missing() []int {
	var missing []int
	for i := range s.layout.Files {
		f := &s.layout.Files[i]
		if f.Pad {
			continue
		}
		info, err := s.root.Stat(s.path(i))
		if err != nil || !info.Mode().IsRegular() || info.Size() < f.Length {
			missing = append(missing, i)
		}
	}
	return missing
}

// Complete reports whether every file lies on the disk with its full length.
func (s *Store) Complete() bool { return len(s.Missing()) == 0 }

// Sync makes a piece that was written durable: its files and, where those were
// created, their folders.
func (s *Store) Sync(piece int) error {
	size := s.layout.PieceSize(piece)
	if size == 0 {
		return ErrRange
	}
	off := int64(piece) * s.layout.PieceLength
	end := off + size
	for i := s.fileAt(off); off < end; i++ {
		k := min(end, s.starts[i+1]) - off
		if k == 0 {
			continue
		}
		off += k
		if s.layout.Files[i].Pad {
			continue
		}
		h, err := s.files.acquire(s, i, s.opt.Write)
		if err != nil {
			return err
		}
		err = h.f.Sync()
		s.files.release(h)
		if err != nil {
			return fmt.Errorf("sync piece: %w", err)
		}
	}
	return s.syncFolders()
}

func (s *Store) syncFolders() error {
	s.mu.Lock()
	dirs := s.unsynced
	s.unsynced = nil
	s.mu.Unlock()
	for dir := range dirs {
		if err := s.syncFolder(dir); err != nil {
			s.mu.Lock()
			if s.unsynced == nil {
				s.unsynced = make(map[string]struct{})
			}
			for dir := range dirs {
				s.unsynced[dir] = struct{}{}
			}
			s.mu.Unlock()
			return fmt.Errorf("sync folder: %w", err)
		}
	}
	return nil
}

func (s *Store) syncFolder(dir string) error {
	d, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Have is the bitfield (BEP 3: first piece in the highest bit) of the pieces
// whose files all lie on the disk with their full length; nil where that is
// all of them. It does not hash.
func (s *Store) Have() []byte {
	missing := s.Missing()
	if len(missing) == 0 {
		return nil
	}
	n := s.layout.NumPieces()
	bits := make([]byte, (n+7)/8)
	for i := range n {
		bits[i/8] |= 0x80 >> (i % 8)
	}
	for _, i := range missing {
		if s.starts[i] == s.starts[i+1] {
			continue
		}
		last := int((s.starts[i+1] - 1) / s.layout.PieceLength)
		for p := int(s.starts[i] / s.layout.PieceLength); p <= last; p++ {
			bits[p/8] &^= 0x80 >> (p % 8)
		}
	}
	return bits
}
