package wallet_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wallet"
)

// service is a chain service of which a test decides what it can do.
type service struct {
	*memory.Chain
	noPast  bool
	noBulk  bool
	asked   map[string]int // scripts
	failing int            // questions until it fails; 0: never
}

var errService = errors.New("service has a bad day")

func (s *service) count() error {
	if s.failing > 0 {
		if s.failing--; s.failing == 0 {
			return errService
		}
	}
	return nil
}

func (s *service) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	if s.noPast {
		return nil, chain.ErrUnsupported
	}
	if err := s.count(); err != nil {
		return nil, err
	}
	for _, script := range scripts {
		s.asked[string(script)]++
	}
	return s.Chain.UsedBulk(ctx, scripts)
}

func (s *service) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	if s.noBulk {
		return nil, chain.ErrUnsupported
	}
	if err := s.count(); err != nil {
		return nil, err
	}
	all := make([][]chain.Coin, len(scripts))
	for i, script := range scripts {
		s.asked[string(script)]++
		var err error
		if all[i], err = s.Chain.Unspent(ctx, script); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *service) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	if err := s.count(); err != nil {
		return nil, err
	}
	s.asked[string(script)]++
	return s.Chain.Unspent(ctx, script)
}

// past is a wallet's life before its machine was lost: what it has on the chain,
// key by key.
type past struct {
	*testing.T
	chain *memory.Chain
	words string
	keys  *wallet.Wallet
	total money.Satoshis // unspent
}

func withPast(t *testing.T, test func(*past)) {
	t.Helper()
	folders := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := &past{T: t, chain: memory.New(time.Now)}
		p.chain.Mine(10)
		dir := filepath.Join(folders, "first")
		words, err := wallet.Create(t.Context(), dir, bsv.Regtest, entropy(5))
		p.must(err)
		p.words = words
		l, err := ledger.Open(t.Context(), filepath.Join(dir, "money.db"), time.Now)
		p.must(err)
		defer l.Close()
		p.keys, err = wallet.Open(t.Context(), dir, l, p.chain, wallet.Options{})
		p.must(err)
		test(p)
	})
}

func (p *past) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// pays makes a coin on a key of the wallet.
func (p *past) pays(branch, index uint32, value money.Satoshis) bsv.Coin {
	p.Helper()
	k, err := p.keys.Key(branch, index)
	p.must(err)
	p.total += value
	return p.chain.Fund(bsv.P2PKH(k.Public().Hash()), value)
}

// emptied makes a coin and spends it, as a payout does.
func (p *past) emptied(branch, index uint32) {
	p.Helper()
	coin := p.pays(branch, index, 1000)
	k, err := p.keys.Key(branch, index)
	p.must(err)
	tx, _, err := bsv.BuildSweep([]bsv.Coin{coin}, []bsv.PrivateKey{k}, key(p, 0x77).Public().Hash(), 100)
	p.must(err)
	p.must(p.chain.Broadcast(p.Context(), tx, nil))
	p.total -= 1000
}

// restored is the wallet on another machine. It is closed by the test's end.
func (p *past) restored(dir string, c chain.Backend, opt wallet.Options) (*wallet.Wallet, *ledger.Ledger) {
	p.Helper()
	if err := wallet.Restore(p.Context(), dir, p.words, bsv.Regtest); !errors.Is(err, wallet.ErrExists) {
		p.must(err)
	}
	l, err := ledger.Open(p.Context(), filepath.Join(dir, "money.db"), time.Now)
	p.must(err)
	w, err := wallet.Open(p.Context(), dir, l, c, opt)
	p.must(err)
	return w, l
}

func (p *past) has(w *wallet.Wallet) {
	p.Helper()
	confirmed, unconfirmed, err := w.Balance(p.Context())
	if confirmed+unconfirmed != p.total || err != nil {
		p.Errorf("%v and %v, %v; want %v", confirmed, unconfirmed, err, p.total)
	}
}

// Keys that were emptied are no gap: earnings of years lie before the newest.
func TestRestoreCrossesEmptiedKeys(t *testing.T) {
	withPast(t, func(p *past) {
		const gap = 120
		last := uint32(0)
		for _, i := range []uint32{3, 110, 220} {
			p.emptied(wallet.BranchPayout, i)
			last = i
		}
		p.pays(wallet.BranchPayout, last+gap, 5000)
		for i := range uint32(2) {
			p.emptied(wallet.BranchReceive, 99*i)
			p.emptied(wallet.BranchChange, 199*i)
		}
		p.pays(wallet.BranchReceive, 2*99, 6000)
		p.pays(wallet.BranchChange, 2*199, 7000)
		p.pays(wallet.BranchIdentity, 4, 8000)
		for name, s := range map[string]*service{
			"bulk":        {},
			"forgets all": {noPast: true, noBulk: true},
		} {
			s.Chain, s.asked = p.chain, make(map[string]int)
			dir := filepath.Join(p.TempDir(), name)
			opt := wallet.Options{Clock: time.Now, Gap: gap}
			if s.noPast {
				opt.Gap = last + gap + 1
			}
			w, l := p.restored(dir, s, opt)
			p.must(w.Refresh(p.Context()))
			p.has(w)
			// No key is used again, and what is used now is found by another restore.
			index, err := w.NextIndex(p.Context(), wallet.BranchChannel)
			if err != nil || index != last+gap+1+opt.Gap/2 {
				p.Errorf("%s: channel key %d, %v; %d was used", name, index, err, last+gap)
			}
			p.must(l.Check(p.Context()))
			p.must(l.Close())
		}
		p.pays(wallet.BranchPayout, last+gap+1+gap/2+16, 9000)
		w, l := p.restored(p.TempDir(), &service{Chain: p.chain, asked: make(map[string]int)}, wallet.Options{Clock: time.Now, Gap: gap})
		p.must(w.Refresh(p.Context()))
		p.has(w)
		p.must(l.Close())
	})
}

// An interrupted scan goes on where it stopped, and what it found is kept.
func TestScanIsResumed(t *testing.T) {
	withPast(t, func(p *past) {
		p.pays(wallet.BranchPayout, 400, 5000)
		p.pays(wallet.BranchPayout, 900, 6000)
		p.emptied(wallet.BranchPayout, 1300)
		s := &service{Chain: p.chain, asked: make(map[string]int), failing: 12}
		dir := p.TempDir()
		var last wallet.Scan
		opt := wallet.Options{Clock: time.Now, Gap: 600, Scanning: func(s wallet.Scan) { last = s }}
		tries := 0
		var w *wallet.Wallet
		var l *ledger.Ledger
		for done := false; !done; tries++ {
			w, l = p.restored(dir, s, opt)
			err := w.Refresh(p.Context())
			switch done = err == nil; {
			case !done && !errors.Is(err, errService):
				p.Fatal(err)
			case !done:
				if _, err := w.NextIndex(p.Context(), wallet.BranchChannel); !errors.Is(err, wallet.ErrNotScanned) {
					p.Errorf("a key from half a scan: %v", err)
				}
				p.must(l.Close())
				s.failing = 12
			}
		}
		defer l.Close()
		if tries < 3 {
			p.Errorf("interrupted %d times only", tries-1)
		}
		p.has(w)
		if last.Coins != 2 || last.Value != p.total || last.Done < last.Of {
			p.Errorf("the last word of the scan: %+v", last)
		}
		if index, err := w.NextIndex(p.Context(), wallet.BranchChannel); err != nil || index != 1301+300 {
			p.Errorf("next index %d, %v", index, err)
		}
		// At most one step, and what was not noted of the shorter branches, is
		// asked for again each time.
		again := 0
		for _, n := range s.asked {
			again += n - 1
		}
		if most := tries * (500 + 500); again > most {
			p.Errorf("%d questions were repeated in %d tries", again, tries)
		}
		// Another look on request goes through all of it.
		before := len(s.asked)
		s.failing = 0
		p.must(w.Rescan(p.Context()))
		if len(s.asked) < before {
			p.Error("a rescan looks at less")
		}
		p.has(w)
	})
}

// What sellers close after the restore comes to keys that nothing else watches.
func TestLateClosesAreFound(t *testing.T) {
	withPast(t, func(p *past) {
		p.pays(wallet.BranchPayout, 40, 5000)
		s := &service{Chain: p.chain, asked: make(map[string]int)}
		w, l := p.restored(p.TempDir(), s, wallet.Options{Clock: time.Now, Gap: 400})
		defer l.Close()
		p.must(w.Refresh(p.Context()))
		p.has(w)
		for i, index := range []uint32{12, 41, 230} {
			p.pays(wallet.BranchPayout, index, money.Satoshis(1000*(i+1)))
			time.Sleep(7 * time.Hour)
			p.must(w.Refresh(p.Context()))
			p.has(w)
			// Not with every refresh: a service takes three questions a second.
			clear(s.asked)
			p.must(w.Refresh(p.Context()))
			if len(s.asked) > 100 {
				p.Errorf("%d keys looked at", len(s.asked))
			}
		}
		p.must(l.Check(p.Context()))
	})
}

// A restore with a ledger that was restored before looks at the chain again.
func TestEachRestoreIsScanned(t *testing.T) {
	withPast(t, func(p *past) {
		p.pays(wallet.BranchPayout, 40, 5000)
		first, second := p.TempDir(), p.TempDir()
		opt := wallet.Options{Clock: time.Now, Gap: 100}
		w, l := p.restored(first, p.chain, opt)
		p.must(w.Refresh(p.Context()))
		p.must(l.Backup(p.Context(), filepath.Join(second, "money.db")))
		p.must(l.Close())
		w, l = p.restored(second, p.chain, opt)
		if _, err := w.NextIndex(p.Context(), wallet.BranchChannel); !errors.Is(err, wallet.ErrNotScanned) {
			p.Errorf("a key before the chain was looked at: %v", err)
		}
		p.must(w.Refresh(p.Context()))
		p.has(w)
		p.must(l.Close())
	})
}

// Words that lie outside the folder: a ledger that has not seen them takes them
// for used, one that has goes on.
func TestOpenWords(t *testing.T) {
	withPast(t, func(p *past) {
		p.pays(wallet.BranchReceive, 3, 5000)
		path := filepath.Join(p.TempDir(), "money.db")
		open := func(words string) (*wallet.Wallet, *ledger.Ledger, error) {
			l, err := ledger.Open(p.Context(), path, time.Now)
			p.must(err)
			w, err := wallet.OpenWords(p.Context(), words, bsv.Regtest, l, p.chain, wallet.Options{Clock: time.Now, Gap: 100})
			return w, l, err
		}
		for range 2 {
			w, l, err := open(p.words)
			p.must(err)
			if _, err := w.NextIndex(p.Context(), wallet.BranchChannel); !errors.Is(err, wallet.ErrNotScanned) {
				p.Errorf("a key before the chain was looked at: %v", err)
			}
			p.must(l.Close())
		}
		w, l, err := open(p.words)
		p.must(err)
		p.must(w.Refresh(p.Context()))
		p.has(w)
		p.must(l.Close())
		w, l, err = open(p.words)
		p.must(err)
		if _, err := w.NextIndex(p.Context(), wallet.BranchChannel); err != nil {
			p.Error(err)
		}
		p.must(l.Close())
		words, err := bsv.NewMnemonic(make([]byte, 16))
		p.must(err)
		_, l, err = open(words)
		if !errors.Is(err, wallet.ErrNetwork) {
			p.Errorf("other words: %v", err)
		}
		p.must(l.Close())
		_, l, err = open("twelve words")
		if !errors.Is(err, bsv.ErrWordsCount) {
			p.Errorf("no words: %v", err)
		}
		p.must(l.Close())
	})
}

// A wallet's file that outlives its ledger has used its keys.
func TestLostLedger(t *testing.T) {
	bubble(t, func(r *rig) {
		r.earned(1, 5000)
		used, err := r.wallet.NextIndex(r.ctx, wallet.BranchChannel)
		r.must(err)
		dir := r.TempDir()
		text, err := os.ReadFile(filepath.Join(r.dir, wallet.FileName))
		r.must(err)
		r.must(os.WriteFile(filepath.Join(dir, wallet.FileName), text, 0o600))
		for range 2 {
			l, err := ledger.Open(r.ctx, filepath.Join(dir, "money.db"), time.Now)
			r.must(err)
			w, err := wallet.Open(r.ctx, dir, l, r.chain, wallet.Options{Clock: time.Now, Gap: 100})
			r.must(err)
			if _, err := w.NextIndex(r.ctx, wallet.BranchChannel); !errors.Is(err, wallet.ErrNotScanned) {
				r.Errorf("a key before the chain was looked at: %v", err)
			}
			r.must(l.Close())
		}
		l, err := ledger.Open(r.ctx, filepath.Join(dir, "money.db"), time.Now)
		r.must(err)
		defer l.Close()
		w, err := wallet.Open(r.ctx, dir, l, r.chain, wallet.Options{Clock: time.Now, Gap: 100})
		r.must(err)
		r.must(w.Refresh(r.ctx))
		if index, err := w.NextIndex(r.ctx, wallet.BranchChannel); err != nil || index <= used {
			r.Errorf("index %d, %v; %d was used", index, err, used)
		}
		if confirmed, _, err := w.Balance(r.ctx); confirmed != 5000 || err != nil {
			r.Error(confirmed, err)
		}
	})
}
