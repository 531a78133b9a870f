package seed

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"runtime"
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
// info hash, method, bytes, piece length, rounds.
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
	var n [4]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(args[2+i], 10, 64)
	}
	ih, err := hex.DecodeString(args[1])
	if err != nil {
		return err
	}
	p, err := wiretest.Dial(args[0], [20]byte(ih), wiretest.Options{Fast: true, Crypto: mse.CryptoMethod(n[0])})
	if err != nil {
		return err
	}
	defer p.Close()
	for range n[3] {
		if err := p.Fetch(0, n[1], n[2], 16<<10, 64, nil); err != nil {
			return err
		}
	}
	return nil
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
			run := func(rounds int) {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %x %d %d %d %d", sinkVariable, h.addr, tt.ih, c.method, size, tt.pl, rounds))
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
			}
			run(1) // hashes every piece, and warms the cache
			b.SetBytes(size)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			used := cpu()
			b.ResetTimer()
			run(b.N)
			b.StopTimer()
			used = cpu() - used
			runtime.ReadMemStats(&after)
			sent := float64(size) * float64(b.N)
			b.ReportMetric(used.Seconds()/(sent/(1<<30)), "CPU-s/GiB")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/(sent/(16<<10)), "allocs/block")
		})
	}
}
