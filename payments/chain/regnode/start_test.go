package regnode

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// The port that was free is taken when the node wants it.
func TestPortIsTaken(t *testing.T) {
	binary, err := Build(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	tries := 0
	n := &Node{binary: binary, dir: t.TempDir(), port: func() (string, error) {
		if tries++; tries == 1 {
			return taken.Addr().String(), nil
		}
		return freePort()
	}}
	if err := n.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if tries != 2 {
		t.Errorf("%d tries", tries)
	}

	n = &Node{binary: binary, dir: t.TempDir(), port: func() (string, error) { return taken.Addr().String(), nil }}
	if err := n.start(t.Context()); !errors.Is(err, ErrStart) {
		t.Errorf("no port is ever free: %v", err)
	}
}

func TestBuildOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := Build(t.Context(), dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	files, err := filepath.Glob(filepath.Join(dir, "bsvd-*"))
	if err != nil || len(files) != 1 {
		t.Fatal("built:", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode()&0o111 == 0 {
		t.Fatal(info, err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Build(t.Context(), relative); err != nil || again != files[0] {
		t.Fatal(again, err)
	}
}

func TestNoRepository(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Build(t.Context(), ""); !errors.Is(err, ErrBuild) {
		t.Fatal(err)
	}
}
