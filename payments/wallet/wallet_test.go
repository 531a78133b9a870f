package wallet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

func TestFile(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "wallet")
	words, err := wallet.Create(ctx, dir, bsv.Regtest, entropy(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bsv.CheckMnemonic(words); err != nil || len(strings.Fields(words)) != 12 {
		t.Errorf("words %q, %v", words, err)
	}
	path := filepath.Join(dir, wallet.FileName)
	for name, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	if _, err := wallet.Create(ctx, dir, bsv.Main, entropy(2)); !errors.Is(err, wallet.ErrExists) {
		t.Errorf("a second wallet: %v, want ErrExists", err)
	}
	if err := wallet.Restore(ctx, dir, words, bsv.Regtest); !errors.Is(err, wallet.ErrExists) {
		t.Errorf("a restore over a wallet: %v, want ErrExists", err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), words) {
		t.Errorf("the wallet is another one now, %v", err)
	}
	if err := wallet.Restore(ctx, t.TempDir(), words+" zoo", bsv.Regtest); !errors.Is(err, bsv.ErrWordsCount) {
		t.Errorf("13 words: %v", err)
	}
	if _, err := wallet.Create(ctx, t.TempDir(), bsv.Regtest, strings.NewReader("short")); err == nil {
		t.Error("a wallet from 5 bytes of randomness")
	}
}

func TestOpenRefuses(t *testing.T) {
	ctx := context.Background()
	l, err := ledger.Open(ctx, filepath.Join(t.TempDir(), "money.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	open := func(dir string) error {
		_, err := wallet.Open(ctx, dir, l, memory.New(time.Now), wallet.Options{})
		return err
	}
	create := func(net bsv.Network, fill byte) (dir, path, words string) {
		dir = t.TempDir()
		words, err := wallet.Create(ctx, dir, net, entropy(fill))
		if err != nil {
			t.Fatal(err)
		}
		return dir, filepath.Join(dir, wallet.FileName), words
	}
	if err := open(t.TempDir()); !errors.Is(err, wallet.ErrNoWallet) {
		t.Errorf("an empty directory: %v", err)
	}
	dir, path, words := create(bsv.Regtest, 1)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := open(dir); !errors.Is(err, wallet.ErrExposed) {
		t.Errorf("a file that others can read: %v", err)
	}
	first := strings.Fields(words)[0]
	for name, text := range map[string]string{
		"no TOML":       "words = " + words,
		"other words":   "version = 1\nnetwork = 'test'\nwords = '" + first + " " + words + "'",
		"other version": "version = 2\nnetwork = 'test'\nwords = '" + words + "'",
		"other network": "version = 1\nnetwork = 'moon'\nwords = '" + words + "'",
		"huge":          strings.Repeat("#", 70_000),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, wallet.FileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := open(dir); !errors.Is(err, wallet.ErrFile) || strings.Contains(err.Error(), first) {
			t.Errorf("%s: %v, want ErrFile and no words", name, err)
		}
	}
	good, _, _ := create(bsv.Regtest, 3)
	if err := open(good); err != nil {
		t.Fatal(err)
	}
	if err := open(good); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for name, other := range map[string]func() (string, string, string){
		"other words":   func() (string, string, string) { return create(bsv.Regtest, 4) },
		"other network": func() (string, string, string) { return create(bsv.Main, 3) },
	} {
		dir, _, _ := other()
		if err := open(dir); !errors.Is(err, wallet.ErrNetwork) {
			t.Errorf("%s: %v, want ErrNetwork", name, err)
		}
	}
}

func TestKeysAreThoseOfTheWords(t *testing.T) {
	bubble(t, func(r *rig) {
		seed, err := bsv.SeedOf(r.words, "")
		r.must(err)
		master, err := bsv.NewMaster(seed)
		r.must(err)
		for _, branch := range []uint32{wallet.BranchReceive, wallet.BranchChange, wallet.BranchChannel, wallet.BranchPayout, wallet.BranchIdentity} {
			for _, index := range []uint32{0, 7} {
				want, err := master.Derive(fmt.Sprintf("44'/236'/0'/%d/%d", branch, index))
				r.must(err)
				for range 2 { // derived and remembered
					if got, err := r.wallet.Key(branch, index); err != nil || got.Public() != want.Public() {
						r.Errorf("key %d/%d: %v", branch, index, err)
					}
				}
			}
		}
		if _, err := r.wallet.Key(5, 0); !errors.Is(err, wallet.ErrBranch) {
			r.Errorf("branch 5: %v", err)
		}
		if _, err := r.wallet.NextIndex(r.ctx, wallet.BranchPayout); !errors.Is(err, wallet.ErrBranch) {
			r.Errorf("an index of the payouts' own: %v", err)
		}
	})
}

func TestIndexesAreGivenOutOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		var mu sync.Mutex
		seen := make(map[uint32]bool)
		for range 3 { // with a restart in between, at which nothing is handed back
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() {
					for range 8 {
						i, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
						mu.Lock()
						if err != nil || seen[i] {
							r.Errorf("index %d again, %v", i, err)
						}
						seen[i] = true
						mu.Unlock()
					}
				})
			}
			group.Wait()
			r.shut()
			r.open()
		}
	})
}

func TestReceiveAddressStaysUntilItIsUsed(t *testing.T) {
	bubble(t, func(r *rig) {
		first, err := r.wallet.ReceiveAddress(r.ctx)
		r.must(err)
		r.shut()
		r.open()
		if again, err := r.wallet.ReceiveAddress(r.ctx); again != first || err != nil {
			r.Errorf("%s, then %s, %v", first, again, err)
		}
		r.deposit(1000)
		if next, err := r.wallet.ReceiveAddress(r.ctx); next == first || err != nil {
			r.Errorf("a used address is given again: %s, %v", next, err)
		}
		// The used one is watched on.
		hash, err := bsv.ParseAddress(first, bsv.Regtest)
		r.must(err)
		r.chain.FundUnconfirmed(bsv.P2PKH(hash), 500)
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(1000, 500)
		r.chain.Mine(1)
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(1500, 0)
	})
}

// A restored wallet finds the same addresses and the coins on them, and gives
// out no key that was used.
func TestRestore(t *testing.T) {
	bubble(t, func(r *rig) {
		used, err := r.wallet.ReceiveAddress(r.ctx)
		r.must(err)
		r.deposit(10_000)
		r.deposit(20_000)
		f, err := r.wallet.Fund(r.ctx, []bsv.Output{{Value: 12_000, Script: bsv.P2PKH(r.stranger())}})
		r.must(err)
		r.must(r.ledger.PutOutgoing(r.ctx, f.Outgoing(ledger.Send)))
		var last uint32
		for range 40 { // channels that came to nothing
			last, err = r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
			r.must(err)
		}
		r.earned(2, 5000)
		confirmed, _, err := r.wallet.Balance(r.ctx)
		r.must(err)

		dir := r.TempDir()
		r.must(wallet.Restore(r.ctx, dir, "  "+strings.ToUpper(r.words), bsv.Regtest))
		l, err := ledger.Open(r.ctx, filepath.Join(dir, "money.db"), time.Now)
		r.must(err)
		defer l.Close()
		w, err := wallet.Open(r.ctx, dir, l, r.chain, wallet.Options{Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
		r.must(err)
		if _, err := w.NextIndex(r.ctx, wallet.BranchChannel); !errors.Is(err, wallet.ErrNotScanned) {
			r.Errorf("a key before the chain was looked at: %v", err)
		}
		if _, err := w.ReceiveAddress(r.ctx); !errors.Is(err, wallet.ErrNotScanned) {
			r.Errorf("an address before the chain was looked at: %v", err)
		}
		// An attempt that fails half-way changes nothing about that.
		r.chain.SetDown(true)
		if err := w.Refresh(r.ctx); err == nil {
			r.Error("a refresh without a chain")
		}
		r.chain.SetDown(false)
		r.must(w.Refresh(r.ctx))
		got, unconfirmed, err := w.Balance(r.ctx)
		if got != confirmed || unconfirmed != 0 || err != nil {
			r.Errorf("restored %v and %v, %v; want %v", got, unconfirmed, err, confirmed)
		}
		if index, err := w.NextIndex(r.ctx, wallet.BranchChannel); err != nil || index <= last+2 {
			r.Errorf("channel key %d, %v; %d was used", index, err, last+2)
		}
		if address, err := w.ReceiveAddress(r.ctx); err != nil || address == used {
			r.Errorf("address %s, %v; it has a coin", address, err)
		}
		r.must(l.Check(r.ctx))
		// And it can pay with all of it.
		if _, err := w.Fund(r.ctx, []bsv.Output{{Value: confirmed - 200, Script: bsv.P2PKH(r.stranger())}}); err != nil {
			r.Error(err)
		}
	})
}

func TestCoinsThatOthersMove(t *testing.T) {
	bubble(t, func(r *rig) {
		coin := r.deposit(10_000)
		// The same words in another program spend the coin.
		k, err := r.wallet.Key(wallet.BranchReceive, 0)
		r.must(err)
		tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, r.stranger(), 100)
		r.must(err)
		r.must(r.chain.Broadcast(r.ctx, tx, nil))
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(0, 0)
		r.must(r.ledger.Check(r.ctx))

		// A payment that is seen and then displaced was never there.
		second, err := r.wallet.Key(wallet.BranchReceive, 1)
		r.must(err)
		_, err = r.wallet.ReceiveAddress(r.ctx)
		r.must(err)
		payer := key(r, 0x31)
		from := r.chain.Fund(bsv.P2PKH(payer.Public().Hash()), 5000)
		pay, _, err := bsv.BuildSweep([]bsv.Coin{from}, []bsv.PrivateKey{payer}, second.Public().Hash(), 100)
		r.must(err)
		r.must(r.chain.Broadcast(r.ctx, pay, nil))
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(0, 4980)
		back, _, err := bsv.BuildSweep([]bsv.Coin{from}, []bsv.PrivateKey{payer}, r.stranger(), 200)
		r.must(err)
		r.must(r.chain.MineConflict(back))
		r.must(r.wallet.Refresh(r.ctx))
		r.balance(0, 0)
	})
}

func TestPayeeClosesOurChannel(t *testing.T) {
	for name, amount := range map[string]struct {
		paid   int64
		change bool
	}{"with change": {5000, true}, "used up": {saleCapacity - 30, false}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				payee := key(r, 0x66)
				index, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
				r.must(err)
				mine, err := r.wallet.Key(wallet.BranchChannel, index)
				r.must(err)
				refund, err := r.wallet.Key(wallet.BranchPayout, index)
				r.must(err)
				c := bsv.Channel{
					Payer: mine.Public(), Payee: payee.Public(), Capacity: saleCapacity, PayerHash: refund.Public().Hash(),
					PayeeHash: payee.Public().Hash(), RefundHeight: 1000, FeeRate: 100,
				}
				c.Funding = r.chain.Fund(c.Lock(), c.Capacity).Outpoint
				spend := c.MaxSpend(0)
				if amount.change {
					spend = 5000
				}
				s := r.sign(c, mine, payee, ledger.Payer, index, spend)
				r.must(r.wallet.Refresh(r.ctx))
				r.must(r.chain.Broadcast(r.ctx, s.close, nil))
				for range 2 {
					r.must(r.wallet.Refresh(r.ctx))
					row, err := r.ledger.Channel(r.ctx, s.row.ID)
					r.must(err)
					if row.State != ledger.StateClosed || amount.change && row.CloseTxid != s.close.Txid() {
						r.Errorf("channel is %s by %s", row.State, bsv.Txid(row.CloseTxid))
					}
					r.must(r.ledger.Check(r.ctx))
				}
				if !amount.change {
					r.balance(0, 0)
					return
				}
				back := s.close.Outputs[1].Value
				r.balance(0, back)
				// It can be spent before it is mined: the close is version 1.
				if _, err := r.wallet.Fund(r.ctx, []bsv.Output{{Value: 1000, Script: bsv.P2PKH(r.stranger())}}); err != nil {
					r.Error(err)
				}
				r.chain.Mine(1)
				r.must(r.wallet.Refresh(r.ctx))
				if coins, err := r.ledger.Coins(r.ctx, ledger.CoinFilter{}); err != nil || len(coins) == 0 || coins[0].Height == 0 {
					r.Errorf("coins %+v, %v", coins, err)
				}
			})
		})
	}
}
