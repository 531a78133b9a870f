package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

const (
	pageSize = 50
	// maxHistory is the most transactions of one address that are read.
	maxHistory = 50_000
	// maxPending is the most of them that may wait in the mempool: bsvd lists
	// those in a new order every time, so that one page has to hold them all.
	maxPending = 5_000
)

// Unspent implements chain.Backend. It is ErrUnsupported with bitcoin-sv, with
// a bsvd that has no address index, for scripts other than P2PKH and the 2-of-2
// of channels, and for a script with more than 50,000 transactions.
//
// A transaction above chain.MaxTxSize is passed over: what it pays is not
// seen. None of ours is that large.
func (b *Backend) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	address, err := b.address(ctx, script)
	if err != nil {
		return nil, fmt.Errorf("unspent outputs: %w", err)
	}
	// Heights are counted back from the tip, and pages shift with it.
	for range 5 {
		before, err := b.best(ctx)
		if err != nil {
			return nil, fmt.Errorf("unspent outputs of %s: %w", address, err)
		}
		history, err := b.history(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("unspent outputs of %s: %w", address, err)
		}
		after, err := b.best(ctx)
		if err != nil {
			return nil, fmt.Errorf("unspent outputs of %s: %w", address, err)
		}
		if before == after {
			return unspent(history, script, before.Height), nil
		}
	}
	return nil, fmt.Errorf("unspent outputs of %s: blocks come too fast: %w", address, chain.ErrUnavailable)
}

func unspent(history []record, script bsv.Script, tip int64) []chain.Coin {
	spent := make(map[bsv.Outpoint]bool)
	for _, r := range history {
		for _, in := range r.tx.Inputs {
			spent[in.Prev] = true
		}
	}
	var coins []chain.Coin
	seen := make(map[bsv.Txid]bool)
	for _, r := range history {
		txid := r.tx.Txid()
		if seen[txid] { // it was mined between two pages
			continue
		}
		seen[txid] = true
		for i, o := range r.tx.Outputs {
			at := bsv.Outpoint{Txid: txid, Index: uint32(i)}
			if spent[at] || !bytes.Equal(o.Script, script) {
				continue
			}
			c := chain.Coin{Coin: bsv.Coin{Outpoint: at, Output: o}, Coinbase: coinbase(r.tx)}
			if r.confirmations > 0 && r.confirmations <= tip+1 {
				c.Height = uint32(tip - r.confirmations + 1)
			}
			coins = append(coins, c)
		}
	}
	slices.SortFunc(coins, chain.Compare)
	return coins
}

func coinbase(tx *bsv.Tx) bool {
	return len(tx.Inputs) == 1 && tx.Inputs[0].Prev == bsv.Outpoint{Index: 0xffffffff}
}

// Spent implements chain.Backend. With bsvd, whether an output is spent in the
// mempool is told by its address index; ErrUnsupported without one, and for
// scripts that Unspent does not support.
func (b *Backend) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	spent, _, err := b.spender(ctx, o, false)
	return spent, err
}

// spender is Spent, and where name is set and the node has an index, also who
// spent it; the zero txid where it cannot be told.
func (b *Backend) spender(ctx context.Context, o bsv.Outpoint, name bool) (spent bool, by bsv.Txid, err error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return false, by, err
	}
	tx, err := b.RawTx(ctx, o.Txid)
	if err != nil {
		return false, by, err
	}
	if uint64(o.Index) >= uint64(len(tx.Outputs)) {
		return false, by, fmt.Errorf("output %s: %w", o, chain.ErrNotFound)
	}
	if d == bitcoinSV {
		free, err := b.txOut(ctx, o, true)
		return err == nil && !free, by, err
	}
	// bsvd looks for spenders in blocks only, whatever the last parameter
	// says, and finds no output of the mempool without it.
	free, err := b.txOut(ctx, o, true)
	if err != nil || !free && !name {
		return err == nil, by, err
	}
	by, err = b.searchSpender(ctx, o, tx.Outputs[o.Index].Script, free)
	if !free && errors.Is(err, chain.ErrUnsupported) {
		err = nil
	}
	return !free || !by.IsZero(), by, err
}

// txOut reports whether gettxout finds the output.
func (b *Backend) txOut(ctx context.Context, o bsv.Outpoint, mempool bool) (bool, error) {
	var answer json.RawMessage
	if err := b.rpc.call(ctx, &answer, "gettxout", o.Txid.String(), o.Index, mempool); err != nil {
		return false, fmt.Errorf("ask the node for output %s: %w", o, err)
	}
	return string(answer) != "null", nil
}

// searchSpender looks through the newest transactions of a script for one that
// spends o: those of the mempool, and unless pendingOnly a thousand mined ones.
func (b *Backend) searchSpender(ctx context.Context, o bsv.Outpoint, script bsv.Script, pendingOnly bool) (bsv.Txid, error) {
	address, err := b.address(ctx, script)
	if err != nil {
		return bsv.Txid{}, err
	}
	for size := pageSize; ; size *= 4 {
		page, err := b.search(ctx, address, 0, size, true)
		if err != nil {
			return bsv.Txid{}, err
		}
		mined := 0
		for _, r := range page {
			if r.confirmations > 0 {
				mined++
			}
			if r.tx != nil && slices.ContainsFunc(r.tx.Inputs, func(in bsv.Input) bool { return in.Prev == o }) {
				return r.tx.Txid(), nil
			}
		}
		if len(page) < size || mined > 0 && (pendingOnly || mined > 1000) {
			return bsv.Txid{}, nil
		}
		if size > maxPending {
			return bsv.Txid{}, fmt.Errorf("%s has too many transactions: %w", address, chain.ErrUnsupported)
		}
	}
}

// address is what bsvd's index files a script under. bsvd writes addresses in a
// form of its own, so it is asked for it. A 2-of-2 is filed under the P2PKH
// addresses of both its keys, but bsvd gives those in a form that its own
// search refuses.
func (b *Backend) address(ctx context.Context, script bsv.Script) (string, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return "", err
	}
	if d != bsvd {
		return "", fmt.Errorf("the node has no index of scripts: %w", chain.ErrUnsupported)
	}
	if len(script) == bsv.MultisigSize {
		payer, payee := bsv.PublicKey(script[2:]), bsv.PublicKey(script[3+bsv.PublicKeySize:])
		if bytes.Equal(script, bsv.Multisig(payer, payee)) {
			script = bsv.P2PKH(payer.Hash())
		}
	}
	if _, ok := script.P2PKHHash(); !ok {
		return "", fmt.Errorf("script that is neither P2PKH nor a 2-of-2: %w", chain.ErrUnsupported)
	}
	var answer struct{ Addresses []string }
	if err := b.rpc.call(ctx, &answer, "decodescript", hex.EncodeToString(script)); err != nil {
		return "", fmt.Errorf("ask the node for an address: %w", err)
	}
	if len(answer.Addresses) != 1 {
		return "", fmt.Errorf("%d addresses of a P2PKH script: %w", len(answer.Addresses), ErrProtocol)
	}
	return answer.Addresses[0], nil
}

type best struct {
	Hash   string
	Height int64
}

func (b *Backend) best(ctx context.Context) (tip best, err error) {
	err = b.rpc.call(ctx, &tip, "getbestblock")
	return tip, err
}

type record struct {
	tx            *bsv.Tx // nil where it is too large
	confirmations int64   // 0 in the mempool
}

// history reads all transactions of an address, mined ones first.
func (b *Backend) history(ctx context.Context, address string) ([]record, error) {
	var all []record
	for size := pageSize; len(all) < maxHistory; {
		page, err := b.search(ctx, address, len(all), size, false)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < size {
			return slices.DeleteFunc(all, func(r record) bool { return r.tx == nil }), nil
		}
		if pending := slices.IndexFunc(all, func(r record) bool { return r.confirmations == 0 }); pending >= 0 {
			all = all[:pending]
			if size *= 4; size > maxPending {
				return nil, fmt.Errorf("too many transactions in the mempool: %w", chain.ErrUnavailable)
			}
		}
	}
	return nil, fmt.Errorf("more than %d transactions: %w", maxHistory, chain.ErrUnsupported)
}

// search reads one page of the address index. A page whose answer would be too
// large is read in halves.
func (b *Backend) search(ctx context.Context, address string, skip, count int, reverse bool) ([]record, error) {
	var answer []struct {
		Hex           string
		Confirmations int64
	}
	err := b.rpc.call(ctx, &answer, "searchrawtransactions", address, 1, skip, count, 0, reverse)
	refused := new(Error)
	switch {
	case errors.Is(err, errTooLarge) && count == 1:
		return []record{{confirmations: 1}}, nil
	case errors.Is(err, errTooLarge):
		first, err := b.search(ctx, address, skip, count/2, reverse)
		if err != nil || len(first) < count/2 {
			return first, err
		}
		second, err := b.search(ctx, address, skip+count/2, count-count/2, reverse)
		return append(first, second...), err
	case errors.As(err, &refused) && refused.Code == codeNotFound:
		return nil, nil // never used, or no further ones
	case errors.As(err, &refused) && strings.Contains(refused.Message, "addrindex"):
		return nil, fmt.Errorf("%w: start the node with --addrindex: %w", chain.ErrUnsupported, err)
	case err != nil:
		return nil, err
	case len(answer) > count:
		return nil, fmt.Errorf("%d transactions instead of %d: %w", len(answer), count, ErrProtocol)
	}
	page := make([]record, len(answer))
	for i, a := range answer {
		page[i].confirmations = a.Confirmations
		switch page[i].tx, err = parse(a.Hex); {
		case errors.Is(err, errTooLarge), errors.Is(err, bsv.ErrTxSize):
		case err != nil:
			return nil, fmt.Errorf("transaction of %s: %w", address, err)
		}
	}
	return page, nil
}
