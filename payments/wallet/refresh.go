package wallet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
)

const (
	// watchedAddresses is how many of the newest receive addresses a Refresh
	// looks at. Rescan looks at all.
	watchedAddresses = 100
	// lateClose is how long a Refresh looks for the close of a channel whose
	// output is known to be spent.
	lateClose = 14 * 24 * time.Hour
)

// Refresh compares the wallet with the chain: it finds coins on the newest
// receive addresses, follows coins of others' transactions until they are
// buried, and finds the closes that payees of our channels have made. The
// first one of a restored wallet is a Rescan. Where the chain service cannot
// list coins the error is chain.ErrUnsupported. What was found before an error
// is kept.
func (w *Wallet) Refresh(ctx context.Context) error {
	return w.exclusive(ctx, "refresh wallet", func() error {
		if err := w.scanned(ctx); errors.Is(err, ErrNotScanned) {
			return w.rescan(ctx)
		} else if err != nil {
			return err
		}
		tip, err := w.chain.Tip(ctx)
		if err != nil {
			return err
		}
		next, err := w.ledger.NextKey(ctx, BranchReceive)
		if err != nil {
			return err
		}
		seen := make(map[keyRef]bool)
		if err := w.lookAt(ctx, keyRefs(BranchReceive, next-min(next, watchedAddresses), next), tip, seen); err != nil {
			return err
		}
		if err := w.findCloses(ctx, seen); err != nil {
			return err
		}
		if err := w.lookAgain(ctx, tip, seen); err != nil {
			return err
		}
		return w.followCoins(ctx, tip, seen)
	})
}

func (w *Wallet) exclusive(ctx context.Context, doing string, fn func() error) error {
	select {
	case w.refreshing <- struct{}{}:
		defer func() { <-w.refreshing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := fn(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// lookAt compares keys with the chain, unless they are seen: it stores the coins
// on their addresses and what became of those that are not there any more.
func (w *Wallet) lookAt(ctx context.Context, refs []keyRef, tip chain.Header, seen map[keyRef]bool) error {
	refs = slices.DeleteFunc(refs, func(ref keyRef) bool { return seen[ref] })
	for some := range slices.Chunk(refs, scanChunk) {
		scripts, err := w.scripts(some)
		if err != nil {
			return err
		}
		found, err := chain.UnspentOf(ctx, w.chain, scripts)
		if err != nil {
			return err
		}
		for i, ref := range some {
			if err := w.compare(ctx, ref, found[i], tip); err != nil {
				return err
			}
			seen[ref] = true
		}
	}
	return nil
}

// scripts returns the locking scripts of keys' addresses. What is not at hand is
// derived and not kept: a scan would drive everything else out.
func (w *Wallet) scripts(refs []keyRef) ([]bsv.Script, error) {
	scripts := make([]bsv.Script, len(refs))
	for i, ref := range refs {
		w.mu.Lock()
		k, ok := w.keys[ref]
		w.mu.Unlock()
		if !ok {
			var err error
			if k, err = w.branch[ref.branch].Derive(strconv.FormatUint(uint64(ref.index), 10)); err != nil {
				return nil, fmt.Errorf("key %d of branch %d: %w", ref.index, ref.branch, err)
			}
		}
		scripts[i] = bsv.P2PKH(k.Public().Hash())
	}
	return scripts, nil
}

// keyRefs are the keys of a branch from an index up to another, that one left
// out.
func keyRefs(branch, from, to uint32) []keyRef {
	var refs []keyRef
	for i := from; i < to; i++ {
		refs = append(refs, keyRef{branch, i})
	}
	return refs
}

// compare brings the ledger up to date with what the chain lists for one key.
func (w *Wallet) compare(ctx context.Context, ref keyRef, found []chain.Coin, tip chain.Header) error {
	known, err := w.knownCoins(ctx, ref)
	if err != nil {
		return err
	}
	var b ledger.Batch
	there := make(map[ledger.Outpoint]bool)
	for _, c := range found {
		o := ledger.Outpoint{Txid: c.Outpoint.Txid, Index: c.Outpoint.Index}
		there[o] = true
		if !c.Mature(tip.Height) {
			continue
		}
		if old, ok := known[o]; ok && old.Height == c.Height && old.State != ledger.CoinPending && old.State != ledger.CoinVoid {
			continue // nothing new: no write
		}
		b.Coins = append(b.Coins, ledger.Coin{
			Txid: o.Txid, Index: o.Index, Value: c.Output.Value, Script: c.Output.Script, Branch: ref.branch,
			KeyIndex: ref.index, Height: c.Height, Origin: origin(ref.branch),
		})
	}
	for o, c := range known {
		if c.State != ledger.CoinUnspent || there[o] {
			continue
		}
		if err := w.missing(ctx, c, &b); err != nil {
			return err
		}
	}
	if len(b.Coins)+len(b.Lost)+len(b.Void) == 0 {
		return nil
	}
	return w.ledger.Apply(ctx, b)
}

func (w *Wallet) knownCoins(ctx context.Context, ref keyRef) (map[ledger.Outpoint]ledger.Coin, error) {
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{Key: &ledger.Key{Branch: ref.branch, Index: ref.index}})
	if err != nil {
		return nil, err
	}
	known := make(map[ledger.Outpoint]ledger.Coin, len(coins))
	for _, c := range coins {
		known[c.Outpoint()] = c
	}
	return known, nil
}

// missing deals with a coin that the ledger takes for unspent and the chain
// does not list.
func (w *Wallet) missing(ctx context.Context, c ledger.Coin, b *ledger.Batch) error {
	_, err := w.ledger.Outgoing(ctx, c.Txid)
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return err
	}
	ours := err == nil
	spent, err := w.chain.Spent(ctx, outpoint(c.Outpoint()))
	switch {
	case errors.Is(err, chain.ErrNotFound) && ours: // the outbox watches its transaction
	case errors.Is(err, chain.ErrNotFound):
		w.opt.Log.Warn("a coin is gone from the chain", "coin", outpoint(c.Outpoint()), "value", c.Value)
		b.Void = append(b.Void, c.Outpoint())
	case errors.Is(err, chain.ErrUnsupported):
	case err != nil:
		return err
	case spent:
		// A payment of ours is stored before it is sent, so that it is seen here.
		if now, err := w.ledger.Coin(ctx, c.Outpoint()); err != nil || now.State != ledger.CoinUnspent {
			return err
		}
		w.opt.Log.Warn("a coin was spent by somebody with the same words", "coin", outpoint(c.Outpoint()), "value", c.Value)
		b.Lost = append(b.Lost, c.Outpoint())
	}
	return nil
}

// origin says what coins on a branch are.
func origin(branch uint32) string {
	switch branch {
	case BranchChange:
		return ledger.OriginChange
	case BranchPayout:
		// A payer's coin is stored by findCloses, with its close. Of what has
		// no channel, it is not known on which side of it we were.
		return ledger.OriginEarning
	}
	return ledger.OriginReceive
}

// followCoins looks again at coins of others' transactions that are not buried
// under tip; with a zero tip at all unspent coins.
func (w *Wallet) followCoins(ctx context.Context, tip chain.Header, seen map[keyRef]bool) error {
	coins, err := w.ledger.Coins(ctx, ledger.CoinFilter{States: []string{ledger.CoinUnspent, ledger.CoinReserved}})
	if err != nil {
		return err
	}
	var refs []keyRef
	for _, c := range coins {
		if c.Height > 0 && tip.Height >= c.Height && tip.Height-c.Height+1 >= BuriedDepth {
			continue
		}
		refs = append(refs, keyRef{c.Branch, c.KeyIndex})
	}
	slices.SortFunc(refs, func(a, b keyRef) int {
		return cmp.Or(cmp.Compare(a.branch, b.branch), cmp.Compare(a.index, b.index))
	})
	return w.lookAt(ctx, slices.Compact(refs), tip, seen)
}

// findCloses finds what payees made of the channels that we pay in.
func (w *Wallet) findCloses(ctx context.Context, seen map[keyRef]bool) error {
	channels, err := w.ledger.Channels(ctx, ledger.Filter{Role: ledger.Payer})
	if err != nil {
		return err
	}
	for _, c := range channels {
		ref := keyRef{BranchPayout, c.KeyIndex}
		sought, err := w.closeIsSought(ctx, c, ref)
		if err != nil {
			return err
		}
		if !sought {
			continue
		}
		if err := w.findClose(ctx, c, ref); err != nil {
			return err
		}
		seen[ref] = true
	}
	return nil
}

// closeIsSought reports whether it is not known yet what a channel came to on
// the chain. The txid that a payee names is no knowledge: only the coin is.
func (w *Wallet) closeIsSought(ctx context.Context, c ledger.Channel, ref keyRef) (bool, error) {
	switch {
	case c.FundingTxid == [32]byte{}:
		return false, nil
	case c.State == ledger.StateOpening, c.State == ledger.StateOpen, c.State == ledger.StateClosing:
		return true, nil
	case c.State != ledger.StateClosed || w.opt.Clock().Sub(c.Updated) > lateClose:
		return false, nil
	}
	known, err := w.knownCoins(ctx, ref)
	if err != nil {
		return false, err
	}
	for o := range known {
		if o.Txid == c.CloseTxid {
			return false, nil
		}
	}
	return true, nil
}

func (w *Wallet) findClose(ctx context.Context, c ledger.Channel, ref keyRef) error {
	script, err := w.script(ref.branch, ref.index)
	if err != nil {
		return err
	}
	coins, err := w.chain.Unspent(ctx, script)
	if err != nil {
		return err
	}
	funding := bsv.Outpoint{Txid: c.FundingTxid, Index: c.FundingIndex}
	for _, coin := range coins {
		tx, err := w.chain.RawTx(ctx, coin.Outpoint.Txid)
		if errors.Is(err, chain.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if len(tx.Inputs) != 1 || tx.Inputs[0].Prev != funding || tx.Version != 1 {
			continue
		}
		if _, err := w.ledger.Outgoing(ctx, coin.Outpoint.Txid); err == nil {
			return nil // our own refund: the outbox watches it
		} else if !errors.Is(err, ledger.ErrNotFound) {
			return err
		}
		w.opt.Log.Info("payee has closed a channel", "channel", fmt.Sprintf("%x", c.ID[:8]), "txid", coin.Outpoint.Txid,
			"change", coin.Output.Value)
		return w.ledger.Apply(ctx, ledger.Batch{
			Coins: []ledger.Coin{{
				Txid: coin.Outpoint.Txid, Index: coin.Outpoint.Index, Value: coin.Output.Value, Script: coin.Output.Script,
				Branch: ref.branch, KeyIndex: ref.index, Height: coin.Height, Origin: ledger.OriginChange,
			}},
			Moves: []ledger.Move{{Channel: c.ID, State: ledger.StateClosed, CloseTxid: coin.Outpoint.Txid}},
		})
	}
	if c.State == ledger.StateClosed {
		return nil
	}
	spent, err := w.chain.Spent(ctx, funding)
	if errors.Is(err, chain.ErrNotFound) || errors.Is(err, chain.ErrUnsupported) || err == nil && !spent {
		return nil
	}
	if err != nil {
		return err
	}
	refunds, err := w.ledger.OutgoingUnsettled(ctx)
	if err != nil {
		return err
	}
	for _, o := range refunds {
		if o.Purpose == ledger.Refund && o.Channel == c.ID {
			return nil // the outbox finds out which of the two it was
		}
	}
	// Closed without change, or the change is not listed yet.
	return w.ledger.Apply(ctx, ledger.Batch{Moves: []ledger.Move{{Channel: c.ID, State: ledger.StateClosed}}})
}
