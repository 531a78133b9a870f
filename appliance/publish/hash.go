package publish

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

// hashMemory bounds the data that waits to be hashed, in bytes.
const hashMemory = 64 << 20

// hash fills l.Hashes. The files are read in order by the calling goroutine,
// as a disk likes best, and hashed by one goroutine per core.
func hash(ctx context.Context, src *source, files []file, l *pieces.Layout, progress func(done, total int64)) error {
	type job struct {
		piece int
		data  []byte
	}
	workers := runtime.GOMAXPROCS(0)
	buffers := int(min(max(hashMemory/l.PieceLength, 3), int64(workers)+2))
	free := make(chan []byte, buffers)
	for range buffers {
		free <- nil // made at first use: a small title needs few
	}
	jobs := make(chan job, buffers)
	var wg sync.WaitGroup
	for range min(workers, buffers) {
		wg.Go(func() {
			for j := range jobs {
				sum := sha1.Sum(j.data)
				copy(l.Hashes[j.piece*pieces.HashSize:], sum[:])
				free <- j.data
			}
		})
	}
	defer wg.Wait()
	defer close(jobs)

	r := &reader{src: src, files: files}
	defer r.close()
	total := l.Length()
	var done int64
	for i := range l.NumPieces() {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		size := l.PieceSize(i)
		if int64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if err := r.fill(buf); err != nil {
			return err
		}
		jobs <- job{i, buf}
		done += size
		if progress != nil {
			progress(done, total)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return r.finish()
}

// reader reads the files one behind the other, exactly as long as they were
// when they were scanned.
type reader struct {
	src   *source
	files []file // the rest; files[0] is open if current is
	// current is nil between two files.
	current *os.File
	left    int64 // bytes of current
}

// fill reads len(b) bytes.
func (r *reader) fill(b []byte) error {
	for len(b) > 0 {
		if r.current == nil {
			if err := r.next(); err != nil {
				return err
			}
		}
		n := int(min(int64(len(b)), r.left))
		if _, err := io.ReadFull(r.current, b[:n]); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return r.changed()
			}
			return fmt.Errorf("read %q: %w", r.files[0].open, err)
		}
		b, r.left = b[n:], r.left-int64(n)
		if r.left == 0 {
			if err := r.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reader) changed() error { return fmt.Errorf("%q: %w", r.files[0].open, ErrChanged) }

// next opens the next file that is not empty.
func (r *reader) next() error {
	for len(r.files) > 0 && r.files[0].info.Size() == 0 {
		r.files = r.files[1:]
	}
	if len(r.files) == 0 {
		return io.ErrUnexpectedEOF // the layout asks for no more than there is
	}
	f := &r.files[0]
	// Not to hang should a pipe have taken the file's place.
	opened, err := r.src.OpenFile(f.open, os.O_RDONLY|syscall.O_NONBLOCK|pieces.LargeFile, 0)
	if err != nil {
		return fmt.Errorf("read %q: %w", f.open, err)
	}
	r.current, r.left = opened, f.info.Size()
	return r.compare()
}

// end closes the current file after a last look at it.
func (r *reader) end() error {
	if err := r.compare(); err != nil {
		return err
	}
	if n, err := r.current.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return r.changed()
	}
	r.close()
	r.files = r.files[1:]
	return nil
}

func (r *reader) compare() error {
	info, err := r.current.Stat()
	if err != nil {
		return fmt.Errorf("read %q: %w", r.files[0].open, err)
	}
	if !unchanged(r.files[0].info, info) {
		return r.changed()
	}
	return nil
}

// finish says whether all has been read.
func (r *reader) finish() error {
	for _, f := range r.files {
		if f.info.Size() != 0 {
			return fmt.Errorf("%q was not read: %w", f.open, io.ErrUnexpectedEOF)
		}
	}
	return nil
}

func (r *reader) close() {
	if r.current != nil {
		r.current.Close()
		r.current = nil
	}
}
