// Package sidecar builds programs that tests and the demo need beside ours, each
// from a Go module of its own in this repository, and runs them as children.
//
// A program is built when it is first needed, into the folder .build of the
// repository, and again when its sources change. Several processes may do so at
// the same time. That needs the go command and, once, the module cache or a
// network.
package sidecar

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
	"slices"
)

// Program says how a program is built.
type Program struct {
	Name    string // of the binary
	Module  string // folder of its module below the repository's root, with slashes
	Package string // what go build takes
	// Sources are patterns, as of filepath.Glob and below Module, of the files
	// that make another binary when they change.
	Sources []string
	// Generate, where it is set, makes what else the build needs in an empty
	// folder that is removed after it, and returns further flags of go build.
	// It gets the module's folder too.
	Generate func(ctx context.Context, source, scratch string) (flags []string, err error)
}

// Build makes the program if need be, and returns its path. binDir is where
// built programs are kept; empty means the folder .build of the repository that
// the working directory belongs to.
func (p Program) Build(ctx context.Context, binDir string) (string, error) {
	source, root, err := p.find()
	if err != nil {
		return "", err
	}
	if binDir == "" {
		binDir = filepath.Join(root, ".build")
	}
	if binDir, err = filepath.Abs(binDir); err != nil { // go build runs elsewhere
		return "", err
	}
	sum, err := p.sum(source)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(binDir, fmt.Sprintf("%s-%s-%s-%.6x", p.Name, runtime.GOOS, runtime.GOARCH, sum))
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(binDir, p.Name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil { // another process was first
		return binary, nil
	}
	scratch, err := os.MkdirTemp(binDir, p.Name+"-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	temporary := filepath.Join(scratch, "binary")
	flags := []string{"build", "-trimpath", "-o", temporary}
	if p.Generate != nil {
		more, err := p.Generate(ctx, source, scratch)
		if err != nil {
			return "", err
		}
		flags = append(flags, more...)
	}
	if err := Go(ctx, source, append(flags, p.Package)...); err != nil {
		return "", err
	}
	return binary, os.Rename(temporary, binary)
}

// Go runs the go command in a module of this repository, for this machine.
func Go(ctx context.Context, module string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", args[0], err, said)
	}
	return nil
}

// sum tells the sources of one binary from those of another.
func (p Program) sum(source string) ([]byte, error) {
	sum := sha256.New()
	for _, pattern := range p.Sources {
		names, err := filepath.Glob(filepath.Join(source, filepath.FromSlash(pattern)))
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("%s: %w", pattern, fs.ErrNotExist)
		}
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				return nil, err
			}
			sum.Write(text)
		}
	}
	return sum.Sum(nil), nil
}

// find goes up from the working directory to the repository's root.
func (p Program) find() (source, root string, err error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for start := dir; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, filepath.FromSlash(p.Module))
		if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
			return source, dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", "", fmt.Errorf("no %s above %s: %w", p.Module, start, fs.ErrNotExist)
		}
	}
}
