package systemd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/bitcdn/bitcdn/systemd"
)

// A test that needs a process with sockets handed over starts this program
// again with this variable set.
const childVariable = "BITCDN_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	// The manager sets it between fork and exec, which a test cannot.
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if err := serveSockets(); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
}

// serveSockets greets one connection on each socket by the socket's name.
func serveSockets() error {
	byName, err := systemd.Listeners()
	if err != nil {
		return err
	}
	if v := os.Getenv("LISTEN_FDS"); v != "" {
		return errors.New("LISTEN_FDS is still set")
	}
	for name, list := range byName {
		for _, l := range list {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			fmt.Fprint(c, name)
			c.Close()
			l.Close()
		}
	}
	return nil
}

func child(t *testing.T, names string, files ...*os.File) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), childVariable+"=1", "LISTEN_FDS="+strconv.Itoa(len(files)), "LISTEN_FDNAMES="+names)
	cmd.ExtraFiles = files
	return cmd
}

func listener(t *testing.T) (addr string, file *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return l.Addr().String(), f
}

func TestListeners(t *testing.T) {
	web, webFile := listener(t)
	peer, peerFile := listener(t)
	peer2, peer2File := listener(t)
	cmd := child(t, "web:peer:peer", webFile, peerFile, peer2File)
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The child answers in any order: connect everywhere before waiting.
	conns := map[net.Conn]string{}
	for addr, name := range map[string]string{web: "web", peer: "peer", peer2: "peer"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[c] = name
	}
	for c, want := range conns {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		name, err := io.ReadAll(c)
		if err != nil || string(name) != want {
			t.Errorf("the socket %s answers %q, %v", want, name, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestListenersRefused(t *testing.T) {
	_, stream := listener(t)
	plain, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for names, file := range map[string]*os.File{"other": stream, "web": plain} {
		out, err := child(t, names, file).Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), systemd.ErrSocket.Error()) {
			t.Errorf("%s: %v, %q; want ErrSocket", names, err, out)
		}
	}
}

func TestNoServiceManager(t *testing.T) {
	for _, v := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"} {
		t.Setenv(v, "")
	}
	if l, err := systemd.Listeners(); len(l) != 0 || err != nil {
		t.Errorf("%v, %v", l, err)
	}
	never := func() error { t.Error("checked without a watchdog"); return nil }
	if err := errors.Join(systemd.Ready(), systemd.Stopping(), systemd.Status("x"),
		systemd.Watchdog(t.Context(), systemd.WallTicker, slog.New(slog.DiscardHandler), never)); err != nil {
		t.Error(err)
	}
}

// manager plays the service manager's end of the notification socket.
func manager(t *testing.T) func() string {
	t.Helper()
	// Socket addresses are short; t.TempDir may be longer.
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotifications(t *testing.T) {
	receive := manager(t)
	for _, c := range []struct {
		send func() error
		want string
	}{
		{systemd.Ready, "READY=1"},
		{systemd.Stopping, "STOPPING=1"},
		{func() error { return systemd.Status("3 titles\nREADY=1") }, "STATUS=3 titles READY=1"},
	} {
		if err := c.send(); err != nil {
			t.Fatal(err)
		}
		if got := receive(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestManagerGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	if err := systemd.Ready(); err == nil {
		t.Error("Ready says that it was told")
	}
}

func TestWatchdog(t *testing.T) {
	receive := manager(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))

	ticks := make(chan time.Time)
	intervals := make(chan time.Duration, 1)
	stopped := make(chan struct{})
	ticker := func(d time.Duration) (<-chan time.Time, func()) {
		intervals <- d
		return ticks, func() { close(stopped) }
	}
	results := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- systemd.Watchdog(ctx, ticker, slog.New(slog.DiscardHandler), func() error { return <-results })
	}()
	if d := <-intervals; d != 15*time.Second {
		t.Errorf("checks every %v, want half of 30 s", d)
	}
	results <- nil
	if got := receive(); got != "WATCHDOG=1" {
		t.Errorf("at the start %q", got)
	}
	ticks <- time.Time{}
	results <- errors.New("stuck")
	ticks <- time.Time{} // taken, so the failed check is over
	if err := systemd.Status("between"); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "STATUS=between" {
		t.Errorf("a failed check told %q", got)
	}
	results <- nil
	if got := receive(); got != "WATCHDOG=1" {
		t.Errorf("after recovery %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	<-stopped
}

func TestWatchdogOfAnotherProcess(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()+1))
	never := func() error { t.Error("checked"); return nil }
	if err := systemd.Watchdog(t.Context(), systemd.WallTicker, slog.New(slog.DiscardHandler), never); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("WATCHDOG_USEC", "nonsense")
	if err := systemd.Watchdog(t.Context(), systemd.WallTicker, slog.New(slog.DiscardHandler), never); err == nil {
		t.Error("a nonsensical interval was taken")
	}
}

func options(t *testing.T, name string) map[string][]string {
	t.Helper()
	f, err := systemd.Units.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := unit.DeserializeOptions(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, o := range list {
		out[o.Name] = append(out[o.Name], o.Value)
	}
	return out
}

// What the daemon relies on, and what keeps a hole in it from being one in the box.
func TestUnits(t *testing.T) {
	service := options(t, "bitcdnd.service")
	for name, want := range map[string]string{
		"Type": "notify", "WatchdogSec": "30s", "Restart": "always", "User": "bitcdn",
		"StateDirectory": "bitcdn", "UMask": "0077", "NoNewPrivileges": "yes",
		"CapabilityBoundingSet": "", "ProtectSystem": "strict", "MemoryDenyWriteExecute": "yes",
		"PrivateUsers": "yes", "SystemCallArchitectures": "native", "LimitNOFILE": "65536",
	} {
		if got := service[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
	if got := service["SystemCallFilter"]; len(got) != 2 || got[0] != "@system-service" || !strings.HasPrefix(got[1], "~") {
		t.Errorf("SystemCallFilter=%q", got)
	}
	if got := options(t, "bitcdnd.socket")["FileDescriptorName"]; !slices.Equal(got, []string{systemd.Web}) {
		t.Errorf("FileDescriptorName=%q, want the name that Listeners knows", got)
	}
}
