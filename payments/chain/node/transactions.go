package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Status implements chain.Backend. Conflicted is told for transactions that
// were handed to this Backend's Broadcast (the newest chain.MaxSent of them), with the
// competing transaction where the node has an index of addresses.
//
// A mined transaction comes with its proof, unless the node refuses that or the
// block is too large to be looked through.
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	s, err := b.status(ctx, txid, 0)
	if err == nil && s.State == chain.Mined {
		s.Proof, err = b.proof(ctx, txid, s)
	}
	if err != nil {
		return chain.Status{}, err
	}
	return s, nil
}

// maxAncestors is how many generations a lost parent is looked for.
const maxAncestors = 25

func (b *Backend) status(ctx context.Context, txid bsv.Txid, generation int) (chain.Status, error) {
	s, err := b.position(ctx, txid)
	if err != nil || s.State != chain.Unknown {
		return s, err
	}
	for _, o := range b.sent.Inputs(txid) {
		spent, by, err := b.spender(ctx, o, true)
		if errors.Is(err, chain.ErrUnavailable) {
			return chain.Status{}, err
		}
		if errors.Is(err, chain.ErrNotFound) && generation < maxAncestors {
			parent, err := b.status(ctx, o.Txid, generation+1)
			if err != nil {
				return chain.Status{}, err
			}
			if parent.State == chain.Conflicted {
				s.State = chain.Conflicted
				s.Competing = append(s.Competing, parent.Competing...)
			}
		}
		if err != nil || !spent || by == txid {
			continue // nothing can be told
		}
		s.State = chain.Conflicted
		if !by.IsZero() {
			s.Competing = append(s.Competing, by)
		}
	}
	slices.SortFunc(s.Competing, func(a, b bsv.Txid) int { return bytes.Compare(a[:], b[:]) })
	s.Competing = slices.Compact(s.Competing)
	return s, nil
}

// position is the status as far as the node knows the transaction.
func (b *Backend) position(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return chain.Status{}, err
	}
	var answer struct{ BlockHash string }
	err = b.rpc.call(ctx, &answer, "getrawtransaction", txid.String(), d.verbose(true))
	switch err := unknown(err); {
	case errors.Is(err, chain.ErrNotFound):
		return chain.Status{}, nil
	case err != nil:
		return chain.Status{}, fmt.Errorf("ask the node for the status of %s: %w", txid, err)
	case answer.BlockHash == "":
		return chain.Status{State: chain.Seen}, nil
	}
	h, best, err := b.header(ctx, answer.BlockHash)
	if err != nil {
		return chain.Status{}, err
	}
	if !best {
		return chain.Status{State: chain.Seen}, nil
	}
	return chain.Status{State: chain.Mined, Height: h.Height, Block: h.Hash}, nil
}

// unknown makes an ErrNotFound of a node's answer that it does not know a
// transaction, and an ErrUnsupported of one that it cannot know for want of
// an index. Other errors stay.
func unknown(err error) error {
	refused := new(Error)
	switch {
	case !errors.As(err, &refused):
		return err
	case strings.Contains(refused.Message, "txindex"):
		return fmt.Errorf("%w: start the node with -txindex: %w", chain.ErrUnsupported, err)
	case refused.Code == codeNotFound:
		return chain.ErrNotFound
	}
	return err
}

// RawTx implements chain.Backend.
func (b *Backend) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return nil, err
	}
	var text string
	if err := b.rpc.call(ctx, &text, "getrawtransaction", txid.String(), d.verbose(false)); err != nil {
		return nil, fmt.Errorf("transaction %s: %w", txid, unknown(err))
	}
	tx, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w", txid, err)
	}
	if tx.Txid() != txid {
		return nil, fmt.Errorf("transaction %s: the node sent another one: %w", txid, ErrProtocol)
	}
	return tx, nil
}

func parse(text string) (*bsv.Tx, error) {
	if len(text) > 2*chain.MaxTxSize {
		return nil, fmt.Errorf("%d bytes: %w", len(text)/2, errTooLarge)
	}
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return bsv.ParseTx(raw, chain.MaxTxSize)
}

// Broadcast implements chain.Backend; prev may be nil.
func (b *Backend) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	txid := tx.Txid()
	if prev != nil && len(prev) != len(tx.Inputs) {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d previous outputs for %d inputs", len(prev), len(tx.Inputs)))
	}
	raw := tx.Bytes()
	if len(raw) > chain.MaxTxSize {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d bytes", len(raw)))
	}
	d, err := b.dialect(ctx)
	if err != nil {
		return err
	}
	if !tx.FinalAt(0) {
		var tip uint32
		if err := b.rpc.call(ctx, &tip, "getblockcount"); err != nil {
			return fmt.Errorf("broadcast %s: %w", txid, err)
		}
		if !tx.FinalAt(tip + 1) {
			return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, next block %d", tx.LockTime, tip+1))
		}
	}
	b.sent.Add(tx)
	var answer string
	err = b.rpc.call(ctx, &answer, "sendrawtransaction", hex.EncodeToString(raw))
	refused := new(Error)
	if err == nil || !errors.As(err, &refused) || errors.Is(err, chain.ErrUnavailable) {
		if err != nil {
			return fmt.Errorf("broadcast %s: %w", txid, err)
		}
		if answer != txid.String() {
			return fmt.Errorf("broadcast %s: the node took %.64q: %w", txid, answer, ErrProtocol)
		}
		return nil
	}
	reason, known := classify(refused)
	if !known && (reason == chain.Invalid || reason == chain.LowFee || reason == chain.NonFinal) {
		return chain.Reject(reason, refused.Message)
	}
	// A transaction that is mined and spent again is refused with the words for
	// missing inputs, so ask before it is called lost.
	s, err := b.position(ctx, txid)
	switch {
	case errors.Is(err, chain.ErrUnavailable):
		return fmt.Errorf("broadcast %s: %w", txid, err)
	case err == nil && s.State != chain.Unknown, err != nil && known:
		return nil
	case known && d == bsvd:
		reason = chain.MissingInputs // it has the transaction, as an orphan
	case known:
		return nil
	}
	if reason == chain.MissingInputs {
		for _, in := range tx.Inputs {
			switch spent, err := b.Spent(ctx, in.Prev); {
			case errors.Is(err, chain.ErrUnavailable):
				return fmt.Errorf("broadcast %s: %w", txid, err)
			case err == nil && spent:
				return chain.Reject(chain.DoubleSpend, refused.Message)
			}
		}
	}
	return chain.Reject(reason, refused.Message)
}

// classify reads a refusal of sendrawtransaction. known means that the node
// says that it has the transaction.
func classify(e *Error) (reason chain.Reason, known bool) {
	const alreadyInChain = -27
	if e.Code == alreadyInChain {
		return chain.Other, true
	}
	return chain.ParseRefusal(e.Message)
}
