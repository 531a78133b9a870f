package headers_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/headers"
)

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A file that is cut or damaged anywhere is what is good of it, and is made
// whole again.
func TestDamagedFile(t *testing.T) {
	t.Parallel()
	m := regtest(t, 400)
	path := filepath.Join(t.TempDir(), "headers")
	c := open(t, path, headers.Options{})
	synced(t, c, m.source())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil || len(whole) != 80*402 {
		t.Fatal(len(whole), err)
	}
	try := func(name string, content []byte, most uint32) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "headers")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, path, headers.Options{})
		tip, ok := c.Tip()
		if !ok || tip.Height > most || tip != m.at(tip.Height) {
			t.Errorf("%s: tip %v, want at most %d", name, tip, most)
		}
		synced(t, c, m.source())
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != string(whole) {
			t.Errorf("%s: it is not made whole: %d bytes, %v", name, len(got), err)
		}
	}
	for size := 0; size < len(whole); size += 997 {
		try(fmt.Sprintf("cut at %d", size), whole[:size], uint32(max(0, size/80-2)))
	}
	for _, at := range []int{0, 20, 79, 90, 80*200 + 5, 80*200 + 60, len(whole) - 300} {
		b := append([]byte(nil), whole...)
		b[at] ^= 0x40
		try(fmt.Sprintf("bit at %d", at), b, uint32(max(0, at/80-1+1)))
	}
	zeros := append(append([]byte(nil), whole[:80*302]...), make([]byte, 80*100)...)
	try("zeros at the end", zeros, 300)
	try("more than there was", append(append([]byte(nil), whole...), make([]byte, 4096)...), 400)
	// A reorganisation whose write was torn: the new branch over the old one,
	// page by page.
	other := m.fork(200, 201, 1, steady)
	var fresh []byte
	for _, e := range other.entries {
		fresh = append(fresh, e.Bytes()...)
	}
	torn := append([]byte(nil), whole...)
	copy(torn[80*300:80*350], fresh[80*299:])
	try("torn", torn, 298)
}

func TestFileOfAnotherChain(t *testing.T) {
	t.Parallel()
	m := regtest(t, 500)
	path := filepath.Join(t.TempDir(), "headers")
	c := open(t, path, headers.Options{})
	synced(t, c, m.source())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	other := m.fork(200, 300, 1, steady)
	// A checkpoint that the file has, then one that it has not.
	c = open(t, path, headers.Options{Checkpoint: headers.Checkpoint{Height: 450, Hash: m.at(450).Hash}})
	wantTip(t, c, m.tip())
	_ = c.Close()
	c = open(t, path, headers.Options{Checkpoint: headers.Checkpoint{Height: 510, Hash: other.at(510).Hash}})
	wantTip(t, c, m.tip()) // it is above the file's headers
	m.extend(20, start, 0, steady)
	if _, err := c.Sync(t.Context(), m.source()); !errors.Is(err, headers.ErrCheckpoint) {
		t.Error(err)
	}
	wantTip(t, c, m.at(509))
	_ = c.Close()
	c = open(t, path, headers.Options{Checkpoint: headers.Checkpoint{Height: 400, Hash: other.at(400).Hash}})
	if tip, ok := c.Tip(); ok {
		t.Fatal("a file without the checkpoint is used: ", tip)
	}
	if _, err := c.Sync(t.Context(), m.source()); !errors.Is(err, headers.ErrCheckpoint) {
		t.Error(err)
	}
	synced(t, c, other.source())
	holds(t, c, other, 100)
	if _, ok := c.At(99); ok {
		t.Error("a header below the chain's first")
	}
	_ = c.Close()
	// Another network has another file.
	opt := headers.Options{Network: bsv.Test, Clock: clock}
	c, err := headers.Open(t.Context(), path, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if tip, ok := c.Tip(); ok {
		t.Error("a file of another network is used: ", tip)
	}
}

func TestFileErrors(t *testing.T) {
	t.Parallel()
	if _, err := headers.Open(t.Context(), filepath.Join(t.TempDir(), "no", "headers"), headers.Options{Network: bsv.Regtest}); err == nil {
		t.Error("a folder that is not there")
	}
	if _, err := headers.Open(t.Context(), t.TempDir(), headers.Options{Network: bsv.Regtest}); err == nil {
		t.Error("a folder instead of a file")
	}
}

// Memory holds the newest headers only.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	m := regtest(t, 3000)
	path := filepath.Join(t.TempDir(), "headers")
	for range 2 {
		c := open(t, path, headers.Options{})
		synced(t, c, &batch{source: m.source(), most: 2000})
		if n, _ := c.InMemory(); n > 1000 {
			t.Errorf("%d headers in memory", n)
		}
		holds(t, c, m, 0)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.At(5); ok {
			t.Error("a header from a closed file")
		}
	}
}

var _ headers.Source = (chain.Backend)(nil)

// A disk that is full loses nothing: the chain stays what it was, also in the
// file, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	m := regtest(t, 1200)
	path := filepath.Join(t.TempDir(), "headers")
	c := open(t, path, headers.Options{})
	s := m.source()
	s.tip = 1000
	synced(t, c, s)
	s.tip = 1200
	full := errors.New("no space left")
	other := m.fork(300, 200, 1, steady) // 1000 - 900 of ours are replaced
	for _, from := range []headers.Source{&batch{source: s, most: 2000}, &batch{source: other.source(), most: 2000}} {
		c.BreakStore(1, full)
		if tip, err := c.Sync(t.Context(), from); !errors.Is(err, full) || tip != m.at(1000) {
			t.Fatal(tip, err)
		}
	}
	again := open(t, path, headers.Options{})
	if tip, _ := again.Tip(); tip.Height < 1000 || tip != m.at(tip.Height) {
		t.Fatal(tip) // what was written before the error may be there
	}
	synced(t, c, s)
	holds(t, c, m, 0)
}

func FuzzFile(f *testing.F) {
	m := regtest(f, 5)
	path := filepath.Join(f.TempDir(), "headers")
	c := open(f, path, headers.Options{})
	synced(f, c, m.source())
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "headers")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c := open(t, path, headers.Options{})
		tip, ok := c.Tip()
		if !ok {
			t.Fatal("no tip")
		}
		for height := range tip.Height + 1 {
			if h, ok := c.At(height); !ok || h.CheckHash() != nil || h.Height != height {
				t.Fatal(h, ok)
			}
		}
	})
}
