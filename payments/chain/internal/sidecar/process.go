package sidecar

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
)

// Process is a running child. On Linux it ends with the program that started
// it, whatever kills that.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts a child.
func Start(cmd *exec.Cmd) (*Process, error) {
	dieWithParent(cmd)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel's parent of a child is the thread that started it, so that
		// this thread must live as long as the child.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how a child ends tells nothing that its log does not
		}
		close(p.done)
	}()
	return p, <-started
}

// Done is closed when the child has ended, for whatever reason.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the child at once, and returns when it has ended. It may be called
// several times.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}
