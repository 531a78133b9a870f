package foreigntest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that ends by itself, with its context, or with the test
// that started it, whatever ends that.
type process struct {
	name   string
	cmd    *exec.Cmd
	output string        // file with all that it printed
	done   chan struct{} // closed when it has ended
	err    error         // how it ended; to be read after done
}

// find returns a program's path. Without it the test fails: what we promise
// about foreign clients is not shown by their absence.
func find(t *testing.T, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%v\nThis test runs %s: apt-get install %s", err, filepath.Base(program), debianPackage)
	}
	return path
}

// start runs a program at home in a folder, with nothing of the user's own
// environment but where programs are.
func start(ctx context.Context, t *testing.T, home, program string, args ...string) *process {
	t.Helper()
	name := filepath.Base(program)
	p := &process{name: name, cmd: exec.CommandContext(ctx, program, args...), output: filepath.Join(home, name+".log"), done: make(chan struct{})}
	output, err := os.Create(p.output)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close() // the child has its own
	p.cmd.Dir = home
	p.cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TMPDIR=" + home}
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
			p.err = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("%s printed:\n%s", strings.Join(p.cmd.Args, " "), p.tail(4000))
		}
	})
	return p
}

// tail returns the last bytes that the process printed, at most n.
func (p *process) tail(n int) []byte {
	b, err := os.ReadFile(p.output)
	if err != nil {
		return []byte(err.Error())
	}
	return b[max(0, len(b)-n):]
}

// lastLine returns the newest whole line with a beginning that the process
// printed; carriage returns end lines too. What a program says of its own
// timers in between is not asked for.
func (p *process) lastLine(beginning string) []byte {
	b := bytes.ReplaceAll(p.tail(8<<10), []byte("\r"), []byte("\n"))
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	for _, line := range slices.Backward(bytes.Split(bytes.TrimSpace(b), []byte("\n"))) {
		if line = bytes.TrimSpace(line); bytes.HasPrefix(line, []byte(beginning)) {
			return line
		}
	}
	return nil
}

// wait returns when the process has ended, with an error where it did so
// otherwise than with 0.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s: %w", p.name, p.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the end of %s: %w", p.name, ctx.Err())
	}
}

// end asks the process to end, which writes what it still holds, and waits for
// it.
func (p *process) end(ctx context.Context) error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return p.wait(ctx)
}

// running returns an error if the process has ended.
func (p *process) running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w", p.name, p.err)
	default:
		return nil
	}
}

// await repeats a check of what another process does until it succeeds.
func await(ctx context.Context, what string, check func() error) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; last seen: %w", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
