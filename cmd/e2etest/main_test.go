package e2etest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/cmd/internal/e2e"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	titleLength            = 48 << 20
	pieceLength            = 256 << 10
	royalty     money.Rate = 8_000
	ask         money.Rate = 40_000 // of a box that nothing else is said about
	generous    money.Rate = 60_000 // the client's usual price limit
	bigBudget              = money.Satoshis(10_000)
	uploadRate             = 8 << 20 // bytes per second, where something has to happen meanwhile
)

// shared is what all tests share and none changes.
var shared *e2e.Goods

// newWorld starts a node for one test.
func newWorld(t *testing.T) *e2e.World {
	t.Helper()
	return e2e.NewWorld(t, shared, 2*time.Minute)
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Files of odd lengths that add up to titleLength.
	files := []e2e.File{{Name: "a", Length: 20_000_001}, {Name: "b", Length: 1}, {Name: "sub/c", Length: 7_654_321}, {Name: "sub/d"}, {Name: "sub/e", Length: titleLength}}
	for _, f := range files[:len(files)-1] {
		files[len(files)-1].Length -= f.Length
	}
	shared, err = e2e.Prepare(context.Background(), dir, e2e.Title{Name: "A title to sell", Files: files, PieceLength: pieceLength, Royalty: royalty})
	if err != nil {
		return 0, err
	}
	return m.Run(), nil
}
