package whatsonchain

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Status implements chain.Backend. Conflicted is told for transactions that
// were handed to this Backend's Broadcast (the newest chain.MaxSent of them).
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	s, err := b.position(ctx, txid)
	if err != nil {
		return chain.Status{}, err
	}
	switch s.State {
	case chain.Mined:
		s.Proof, err = b.proof(ctx, txid, s.Block)
	case chain.Unknown:
		s.Competing, err = b.lost(ctx, txid)
		if len(s.Competing) > 0 {
			s.State = chain.Conflicted
		}
	}
	if err != nil {
		return chain.Status{}, err
	}
	return s, nil
}

// position is how far a transaction has come as the service knows it.
func (b *Backend) position(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	var answer []struct {
		Txid, BlockHash, Error     string
		BlockHeight, Confirmations int64
	}
	question := map[string][]bsv.Txid{"txids": {txid}}
	if err := b.client.post(ctx, "/txs/status", question, &answer); err != nil {
		return chain.Status{}, fmt.Errorf("ask for the status of %s: %w", txid, err)
	}
	if len(answer) != 1 || answer[0].Txid != txid.String() {
		return chain.Status{}, fmt.Errorf("status of %s: another one: %w", txid, ErrProtocol)
	}
	a := answer[0]
	switch {
	case strings.EqualFold(a.Error, "unknown"), strings.Contains(strings.ToLower(a.Error), "not found"):
		return chain.Status{}, nil
	case a.Error != "":
		return chain.Status{}, fmt.Errorf("status of %s: %w: %.100q", txid, chain.ErrUnavailable, a.Error)
	case a.BlockHash == "" || a.Confirmations <= 0:
		return chain.Status{State: chain.Seen}, nil
	}
	block, err := chain.ParseHash(a.BlockHash)
	if err != nil || block.IsZero() || a.BlockHeight < 0 || a.BlockHeight > math.MaxInt32 {
		return chain.Status{}, fmt.Errorf("status of %s: block %d %.64q: %w", txid, a.BlockHeight, a.BlockHash, ErrProtocol)
	}
	return chain.Status{State: chain.Mined, Height: uint32(a.BlockHeight), Block: block}, nil
}

// Proof implements chain.Prover.
func (b *Backend) Proof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	proofs, err := b.proofsOf(ctx, txid)
	if err != nil {
		return nil, err
	}
	if len(proofs) == 1 {
		return proofs[0], nil // where it is out of date, it does not hold
	}
	if len(proofs) > 1 {
		s, err := b.position(ctx, txid)
		if err != nil {
			return nil, err
		}
		if p := proofIn(proofs, s.Block); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("a proof for %s: %w", txid, chain.ErrNotFound)
}

// proof returns the proof that a transaction is in a block; nil where the
// service has none.
func (b *Backend) proof(ctx context.Context, txid bsv.Txid, block chain.Hash) (*chain.Proof, error) {
	b.mu.Lock()
	known := b.proofs[txid]
	b.mu.Unlock()
	if known != nil && known.Block == block {
		return known, nil
	}
	proofs, err := b.proofsOf(ctx, txid)
	if err != nil {
		return nil, err
	}
	p := proofIn(proofs, block)
	if p != nil {
		b.keep(txid, p)
	}
	return p, nil
}

// proofsOf asks for the proofs of a transaction: one that was mined in two chains
// has two.
func (b *Backend) proofsOf(ctx context.Context, txid bsv.Txid) ([]*chain.Proof, error) {
	var answer []json.RawMessage
	err := b.client.get(ctx, "/tx/"+txid.String()+"/proof/tsc", &answer)
	if refusedWith(err, http.StatusNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the proof of %s: %w", txid, err)
	}
	var proofs []*chain.Proof
	for _, text := range answer[:min(len(answer), mostProofs)] {
		p, err := chain.ParseTSC(text, txid)
		if err != nil {
			return nil, fmt.Errorf("proof of %s: %w: %w", txid, ErrProtocol, err)
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// mostProofs is how many proofs of one transaction are looked at.
const mostProofs = 16

func proofIn(proofs []*chain.Proof, block chain.Hash) *chain.Proof {
	at := slices.IndexFunc(proofs, func(p *chain.Proof) bool { return p.Block == block })
	if at < 0 {
		return nil
	}
	return proofs[at]
}

func (b *Backend) keep(txid bsv.Txid, p *chain.Proof) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.proofs {
		if len(b.proofs) < maxProofs {
			break
		}
		delete(b.proofs, id) // any: what is still watched comes back
	}
	b.proofs[txid] = p
}

const (
	// maxAncestors is how many generations a lost parent is looked for, and
	// maxLooked how many inputs in all: a payout has hundreds, and who asks has
	// not got all day.
	maxAncestors, maxLooked = 25, 400
)

// lost returns what spends the inputs of a transaction that was handed to
// Broadcast, or of its parents, in its place.
func (b *Backend) lost(ctx context.Context, txid bsv.Txid) ([]bsv.Txid, error) {
	var winners []bsv.Txid
	ours := map[bsv.Txid]bool{txid: true}
	inputs := b.sent.Inputs(txid)
	for left, generation := maxLooked, 0; len(inputs) > 0 && left > 0 && generation <= maxAncestors; generation++ {
		inputs = inputs[:min(len(inputs), left)]
		left -= len(inputs)
		by, err := b.spenders(ctx, inputs)
		if err != nil {
			return nil, err
		}
		winners = append(winners, by...)
		var above []bsv.Outpoint
		for _, o := range inputs {
			if !ours[o.Txid] {
				ours[o.Txid] = true
				above = append(above, b.sent.Inputs(o.Txid)...)
			}
		}
		inputs = above
	}
	winners = slices.DeleteFunc(winners, func(by bsv.Txid) bool { return ours[by] })
	slices.SortFunc(winners, func(a, b bsv.Txid) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(winners), nil
}

// RawTx implements chain.Backend.
func (b *Backend) RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error) {
	text, err := b.client.ask(ctx, http.MethodGet, "/tx/"+txid.String()+"/hex", nil)
	if refusedWith(err, http.StatusNotFound) || err == nil && len(text) == 0 {
		return nil, fmt.Errorf("transaction %s: %w", txid, chain.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w", txid, err)
	}
	if len(text) > 2*chain.MaxTxSize {
		return nil, fmt.Errorf("transaction %s: %d bytes: %w", txid, len(text)/2, ErrProtocol)
	}
	raw, err := hex.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w: %w", txid, ErrProtocol, err)
	}
	tx, err := bsv.ParseTx(raw, chain.MaxTxSize)
	if err != nil {
		return nil, fmt.Errorf("transaction %s: %w: %w", txid, ErrProtocol, err)
	}
	if tx.Txid() != txid {
		return nil, fmt.Errorf("transaction %s: the service sent another one: %w", txid, ErrProtocol)
	}
	return tx, nil
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
	if !tx.FinalAt(0) {
		tip, _, err := b.info(ctx)
		if err != nil {
			return fmt.Errorf("broadcast %s: %w", txid, err)
		}
		if !tx.FinalAt(tip + 1) {
			return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, next block %d", tx.LockTime, tip+1))
		}
	}
	b.sent.Add(tx)
	answer, err := b.client.ask(ctx, http.MethodPost, "/tx/raw", map[string]string{"txhex": hex.EncodeToString(raw)})
	refused := new(refusal)
	switch {
	case errors.As(err, &refused):
		err = b.judge(ctx, tx, refused)
	case err == nil && !took(answer, txid):
		err = fmt.Errorf("the service took %.80q: %w", answer, ErrProtocol)
	}
	if err != nil {
		return fmt.Errorf("broadcast %s: %w", txid, err)
	}
	return nil
}

// took reports whether the answer to a broadcast names the transaction: as
// text, as JSON text, or as an object.
func took(answer []byte, txid bsv.Txid) bool {
	var object struct{ Txid string }
	if json.Unmarshal(answer, &object) == nil {
		return object.Txid == txid.String()
	}
	return string(bytes.Trim(answer, `"`)) == txid.String()
}

// judge says what a refusal means: nil where the network has the transaction,
// a *chain.Rejected, or chain.ErrUnavailable.
func (b *Backend) judge(ctx context.Context, tx *bsv.Tx, refused *refusal) error {
	reason, known := chain.ParseRefusal(refused.text)
	if reason == chain.Other && !known && refused.Unwrap() == chain.ErrUnavailable {
		return refused // the words of what stands in front of the node
	}
	rejected := chain.Reject(reason, refused.text)
	if !known && (reason == chain.Invalid || reason == chain.LowFee || reason == chain.NonFinal) {
		return rejected
	}
	// A transaction that is mined and spent again is refused with the words for
	// missing inputs, so ask before it is called lost.
	s, err := b.position(ctx, tx.Txid())
	switch {
	case err != nil && errors.Is(err, chain.ErrUnavailable):
		return err
	case known, err == nil && s.State != chain.Unknown:
		return nil
	case reason != chain.MissingInputs:
		return rejected
	}
	inputs := make([]bsv.Outpoint, len(tx.Inputs))
	for i, in := range tx.Inputs {
		inputs[i] = in.Prev
	}
	winners, err := b.spenders(ctx, inputs)
	switch {
	case errors.Is(err, chain.ErrUnavailable):
		return err
	case len(winners) > 0:
		return chain.Reject(chain.DoubleSpend, refused.text)
	}
	return rejected
}
