// Package durable writes small files so that a power cut leaves the old
// content or the new one, whole, and never less. When a function returns nil,
// the content and the name are on the disk.
package durable

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Replace makes b the content of the file at path, which need not exist, with
// the given permissions. What was written before an error is removed.
func Replace(path string, b []byte, perm os.FileMode) error {
	return write(path, b, perm, os.Rename)
}

// Create makes a file at path that was not there before, or returns an error
// that is fs.ErrExist. It needs a file system with hard links.
func Create(path string, b []byte, perm os.FileMode) error {
	return write(path, b, perm, os.Link) // a rename would replace
}

// ReplaceWith is Replace for content that is written piece by piece. Where fill
// returns an error, ReplaceWith returns it and the file is as it was.
func ReplaceWith(path string, perm os.FileMode, fill func(io.Writer) error) error {
	return writeWith(path, perm, fill, os.Rename)
}

func write(path string, b []byte, perm os.FileMode, put func(from, to string) error) error {
	return writeWith(path, perm, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}, put)
}

func writeWith(path string, perm os.FileMode, fill func(io.Writer) error, put func(from, to string) error) error {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+name+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already where it was renamed
	if err = fill(f); err == nil && perm != 0o600 {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := put(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
