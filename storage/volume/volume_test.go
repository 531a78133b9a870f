package volume

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestMarker(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk")
	if _, err := Open(dir); !errors.Is(err, ErrNoMarker) {
		t.Fatalf("absent folder: %v", err)
	}
	v, err := Create(dir, bytes.NewReader(bytes.Repeat([]byte{0xab}, idSize)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := v.ID().String(), "abababababababababababababababab"; got != want {
		t.Errorf("identity %s, want %s", got, want)
	}
	again, err := Create(dir, bytes.NewReader(nil))
	if err != nil || again.ID() != v.ID() {
		t.Errorf("created again: %v, %v", again, err)
	}
	if free, err := v.Free(); err != nil || free <= 0 {
		t.Errorf("free: %d, %v", free, err)
	}
	if err := v.Check(); err != nil {
		t.Errorf("check: %v", err)
	}

	// Another disk in its place, a damaged marker, no disk at all.
	if err := writeMarker(dir, ID{1}); err != nil {
		t.Fatal(err)
	}
	if err := v.Check(); !errors.Is(err, ErrNoMarker) {
		t.Errorf("another disk: %v", err)
	}
	for _, text := range []string{"", "bitcdn volume 1 xyz\n", "bitcdn volume 1 abab\n", "something else"} {
		if err := os.WriteFile(filepath.Join(dir, Marker), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrMarker) {
			t.Errorf("marker %q: %v", text, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, Marker)); err != nil {
		t.Fatal(err)
	}
	if err := v.Check(); !errors.Is(err, ErrNoMarker) {
		t.Errorf("no disk: %v", err)
	}
}
