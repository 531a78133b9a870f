// Package wallet holds the node's keys and coins: it derives keys from the
// recovery words, finds coins on the chain, pays from them, and pays earnings
// out to the owner.
//
// # Keys
//
// All keys come from 12 words (BIP 39) by BIP 32, on the branches below
// m/44'/236'/0' (BIP 44, coin type 236). An index is given out once. A channel
// has one index, for its key in the 2-of-2 on BranchChannel and for what comes
// out of it on BranchPayout.
//
// # Paying
//
// A payment is built, its coins are reserved in the ledger, and it becomes a
// row of the ledger's outbox. Only the Outbox broadcasts. So whatever was sent
// was stored before, and coins reserved for what was never stored are free
// again when the wallet is opened the next time.
//
// Every transaction is version 1, and spends unconfirmed coins only of
// transactions that are known to be version 1: a transaction of another version
// can be given another txid by anybody before it is mined, which would void a
// channel that rests on it.
package wallet

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Branches of keys.
const (
	BranchReceive  uint32 = iota // addresses to be paid to
	BranchChange                 // change of our own payments
	BranchChannel                // keys of channels' 2-of-2
	BranchPayout                 // earnings, and refunds and change of channels
	BranchIdentity               // index 0 signs terms and manifests
	branches
)

// Claims that the wallet makes in its ledger.
const (
	walletClaim   = "wallet"   // whose the ledger is
	restoredClaim = "restored" // the words were used before this ledger was
)

// account is the path of the wallet's account below the master key.
const account = "44'/236'/0'"

// maxCachedKeys is how many derived keys are kept; one is some 200 bytes, and
// takes milliseconds to derive on a small board.
const maxCachedKeys = 512

var (
	// ErrNoWallet says that the directory holds no wallet.
	ErrNoWallet = errors.New("there is no wallet here")
	// ErrExists says that the directory holds a wallet already.
	ErrExists = errors.New("there is a wallet already")
	// ErrFile says that the wallet's file is damaged.
	ErrFile = errors.New("not a readable wallet file")
	// ErrExposed says that others than the owner can read the wallet's file.
	ErrExposed = errors.New("others can read the wallet file; make it mode 0600")
	// ErrNetwork says that wallet and ledger, or wallet and chain, belong to
	// different networks or words.
	ErrNetwork = errors.New("the ledger belongs to another wallet or network")
	// ErrNotScanned says that a restored wallet has not looked at the chain
	// yet, so that it cannot know which keys are unused. Refresh does that.
	ErrNotScanned = errors.New("the restored wallet has not been compared with the chain yet")
	// ErrOtherWords says that words are those of another wallet.
	ErrOtherWords = errors.New("these are the words of another wallet")
	// ErrBranch says that there is no such branch, or that it gives out no
	// indexes of its own.
	ErrBranch = errors.New("no such branch of keys")
)

// Options of a Wallet.
type Options struct {
	Clock func() time.Time
	Log   *slog.Logger
	// Stored is called after the wallet has put a transaction into the outbox;
	// Outbox.Kick is meant. It may be nil.
	Stored func()
	// Passphrase is asked where the words are locked with one; nil is
	// ErrLocked.
	Passphrase func() (string, error)
	// Gap is how many channels' keys in a row may be unused before a Rescan takes
	// the rest for unused too; 5,000 where it is zero, and at most ten million.
	Gap uint32
	// RestoreID, where it is set, says that the words were used outside this
	// ledger, and names that occasion: see ErrNotScanned.
	RestoreID string
	// Scanning is told how far a Rescan has come, from its goroutine. It may be
	// nil.
	Scanning func(Scan)
}

// Wallet is an open wallet. Its methods may be called from several goroutines.
type Wallet struct {
	net       bsv.Network
	restored  bool
	restoreID string
	secrets   []byte // see Secret
	branch    [branches]bsv.HDKey
	ledger    *ledger.Ledger
	chain     chain.Backend
	opt       Options

	mu   sync.Mutex // guards keys and spare
	keys map[keyRef]bsv.PrivateKey
	// spare are change indexes that were given out for payments which came to
	// nothing or had no change.
	spare []uint32

	// next holds the indexes that are reserved and not given out. It is a
	// channel of one, so that waiting for it ends with a context.
	next chan *[branches]span
	// refreshing is held by the one Refresh that runs.
	refreshing chan struct{}
}

type keyRef struct{ branch, index uint32 }

type span struct{ next, end uint32 }

// blockSize is how many indexes of a branch are reserved at a time. A crash
// loses those that were not given out, which makes gaps for Restore to cross.
func blockSize(branch uint32) uint32 {
	if branch == BranchChannel {
		return 16
	}
	return 1
}

// Open opens the wallet in dir. Errors are ErrNoWallet, ErrFile, ErrExposed, and
// ErrNetwork where the ledger was used with other words or another network.
// Coins that are reserved for a transaction which was never stored are
// released, so nothing else may be paying from the ledger yet.
func Open(ctx context.Context, dir string, l *ledger.Ledger, c chain.Backend, opt Options) (*Wallet, error) {
	w, err := open(ctx, dir, l, c, opt)
	if err != nil {
		return nil, fmt.Errorf("open wallet: %w", err)
	}
	return w, nil
}

func open(ctx context.Context, dir string, l *ledger.Ledger, c chain.Backend, opt Options) (*Wallet, error) {
	f, err := readFile(dir)
	if err != nil {
		return nil, err
	}
	if err := f.unlock(opt.Passphrase); err != nil {
		return nil, err
	}
	if err := usedBefore(ctx, &f, l, &opt); err != nil {
		return nil, err
	}
	w, err := openFile(ctx, f, l, c, opt)
	if err != nil || f.Used {
		return w, err
	}
	return w, markUsed(ctx, dir)
}

// usedBefore finds out whether f's words were used with another ledger than
// this one, as where the ledger is lost and the wallet's file is not.
func usedBefore(ctx context.Context, f *file, l *ledger.Ledger, opt *Options) error {
	if f.Restored {
		return nil
	}
	if !f.Used {
		f.Restored, f.RestoreID = opt.RestoreID != "", opt.RestoreID
		return nil
	}
	// Before the wallet claims the ledger, so that nothing is forgotten when the
	// program ends in between.
	_, err := l.Claimed(ctx, walletClaim)
	if errors.Is(err, ledger.ErrNotFound) {
		_, err = l.Claim(ctx, restoredClaim, opt.now().UTC().Format(time.RFC3339))
	}
	if err != nil {
		return err
	}
	_, err = l.Claimed(ctx, restoredClaim)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	f.Restored = err == nil
	if opt.RestoreID != "" {
		f.Restored, f.RestoreID = true, opt.RestoreID
	}
	return nil
}

// OpenWords opens the wallet of words that lie nowhere in its folder, as a
// credential of the service manager. The ledger says what they were used for:
// one that has not seen them before takes them for restored. Errors are those of
// bsv.CheckMnemonic and of Open.
func OpenWords(ctx context.Context, words string, net bsv.Network, l *ledger.Ledger, c chain.Backend, opt Options) (*Wallet, error) {
	w, err := openWords(ctx, words, net, l, c, opt)
	if err != nil {
		return nil, fmt.Errorf("open wallet: %w", err)
	}
	return w, nil
}

func openWords(ctx context.Context, words string, net bsv.Network, l *ledger.Ledger, c chain.Backend, opt Options) (*Wallet, error) {
	words, err := bsv.CheckMnemonic(words)
	if err != nil {
		return nil, err
	}
	f := file{Network: net, Words: words, Used: true}
	if err := usedBefore(ctx, &f, l, &opt); err != nil {
		return nil, err
	}
	return openFile(ctx, f, l, c, opt)
}

func (o *Options) now() time.Time {
	if o.Clock == nil {
		return time.Now()
	}
	return o.Clock()
}

func openFile(ctx context.Context, f file, l *ledger.Ledger, c chain.Backend, opt Options) (*Wallet, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Stored == nil {
		opt.Stored = func() {}
	}
	if opt.Scanning == nil {
		opt.Scanning = func(Scan) {}
	}
	w := &Wallet{
		net:        f.Network,
		restored:   f.Restored,
		restoreID:  f.RestoreID,
		ledger:     l,
		chain:      c,
		opt:        opt,
		keys:       make(map[keyRef]bsv.PrivateKey),
		next:       make(chan *[branches]span, 1),
		refreshing: make(chan struct{}, 1),
	}
	w.next <- new([branches]span)
	if err := w.derive(f.Words); err != nil {
		return nil, err
	}
	if err := w.claim(ctx); err != nil {
		return nil, err
	}
	released, err := l.ReleaseOrphans(ctx)
	if err != nil {
		return nil, err
	}
	if released > 0 {
		opt.Log.Info("released coins of payments that were never made", "coins", released)
	}
	return w, nil
}

func (w *Wallet) derive(words string) error {
	seed, err := bsv.SeedOf(words, "")
	if err != nil {
		return err
	}
	if w.secrets, err = secretRoot(seed); err != nil {
		return err
	}
	master, err := bsv.NewMaster(seed)
	if err != nil {
		return err
	}
	top, err := master.Branch(account)
	if err != nil {
		return err
	}
	for i := range w.branch {
		if w.branch[i], err = top.Branch(strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

// claim binds the ledger to this wallet: to other keys its coins would be
// worthless, and its counters would give out used indexes.
func (w *Wallet) claim(ctx context.Context) error {
	identity, err := w.Key(BranchIdentity, 0)
	if err != nil {
		return err
	}
	hash := identity.Public().Hash()
	mine := w.net.String() + " " + hex.EncodeToString(hash[:])
	owner, err := w.ledger.Claimed(ctx, walletClaim)
	if errors.Is(err, ledger.ErrNotFound) {
		owner, err = w.ledger.Claim(ctx, walletClaim, mine)
	}
	if err != nil {
		return err
	}
	if owner != mine {
		return ErrNetwork
	}
	return nil
}

// Network returns the network that the wallet is for.
func (w *Wallet) Network() bsv.Network { return w.net }

// Key returns the private key of a branch and index. ErrBranch where there is
// no such branch.
func (w *Wallet) Key(branch, index uint32) (bsv.PrivateKey, error) {
	if branch >= branches {
		return bsv.PrivateKey{}, fmt.Errorf("branch %d: %w", branch, ErrBranch)
	}
	ref := keyRef{branch, index}
	w.mu.Lock()
	k, ok := w.keys[ref]
	w.mu.Unlock()
	if ok {
		return k, nil
	}
	k, err := w.branch[branch].Derive(strconv.FormatUint(uint64(index), 10))
	if err != nil {
		return bsv.PrivateKey{}, fmt.Errorf("key %d of branch %d: %w", index, branch, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.keys) >= maxCachedKeys {
		for old := range w.keys { // any one
			delete(w.keys, old)
			break
		}
	}
	w.keys[ref] = k
	return k, nil
}

// script returns the locking script of a key's address.
func (w *Wallet) script(branch, index uint32) (bsv.Script, error) {
	k, err := w.Key(branch, index)
	if err != nil {
		return nil, err
	}
	return bsv.P2PKH(k.Public().Hash()), nil
}

// NextIndex gives out an index of a branch that was never given out before.
// BranchPayout has none of its own: ErrBranch. ErrNotScanned where the wallet
// was restored and not refreshed yet.
func (w *Wallet) NextIndex(ctx context.Context, branch uint32) (uint32, error) {
	if branch >= branches || branch == BranchPayout {
		return 0, fmt.Errorf("next key of branch %d: %w", branch, ErrBranch)
	}
	if err := w.scanned(ctx); err != nil {
		return 0, fmt.Errorf("next key of branch %d: %w", branch, err)
	}
	select {
	case spans := <-w.next:
		defer func() { w.next <- spans }()
		s := &spans[branch]
		if s.next == s.end {
			first, err := w.ledger.ReserveKeys(ctx, branch, blockSize(branch))
			if err != nil {
				return 0, fmt.Errorf("next key of branch %d: %w", branch, err)
			}
			*s = span{first, first + blockSize(branch)}
		}
		s.next++
		return s.next - 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// ReceiveAddress returns an address to be paid at. It stays the same until a
// coin has come to it.
func (w *Wallet) ReceiveAddress(ctx context.Context) (string, error) {
	index, err := w.receiveIndex(ctx)
	if err != nil {
		return "", fmt.Errorf("receive address: %w", err)
	}
	k, err := w.Key(BranchReceive, index)
	if err != nil {
		return "", fmt.Errorf("receive address: %w", err)
	}
	return k.Public().Hash().Address(w.net), nil
}

func (w *Wallet) receiveIndex(ctx context.Context) (uint32, error) {
	next, err := w.ledger.NextKey(ctx, BranchReceive)
	if err != nil {
		return 0, err
	}
	if next > 0 && w.scanned(ctx) == nil {
		used, err := w.ledger.KeyUsed(ctx, BranchReceive, next-1)
		if err != nil {
			return 0, err
		}
		if !used {
			return next - 1, nil
		}
	}
	return w.NextIndex(ctx, BranchReceive)
}

// Balance returns what the wallet can pay with: coins that are in a block, and
// those that are not yet. Reserved coins are left out.
func (w *Wallet) Balance(ctx context.Context) (confirmed, unconfirmed money.Satoshis, err error) {
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil {
		return 0, 0, fmt.Errorf("balance: %w", err)
	}
	for _, c := range coins {
		sum := &confirmed
		if c.Height == 0 {
			sum = &unconfirmed
		}
		if *sum, err = sum.Add(c.Value); err != nil {
			return 0, 0, fmt.Errorf("balance: %w", err)
		}
	}
	return confirmed, unconfirmed, nil
}
