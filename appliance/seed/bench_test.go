package seed

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent/mse"

	"github.com/bitcdn/bitcdn/appliance/peerwire/wiretest"
)

// sinkVariable makes the test binary a peer that downloads and throws away, so
// that a benchmark's own CPU time is the seeder's alone. Its value: address,
// info hash, method, bytes, piece length, rounds, connections.
const sinkVariable = "BITCDN_TEST_SINK"

func TestMain(m *testing.M) {
	if args := os.Getenv(sinkVariable); args != "" {
		if err := sink(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, "sink:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sink(args []string) error {
	var n [5]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(args[2+i], 10, 64)
	}
	ih, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	done := make(chan error)
	for range n[4] {
		go func() {
			p, err := wiretest.Dial(args[0], [20]byte(ih), wiretest.Options{Fast: true, Crypto: mse.CryptoMethod(n[0])})
			for range n[3] {
				if err == nil {
					err = p.Fetch(0, n[1], n[2], 16<<10, 64, nil)
				}
			}
			done <- err
		}()
	}
	for range n[4] {
		if err := <-done; err != nil {
			return err
		}
	}
	return nil
}

// runSink runs the other process until it has downloaded size bytes of the
// title, so many times over each of its connections.
func (h *harness) runSink(tt *testTitle, method mse.CryptoMethod, size int64, rounds, conns int) {
	h.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %x %d %d %d %d %d", sinkVariable, h.addr, tt.ih, method, size, tt.pl, rounds, conns))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkUpload serves 256 MiB an operation from the page cache, verified
// before, to one peer in another process: 16 KiB blocks, 64 requests in flight.
// CPU seconds and allocations are the seeder's.
func BenchmarkUpload(b *testing.B) {
	const size = 256 << 20
	tt := makeTitle(b, "bench", 1<<20, size)
	tt.data = nil
	for _, c := range []struct {
		name   string
		method mse.CryptoMethod
	}{{"sendfile", 0}, {"rc4", mse.CryptoMethodRC4}} {
		b.Run(c.name, func(b *testing.B) {
			h := serve(b, Options{}, tt)
			h.runSink(tt, c.method, size, 1, 1) // hashes every piece, and warms the cache
			b.SetBytes(size)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			used := cpu()
			b.ResetTimer()
			h.runSink(tt, c.method, size, b.N, 1)
			b.StopTimer()
			used = cpu() - used
			runtime.ReadMemStats(&after)
			sent := float64(size) * float64(b.N)
			b.ReportMetric(used.Seconds()/(sent/(1<<30)), "CPU-s/GiB")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/(sent/(16<<10)), "allocs/block")
		})
	}
}

// anonymous is this process's memory that is backed by no file, bytes.
func anonymous() int64 {
	text, _ := os.ReadFile("/proc/self/status")
	_, text, _ = bytes.Cut(text, []byte("RssAnon:"))
	fields := strings.Fields(string(text[:min(len(text), 40)]))
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[0], 10, 64)
	return n << 10
}

// BenchmarkConnections serves 200 peers at once, 4 MiB each an operation, and
// reports the highest anonymous memory of the whole test process.
func BenchmarkConnections(b *testing.B) {
	const size, conns = 4 << 20, 200
	tt := makeTitle(b, "bench", 1<<20, size)
	tt.data = nil
	for _, c := range []struct {
		name   string
		method mse.CryptoMethod
	}{{"sendfile", 0}, {"rc4", mse.CryptoMethodRC4}} {
		b.Run(c.name, func(b *testing.B) {
			h := serve(b, Options{MaxPerAddress: conns, MaxHandshakes: conns}, tt)
			debug.FreeOSMemory()
			before := anonymous()
			stop, peak := make(chan struct{}), make(chan int64)
			go func() {
				t := time.NewTicker(10 * time.Millisecond)
				defer t.Stop()
				for most := int64(0); ; {
					select {
					case <-t.C:
						most = max(most, anonymous())
					case <-stop:
						peak <- most
						return
					}
				}
			}()
			b.SetBytes(size * conns)
			b.ResetTimer()
			h.runSink(tt, c.method, size, b.N, conns)
			b.StopTimer()
			close(stop)
			b.ReportMetric(float64(before)/(1<<20), "anon-MiB-before")
			b.ReportMetric(float64(<-peak)/(1<<20), "anon-MiB-peak")
		})
	}
}
