package pieces

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/anacrolix/torrent/metainfo"
)

// HashSize is the length of a piece's SHA-1 hash in bytes (BEP 3).
const HashSize = 20

// Limits of a layout. They bound what a torrent from a stranger can make this
// process allocate or create.
const (
	MaxPieceLength = 1 << 30 // bytes
	MaxLength      = 1 << 50 // bytes, all files together
	MaxFiles       = 1 << 20
	MaxElement     = 255  // bytes of one path element, what Linux file systems take
	MaxPath        = 4000 // bytes of a whole path, separators counted
)

var (
	// ErrLayout says that an info dictionary describes no data that can be
	// kept: a hostile or broken torrent.
	ErrLayout = errors.New("unusable torrent layout")
	// ErrVersion says that a torrent has no v1 part (BEP 3).
	ErrVersion = errors.New("not a version 1 torrent")
)

// File is one file of a title, in the order of the torrent.
type File struct {
	// Path is relative to the folder Layout.Name; nil for a single-file title.
	Path   []string
	Length int64 // bytes, may be 0
	// Pad marks a pad file (BEP 47): its bytes are zeros and lie on no disk.
	Pad bool
}

// Layout says where a title's bytes lie: its files, one behind the other, cut
// into pieces. It is plain data; Validate says whether it can be trusted.
type Layout struct {
	Name        string // of the file or the folder
	PieceLength int64  // bytes, 1 to MaxPieceLength
	Files       []File
	Hashes      []byte // HashSize bytes a piece
	Single      bool   // one file, which is called Name
}

// LayoutOf reads the v1 part of an info dictionary (BEP 3, pad files of
// BEP 47). It refuses with ErrVersion or ErrLayout what Validate refuses.
func LayoutOf(info *metainfo.Info) (Layout, error) {
	if !info.HasV1() || len(info.Pieces) == 0 {
		return Layout{}, ErrVersion
	}
	l := Layout{Name: info.BestName(), PieceLength: info.PieceLength, Hashes: info.Pieces}
	if len(info.Files) == 0 {
		l.Single = true
		l.Files = []File{{Length: info.Length}}
	} else {
		if len(info.Files) > MaxFiles {
			return Layout{}, fmt.Errorf("%d files: %w", len(info.Files), ErrLayout)
		}
		l.Files = make([]File, len(info.Files))
		for i := range info.Files {
			f := &info.Files[i]
			l.Files[i] = File{Path: f.BestPath(), Length: f.Length, Pad: strings.Contains(f.Attr, "p")}
		}
	}
	if err := l.Validate(); err != nil {
		return Layout{}, err
	}
	return l, nil
}

// Length is the title's size in bytes, pad files included.
func (l *Layout) Length() int64 {
	var n int64
	for i := range l.Files {
		n += l.Files[i].Length
	}
	return n
}

// NumPieces is the number of pieces that Hashes has hashes for.
func (l *Layout) NumPieces() int { return len(l.Hashes) / HashSize }

// PieceSize is the number of bytes in piece i: PieceLength but for the last
// one. It is 0 for a piece that does not exist.
func (l *Layout) PieceSize(i int) int64 {
	if i < 0 || i >= l.NumPieces() {
		return 0
	}
	if i == l.NumPieces()-1 {
		return l.Length() - int64(i)*l.PieceLength
	}
	return l.PieceLength
}

// Validate refuses, with ErrLayout, a layout whose numbers contradict each
// other or pass the limits, or whose paths could leave the title's folder or
// collide within it.
func (l *Layout) Validate() error {
	if l.PieceLength < 1 || l.PieceLength > MaxPieceLength {
		return fmt.Errorf("piece length %d: %w", l.PieceLength, ErrLayout)
	}
	if len(l.Files) == 0 || len(l.Files) > MaxFiles {
		return fmt.Errorf("%d files: %w", len(l.Files), ErrLayout)
	}
	if l.Single && (len(l.Files) != 1 || len(l.Files[0].Path) != 0 || l.Files[0].Pad) {
		return fmt.Errorf("single file with a path: %w", ErrLayout)
	}
	if err := checkElement(l.Name); err != nil {
		return err
	}
	var total int64
	for i := range l.Files {
		f := &l.Files[i]
		if f.Length < 0 || f.Length > MaxLength || total+f.Length > MaxLength {
			return fmt.Errorf("file %d of %d bytes: %w", i, f.Length, ErrLayout)
		}
		total += f.Length
	}
	if total == 0 {
		return fmt.Errorf("no data: %w", ErrLayout)
	}
	if want := (total + l.PieceLength - 1) / l.PieceLength; len(l.Hashes)%HashSize != 0 || int64(l.NumPieces()) != want {
		return fmt.Errorf("%d bytes of hashes for %d pieces: %w", len(l.Hashes), want, ErrLayout)
	}
	if l.Single {
		return nil
	}
	return l.checkPaths()
}

func (l *Layout) checkPaths() error {
	paths := make([]string, 0, len(l.Files))
	for i := range l.Files {
		f := &l.Files[i]
		if f.Pad {
			continue
		}
		if len(f.Path) == 0 {
			return fmt.Errorf("file %d without a path: %w", i, ErrLayout)
		}
		size := len(l.Name)
		for _, e := range f.Path {
			if err := checkElement(e); err != nil {
				return err
			}
			size += 1 + len(e)
		}
		if size > MaxPath {
			return fmt.Errorf("path of %d bytes: %w", size, ErrLayout)
		}
		// NUL sorts below every byte that an element may hold, so that in
		// sorted order a folder's files follow directly on the folder's name.
		paths = append(paths, strings.Join(f.Path, "\x00")+"\x00")
	}
	sort.Strings(paths)
	for i := 1; i < len(paths); i++ {
		if strings.HasPrefix(paths[i], paths[i-1]) {
			return fmt.Errorf("path %q twice: %w", strings.ReplaceAll(strings.TrimSuffix(paths[i-1], "\x00"), "\x00", "/"), ErrLayout)
		}
	}
	return nil
}

func checkElement(e string) error {
	if e == "" || e == "." || e == ".." || len(e) > MaxElement || strings.ContainsAny(e, "/\\\x00") {
		return fmt.Errorf("path element %q: %w", e, ErrLayout)
	}
	return nil
}
