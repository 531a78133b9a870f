package headers

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"sync"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/storage/durable"
)

// The file is a row of records as long as a header: first what the file is,
// then the headers in the order of their heights. Every header is proved by the
// next one's link and by its own work, so that a file needs no more care than
// to be cut where it stops making sense.
const magic = "bitcdn headers 1"

type store interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// offset of the header with this index.
func offset(index uint32) int64 { return (int64(index) + 1) * chain.HeaderSize }

// title is the first record.
func (c *Chain) title(base, anchor uint32) []byte {
	b := append([]byte(magic), byte(c.opt.Network))
	b = binary.LittleEndian.AppendUint32(b, base)
	b = binary.LittleEndian.AppendUint32(b, anchor)
	b = append(b, make([]byte, chain.HeaderSize-sha256.Size-len(b))...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseTitle reports false for a record that is of no use to this chain.
func (c *Chain) parseTitle(b []byte) (base, anchor uint32, ok bool) {
	base = binary.LittleEndian.Uint32(b[len(magic)+1:])
	anchor = binary.LittleEndian.Uint32(b[len(magic)+5:])
	return base, anchor, bytes.Equal(b, c.title(base, anchor)) && base <= anchor
}

// load reads what is there. Afterwards the chain has a beginning, or none and
// no store.
func (c *Chain) load(ctx context.Context) error {
	if c.path != "" {
		f, err := os.OpenFile(c.path, os.O_RDWR, 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			ok, err := c.read(ctx, f)
			if ok && err == nil {
				c.store = f
				return nil
			}
			c.recent, c.base, c.anchor = nil, 0, chain.Header{}
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	if c.rules.genesis != nil && c.opt.Checkpoint.IsZero() {
		return c.begin(*c.rules.genesis, nil)
	}
	return nil
}

// read checks the headers in the file and cuts it behind the last good one. It
// reports false where they are not the beginning that is asked for.
func (c *Chain) read(ctx context.Context, f *os.File) (bool, error) {
	in := bufio.NewReaderSize(f, 1<<16)
	raw := make([]byte, chain.HeaderSize)
	if _, err := io.ReadFull(in, raw); err != nil {
		return false, ignoreEnd(err)
	}
	base, anchor, ok := c.parseTitle(raw)
	if !ok {
		return false, nil
	}
	c.base = base
	count := uint32(0)
	for ; ; count++ {
		if count%1000 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if _, err := io.ReadFull(in, raw); err != nil {
			if err := ignoreEnd(err); err != nil {
				return false, err
			}
			break
		}
		h, err := chain.ParseHeader(raw, base+count)
		if err != nil || c.rules.checkAlone(h) != nil || !c.fits(h) {
			break
		}
		c.push(h)
		if h.Height == anchor {
			c.anchor = h
		}
	}
	if count == 0 || base+count <= anchor {
		return false, nil
	}
	if cp := c.opt.Checkpoint; !cp.IsZero() && base+count > cp.Height {
		if _, err := f.ReadAt(raw, offset(cp.Height-base)); cp.Height < base || err != nil {
			return false, nil
		}
		if h, err := chain.ParseHeader(raw, cp.Height); err != nil || h.Hash != cp.Hash {
			return false, nil
		}
	}
	return true, f.Truncate(offset(count))
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// fits reports whether h links to the newest header, if there is one.
func (c *Chain) fits(h chain.Header) bool {
	if len(c.recent) == 0 {
		return true
	}
	return h.Prev == c.recent[len(c.recent)-1].Hash
}

// push adds a header to those in memory and drops the oldest of these now and
// then.
func (c *Chain) push(h chain.Header) {
	var parent *big.Int
	if n := len(c.recent); n > 0 {
		parent = c.recent[n-1].work
	}
	c.recent = append(c.recent, after(parent, h))
	if keep := c.keep(); len(c.recent) >= 2*keep {
		c.recent = append(make([]entry, 0, 2*keep), c.recent[len(c.recent)-keep:]...)
	}
}

func after(parent *big.Int, h chain.Header) entry {
	work := workOf(h.Bits)
	if parent != nil {
		work.Add(work, parent)
	}
	h.Time = h.Time.UTC()
	return entry{Header: h, work: work}
}

// begin makes the store anew, with the anchor and what links to it from below,
// in the order of the heights.
func (c *Chain) begin(anchor chain.Header, under []chain.Header) error {
	base := anchor.Height - uint32(len(under))
	all := append(under, anchor)
	b := append(c.title(base, anchor.Height), bytesOf(all)...)
	var s store = &memory{b: b}
	if c.path != "" {
		if err := durable.Replace(c.path, b, 0o600); err != nil {
			return err
		}
		f, err := os.OpenFile(c.path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		s = f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store, c.base, c.anchor, c.recent = s, base, anchor, nil
	for _, h := range all {
		c.push(h)
	}
	return nil
}

// add writes headers behind the one at height fork and makes them the best
// chain. Where they replace others, they have more work.
func (c *Chain) add(fork uint32, hs []chain.Header) error {
	b := bytesOf(hs)
	c.mu.Lock()
	to, at := c.store, offset(fork+1-c.base)
	var replaced []chain.Header
	for _, e := range c.recent[fork+1-c.recent[0].Height:] {
		replaced = append(replaced, e.Header)
	}
	c.mu.Unlock()
	_, err := to.WriteAt(b, at)
	if err == nil && len(replaced) > 0 {
		if err = to.Truncate(at + int64(len(b))); err == nil {
			err = to.Sync()
		}
	}
	if err != nil {
		if len(replaced) > 0 { // what is in memory stays the best chain
			_, undo := to.WriteAt(bytesOf(replaced), at)
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("keep headers: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent = c.recent[:fork+1-c.recent[0].Height]
	for _, h := range hs {
		c.push(h)
	}
	return nil
}

func bytesOf(hs []chain.Header) []byte {
	b := make([]byte, 0, len(hs)*chain.HeaderSize)
	for _, h := range hs {
		b = append(b, h.Bytes()...)
	}
	return b
}

// memory is the store of a chain without a file.
type memory struct {
	mu sync.Mutex
	b  []byte
}

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at > int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.b = append(m.b[:at], p...) // the caller never leaves a gap, nor writes less than it replaces
	return len(p), nil
}

func (m *memory) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.b = m.b[:size]
	return nil
}

func (m *memory) Sync() error  { return nil }
func (m *memory) Close() error { return nil }
