package bsv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/libsv/go-bt/v2"
)

// faultEnv names the fault that a child process is to run into.
const faultEnv = "BSV_TEST_FAULT"

// TestMain lets the test binary start itself to die of faults that cannot be
// recovered from.
func TestMain(m *testing.M) {
	switch os.Getenv(faultEnv) {
	case "":
		os.Exit(m.Run())
	case "memory":
		dieOfMemory()
	case "clone":
		dieOfClone()
	}
	fmt.Println("survived")
	os.Exit(0)
}

// child returns what a process that runs into the fault wrote, and whether it
// died.
func child(t *testing.T, fault string) (output string, died bool) {
	t.Helper()
	self, err := os.Executable()
	ok(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), faultEnv+"="+fault)
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}

// hugeScript claims an unlocking script of 2^40 bytes in 50.
func hugeScript() []byte { return append(hostileTx(0xff, 0, 0, 0, 0, 0, 1, 0, 0), 0, 0, 0, 0) }

func TestFaultOutOfMemory(t *testing.T) {
	out, died := child(t, "memory")
	if !died || strings.Contains(out, "survived") {
		t.Errorf("the library survives a claim of 2^40 bytes: %s", out)
	}
	if !strings.HasPrefix(out, "refused\nrecovering\n") {
		t.Errorf("ParseTx did not refuse it first: %.200s", out)
	}
	// The race detector's runtime words it otherwise. 32 bits have no room for
	// such a length and panic instead.
	if !strings.Contains(out, "fatal error: ") && !strings.Contains(out, "recovered") {
		t.Errorf("it died of something else: %.400s", out)
	}
}

func dieOfMemory() {
	// 2 GiB more than now, so that the death does not depend on the machine.
	var limit syscall.Rlimit
	stat, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		fmt.Println(err)
		return
	}
	var pages uint64
	if _, err := fmt.Sscan(string(stat), &pages); err != nil {
		fmt.Println(err)
		return
	}
	limit.Cur = pages*uint64(os.Getpagesize()) + 2<<30
	limit.Max = limit.Cur
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := ParseTx(hugeScript(), 1<<20); err != nil {
		fmt.Println("refused")
	}
	defer func() {
		if recover() != nil {
			fmt.Println("recovered")
			os.Exit(1)
		}
	}()
	fmt.Println("recovering")
	_, _ = bt.NewTxFromBytes(hugeScript())
}

func TestFaultCloneExits(t *testing.T) {
	out, died := child(t, "clone")
	if !died || strings.Contains(out, "survived") {
		t.Errorf("the library's Clone no longer ends the process: %s", out)
	}
	// The interpreter clones; a transaction that it could not clone never gets
	// there, and ParseTx gives none such out.
	tx := &Tx{LockTime: 0xef000000}
	wantErr(t, VerifyInput(tx, 0, Output{}), ErrInputs)
	wantErr(t, VerifyInputs(tx, nil), ErrInputs)
	_, err := ParseTx(tx.Bytes(), 100)
	wantErr(t, err, ErrTxSyntax)
}

func dieOfClone() { (&bt.Tx{LockTime: 0xef000000}).Clone() }
