package box_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// A wallet whose words nobody saw must not earn, after the next start neither.
func TestAWalletWhoseWordsWereNotShownIsNotKept(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Open(t.Context(), filepath.Join(dir, "money.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	chain := memory.New(time.Now)
	open := func(show func(string) error) error {
		_, err := box.OpenWallet(t.Context(), dir, bsv.Regtest, l, chain, wallet.Options{}, show)
		return err
	}
	errPaper := errors.New("out of paper")
	if err := open(func(string) error { return errPaper }); !errors.Is(err, errPaper) {
		t.Fatalf("%v", err)
	}
	shown := ""
	if err := open(func(words string) error { shown = words; return nil }); err != nil {
		t.Fatal(err)
	}
	if shown == "" {
		t.Error("the second start uses a wallet whose words nobody saw")
	}
}
