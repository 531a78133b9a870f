package scanline_test

import (
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/cmd/internal/scanline"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// Where nobody watches there are few lines, and the last one of each branch.
func TestScanning(t *testing.T) {
	var out strings.Builder
	l := scanline.New(&out)
	for _, branch := range []uint32{wallet.BranchReceive, wallet.BranchPayout} {
		for done := uint32(100); done <= 5000; done += 100 {
			l.Scanning(wallet.Scan{Branch: branch, Done: done, Of: 5000, Coins: 2, Value: 7000})
		}
	}
	l.Set("done")
	l.Set("done")
	l.End()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 7 || lines[2] != "looking for coins, addresses: 5000 of 5000 keys; 2 coins with 7,000 sat so far" || lines[6] != "done" {
		t.Errorf("%q", lines)
	}
}
