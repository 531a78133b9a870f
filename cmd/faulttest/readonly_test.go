package faulttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is a small file system of its own below a box's data folder.
type disk struct {
	r          *rig
	image, dir string
}

// newDisk makes one that turns read-only on its first error, as most systems on
// SD cards are set up.
func (r *rig) newDisk() *disk {
	r.Helper()
	d := &disk{r: r, image: filepath.Join(r.Dir, "disk.img"), dir: dataFolder(r)}
	r.Must(os.WriteFile(d.image, nil, 0o600))
	r.Must(os.Truncate(d.image, 32<<20))
	r.run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed", d.image)
	r.Must(os.Mkdir(d.dir, 0o700))
	d.mount()
	r.Must(os.Chmod(d.dir, 0o700))
	r.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	return d
}

func (r *rig) run(name string, args ...string) {
	r.Helper()
	if out, err := exec.CommandContext(r.Ctx, name, args...).CombinedOutput(); err != nil {
		r.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (d *disk) mount() {
	d.r.Helper()
	d.r.run("mount", "-o", "loop,errors=remount-ro", d.image, d.dir)
}

// fail has the file system find an error.
func (d *disk) fail() {
	d.r.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	d.r.Must(err)
	for _, line := range strings.Split(string(table), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[4] == d.dir {
			_, rest, _ := strings.Cut(line, " - ")
			device := filepath.Base(strings.Fields(rest)[1])
			d.r.Must(os.WriteFile(fmt.Sprintf("/sys/fs/ext4/%s/trigger_fs_error", device), []byte("a test"), 0o200))
			return
		}
	}
	d.r.Fatalf("%s is not mounted", d.dir)
}

// hardDisk says whether file systems of a disk can be mounted here.
func hardDisk() bool {
	_, errTool := exec.LookPath("mkfs.ext4")
	_, errLoop := os.Stat("/dev/loop-control")
	_, errFault := os.Stat("/sys/fs/ext4")
	return mounts.disk && errTool == nil && errLoop == nil && errFault == nil
}

const noDisk = "no ext4 file system can be mounted here"

// TestReadOnly has the file system turn read-only under a sale.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	const fault = "disk turns read-only"
	if !hardDisk() {
		untried(t, fault, noDisk)
	}
	var d *disk
	r := newRigOn(t, nil, func(r *rig) { d = r.newDisk() }, nil)
	s := r.sell()
	var what toll
	for range 2 {
		r.box.AwaitSold(s.get, r.box.Sold()+1<<20)
		d.fail()
		r.raised("ledger-unwritable", true)
		what = what.plus(r.stands(s))
		// Nothing helps but to start again, when the disk has been seen to.
		r.box.Process.Kill()
		r.Must(unix.Unmount(d.dir, 0))
		r.run("sh", "-c", `e2fsck -p "$0" || [ $? = 1 ]`, d.image) // 1: it has repaired something
		d.mount()
		r.box.Start()
		r.Must(r.box.Control.Check(r.Ctx))
	}
	s.complete()
	record(t, fault, r.settle().plus(what))
}

// TestReadOnlyStart has the file system read-only when the box starts.
func TestReadOnlyStart(t *testing.T) {
	t.Parallel()
	const fault = "disk is read-only at the start"
	if !hardDisk() {
		untried(t, fault, noDisk)
	}
	var d *disk
	r := newRigOn(t, nil, func(r *rig) { d = r.newDisk() }, nil)
	s := r.sell()
	var what toll
	for range 3 {
		r.box.AwaitSold(s.get, r.box.Sold()+512<<10)
		what = what.plus(r.unpaid(1))
		r.box.Process.Kill()
		r.run("mount", "-o", "remount,ro", d.dir)
		r.box.Launch()
		r.WantExit(r.box.Process, 1)
		r.box.Process.WantWords("bitcdnd: error: ", "read-only file system", "bitcdnd: hint: ")
		r.run("mount", "-o", "remount,rw", d.dir)
		r.box.Start()
	}
	s.complete()
	record(t, fault, r.settle().plus(what))
}
