package fetch

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree makes everything in the file system of a folder durable. It costs
// one journal commit where syncing thousands of small files costs thousands.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync file system: %w", err)
	}
	return nil
}

// hole says that the n bytes at off of a file were never written, so that there
// is nothing to check. Not every file system knows.
func hole(f *os.File, off, n int64) bool {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	return err == unix.ENXIO || err == nil && data >= off+n
}
