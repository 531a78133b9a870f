// Package volume knows the disk folders that the owner gave to the box.
//
// A volume is a folder with a marker file in it. The marker carries an identity
// and says that the folder is what it was when it was given: where a disk is
// not mounted, its mount point is an empty folder without a marker, and is
// never taken for a disk from which everything has been deleted.
package volume

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bitcdn/bitcdn/storage/durable"
	"golang.org/x/sys/unix"
)

// Marker is the name of the marker file.
const Marker = ".bitcdn-volume"

const (
	idSize     = 16
	markerHead = "bitcdn volume 1 "
	markerSize = len(markerHead) + 2*idSize + 1
)

var (
	// ErrNoMarker says that a folder is no volume, or that its disk is absent.
	ErrNoMarker = errors.New("folder carries no volume marker")
	// ErrMarker says that a marker file cannot be read as one.
	ErrMarker = errors.New("volume marker is damaged")
)

// ID tells one volume from another, wherever it is mounted.
type ID [idSize]byte

// String writes the identity as hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Volume is a folder whose marker was seen.
type Volume struct {
	dir string
	id  ID
}

// Create makes dir a volume: the folder where it does not exist, and the
// marker, durably, with an identity read from random. A folder that is a volume
// already is opened as it is.
func Create(dir string, random io.Reader) (*Volume, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create volume: %w", err)
	}
	v, err := Open(dir)
	if !errors.Is(err, ErrNoMarker) {
		return v, err
	}
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return nil, fmt.Errorf("create volume: %w", err)
	}
	if err := writeMarker(dir, id); err != nil {
		return nil, fmt.Errorf("create volume: %w", err)
	}
	// Read back: of two that create the same volume at once, both see the one
	// that came last.
	return Open(dir)
}

// Open opens the volume in dir. Errors are ErrNoMarker, ErrMarker and those of
// the file system.
func Open(dir string) (*Volume, error) {
	f, err := os.Open(filepath.Join(dir, Marker))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open volume %s: %w", dir, ErrNoMarker)
	}
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(markerSize)+1))
	if err != nil {
		return nil, fmt.Errorf("open volume: %w", err)
	}
	digits, ok := strings.CutPrefix(string(text), markerHead)
	raw, err := hex.DecodeString(strings.TrimSuffix(digits, "\n"))
	if !ok || err != nil || len(raw) != idSize {
		return nil, fmt.Errorf("open volume %s: %w", dir, ErrMarker)
	}
	return &Volume{dir: dir, id: ID(raw)}, nil
}

// Dir is the volume's folder.
func (v *Volume) Dir() string { return v.dir }

// ID is the volume's identity.
func (v *Volume) ID() ID { return v.id }

// Check reads the marker again. It returns ErrNoMarker where the disk has gone
// or another one lies in its place.
func (v *Volume) Check() error {
	now, err := Open(v.dir)
	if err != nil {
		return err
	}
	if now.id != v.id {
		return fmt.Errorf("volume %s is not %s: %w", now.id, v.id, ErrNoMarker)
	}
	return nil
}

// Free is the number of bytes that may still be written to the volume's disk.
func (v *Volume) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(v.dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", v.dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func writeMarker(dir string, id ID) error {
	return durable.Replace(filepath.Join(dir, Marker), []byte(markerHead+id.String()+"\n"), 0o600)
}
