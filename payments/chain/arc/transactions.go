package arc

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// maxCompeting is how many competing transactions are taken from an answer.
const maxCompeting = 100

// settle is how often a new transaction is asked for until the network has said
// something of it, and the first pause before; each further one is twice as long,
// about six seconds in all.
const (
	settleTries = 7
	settlePause = 50 * time.Millisecond
)

// details is what the services say of a transaction, or of why they refuse it.
// What is in an answer is a matter of its code.
type details struct {
	Txid         string
	TxStatus     string
	BlockHash    string
	BlockHeight  uint64
	MerklePath   string
	ExtraInfo    string
	CompetingTxs []string

	Status int // a code, ARC's or of HTTP
	Title  string
	Detail string
	Error  string // Arcade's
	Reason string // Arcade's
}

// Status implements chain.Backend. Conflicted and Competing are the service's
// word.
func (b *Backend) Status(ctx context.Context, txid bsv.Txid) (chain.Status, error) {
	d, err := b.details(ctx, txid)
	if err != nil {
		return chain.Status{}, fmt.Errorf("ask ARC for the status of %s: %w", txid, err)
	}
	s, err := d.status(txid)
	if err != nil {
		return chain.Status{}, fmt.Errorf("status of %s: %w", txid, err)
	}
	return s, nil
}

// Proof implements chain.Prover.
func (b *Backend) Proof(ctx context.Context, txid bsv.Txid) (*chain.Proof, error) {
	s, err := b.Status(ctx, txid)
	if err == nil && s.Proof == nil {
		err = fmt.Errorf("proof of %s: %w", txid, chain.ErrNotFound)
	}
	return s.Proof, err
}

// details asks for a transaction; what the service does not know has none.
func (b *Backend) details(ctx context.Context, txid bsv.Txid) (details, error) {
	a, err := b.call(ctx, request{path: "/tx/" + txid.String()})
	if errors.Is(err, errGone) {
		return details{}, nil
	}
	if err != nil {
		return details{}, err
	}
	return parseDetails(a, txid)
}

// parseDetails reads the answer to a question for a transaction.
func parseDetails(a answer, txid bsv.Txid) (details, error) {
	switch {
	case a.code == 409: // the service has not seen a block yet, or has lost its node
		return details{}, fmt.Errorf("%s: %w", codeText(a.code), chain.ErrUnavailable)
	case a.code != 200:
		return details{}, fmt.Errorf("%s: %w", codeText(a.code), ErrProtocol)
	}
	var d details
	if err := a.decode(&d); err != nil {
		return details{}, err
	}
	if err := d.about(txid); err != nil {
		return details{}, err
	}
	return d, nil
}

// about returns ErrProtocol for details of another transaction.
func (d details) about(txid bsv.Txid) error {
	if got, err := bsv.ParseTxid(d.Txid); err != nil || got != txid {
		return fmt.Errorf("about another transaction than %s: %w", txid, ErrProtocol)
	}
	return nil
}

// status is what the details mean. The table is in the package's comment.
func (d details) status(txid bsv.Txid) (chain.Status, error) {
	switch d.TxStatus {
	case "QUEUED", "RECEIVED", "STORED", "ANNOUNCED_TO_NETWORK", "REQUESTED_BY_NETWORK", "SENT_TO_NETWORK",
		"ACCEPTED_BY_NETWORK", "SEEN_ON_NETWORK", "SEEN_MULTIPLE_NODES",
		"MINED_IN_STALE_BLOCK", "STUMP_PROCESSING":
		return chain.Status{State: chain.Seen}, nil
	case "DOUBLE_SPEND_ATTEMPTED":
		competing, err := d.competing(txid)
		return chain.Status{State: chain.Seen, Competing: competing}, err
	case "REJECTED":
		competing, err := d.competing(txid)
		if err != nil {
			return chain.Status{}, err
		}
		switch reason, known := d.refusal(); {
		case known:
			return chain.Status{State: chain.Seen}, nil
		case reason == chain.MissingInputs, reason == chain.NonFinal, reason == chain.LowFee:
			return chain.Status{}, nil
		}
		return chain.Status{State: chain.Conflicted, Competing: competing}, nil
	case "MINED", "IMMUTABLE":
		return d.mined(txid)
	}
	return chain.Status{}, nil
}

func (d details) mined(txid bsv.Txid) (chain.Status, error) {
	if d.BlockHeight > math.MaxUint32 {
		return chain.Status{}, fmt.Errorf("block %d: %w", d.BlockHeight, ErrProtocol)
	}
	s := chain.Status{State: chain.Mined, Height: uint32(d.BlockHeight)}
	if d.BlockHash != "" {
		var err error
		if s.Block, err = chain.ParseHash(d.BlockHash); err != nil {
			return chain.Status{}, fmt.Errorf("mined in a block without a hash: %w", ErrProtocol)
		}
	}
	if d.MerklePath == "" {
		if s.Block.IsZero() && s.Height == 0 {
			return chain.Status{}, fmt.Errorf("mined in no block: %w", ErrProtocol)
		}
		return s, nil
	}
	if len(d.MerklePath) > 2*chain.MaxBUMPSize {
		return chain.Status{}, fmt.Errorf("a Merkle path of %d digits: %w", len(d.MerklePath), ErrProtocol)
	}
	path, err := hex.DecodeString(d.MerklePath)
	if err == nil {
		s.Proof, err = chain.ParseBUMP(path, txid)
	}
	if err != nil {
		return chain.Status{}, fmt.Errorf("the Merkle path: %w: %w", ErrProtocol, err)
	}
	if s.Height != 0 && s.Height != s.Proof.Height {
		return chain.Status{}, fmt.Errorf("mined in block %d, with a path to block %d: %w", s.Height, s.Proof.Height, ErrProtocol)
	}
	s.Height, s.Proof.Block = s.Proof.Height, s.Block
	return s, nil
}

// competing are the other transactions that spend the same coins, each once.
func (d details) competing(txid bsv.Txid) ([]bsv.Txid, error) {
	var ids []bsv.Txid
	for _, text := range d.CompetingTxs[:min(len(d.CompetingTxs), maxCompeting)] {
		id, err := bsv.ParseTxid(text)
		if err != nil {
			return nil, fmt.Errorf("a competing transaction without an id: %w", ErrProtocol)
		}
		if id != txid {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b bsv.Txid) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids), nil
}

// Broadcast implements chain.Backend. With prev the transaction is sent in the
// extended format (BRC-30), which every such service takes; without, the service
// must find the parents itself.
func (b *Backend) Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error {
	txid := tx.Txid()
	raw := tx.Bytes()
	if len(raw) > chain.MaxTxSize {
		return chain.Reject(chain.Invalid, fmt.Sprintf("%d bytes", len(raw)))
	}
	if err := b.final(ctx, tx); err != nil {
		return err
	}
	if prev != nil {
		var err error
		if raw, err = tx.Extended(prev); err != nil {
			return chain.Reject(chain.Invalid, err.Error())
		}
	}
	b.sent.Add(tx)
	body, err := json.Marshal(map[string]string{"rawTx": hex.EncodeToString(raw)})
	if err != nil {
		return fmt.Errorf("broadcast %s: %w", txid, err)
	}
	a, err := b.call(ctx, request{path: "/tx", body: body, header: map[string]string{
		"Content-Type":        "application/json",
		"X-WaitFor":           "SEEN_ON_NETWORK",
		"X-MaxTimeout":        strconv.Itoa(b.client.maxTimeout()),
		"X-CallbackToken":     b.token,
		"X-FullStatusUpdates": "true",
	}})
	if errors.Is(err, errGone) {
		err = ErrProtocol
	}
	if err != nil {
		return fmt.Errorf("broadcast %s: %w", txid, err)
	}
	d, err := b.client.parseSubmitted(a, txid)
	if err == nil && (pending(d.TxStatus) || d.silent()) {
		d = b.settle(ctx, txid, d)
	}
	if err == nil {
		err = b.client.verdict(d)
	}
	rejected := new(chain.Rejected)
	if err != nil && !errors.As(err, &rejected) {
		err = fmt.Errorf("broadcast %s: %w", txid, err)
	}
	return err
}

// final returns a *chain.Rejected for a transaction that cannot be in the next
// block, as far as that can be told.
func (b *Backend) final(ctx context.Context, tx *bsv.Tx) error {
	if tx.FinalAt(0) {
		return nil
	}
	if b.tip == nil {
		return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, the tip is not known", tx.LockTime))
	}
	tip, err := b.tip(ctx)
	if ctxErr := ctx.Err(); ctxErr != nil {
		return fmt.Errorf("broadcast %s: %w: %w", tx.Txid(), chain.ErrUnavailable, ctxErr)
	}
	if err != nil {
		return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, the tip is not known", tx.LockTime))
	}
	if tip == math.MaxUint32 || !tx.FinalAt(tip+1) {
		return chain.Reject(chain.NonFinal, fmt.Sprintf("lock time %d, tip %d", tx.LockTime, tip))
	}
	return nil
}

// maxTimeout is how many seconds ARC may wait for the network: less than our own
// time, so that its answer comes in time.
func (c *client) maxTimeout() int {
	return int(max(1, min(10, c.timeout/time.Second/2)))
}

// pending reports whether the service has a transaction and nothing has been said
// of it by the network.
func pending(status string) bool {
	switch status {
	case "QUEUED", "RECEIVED", "STORED", "ANNOUNCED_TO_NETWORK", "REQUESTED_BY_NETWORK", "SENT_TO_NETWORK":
		return true
	}
	return false
}

// silent reports whether a refusal is without a reason: Arcade's answer to a
// broadcast has no room for one.
func (d details) silent() bool {
	return d.TxStatus == "REJECTED" && d.Status < 400 && len(d.words()) == 0 && len(d.CompetingTxs) == 0
}

// settle waits a while for the network's word. Where none comes, or nothing can
// be learned, what the service said first counts.
func (b *Backend) settle(ctx context.Context, txid bsv.Txid, d details) details {
	wait := settlePause
	for range settleTries {
		if b.pause(ctx, wait) != nil {
			return d
		}
		wait *= 2
		now, err := b.details(ctx, txid)
		if err != nil {
			return d
		}
		if now.TxStatus != "" && !pending(now.TxStatus) {
			return now
		}
	}
	return d
}

// parseSubmitted reads the answer to a broadcast. Errors are *chain.Rejected,
// chain.ErrUnavailable and ErrProtocol.
func (c *client) parseSubmitted(a answer, txid bsv.Txid) (details, error) {
	var d details
	err := a.decode(&d)
	code := a.code
	if code < 300 {
		if err != nil {
			return details{}, err
		}
		if code = d.Status; code < 400 || code > 499 { // ARC answers some refusals with 200
			return d, d.about(txid)
		}
	}
	if err != nil { // the code says enough
		d = details{}
	}
	if d.Status >= 460 && d.Status <= 499 { // Arcade's 400 has ARC's code in it
		code = d.Status
	}
	d.Status = code
	reason, known := d.refusal()
	switch {
	case code != 400 && code != 409 && code != 413 && code != 422 && code < 460:
		return details{}, fmt.Errorf("%s: %w", codeText(code), ErrProtocol) // not about the transaction
	case known:
		return details{Txid: txid.String(), TxStatus: "SEEN_ON_NETWORK"}, nil
	case code == 409 && reason == chain.Other:
		// ARC's code for all that went wrong on its own side.
		return details{}, fmt.Errorf("%w: %.300q", chain.ErrUnavailable, c.text(d.words()...))
	}
	return details{}, chain.Reject(reason, c.text(append([]string{codeText(code)}, d.words()...)...))
}

// verdict is what a broadcast returns for a transaction of which the service says
// this.
func (c *client) verdict(d details) error {
	switch d.TxStatus {
	case "REJECTED":
		reason, known := d.refusal()
		if known {
			return nil
		}
		return chain.Reject(reason, c.text(append([]string{d.TxStatus}, d.words()...)...))
	case "SEEN_IN_ORPHAN_MEMPOOL":
		return chain.Reject(chain.MissingInputs, c.text(append([]string{d.TxStatus}, d.words()...)...))
	case "UNKNOWN", "":
		return fmt.Errorf("the service does not know what it was sent: %w", chain.ErrUnavailable)
	}
	return nil
}

// words are what the service says of a refusal.
func (d details) words() []string {
	var words []string
	for _, w := range []string{d.Detail, d.Error, d.Reason, d.ExtraInfo} {
		if w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return words
}
