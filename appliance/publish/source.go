package publish

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// source is the file or folder that is published. Files are opened below its
// root, so that a folder that is swapped for a link leads nowhere else.
type source struct {
	*os.Root
	name   string // of the torrent
	single bool
	start  string // within the root, where scan begins
}

type file struct {
	open string      // path within the root
	path string      // in the torrent, slash-separated; "" for a single file
	info fs.FileInfo // as scanned
}

func (f *file) elements() []string {
	if f.path == "" {
		return nil
	}
	return strings.Split(f.path, "/")
}

func open(name string) (*source, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	target, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, fmt.Errorf("open what to publish: %w", err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return nil, fmt.Errorf("open what to publish: %w", err)
	}
	s := &source{name: filepath.Base(abs), single: !info.IsDir(), start: "."}
	if s.single {
		target, s.start = filepath.Dir(target), filepath.Base(target)
	}
	if s.Root, err = os.OpenRoot(target); err != nil {
		return nil, fmt.Errorf("open what to publish: %w", err)
	}
	return s, nil
}

// scan lists the files in the byte order of their paths.
func (s *source) scan(ctx context.Context) ([]file, error) {
	if err := checkName(s.name); err != nil {
		return nil, err
	}
	if s.single {
		info, err := s.Lstat(s.start)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", s.name, err)
		}
		if err := checkType(s.name, info.Mode()); err != nil {
			return nil, err
		}
		return []file{{open: s.start, info: info}}, nil
	}
	var files []file
	err := fs.WalkDir(s.FS(), s.start, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("read %q: %w", name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if name == s.start {
			return nil
		}
		if err := checkName(path.Base(name)); err != nil {
			return fmt.Errorf("in %q: %w", path.Dir(name), err)
		}
		if d.IsDir() {
			return nil
		}
		if err := checkType(name, d.Type()); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("read %q: %w", name, err)
		}
		files = append(files, file{open: name, path: name, info: info})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

func checkName(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("%q is not UTF-8; rename it: %w", name, ErrName)
	}
	return nil
}

func checkType(name string, mode fs.FileMode) error {
	switch {
	case mode.IsRegular():
		return nil
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%q is a symbolic link; put a copy of the file in its place or take it out: %w", name, ErrFileType)
	}
	return fmt.Errorf("%q is %s; take it out of the folder: %w", name, kind(mode), ErrFileType)
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeNamedPipe != 0:
		return "a pipe"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "no file"
}

// unchanged reports whether two looks at a file saw the same one.
func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// compare finds the first path by which two scans differ.
func compare(a, b []file) (path string, same bool) {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return b[i].open, false
		case i >= len(b) || a[i].open < b[i].open:
			return a[i].open, false
		case a[i].open > b[i].open:
			return b[i].open, false
		case !unchanged(a[i].info, b[i].info):
			return a[i].open, false
		}
	}
	return "", true
}
