package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Process is a program that ends by itself or with the test that started it,
// whatever ends that.
type Process struct {
	Done <-chan struct{} // closed when it has ended

	t   *testing.T
	cmd *exec.Cmd
	log string // file with all that it printed
}

// Start runs one of the programs at home in a folder, with nothing of the
// user's own environment. What it prints is added to the file log.
func (w *World) Start(home, log, program string, args ...string) *Process {
	t := w.T
	t.Helper()
	done := make(chan struct{})
	if w.shown == nil {
		w.shown = make(map[string]bool)
	}
	p := &Process{Done: done, t: t, cmd: exec.Command(filepath.Join(w.Goods.Bin, program), args...), log: log}
	output, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close() // the child has its own
	p.cmd.Dir = home
	p.cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8"}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		// The kernel's parent of a child is the thread that started it, so that
		// this thread must live as long as the child.
		runtime.LockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the state tells
		}
		close(done)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() && !w.shown[log] {
			w.shown[log] = true
			t.Logf("%s printed:\n%s", strings.Join(p.cmd.Args, " "), p.Tail(3000))
		}
	})
	return p
}

// Kill ends the process as a power cut would.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.Done
}

// Signal sends a signal to the process, which must be running.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.cmd.Path, err)
	}
}

// ErrEnded says that a program has ended that was to run.
var ErrEnded = errors.New("the program has ended")

// Running returns an error if the process has ended.
func (p *Process) Running() error {
	select {
	case <-p.Done:
		return ErrEnded
	default:
		return nil
	}
}

// Pid is the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Said returns an error unless the process has printed these words.
func (p *Process) Said(words string) error {
	if !strings.Contains(p.Tail(1<<20), words) {
		return fmt.Errorf("%q is not in what was printed", words)
	}
	return nil
}

// Tail returns the last n bytes of the log, at most.
func (p *Process) Tail(n int) string { return tail(p.log, n) }

func tail(file string, n int) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}

// WantWords looks for words in what the process printed.
func (p *Process) WantWords(words ...string) {
	p.t.Helper()
	printed := p.Tail(1 << 20)
	for _, want := range words {
		if !strings.Contains(printed, want) {
			p.t.Errorf("%q is not in what was printed:\n%s", want, printed)
		}
	}
}
