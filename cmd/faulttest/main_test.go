package faulttest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
	"golang.org/x/sys/unix"
)

const (
	titleLength            = 6 << 20
	pieceLength            = 64 << 10
	ask         money.Rate = 4_000_000 // 3,906 satoshis for a MiB
	royalty     money.Rate = 800_000
	generous    money.Rate = 5_000_000 // the client's price limit
	bigBudget              = money.Satoshis(500_000)
	pocket                 = money.Satoshis(1_000_000)
	uploadRate             = 2 << 20 // bytes per second
)

// shared is what all tests share and none changes.
var shared *e2e.Goods

// Mounts of the tests are seen by this program and its children only: it runs
// again in a mount namespace of its own.
const namespaceEnv = "BITCDN_FAULTTEST_MOUNTS"

// mounts says whether the tests may mount file systems, of the kinds that need
// the machine's own root too.
var mounts struct{ memory, disk bool }

func TestMain(m *testing.M) {
	flag.Parse()
	how := os.Getenv(namespaceEnv)
	if how == "" {
		if code, started := again(); started {
			os.Exit(code)
		}
	} else if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err == nil {
		mounts.memory, mounts.disk = true, how == "root"
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// again runs this program in a new mount namespace and returns its exit code,
// or false where that is not to be had.
func again() (code int, started bool) {
	self, err := os.Executable()
	if err != nil {
		return 0, false
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	how := "root"
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		how = "user"
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	cmd.Env = append(os.Environ(), namespaceEnv+"="+how)
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), true
	}
	return 0, err == nil
}

func run(m *testing.M) (code int, err error) {
	// Most of the time is spent waiting for programs, not computing.
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		if err := flag.Set("test.parallel", "12"); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "fault-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx := context.Background()
	if _, err := regnode.Build(ctx, ""); err != nil {
		return 0, err
	}
	files := []e2e.File{{Name: "a", Length: 1_234_567}, {Name: "b", Length: 1}, {Name: "sub/c", Length: titleLength - 1_234_568}}
	shared, err = e2e.Prepare(ctx, dir, e2e.Title{Name: "A title to lose", Files: files, PieceLength: pieceLength, Royalty: royalty})
	if err != nil {
		return 0, err
	}
	start := time.Now()
	code = m.Run()
	if text, ok := table.print(); text != "" {
		fmt.Printf("%s%v\n", text, time.Since(start).Round(time.Second))
		if !ok {
			code = max(code, 1)
		}
	}
	return code, nil
}
