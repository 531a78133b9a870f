package e2etest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// process is a program that ends by itself or with the test that started it,
// whatever ends that.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  string        // file with all that it printed
	done chan struct{} // closed when it has ended
}

// start runs one of the programs at home in a folder, with nothing of the
// user's own environment. What it prints is added to the file log.
func start(t *testing.T, home, log, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(filepath.Join(shared.bin, program), args...), log: log, done: make(chan struct{})}
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
		close(p.done)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(p.cmd.Args, " "), p.tail(3000))
		}
	})
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.cmd.Path, err)
	}
}

var errEnded = errors.New("the program has ended")

// running returns an error if the process has ended.
func (p *process) running() error {
	select {
	case <-p.done:
		return errEnded
	default:
		return nil
	}
}

// tail returns the last n bytes of the log, at most.
func (p *process) tail(n int) string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}
