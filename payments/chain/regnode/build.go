package regnode

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

const (
	pkg    = "github.com/bitcoinsv/bsvd"
	module = "payments/regtest"
)

// Build makes the node if need be, and returns its path. Start does that itself;
// a program that will start it without a network does it before. binDir is as in
// Options. The error is ErrBuild.
func Build(ctx context.Context, binDir string) (string, error) {
	source, err := findModule()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	if binDir == "" {
		binDir = filepath.Join(source, "..", "..", ".build")
	}
	if binDir, err = filepath.Abs(binDir); err != nil { // go build runs elsewhere
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	// Other pins are another binary.
	pins := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrBuild, err)
		}
		pins.Write(text)
	}
	binary := filepath.Join(binDir, fmt.Sprintf("bsvd-%s-%s-%.6x", runtime.GOOS, runtime.GOARCH, pins.Sum(nil)))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	unlock, err := lock(filepath.Join(binDir, "bsvd.lock"))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil { // another process was first
		return binary, nil
	}
	temporary := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer func() { _ = os.Remove(temporary) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", temporary, pkg)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %w: %s", ErrBuild, err, said)
	}
	if err := os.Rename(temporary, binary); err != nil {
		return "", fmt.Errorf("%w: %w", ErrBuild, err)
	}
	return binary, nil
}

// findModule goes up from the working directory to the repository's root.
func findModule() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, filepath.FromSlash(module))
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no %s above %s: %w", module, start, fs.ErrNotExist)
		}
	}
}
