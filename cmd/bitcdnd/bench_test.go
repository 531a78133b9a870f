package main

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/appliance/box"
)

// BenchmarkIdleMemory starts the real program with titles of 1,000 pieces
// registered and no peer, and reports its memory in MiB, all of it (RSS) and
// what is backed by no file (anon), and how long it took to answer. What adding
// the titles has left behind does not count: it is the memory after a restart
// with them, and after-add is the memory before.
func BenchmarkIdleMemory(b *testing.B) {
	program := filepath.Join(b.TempDir(), "bitcdnd")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	for _, titles := range []int{0, 1_000, 10_000} {
		d := daemon{b: b, program: program, dir: b.TempDir()}
		d.configure()
		d.start()
		d.addTitles(titles)
		added, _ := d.memory()
		d.stop()
		b.Run(strconv.Itoa(titles), func(b *testing.B) {
			var rss, anon int64
			var began time.Duration
			b.ResetTimer()
			for range b.N {
				began += d.start()
				r, a := d.memory()
				rss, anon = max(rss, r), max(anon, a)
				d.stop()
			}
			b.ReportMetric(float64(rss)/(1<<20), "RSS-MiB")
			b.ReportMetric(float64(anon)/(1<<20), "anon-MiB")
			b.ReportMetric(float64(added)/(1<<20), "after-add-MiB")
			b.ReportMetric(began.Seconds()*1000/float64(b.N), "start-ms")
		})
	}
}

// daemon is the program in a process of its own.
type daemon struct {
	b            *testing.B
	program, dir string
	cmd          *exec.Cmd
}

func (d *daemon) configure() {
	s := box.DefaultSettings()
	s.Listen.Peers, s.Listen.Web = "127.0.0.1:0", "127.0.0.1:0"
	s.Chain.Offline = true // else it would ask the public services
	if err := box.WriteSettings(filepath.Join(d.dir, "bitcdnd.toml"), s); err != nil {
		d.b.Fatal(err)
	}
}

// start returns how long the program took until it answered.
func (d *daemon) start() time.Duration {
	d.b.Helper()
	var said bytes.Buffer
	d.cmd = exec.Command(d.program, "--data", filepath.Join(d.dir, "data"), "--config", filepath.Join(d.dir, "bitcdnd.toml"))
	d.cmd.Stdout, d.cmd.Stderr = &said, &said
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := d.cmd.Start(); err != nil {
		d.b.Fatal(err)
	}
	for {
		err := d.control().Check(context.Background())
		if err == nil {
			return time.Since(began)
		}
		if !errors.Is(err, box.ErrNotRunning) || time.Since(began) > time.Minute {
			_ = d.cmd.Process.Kill()
			_ = d.cmd.Wait()
			d.b.Fatalf("not started: %v\n%s", err, said.Bytes())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (d *daemon) control() *box.Control { return box.NewControl(filepath.Join(d.dir, "data")) }

func (d *daemon) stop() {
	d.b.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.b.Fatal(err)
	}
}

// addTitles registers n titles of 1,000 pieces, all of the same empty length.
func (d *daemon) addTitles(n int) {
	d.b.Helper()
	const pieceLength, count = 256 << 10, 1000
	folder := filepath.Join(d.dir, "titles")
	if err := os.Mkdir(folder, 0o755); err != nil {
		d.b.Fatal(err)
	}
	for i := range n {
		info := metainfo.Info{Name: fmt.Sprintf("title %05d.bin", i), PieceLength: pieceLength, Length: pieceLength * count}
		for piece := range count {
			sum := sha1.Sum(binary.BigEndian.AppendUint64(nil, uint64(i*count+piece)))
			info.Pieces = append(info.Pieces, sum[:]...)
		}
		f, err := os.Create(filepath.Join(folder, info.Name))
		if err == nil {
			err = errors.Join(f.Truncate(info.Length), f.Close())
		}
		if err != nil {
			d.b.Fatal(err)
		}
		torrent := bencode.MustMarshal(map[string]any{"info": bencode.Bytes(bencode.MustMarshal(info))})
		if _, err := d.control().Add(context.Background(), box.AddRequest{Torrent: torrent, DataDir: folder}); err != nil {
			d.b.Fatal(err)
		}
	}
}

// memory is the process's, in bytes, when it has done nothing for a second.
func (d *daemon) memory() (rss, anon int64) {
	time.Sleep(time.Second)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			rss = n << 10
		case "RssAnon:":
			anon = n << 10
		}
	}
	return rss, anon
}
