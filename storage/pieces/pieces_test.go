package pieces

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"
)

// layoutOf makes a layout and its data; a negative length is a pad file.
func layoutOf(pieceLength int64, lengths ...int64) (Layout, []byte) {
	l := Layout{Name: "title", PieceLength: pieceLength}
	random := rand.NewChaCha8([32]byte{1})
	var data []byte
	for i, n := range lengths {
		f := File{Path: []string{"d", string(rune('a' + i))}, Length: max(n, -n), Pad: n < 0}
		b := make([]byte, f.Length)
		if !f.Pad {
			random.Read(b)
		}
		data = append(data, b...)
		l.Files = append(l.Files, f)
	}
	for off := int64(0); off < int64(len(data)); off += pieceLength {
		sum := sha1.Sum(data[off:min(off+pieceLength, int64(len(data)))])
		l.Hashes = append(l.Hashes, sum[:]...)
	}
	return l, data
}

func open(t testing.TB, root string, l Layout, opt Options) *Store {
	t.Helper()
	s, err := Open(root, l, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWrittenIsRead(t *testing.T) {
	l, data := layoutOf(1000, 1500, 0, 1, -499, 7, 3000, 0)
	root := filepath.Join(t.TempDir(), "new")
	files := NewHandles(2) // fewer than the title has
	s := open(t, root, l, Options{Write: true, Verify: true, Files: files})
	ctx := context.Background()
	if err := s.Check(ctx, 0); !errors.Is(err, ErrMissing) {
		t.Errorf("check of nothing: %v", err)
	}
	if s.Complete() {
		t.Error("an empty title is complete")
	}
	for off := 0; off < len(data); off += 700 {
		p := data[off:min(off+700, len(data))]
		if n, err := s.WriteAt(p, int64(off)); n != len(p) || err != nil {
			t.Fatalf("write at %d: %d, %v", off, n, err)
		}
	}
	for i := range l.NumPieces() {
		if err := s.Check(ctx, i); err != nil {
			t.Errorf("piece %d: %v", i, err)
		}
		if err := s.Sync(i); err != nil {
			t.Errorf("sync piece %d: %v", i, err)
		}
	}
	if !s.Complete() || s.Have() != nil {
		t.Errorf("missing %v", s.Missing())
	}
	got := make([]byte, len(data))
	if _, err := s.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read: %v", err)
	}
	if n, err := s.ReadAt(got, 4000); n != len(data)-4000 || err != io.EOF {
		t.Errorf("read across the end: %d, %v", n, err)
	}
	if n := files.Open(); n > 2 {
		t.Errorf("%d files open, at most 2 wanted", n)
	}

	// What was written over is not good until it is checked again.
	if _, err := s.WriteAt([]byte("other"), 1100); err != nil {
		t.Fatal(err)
	}
	if s.Good(1) || !s.Good(0) {
		t.Error("a write leaves its piece good, or spoils another")
	}
	if err := s.Check(ctx, 1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("corrupt piece: %v", err)
	}
	for _, off := range []int64{-1, int64(len(data)) - 2, int64(len(data)) + 1} {
		if _, err := s.WriteAt([]byte("xyz"), off); !errors.Is(err, ErrRange) {
			t.Errorf("write at %d: %v", off, err)
		}
	}
	if _, err := open(t, root, l, Options{}).WriteAt([]byte("x"), 0); !errors.Is(err, ErrReadOnly) {
		t.Errorf("write to a read-only store: %v", err)
	}
}

// written writes the data of l into a new folder.
func written(t testing.TB, l Layout, data []byte) (root string) {
	t.Helper()
	root = t.TempDir()
	s, err := Open(root, l, Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestSections(t *testing.T) {
	l, data := layoutOf(1000, 1500, 0, 1, -499, 7, 3000)
	s := open(t, written(t, l, data), l, Options{Files: NewHandles(1)})
	var sections []Section
	for off := int64(0); off < int64(len(data)); off += 333 {
		n := min(1111, int64(len(data))-off)
		var err error
		if sections, err = s.Sections(sections[:0], off, n); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, sec := range sections {
			p := make([]byte, sec.Len)
			if sec.File != nil {
				if _, err := sec.File.ReadAt(p, sec.Off); err != nil {
					t.Fatal(err)
				}
			}
			got = append(got, p...)
		}
		s.Release(sections)
		if !bytes.Equal(got, data[off:off+n]) {
			t.Errorf("sections at %d hold other bytes", off)
		}
	}
	if _, err := s.Sections(nil, 1, int64(len(data))); !errors.Is(err, ErrRange) {
		t.Errorf("beyond the end: %v", err)
	}
	if n := s.files.Open(); n > 1 {
		t.Errorf("%d files open", n)
	}
}

func TestNoAllocations(t *testing.T) {
	l, data := layoutOf(4000, 1500, 7000, 12)
	s := open(t, written(t, l, data), l, Options{Verify: true})
	ctx := context.Background()
	sections := make([]Section, 0, 4)
	p := make([]byte, 3000)
	if n := testing.AllocsPerRun(100, func() {
		sections, _ = s.Sections(sections[:0], 1000, 3000)
		s.Release(sections)
		if _, err := s.ReadAt(p, 1000); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(ctx, 1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}

func TestDamagedData(t *testing.T) {
	l, data := layoutOf(1000, 1500, 2500)
	root := written(t, l, data)
	now := time.Unix(0, 0)
	s := open(t, root, l, Options{Verify: true, Clock: func() time.Time { return now }})
	ctx := context.Background()
	second := filepath.Join(root, "title", "d", "b")
	if err := os.Truncate(second, 2000); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(ctx, 3); !errors.Is(err, ErrMissing) {
		t.Errorf("short file: %v", err)
	}
	if n, err := s.ReadAt(make([]byte, 1000), 3000); n != 500 || !errors.Is(err, ErrMissing) {
		t.Errorf("read of a short file: %d, %v", n, err)
	}
	if got := s.Have(); !bytes.Equal(got, []byte{0x80}) {
		t.Errorf("have %x", got)
	}
	// A corrupt piece is not hashed again at once.
	flip := func() {
		f, err := os.OpenFile(second, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		f.ReadAt(b, 600)
		b[0] ^= 1
		f.WriteAt(b, 600)
	}
	flip()
	if err := s.Check(ctx, 2); !errors.Is(err, ErrCorrupt) {
		t.Errorf("corrupt: %v", err)
	}
	flip()
	if err := s.Check(ctx, 2); !errors.Is(err, ErrCorrupt) {
		t.Errorf("healed, looked at too early: %v", err)
	}
	now = now.Add(recheckAfter)
	if err := s.Check(ctx, 2); err != nil {
		t.Errorf("healed: %v", err)
	}
	if err := s.Check(ctx, 4); !errors.Is(err, ErrRange) {
		t.Errorf("no such piece: %v", err)
	}
	if _, err := Open(filepath.Join(root, "absent"), l, Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("no folder: %v", err)
	}
}

// A piece that cannot be read is not read again for every request.
func TestMissingIsRemembered(t *testing.T) {
	l, data := layoutOf(1000, 1500, 2500)
	root := written(t, l, data)
	now := time.Unix(0, 0)
	s := open(t, root, l, Options{Verify: true, Clock: func() time.Time { return now }})
	ctx := context.Background()
	second := filepath.Join(root, "title", "d", "b")
	if err := os.Rename(second, second+".away"); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(ctx, 2); !errors.Is(err, ErrMissing) {
		t.Errorf("taken away: %v", err)
	}
	if err := os.Rename(second+".away", second); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(ctx, 2); !errors.Is(err, ErrMissing) {
		t.Errorf("put back, looked at too early: %v", err)
	}
	now = now.Add(recheckAfter)
	if err := s.Check(ctx, 2); err != nil {
		t.Errorf("put back: %v", err)
	}
}

// A file that was replaced by another one of the same length is hashed again
// before it is served.
func TestReplacedFile(t *testing.T) {
	l, data := layoutOf(1000, 1500, 2500)
	root := written(t, l, data)
	s := open(t, root, l, Options{Verify: true, Files: NewHandles(1)})
	ctx := context.Background()
	for i := range l.NumPieces() { // the first file is closed again in the end
		if err := s.Check(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	first := filepath.Join(root, "title", "d", "a")
	if err := os.WriteFile(first+".new", make([]byte, 1500), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(first+".new", time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(first+".new", first); err != nil {
		t.Fatal(err)
	}
	sections, err := s.Sections(nil, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release(sections)
	for i, want := range []bool{false, false, true, true} {
		if got := s.Ready(i); got != want {
			t.Errorf("piece %d ready: %v", i, got)
		}
	}
	if err := s.Check(ctx, 0); !errors.Is(err, ErrCorrupt) {
		t.Errorf("replaced: %v", err)
	}
}

// One block does not take a descriptor for each of thousands of small files.
func TestSectionsAreBounded(t *testing.T) {
	l := Layout{Name: "title", PieceLength: 1000}
	for i := range 100 {
		l.Files = append(l.Files, File{Path: []string{string(rune('!' + i%10)), string(rune('!' + i/10))}, Length: 10})
	}
	l.Hashes = make([]byte, HashSize)
	s := open(t, written(t, l, make([]byte, 1000)), l, Options{Files: NewHandles(4)})
	if sections, err := s.Sections(nil, 0, 10*MaxSections); err != nil || len(sections) != MaxSections {
		t.Errorf("%d sections, %v", len(sections), err)
	} else {
		s.Release(sections)
	}
	sections, err := s.Sections(nil, 0, 1000)
	if !errors.Is(err, ErrSections) || s.files.Open() > MaxSections {
		t.Errorf("%v with %d files open", err, s.files.Open())
	}
	s.Release(sections)
	if n := s.files.Open(); n > 4 {
		t.Errorf("%d files stay open", n)
	}
}

func TestChecksAreJoined(t *testing.T) {
	l, data := layoutOf(100_000, 300_000)
	s := open(t, written(t, l, data), l, Options{Verify: true})
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx := context.Background()
			if i%4 == 0 {
				ctx = cancelled // one who leaves must not fail the others
			}
			if err := s.Check(ctx, i%3); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLinksDoNotLeaveTheRoot(t *testing.T) {
	l, data := layoutOf(1000, 1500, 2500)
	outside := t.TempDir()
	secret := filepath.Join(outside, "b")
	if err := os.WriteFile(secret, make([]byte, 2500), 0o600); err != nil {
		t.Fatal(err)
	}
	root := written(t, l, data)
	folder := filepath.Join(root, "title", "d")
	if err := os.Remove(filepath.Join(folder, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(folder, "b")); err != nil {
		t.Fatal(err)
	}
	s := open(t, root, l, Options{Write: true})
	if _, err := s.ReadAt(make([]byte, 10), 2000); err == nil {
		t.Error("read through a link")
	}
	if _, err := s.WriteAt(make([]byte, 10), 2000); err == nil {
		t.Error("written through a link")
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, folder); err != nil {
		t.Fatal(err)
	}
	if _, err := s.WriteAt(data, 0); err == nil {
		t.Error("written through a linked folder")
	}
}

func TestHostileLayouts(t *testing.T) {
	for name, change := range map[string]func(*metainfo.Info){
		"dot dot":           func(i *metainfo.Info) { i.Files[0].Path = []string{"..", "a"} },
		"dot":               func(i *metainfo.Info) { i.Files[0].Path = []string{"."} },
		"empty element":     func(i *metainfo.Info) { i.Files[0].Path = []string{"a", ""} },
		"no path":           func(i *metainfo.Info) { i.Files[0].Path = nil },
		"separator":         func(i *metainfo.Info) { i.Files[0].Path = []string{"a/b"} },
		"backslash":         func(i *metainfo.Info) { i.Files[0].Path = []string{`a\b`} },
		"NUL":               func(i *metainfo.Info) { i.Files[0].Path = []string{"a\x00"} },
		"name":              func(i *metainfo.Info) { i.Name = "../up" },
		"utf-8 name":        func(i *metainfo.Info) { i.NameUtf8 = ".." },
		"same path":         func(i *metainfo.Info) { i.Files[0].Path = i.Files[1].Path },
		"file as folder":    func(i *metainfo.Info) { i.Files[0].Path = []string{"y"} },
		"negative length":   func(i *metainfo.Info) { i.Files[0].Length, i.Files[1].Length = -1, 1001 },
		"overflow":          func(i *metainfo.Info) { i.Files[0].Length, i.Files[1].Length = 1<<62, 1<<62 },
		"no data":           func(i *metainfo.Info) { i.Files[0].Length, i.Files[1].Length = 0, 0 },
		"piece length":      func(i *metainfo.Info) { i.PieceLength = 0 },
		"too few hashes":    func(i *metainfo.Info) { i.Files[0].Length = 600 },
		"half a hash":       func(i *metainfo.Info) { i.Pieces = i.Pieces[:30] },
		"long path":         func(i *metainfo.Info) { i.Files[0].Path = make([]string, 2500) },
		"v2 without pieces": func(i *metainfo.Info) { i.Pieces = nil },
	} {
		info := metainfo.Info{Name: "n", PieceLength: 500, Pieces: make([]byte, 40), Files: []metainfo.FileInfo{
			{Length: 500, Path: []string{"x"}}, {Length: 500, Path: []string{"y", "z"}},
		}}
		if _, err := LayoutOf(&info); err != nil {
			t.Fatalf("without a change: %v", err)
		}
		change(&info)
		if _, err := LayoutOf(&info); !errors.Is(err, ErrLayout) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLayout looks for an info dictionary that is taken although its files
// would overlap, leave their folder or not add up.
func FuzzLayout(f *testing.F) {
	f.Add([]byte("d6:lengthi5e4:name1:n12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"))
	f.Add([]byte("d5:filesld6:lengthi5e4:pathl1:a1:beed4:attr1:p6:lengthi3e4:pathl4:.pad1:3eee4:name1:n12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"))
	f.Add([]byte("d5:filesld6:lengthi5e4:pathl2:..eee4:name2:..12:piece lengthi-1e6:pieces0:e"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var info metainfo.Info
		if bencode.Unmarshal(b, &info) != nil {
			return
		}
		l, err := LayoutOf(&info)
		if err != nil {
			return
		}
		var sum int64
		for i := range l.NumPieces() {
			n := l.PieceSize(i)
			if n < 1 || n > l.PieceLength {
				t.Fatalf("piece %d of %d bytes", i, n)
			}
			sum += n
		}
		if sum != l.Length() {
			t.Fatalf("pieces hold %d bytes of %d", sum, l.Length())
		}
		for _, f := range l.Files {
			if !f.Pad && !filepath.IsLocal(filepath.Join(append([]string{l.Name}, f.Path...)...)) {
				t.Fatalf("path %q", f.Path)
			}
		}
	})
}

// On 32-bit machines a file above 2 GiB opens only when one says that one is
// ready for it. The file is sparse: it takes no room on the disk.
func TestFilesAbove4GiB(t *testing.T) {
	const size = 5 << 30
	root := t.TempDir()
	l := Layout{Name: "large", PieceLength: 16 << 20, Single: true, Files: []File{{Length: size}},
		Hashes: make([]byte, size/(16<<20)*HashSize)}
	if err := os.Truncate(emptyFile(t, filepath.Join(root, "large")), size); err != nil {
		t.Fatal(err)
	}
	s, err := Open(root, l, Options{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := []byte("far out")
	if _, err := s.WriteAt(want, size-100); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := s.ReadAt(got, size-100); err != nil || string(got) != string(want) {
		t.Fatalf("%q, %v", got, err)
	}
	sections, err := s.Sections(nil, size-100, 10)
	if err != nil || len(sections) != 1 || sections[0].Off != size-100 {
		t.Fatalf("%+v, %v", sections, err)
	}
	s.Release(sections)
}

func emptyFile(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
