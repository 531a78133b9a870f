package foreigntest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// The tests run in a network namespace of their own: the clients cannot reach
// anything but each other, whatever they try, and there is an address besides
// 127.0.0.0/8, which Transmission insists on.

const (
	namespaceEnv = "BITCDN_FOREIGNTEST_NAMESPACE"
	bitcdnEnv    = "BITCDN_FOREIGNTEST_BITCDN"
)

// namespaceAddress is for documentation (RFC 5737), so it is nobody's.
func namespaceAddress() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, 1}) }

// runInNamespace runs this program again in a new network namespace and
// returns its exit code. What may need a network, or is better done once, is
// done before: building the node and the client.
func runInNamespace() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "foreigntest:", err)
		return 1
	}
	if _, err := regnode.Build(context.Background(), ""); err != nil {
		return fail(err)
	}
	dir, err := os.MkdirTemp("", "bitcdn-foreigntest-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	bitcdn := filepath.Join(dir, "bitcdn")
	build := exec.Command("go", "build", "-o", bitcdn, "github.com/bitcdn/bitcdn/cmd/bitcdn")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("%w: %s", err, said))
	}
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	again := exec.Command(self, os.Args[1:]...)
	again.Env = append(os.Environ(), namespaceEnv+"=1", bitcdnEnv+"="+bitcdn)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		// Only the owner of a user namespace may make a network namespace.
		again.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	err = again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		return fail(fmt.Errorf("a network namespace is needed (root, or user namespaces): %w", err))
	}
	return 0
}

// bringUp makes loopback work in the new namespace, with namespaceAddress.
func bringUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	address := namespaceAddress().As4()
	if err := alias.SetInet4Addr(address[:]); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
		return fmt.Errorf("add %v to lo: %w", namespaceAddress(), err)
	}
	return nil
}
