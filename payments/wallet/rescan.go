package wallet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	// scanChunk is how many keys are asked for at a time.
	scanChunk = 100
	// scanStep is after how many keys a first scan notes how far it has come.
	// It is a multiple of scanChunk.
	scanStep = 500
	// lookAgainFor is how long after a restore the keys of channels are looked
	// at again: as long as the refund of a channel that was open may take, and
	// as long again. lookAgainEvery is how often.
	lookAgainFor   = 30 * 24 * time.Hour
	lookAgainEvery = 6 * time.Hour
	// lookAgainBack is how many keys before the last one that was used may be
	// those of channels which are still open.
	lookAgainBack = 1000
)

// gap is the function gap, unless the owner wants another one.
func (w *Wallet) gap(branch uint32, past bool) uint32 {
	if branch == BranchPayout && w.opt.Gap > 0 {
		return min(w.opt.Gap, maxGap)
	}
	return gap(branch, past)
}

// maxGap is the largest Options.Gap.
const maxGap = 10_000_000

// Scan says how far a Rescan has come.
type Scan struct {
	Branch   uint32
	Done, Of uint32 // keys of this branch, as far as is known by now
	Coins    int    // unspent coins that the wallet knows
	Value    money.Satoshis
}

// gap is how many keys of a branch in a row may be unused before a scan takes
// the rest for unused too.
//
// Addresses to be paid at stay the same until they are used, and indexes for
// change are used again where a payment came to nothing; a crash loses one of
// them. A hundred and two hundred in a row would be as many crashes without a
// payment between them.
//
// A channel takes an index also where it comes to nothing. A seller keeps 1,024
// indexes of offers that nobody took for the next ones, lets at most 1,024
// channels a day wait for their funding, and loses 16 with a restart; so two
// channels that are funded on the same day are some 2,100 indexes apart at the
// most. A restore skips half of the gap (see rescanBranch), and what comes after
// it must be found by the next one: 5,000 are twice 2,100 and some more.
//
// That is so where the chain service knows which keys were used and emptied.
// Where it lists unspent coins only, a key whose earnings were paid out looks
// unused, and how many of those lie before the newest nobody can say: a larger
// gap is a guess, and a backup, which has the counters, is what helps.
func gap(branch uint32, past bool) uint32 {
	switch {
	case branch == BranchIdentity:
		return 5
	case branch == BranchPayout && past:
		return 5_000
	case branch == BranchPayout:
		return 20_000
	case !past:
		return 1_000
	case branch == BranchChange:
		return 200
	}
	return 100
}

// Rescan looks for coins on all keys, in use or not, until a long run of keys
// is unused, and compares every unspent coin with the chain. It takes more than
// five thousand questions to a chain service that takes them one by one; see
// chain.BulkUnspent and chain.BulkUsed. The first one of a restored wallet goes
// on where an interrupted one stopped.
func (w *Wallet) Rescan(ctx context.Context) error {
	return w.exclusive(ctx, "rescan wallet", func() error { return w.rescan(ctx) })
}

// Scanned returns ErrNotScanned where the wallet was restored, and no Refresh has
// come to its end since.
func (w *Wallet) Scanned(ctx context.Context) error {
	if err := w.scanned(ctx); err != nil {
		return fmt.Errorf("wallet: %w", err)
	}
	return nil
}

func (w *Wallet) scanned(ctx context.Context) error {
	if !w.restored {
		return nil
	}
	_, err := w.ledger.Claimed(ctx, w.claimName("scanned"))
	if errors.Is(err, ledger.ErrNotFound) {
		return ErrNotScanned
	}
	return err
}

// claimName is a name for what is known of one restore.
func (w *Wallet) claimName(parts ...any) string {
	name := fmt.Sprint(parts[0])
	if w.restoreID != "" {
		name += " " + w.restoreID
	}
	for _, p := range parts[1:] {
		name += fmt.Sprintf(" %v", p)
	}
	return name
}

// scan is one Rescan.
type scan struct {
	*Wallet
	tip   chain.Header
	first bool // of a restored wallet
	past  bool // the chain service tells keys that were emptied from unused ones
	seen  map[keyRef]bool
}

func (w *Wallet) rescan(ctx context.Context) error {
	tip, err := w.chain.Tip(ctx)
	if err != nil {
		return err
	}
	err = w.scanned(ctx)
	if err != nil && !errors.Is(err, ErrNotScanned) {
		return err
	}
	s := &scan{Wallet: w, tip: tip, first: err != nil, past: true, seen: make(map[keyRef]bool)}
	// Before the payouts, because it knows what those of our channels are.
	if err := w.findCloses(ctx, s.seen); err != nil {
		return err
	}
	var top uint32 // of channels' keys
	for _, branch := range []uint32{BranchReceive, BranchChange, BranchPayout, BranchIdentity} {
		used, err := s.branchKeys(ctx, branch)
		if err != nil {
			return err
		}
		if branch == BranchPayout {
			top = used
		}
	}
	if s.first {
		note := fmt.Sprintf("%s %d", w.opt.Clock().UTC().Format(time.RFC3339), top)
		if _, err := w.ledger.Claim(ctx, w.claimName("scanned"), note); err != nil {
			return err
		}
	}
	return w.followCoins(ctx, chain.Header{}, s.seen)
}

// branchKeys scans one branch and returns how many of its keys are used.
func (s *scan) branchKeys(ctx context.Context, branch uint32) (used uint32, err error) {
	counter := branch
	if branch == BranchPayout {
		counter = BranchChannel // payouts have the indexes of their channels
	}
	if used, err = s.ledger.NextKey(ctx, counter); err != nil {
		return 0, err
	}
	var from uint32
	if s.first {
		if from, used, err = s.resume(ctx, branch, used); err != nil {
			return 0, err
		}
	}
	for i := from; i < used+s.gap(branch, s.past) && i < ledger.MaxKeyIndex; {
		refs := keyRefs(branch, i, min(i+scanChunk, ledger.MaxKeyIndex))
		last, err := s.keys(ctx, refs)
		if err != nil {
			return 0, err
		}
		used = max(used, last)
		i += uint32(len(refs))
		if s.first && i%scanStep == 0 {
			if _, err := s.ledger.Claim(ctx, s.claimName("scan", branch, i), fmt.Sprint(used)); err != nil {
				return 0, err
			}
		}
		if err := s.report(ctx, branch, i, used); err != nil {
			return 0, err
		}
	}
	next := used
	if s.first && branch == BranchPayout {
		// Channels that were open leave no trace on the payout branch, and
		// their keys must not be used again.
		next += s.gap(branch, true) / 2
	}
	if s.first {
		// What was written first counts: an interrupted scan that is done again
		// must not skip more.
		text, err := s.ledger.Claim(ctx, s.claimName("scan", branch, "next"), fmt.Sprint(next))
		if err != nil {
			return 0, err
		}
		if n, err := strconv.ParseUint(text, 10, 32); err == nil && branch == BranchPayout {
			next = max(uint32(n), used)
		}
	}
	return used, s.ledger.AdvanceKeys(ctx, counter, next)
}

// resume returns where the interrupted first scan of a branch stopped.
func (s *scan) resume(ctx context.Context, branch, given uint32) (from, used uint32, err error) {
	used = given
	for {
		text, err := s.ledger.Claimed(ctx, s.claimName("scan", branch, from+scanStep))
		if errors.Is(err, ledger.ErrNotFound) {
			return from, used, nil
		}
		if err != nil {
			return 0, 0, err
		}
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return from, used, nil // not ours: scanned again
		}
		from, used = from+scanStep, max(used, uint32(n))
	}
}

// keys compares keys with the chain, and returns the index after the last one
// that was ever used; 0 where none was.
func (s *scan) keys(ctx context.Context, refs []keyRef) (last uint32, err error) {
	scripts, err := s.scripts(refs)
	if err != nil {
		return 0, err
	}
	var used []bool
	if s.past {
		used, err = chain.UsedOf(ctx, s.chain, scripts)
		if errors.Is(err, chain.ErrUnsupported) {
			s.past = false
		} else if err != nil {
			return 0, err
		}
	}
	var ask []keyRef
	for i, ref := range refs {
		known, err := s.ledger.KeyUsed(ctx, ref.branch, ref.index)
		if err != nil {
			return 0, err
		}
		if known || used != nil && used[i] {
			last = ref.index + 1
		}
		if known || used == nil || used[i] {
			ask = append(ask, ref)
		}
	}
	if err := s.lookAt(ctx, ask, s.tip, s.seen); err != nil {
		return 0, err
	}
	if used != nil {
		return last, nil
	}
	for _, ref := range refs {
		known, err := s.ledger.KeyUsed(ctx, ref.branch, ref.index)
		if err != nil {
			return 0, err
		}
		if known {
			last = ref.index + 1
		}
	}
	return last, nil
}

func (s *scan) report(ctx context.Context, branch, done, used uint32) error {
	confirmed, unconfirmed, err := s.Balance(ctx)
	if err != nil {
		return err
	}
	coins, err := s.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent}})
	if err != nil {
		return err
	}
	s.opt.Scanning(Scan{Branch: branch, Done: done, Of: max(done, used+s.gap(branch, s.past)), Coins: len(coins), Value: confirmed + unconfirmed})
	return nil
}

// lookAgain looks from time to time for the closes of channels that a restored
// wallet does not know of: those that were open when its ledger was lost, and
// that their sellers close in the time until the refund.
func (w *Wallet) lookAgain(ctx context.Context, tip chain.Header, seen map[keyRef]bool) error {
	if !w.restored {
		return nil
	}
	note, err := w.ledger.Claimed(ctx, w.claimName("scanned"))
	if err != nil {
		return err
	}
	at, top, _ := strings.Cut(note, " ")
	restored, err := time.Parse(time.RFC3339, at)
	last, failed := strconv.ParseUint(top, 10, 32)
	age := w.opt.Clock().Sub(restored)
	if err != nil || failed != nil || age < lookAgainEvery || age > lookAgainFor {
		return nil
	}
	turn := w.claimName("looked again", int(age/lookAgainEvery))
	if _, err := w.ledger.Claimed(ctx, turn); !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	skipped := w.gap(BranchPayout, true) / 2
	end := uint32(last) + skipped
	if err := w.lookAt(ctx, keyRefs(BranchPayout, end-min(end, skipped+lookAgainBack), end), tip, seen); err != nil {
		return err
	}
	_, err = w.ledger.Claim(ctx, turn, w.opt.Clock().UTC().Format(time.RFC3339))
	return err
}
