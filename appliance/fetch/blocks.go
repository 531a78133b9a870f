package fetch

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	g "github.com/anacrolix/generics"
	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

// blockStore is what the download needs of pieces.Store.
type blockStore interface {
	io.ReaderAt
	io.WriterAt
	Sync(piece int) error
	Close() error
}

type openBlocksFunc func(dir string, l pieces.Layout) (blockStore, error)

func openPieces(dir string, l pieces.Layout) (blockStore, error) {
	return pieces.Open(dir, l, pieces.Options{Write: true})
}

// errClosed is what a late read or write meets.
var errClosed = errors.New("download is closed")

type pieceStatus uint8

const (
	pieceMissing pieceStatus = iota
	pieceUnknown             // there is data that must be hashed
	pieceGood
)

// blocks is the client's storage for one torrent: the data in a pieces.Store,
// and the record of what is complete in the state folder.
type blocks struct {
	layout pieces.Layout
	starts []int64 // offset of each file, and the length at the end
	dir    string
	state  stateDir
	now    func() time.Time
	// verified and failed are told the outcome of each hash check. They must
	// not call the client.
	verified, failed func(piece int)

	gate   sync.RWMutex // held for reading during I/O, for writing to close
	disk   blockStore
	closed bool

	buffers sync.Pool // *[]byte, to hash through

	mu      sync.Mutex
	status  []pieceStatus
	unknown int    // pieces that are pieceUnknown
	good    bitmap // pieces that are pieceGood
	have    int64  // bytes of these
	// unread holds the pieces whose check failed because the disk did: nobody
	// is to blame for these.
	unread map[int]bool

	saveMu sync.Mutex
	saved  bitmap // pieces that the record may claim
	stale  bool   // the record claims less than saved
}

// openBlocks opens the data of a download and works out from the record and
// from the files what is there.
func openBlocks(dir string, state stateDir, l pieces.Layout, open openBlocksFunc) (*blocks, error) {
	if open == nil {
		open = openPieces
	}
	b := &blocks{
		layout: l, dir: dir, state: state, now: time.Now,
		verified: func(int) {}, failed: func(int) {},
		starts: make([]int64, len(l.Files)+1),
		status: make([]pieceStatus, l.NumPieces()),
		good:   newBitmap(l.NumPieces()),
		saved:  newBitmap(l.NumPieces()),
		unread: make(map[int]bool),
	}
	b.buffers.New = func() any { buf := make([]byte, 128<<10); return &buf }
	for i := range l.Files {
		b.starts[i+1] = b.starts[i] + l.Files[i].Length
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, diskError(fmt.Errorf("create download folder: %w", err))
	}
	// Before the store makes files of its own.
	if err := b.survey(); err != nil {
		return nil, err
	}
	disk, err := open(dir, l)
	if err != nil {
		return nil, diskError(fmt.Errorf("open download: %w", err))
	}
	b.disk = disk
	return b, nil
}

func (b *blocks) name(file int) string {
	if b.layout.Single {
		return b.layout.Name
	}
	return path.Join(append([]string{b.layout.Name}, b.layout.Files[file].Path...)...)
}

// parts calls f for every stretch of a file that piece i lies in, pad files and
// empty files left out, until f returns false.
func (b *blocks) parts(i int, f func(file int, off, n int64) bool) {
	at := int64(i) * b.layout.PieceLength
	end := at + b.layout.PieceSize(i)
	lo, hi := 0, len(b.layout.Files)
	for lo < hi { // first file that ends after at
		if m := (lo + hi) / 2; b.starts[m+1] > at {
			hi = m
		} else {
			lo = m + 1
		}
	}
	for ; at < end; lo++ {
		n := min(end, b.starts[lo+1]) - at
		if n == 0 {
			continue
		}
		if !b.layout.Files[lo].Pad && !f(lo, at-b.starts[lo], n) {
			return
		}
		at += n
	}
}

// survey sets the status of each piece.
func (b *blocks) survey() error {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return fmt.Errorf("open download folder: %w", err)
	}
	defer root.Close()
	files := make([]onDisk, len(b.layout.Files))
	for i := range files {
		if b.layout.Files[i].Pad {
			continue
		}
		if files[i], err = stat(root, b.name(i)); err != nil {
			return fmt.Errorf("look at download: %w", err)
		}
	}
	rec := b.state.resume(b.layout.NumPieces())
	var open *os.File
	opened := -1
	defer func() {
		if open != nil {
			open.Close()
		}
	}()
	written := func(file int, off, n int64) bool {
		if opened != file {
			if open != nil {
				open.Close()
			}
			opened = file
			if open, err = root.OpenFile(b.name(file), os.O_RDONLY|pieces.LargeFile, 0); err != nil {
				open = nil
			}
		}
		return open == nil || !hole(open, off, n)
	}
	for i := range b.status {
		claimed := rec != nil && rec.done.has(i)
		there := true
		b.parts(i, func(file int, off, n int64) bool {
			f := files[file]
			there = f.exists && f.size >= off+n
			claimed = claimed && there && rec.plausible(f)
			return there
		})
		if there && !claimed {
			b.parts(i, func(file int, off, n int64) bool {
				there = written(file, off, n)
				return there
			})
		}
		switch {
		case there && claimed:
			b.status[i] = pieceGood
			b.good.set(i)
			b.saved.set(i)
			b.have += b.layout.PieceSize(i)
		case there:
			b.status[i] = pieceUnknown
			b.unknown++
		}
	}
	return nil
}

func (b *blocks) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.good.count() == len(b.status)
}

// progress returns the bytes of complete pieces and the number of pieces that
// wait for their first check.
func (b *blocks) progress() (have int64, unknown int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.have, b.unknown
}

func (b *blocks) mark(i int, good bool) {
	b.mu.Lock()
	was := b.status[i]
	if was == pieceUnknown {
		b.unknown--
	}
	if good {
		b.status[i] = pieceGood
		b.good.set(i)
	} else {
		b.status[i] = pieceMissing
		b.good.clear(i)
	}
	if good && was != pieceGood {
		b.have += b.layout.PieceSize(i)
	}
	if !good && was == pieceGood {
		b.have -= b.layout.PieceSize(i)
	}
	unread := b.unread[i]
	delete(b.unread, i)
	b.mu.Unlock()
	if good {
		b.verified(i)
	} else if !unread {
		b.failed(i)
	}
}

// save makes durable what is complete and then writes the record. closed is
// set when no more data will be written.
func (b *blocks) save(closed bool) error {
	b.saveMu.Lock()
	defer b.saveMu.Unlock()
	var fresh []int
	b.mu.Lock()
	for i, s := range b.status {
		switch {
		case s == pieceGood && !b.saved.has(i):
			fresh = append(fresh, i)
		case s != pieceGood && b.saved.has(i):
			b.saved.clear(i)
			b.stale = true
		}
	}
	b.mu.Unlock()
	if len(fresh) == 0 && !b.stale && !closed {
		return nil
	}
	b.gate.RLock()
	err := errClosed
	if !b.closed {
		err = b.sync(fresh)
	}
	b.gate.RUnlock()
	if err != nil {
		return diskError(fmt.Errorf("sync download: %w", err))
	}
	for _, i := range fresh {
		b.saved.set(i)
	}
	b.stale = true
	rec := &resume{infoHash: b.state.infoHash, pieces: len(b.status), done: b.saved, saved: b.now(), closed: closed}
	if err := b.state.saveResume(rec); err != nil {
		return diskError(err)
	}
	b.stale = false
	return nil
}

// manyFiles is from how many files on the whole file system is synced at once.
const manyFiles = 8

func (b *blocks) sync(fresh []int) error {
	touched := make(map[int]bool)
	for _, i := range fresh {
		b.parts(i, func(file int, _, _ int64) bool { touched[file] = true; return true })
	}
	if len(touched) >= manyFiles {
		if err := syncTree(b.dir); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	for _, i := range fresh {
		need := false
		b.parts(i, func(file int, _, _ int64) bool {
			need = need || touched[file]
			delete(touched, file)
			return true
		})
		if !need {
			continue
		}
		if err := b.disk.Sync(i); err != nil {
			return err
		}
	}
	return nil
}

// trim cuts files that lay there before and are too long, once all the data is
// there.
func (b *blocks) trim() error {
	root, err := os.OpenRoot(b.dir)
	if err != nil {
		return fmt.Errorf("open download folder: %w", err)
	}
	defer root.Close()
	for i := range b.layout.Files {
		want := b.layout.Files[i].Length
		if b.layout.Files[i].Pad {
			continue
		}
		f, err := stat(root, b.name(i))
		if err != nil {
			return fmt.Errorf("look at download: %w", err)
		}
		if !f.exists || f.size < want {
			return fmt.Errorf("%s has %d of %d bytes", b.name(i), f.size, want)
		}
		if f.size == want {
			continue
		}
		file, err := root.OpenFile(b.name(i), os.O_WRONLY|pieces.LargeFile, 0)
		if err != nil {
			return fmt.Errorf("cut file: %w", err)
		}
		err = file.Truncate(want)
		if e := file.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("cut file: %w", err)
		}
	}
	return nil
}

// close waits for I/O that is under way and lets the files go.
func (b *blocks) close() error {
	b.gate.Lock()
	defer b.gate.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	return b.disk.Close()
}

// OpenTorrent implements storage.ClientImpl. The client only closes its own
// handle: the download still syncs after the client is gone.
func (b *blocks) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		PieceWithHash: func(p metainfo.Piece, _ g.Option[[]byte]) storage.PieceImpl {
			return piece{b, p.Index()}
		},
		Close: func() error { return nil },
	}, nil
}

// Close implements storage.ClientImplCloser.
func (b *blocks) Close() error { return b.close() }

// piece is one piece of blocks, as the client sees it.
type piece struct {
	b     *blocks
	index int
}

func (p piece) ReadAt(buf []byte, off int64) (int, error) {
	p.b.gate.RLock()
	defer p.b.gate.RUnlock()
	if p.b.closed {
		return 0, errClosed
	}
	return p.b.disk.ReadAt(buf, int64(p.index)*p.b.layout.PieceLength+off)
}

func (p piece) WriteAt(buf []byte, off int64) (int, error) {
	p.b.gate.RLock()
	defer p.b.gate.RUnlock()
	if p.b.closed {
		return 0, errClosed
	}
	return p.b.disk.WriteAt(buf, int64(p.index)*p.b.layout.PieceLength+off)
}

// SelfHash implements storage.SelfHashing. Apart from the reading it keeps the
// client from its smart ban, which shuts out an IP address with all that lies
// behind it: tally finds the very connection that lied.
func (p piece) SelfHash() (sum metainfo.Hash, err error) {
	h := sha1.New()
	size := p.b.layout.PieceSize(p.index)
	r := io.NewSectionReader(p, 0, size)
	buf := p.b.buffers.Get().(*[]byte)
	defer p.b.buffers.Put(buf)
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, *buf) // not r's own WriteTo, which allocates
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		p.b.mu.Lock()
		p.b.unread[p.index] = true
		p.b.mu.Unlock()
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, nil
}

func (p piece) MarkComplete() error    { p.b.mark(p.index, true); return nil }
func (p piece) MarkNotComplete() error { p.b.mark(p.index, false); return nil }

func (p piece) Completion() storage.Completion {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	s := p.b.status[p.index]
	return storage.Completion{Ok: s != pieceUnknown, Complete: s == pieceGood}
}

// noBlocks stands where the client wants a storage before there is one.
type noBlocks struct{}

func (noBlocks) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{}, errClosed
}

// diskError tells a full disk from other errors.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &hintError{
			fmt.Errorf("%w: %w", ErrDiskFull, err),
			"Make room and run the same command again: it goes on where it stopped.",
		}
	}
	return err
}
