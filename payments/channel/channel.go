// Package channel is the payment channel as two pure machines, Payer and
// Payee: Step takes a state, an event and the time, and returns the next state
// and the effects that somebody else has to carry out, in their order. Nothing
// here reads a clock, draws a random number, or touches a disk or a network.
//
// The channel is unidirectional (Spillman): the payer funds a bare 2-of-2
// output after the payee has signed its refund, and then signs commitments that
// give ever more to the payee and to the creator. The payee broadcasts one of
// them, the newest, well before the refund becomes final. Transactions are
// version 1 and signed ALL|FORKID; payments/bsv rebuilds them from the same
// numbers on both sides, so a payment is a few numbers and a signature.
//
// What each side relies on:
//
//   - Store comes before the Send that depends on it. Whoever carries out the
//     effects makes the Store durable first, and stops at the first failure.
//   - The payee never has more than Terms.Credit and its growth outstanding
//     (Policy.Credit), nor delivers more than UnconfirmedLimit's worth before
//     the funding is mined.
//   - The payer never pays for more than it has received and verified, plus
//     Exposure; after broken connections plus a second Exposure and a 64th. And
//     it never passes the limit that comes with an event.
//   - Amounts and sequence numbers only grow, and so do bytes within a leg. Two
//     commitments with one number have the same amounts.
//
// # Several titles
//
// A channel pays for one title at a time, its current leg, at that title's
// price and to that title's creator. A Resume on a connection of another title
// of the same seeder prepares the move; the payer's next commitment makes it:
// it repeats the amounts, has a count of zero bytes, and its number names the
// leg. From then on both sides reckon from these amounts, which is why they
// agree even where earlier commitments or answers were lost. A commitment of
// another leg or title is never taken for one of this, and one that comes again
// has a number that has passed. Keys, hashes, fee rate, refund, limits in
// satoshis and the close margin are those of the first terms; price, royalty,
// creator and the credit of a new payer are the leg's.
package channel

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// Phase is where a channel stands. Which phases a side passes through is said
// at Payee and Payer.
type Phase uint8

// The phases.
const (
	Offered   Phase = iota // the payee has sent terms
	Proposed               // the payer has asked for the refund's signature
	Signed                 // the refund is signed; the payer keeps its funding to itself
	Funded                 // the payer has given its funding to the outbox
	Checking               // the payee has the chain look at the funding
	Open                   // payments flow
	Closing                // the payee has signed the close, or the payer asked for it
	Closed                 // the close is known to both
	Refunding              // the payer has broadcast its refund
	Failed                 // nothing more comes of it
)

var phaseNames = [...]string{"offered", "proposed", "signed", "funded", "checking", "open", "closing", "closed", "refunding", "failed"}

// String is the phase in one lower-case word.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MaxCredit is the most bytes that are ever owed at one time, whatever a peer
// says.
const MaxCredit = 64 << 20

// maxRefundHeight is the first number that a lock time would read as a time.
const maxRefundHeight = 500_000_000

// ID is the channel's name: the double SHA-256 of its funding outpoint.
func ID(funding bsv.Outpoint) wire.ChannelID {
	o := funding.Bytes()
	return doubleHash(o[:])
}

// TermsDigest is what the seeder's identity key signs: the terms, and the
// title that they are for.
func TermsDigest(t *wire.Terms, infoHash [20]byte) ([32]byte, error) {
	body, err := t.Signed()
	if err != nil {
		return [32]byte{}, err
	}
	return doubleHash([]byte("BitCDN terms v1"), infoHash[:], body), nil
}

// ResumeDigest is what the payer's channel key signs to go on with a channel
// on a new connection.
func ResumeDigest(nonce [16]byte, infoHash [20]byte, id wire.ChannelID) [32]byte {
	return doubleHash([]byte("BitCDN resume v1"), nonce[:], infoHash[:], id[:])
}

func doubleHash(parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return sha256.Sum256(h.Sum(nil))
}

// template gathers the numbers from which both sides build transactions. That
// the keys are keys is looked at once, when the channel begins.
func template(t *wire.Terms, o *wire.Open) (bsv.Channel, error) {
	if o.Payer == [33]byte{} {
		return bsv.Channel{}, errors.New("no channel yet")
	}
	return bsv.Channel{
		Payer:        o.Payer,
		Payee:        t.Payee,
		Funding:      bsv.Outpoint{Txid: o.FundingTxid, Index: o.FundingIndex},
		Capacity:     o.Capacity,
		PayerHash:    o.PayerHash,
		PayeeHash:    t.PayeeHash,
		RefundHeight: o.RefundHeight,
		FeeRate:      o.FeeRate,
	}, nil
}

// checkNew looks at the numbers of a channel that begins.
func checkNew(t *wire.Terms, o *wire.Open, leg Leg) error {
	c, err := template(t, o)
	if err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	if maxSpend(o, leg.creators(nil)) < 1 {
		return fmt.Errorf("capacity %v is used up by the close's fee", o.Capacity)
	}
	return nil
}

// Due is what n bytes cost in all by these terms, the seeder's and the
// creator's part.
func Due(t *wire.Terms, n int64) (payee, creator money.Satoshis, err error) {
	return LegOf([20]byte{}, t).Due(n)
}

// Event is something that happened to a channel: a message of the peer, or one
// of the types below.
type Event interface{ event() }

// Got is a message from the peer.
type Got struct {
	Msg wire.Message
	// Title is this connection's, and Terms are those that were signed for it:
	// a Resume proves its key with their nonce, and a channel that was of
	// another title moves to this one. Both sides need them with every message;
	// the payer has checked them with CheckTerms.
	Title [20]byte
	Terms *wire.Terms
}

// FundingChecked is the chain's answer to a CheckFunding. Refusal is nil where
// the funding is good.
type FundingChecked struct {
	Refusal   *wire.Refusal
	Confirmed bool   // it is mined
	Height    uint32 // of the tip
}

// FundingMined says that the funding is in a block.
type FundingMined struct{}

// FundingUnmined says that a reorganisation took the funding out of its block.
type FundingUnmined struct{}

// FundingDoubted says that another transaction competes with a funding that is
// not mined.
type FundingDoubted struct{}

// FundingLost says that the funding was double-spent or will never be mined.
type FundingLost struct{}

// FundingReady tells the payer that every channel of its funding has its
// refund, so that the funding may leave.
type FundingReady struct {
	// Stored says that the outbox has the funding already, by another channel
	// of it.
	Stored bool
}

// Abandon tells the payer to give up a channel whose funding has not left.
type Abandon struct{}

// Tip says how high the chain is.
type Tip struct {
	Height uint32
	// Unspent says that the chain knows the funding and nothing that spends it.
	Unspent bool
}

// Served says how many more bytes of block data went to the peer.
type Served struct{ Bytes int64 }

// Delivered says what has come from the peer on the channel's current leg, and
// what the payer may spend on the channel in all. Flush pays what is payable
// even if the peer would wait.
type Delivered struct {
	Wire    int64 // bytes of block data received
	Payable int64 // of these, verified (see paylink.Purchase)
	Limit   money.Satoshis
	Flush   bool
}

// CloseWanted asks for the close: by the owner, or because the download is
// complete.
type CloseWanted struct{}

func (Got) event()            {}
func (FundingChecked) event() {}
func (FundingMined) event()   {}
func (FundingUnmined) event() {}
func (FundingDoubted) event() {}
func (FundingReady) event()   {}
func (Abandon) event()        {}
func (FundingLost) event()    {}
func (Tip) event()            {}
func (Served) event()         {}
func (Delivered) event()      {}
func (CloseWanted) event()    {}

// Effect is something to be done. Effects are carried out in their order, and
// those after a failed one are dropped.
type Effect interface{ effect() }

// Purpose says what a broadcast transaction is for.
type Purpose string

// The purposes.
const (
	FundingTx Purpose = "funding"
	CloseTx   Purpose = "close"
	RefundTx  Purpose = "refund"
)

// Store makes the new state durable and, in the same step, puts a transaction
// into the outbox.
type Store struct {
	Tx      *bsv.Tx // nil where nothing is to be broadcast
	Prev    []bsv.Output
	Purpose Purpose
}

// Send sends a message to the peer, if there is a connection.
type Send struct{ Msg wire.Message }

// CheckFunding has the chain look at a funding; the answer is a FundingChecked.
type CheckFunding struct {
	Funding *bsv.Tx
	Parents []*bsv.Tx
}

// Allow lets the peer have this many bytes of block data in all, counted over
// the channel's life and all its legs. It may be less than what was served: the
// peer then waits.
type Allow struct{ Total int64 }

// Revoke stops delivery.
type Revoke struct{}

// UsedUp says that the channel's capacity does not buy more.
type UsedUp struct{}

// OverLimit says that the limit given with an event does not buy more.
type OverLimit struct{}

// Fail says that the peer broke the protocol.
type Fail struct{ Err error }

func (Store) effect()        {}
func (Send) effect()         {}
func (CheckFunding) effect() {}
func (Allow) effect()        {}
func (Revoke) effect()       {}
func (UsedUp) effect()       {}
func (OverLimit) effect()    {}
func (Fail) effect()         {}

// ErrProtocol says that a peer sent what does not belong there.
var ErrProtocol = errors.New("peer broke the payment protocol")

// refuse answers what a peer wanted of a channel.
func refuse(id wire.ChannelID, code wire.Code, format string, args ...any) []Effect {
	return []Effect{Send{&wire.Refusal{Channel: id, Code: code, Text: fmt.Sprintf(format, args...)}}}
}

// broken refuses and ends the connection.
func broken(id wire.ChannelID, code wire.Code, format string, args ...any) []Effect {
	err := fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrProtocol)
	return append(refuse(id, code, format, args...), Revoke{}, Fail{err})
}
