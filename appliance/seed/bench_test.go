package seed

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anacrolix/torrent/mse"
	"golang.org/x/sys/unix"

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

// load is what serving has cost.
type load struct {
	cpu, wall time.Duration
	mallocs   uint64
}

func (l *load) add(serve func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, began := cpu(), time.Now()
	serve()
	l.wall += time.Since(began)
	l.cpu += cpu() - used
	runtime.ReadMemStats(&after)
	l.mallocs += after.Mallocs - before.Mallocs
}

// BenchmarkUpload serves 1 GiB an operation from the page cache, verified
// before, to one peer in another process: 16 KiB blocks, 64 requests in flight.
// CPU seconds and allocations are the seeder's. The same is served by bare in
// turn; x-bare is the ratio of CPU time, which a busy machine spoils less than
// the figures themselves.
func BenchmarkUpload(b *testing.B) {
	const size, rounds = 256 << 20, 4
	tt := makeTitle(b, "bench", 1<<20, size)
	tt.data = nil
	for _, c := range []struct {
		name   string
		method mse.CryptoMethod
	}{{"sendfile", 0}, {"rc4", mse.CryptoMethodRC4}} {
		b.Run(c.name, func(b *testing.B) {
			h := serve(b, Options{}, tt)
			floor := &harness{t: b, addr: serveBare(b, filepath.Join(tt.root, "bench"), tt.pl)}
			h.runSink(tt, c.method, size, 1, 1) // hashes every piece, and warms the cache
			b.SetBytes(size * rounds)
			var ours, bare load
			b.ResetTimer()
			for range b.N {
				ours.add(func() { h.runSink(tt, c.method, size, rounds, 1) })
				b.StopTimer()
				bare.add(func() { floor.runSink(tt, 0, size, rounds, 1) })
				b.StartTimer()
			}
			b.StopTimer()
			sent := float64(size) * rounds * float64(b.N)
			b.ReportMetric(ours.cpu.Seconds()/(sent/(1<<30)), "CPU-s/GiB")
			b.ReportMetric(float64(ours.mallocs)/(sent/(16<<10)), "allocs/block")
			b.ReportMetric(bare.cpu.Seconds()/(sent/(1<<30)), "bare-CPU-s/GiB")
			b.ReportMetric(sent/1e6/bare.wall.Seconds(), "bare-MB/s")
			b.ReportMetric(ours.cpu.Seconds()/bare.cpu.Seconds(), "x-bare")
		})
	}
}

// serveBare serves one peer after the other by bare, and returns where.
func serveBare(b *testing.B, path string, pieceLength int64) (addr string) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for bare(l, f, pieceLength) == nil {
		}
	}()
	b.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

// bare is the least that a program can do to upload: one connection, no limits,
// no checks, no cancels. It reads what requests there are and answers each by a
// header and sendfile. What Server costs more than this is what it does more.
func bare(l net.Listener, f *os.File, pieceLength int64) error {
	nc, err := l.Accept()
	if err != nil {
		return err
	}
	defer nc.Close()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var buf [2 << 10]byte
	if _, err := io.ReadFull(nc, buf[:68]); err != nil {
		return err
	}
	if _, err := nc.Write(append(buf[:68:68], 0, 0, 0, 1, wiretest.Unchoke)); err != nil {
		return err
	}
	var b, head []byte
	var off, left int64
	send := func(fd uintptr) bool {
		for {
			switch {
			case len(head) > 0:
				n, err := unix.SendmsgN(int(fd), head, nil, nil, unix.MSG_MORE)
				if err != nil {
					return err != unix.EAGAIN
				}
				head = head[n:]
			case left > 0:
				n, err := unix.Sendfile(int(fd), int(f.Fd()), &off, int(left))
				if err != nil || n == 0 {
					return err != unix.EAGAIN
				}
				left -= int64(n)
			case len(b) >= 17:
				left = int64(binary.BigEndian.Uint32(b[13:]))
				off = int64(binary.BigEndian.Uint32(b[5:]))*pieceLength + int64(binary.BigEndian.Uint32(b[9:]))
				head = append(binary.BigEndian.AppendUint32(buf[len(buf)-13:len(buf)-13], uint32(9+left)), wiretest.Piece)
				head = append(head, b[5:13]...)
				b = b[17:]
			default:
				return true
			}
		}
	}
	for {
		n := copy(buf[:], b)
		k, err := nc.Read(buf[n : len(buf)-13])
		if err != nil {
			return nil
		}
		b = buf[:n+k]
		if err := raw.Write(send); err != nil {
			return err
		}
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
