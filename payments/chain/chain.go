// Package chain is the program's view of the block chain: an interface small
// enough for every kind of service, the errors its backends share, and what
// can be said about a transaction.
//
// # What every backend promises
//
//   - Methods may be called from several goroutines and end when their context
//     does.
//   - Every method may be repeated, Broadcast included: a transaction that the
//     network has already is not an error.
//   - ErrUnavailable means that nothing was learned and the same call may
//     succeed later. It includes a Broadcast whose answer was lost: the
//     transaction may or may not have been taken.
//   - A *Rejected is the service's final word on the transaction as the chain
//     is now; for NonFinal, MissingInputs and LowFee the chain may change.
//   - ErrUnsupported is final: this service cannot answer the question.
//   - What a service says is not proof. A transaction that is Seen may never
//     be mined, and Mined may become something else after a reorganisation.
//
// The conformance suite in chaintest holds each backend to this.
package chain

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// DefaultFeeRate is assumed where a service does not say what it wants.
const DefaultFeeRate money.FeeRate = 100

// MaxTxSize is the largest transaction in bytes that a backend takes or hands
// out. Ours stay below 30 kB; the rest is room for what others send us.
const MaxTxSize = 1 << 20

var (
	// ErrNotFound says that the service knows no such block, transaction or
	// output.
	ErrNotFound = errors.New("not found on the chain")
	// ErrUnavailable says that the service did not answer, or is not ready to.
	ErrUnavailable = errors.New("the chain service is unavailable")
	// ErrUnsupported says that the service can never answer this question.
	ErrUnsupported = errors.New("not supported by the chain service")
	// ErrHash says that a text is not a block hash.
	ErrHash = errors.New("not a block hash")
)

// Backend is one view of the chain.
type Backend interface {
	// Tip returns the header of the newest block.
	Tip(ctx context.Context) (Header, error)
	// Header returns the header of the block at height in the best chain, or
	// ErrNotFound above the tip.
	Header(ctx context.Context, height uint32) (Header, error)
	// FeeRate returns what the service wants for a transaction to be mined,
	// rounded up; DefaultFeeRate where it does not say.
	FeeRate(ctx context.Context) (money.FeeRate, error)
	// Broadcast hands tx to the network. prev holds the outputs that its
	// inputs spend, in their order; a backend that does not need them takes
	// nil. The error is nil also where the network has the transaction
	// already, mined or not, and a *Rejected where it refuses it.
	//
	// A transaction that could not be mined into the next block is refused as
	// NonFinal and does not leave the program: some nodes would keep it, and a
	// refund that they keep hinders the close.
	Broadcast(ctx context.Context, tx *bsv.Tx, prev []bsv.Output) error
	// Status says how far a transaction has come. Unknown is a state and not
	// an error.
	Status(ctx context.Context, txid bsv.Txid) (Status, error)
	// RawTx returns a transaction that is mined or in a mempool, or
	// ErrNotFound.
	RawTx(ctx context.Context, txid bsv.Txid) (*bsv.Tx, error)
	// Unspent returns the unspent outputs with exactly this locking script,
	// ordered by Compare. Outputs made in the mempool are included, outputs
	// spent in the mempool are not.
	Unspent(ctx context.Context, script bsv.Script) ([]Coin, error)
	// Spent reports whether an output is spent by a transaction that is mined
	// or in a mempool, or ErrNotFound where the output never existed.
	Spent(ctx context.Context, o bsv.Outpoint) (bool, error)
}

// Hash is a block hash or Merkle root in internal byte order.
type Hash [32]byte

// ParseHash reads the 64 hexadecimal digits of a hash in display order, or
// returns ErrHash.
func ParseHash(text string) (Hash, error) {
	var h Hash
	if len(text) != 2*len(h) {
		return Hash{}, fmt.Errorf("%d characters: %w", len(text), ErrHash)
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return Hash{}, fmt.Errorf("%q: %w", text, ErrHash)
	}
	slices.Reverse(h[:])
	return h, nil
}

// String returns the hash in display order.
func (h Hash) String() string {
	slices.Reverse(h[:])
	return hex.EncodeToString(h[:])
}

// IsZero reports whether h is no hash.
func (h Hash) IsZero() bool { return h == Hash{} }

// State is how far a transaction has come.
type State uint8

const (
	// Unknown means that the service has not heard of the transaction.
	Unknown State = iota
	// Seen means that it is in a mempool.
	Seen
	// Mined means that it is in a block of the best chain.
	Mined
	// Conflicted means that another transaction has spent one of its inputs,
	// or that the network has rejected it for good.
	Conflicted
)

// String returns the state in one lower-case word.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Seen:
		return "seen"
	case Mined:
		return "mined"
	case Conflicted:
		return "conflicted"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Status is what a service says about a transaction. A service that learns of
// transactions only through its own mempool can report Conflicted only for
// those that were handed to it, and forgets that when it restarts.
type Status struct {
	State  State
	Height uint32 // of its block; only when Mined
	Block  Hash   // only when Mined
	// Proof leads from the transaction to the block's header, where the service
	// gives it; only when Mined. Package spv takes nothing for mined without it.
	Proof *Proof
	// Competing are transactions that spend an input of this one, where the
	// service tells. With Seen it says that a double spend was tried and is not
	// decided; with Conflicted, which one won.
	Competing []bsv.Txid
}

// Confirmations returns how many blocks up to the tip bury the transaction; 0
// when it is not mined, 1 when its block is the tip.
func (s Status) Confirmations(tip uint32) uint32 {
	if s.State != Mined || tip < s.Height {
		return 0
	}
	return tip - s.Height + 1
}

// Coin is an unspent output and where it stands.
type Coin struct {
	bsv.Coin
	Height   uint32 // of its block; 0 while unconfirmed
	Coinbase bool   // spendable only 100 blocks later
}

// CoinbaseMaturity is the number of blocks, its own included, after which a
// coinbase output can be spent in the next one.
const CoinbaseMaturity = 100

// Mature reports whether the coin can be spent in the block after the tip.
func (c Coin) Mature(tip uint32) bool {
	return !c.Coinbase || c.Height <= tip && tip-c.Height+1 >= CoinbaseMaturity
}

// Compare orders coins for a stable result: mined ones first and the oldest of
// them first, then by txid and index.
func Compare(a, b Coin) int {
	// 0 - 1 wraps to the largest height, which puts the unconfirmed last.
	return cmp.Or(
		cmp.Compare(a.Height-1, b.Height-1),
		bytes.Compare(a.Outpoint.Txid[:], b.Outpoint.Txid[:]),
		cmp.Compare(a.Outpoint.Index, b.Outpoint.Index),
	)
}
