package box

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whatever the mask that the program was started with, nobody else can open the
// control socket, also not before its mode is set.
func TestControlSocketIsPrivateFromTheFirstMoment(t *testing.T) {
	mask := unix.Umask(0)
	defer unix.Umask(mask)
	path := filepath.Join(t.TempDir(), controlSocket)
	l, err := listenPrivate(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		t.Errorf("mode %o", mode)
	}
}
