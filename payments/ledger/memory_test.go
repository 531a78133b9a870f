package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

// resident returns the memory of this process in KiB.
func resident(b *testing.B) float64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	must(b, err)
	var size, pages int
	_, err = fmt.Sscan(string(text), &size, &pages)
	must(b, err)
	return float64(pages*os.Getpagesize()) / 1024
}

// What an open ledger of 1,000 channels adds to the process: after it was
// opened, and after all of it was read and written.
func BenchmarkMemory(b *testing.B) {
	ctx := context.Background()
	path := filepath.Join(b.TempDir(), "money.db")
	l, err := ledger.OpenFast(ctx, path, clock)
	must(b, err)
	var batch ledger.Batch
	for i := range 1000 {
		c := payee(i)
		c.Snapshot = make([]byte, 1000)
		batch.Channels = append(batch.Channels, c)
	}
	must(b, l.Apply(ctx, batch))
	must(b, l.Close())
	for b.Loop() {
		before := resident(b)
		l, err := ledger.OpenFast(ctx, path, clock)
		must(b, err)
		open := resident(b)
		for i := range batch.Channels {
			batch.Channels[i].Seq++
			must(b, l.SaveChannel(ctx, batch.Channels[i]))
		}
		_, err = l.EarningsByTitle(ctx)
		must(b, err)
		_, err = l.Channels(ctx, ledger.Filter{})
		must(b, err)
		b.ReportMetric(open-before, "KiB-open")
		b.ReportMetric(resident(b)-before, "KiB-used")
		must(b, l.Close())
	}
}
