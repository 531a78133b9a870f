// Package paylink carries out what the channel machines ask for: it connects
// one peer connection's payment messages with the ledger, the wallet and the
// chain. Seller is the end that is paid, Buyer the end that pays.
//
// What both promise:
//
//   - Stored before sent: an effect is carried out only after every Store
//     before it is durable. When a Store fails the machine goes back to the
//     state before, the peer is told to try later, and nothing is sent.
//   - One goroutine owns a channel's state. A channel lives on one connection
//     at a time; a connection that proves the channel's key takes it over.
//   - What a peer sends is decoded by payments/wire and checked by
//     payments/channel and payments/bsv before anything else sees it. A peer
//     that sends faster than it is answered loses its connection.
//   - A transaction leaves through the outbox only.
package paylink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/channel"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/payments/wire"
)

// mailboxSize is how many messages of a peer may wait to be looked at.
const mailboxSize = 32

// ErrFlood says that a peer sent payment messages faster than they are
// answered.
var ErrFlood = errors.New("peer floods payment messages")

// storeTimeout bounds one durable write; a disk that takes longer counts as
// failed.
const storeTimeout = 30 * time.Second

// ledgerState maps a phase to the ledger's word for it.
func ledgerState(p channel.Phase) string {
	switch p {
	case channel.Open:
		return ledger.StateOpen
	case channel.Closing:
		return ledger.StateClosing
	case channel.Closed:
		return ledger.StateClosed
	case channel.Refunding:
		return ledger.StateRefunded
	case channel.Failed:
		return ledger.StateFailed
	}
	return ledger.StateOpening
}

// describe writes into a channel's ledger row what both ends take from its
// state. Title and prices are those of its current leg, amounts and bytes those
// of all of them. here is the title of the connection, whose name is known.
func describe(row *ledger.Channel, here *Title, p channel.Phase, o *wire.Open, leg *channel.Leg, past *channel.Past, last *wire.Pay) {
	row.State = ledgerState(p)
	if row.Title = leg.Title; leg.Title == here.InfoHash {
		row.TitleName = here.Name
	}
	row.FundingTxid, row.FundingIndex = o.FundingTxid, o.FundingIndex
	row.Capacity, row.RefundHeight, row.Rate, row.Royalty = o.Capacity, o.RefundHeight, leg.Ask, leg.Royalty
	row.Seq, row.Bytes, row.Payee, row.Creator = last.Seq, past.Bytes+last.Bytes, last.Payee, last.Royalties()
	row.Creators = make([]ledger.CreatorAmount, len(last.Creators))
	for i, r := range last.Creators {
		row.Creators[i] = ledger.CreatorAmount{Hash: r.To, Amount: r.Amount}
	}
}

// outgoing is the outbox row of a channel's close or refund. created are the
// outputs that become ours.
func outgoing(st channel.Store, id wire.ChannelID, created []ledger.Coin) ledger.Outgoing {
	return ledger.Outgoing{
		Txid:        st.Tx.Txid(),
		Raw:         st.Tx.Bytes(),
		PrevOutputs: wallet.AppendOutputs(nil, st.Prev),
		Purpose:     string(st.Purpose),
		Channel:     id,
		Outputs:     created,
	}
}

// coinsPaidTo finds the outputs of tx that pay to hash.
func coinsPaidTo(tx *bsv.Tx, hash bsv.Hash160, keyIndex uint32, origin string) []ledger.Coin {
	var coins []ledger.Coin
	txid := tx.Txid()
	for i, o := range tx.Outputs {
		if h, ok := o.Script.P2PKHHash(); ok && h == hash {
			coins = append(coins, ledger.Coin{Txid: txid, Index: uint32(i), Value: o.Value, Script: o.Script,
				Branch: wallet.BranchPayout, KeyIndex: keyIndex, Origin: origin})
		}
	}
	return coins
}

// channelKeys are the keys of one channel: one for the 2-of-2, one for what
// comes out of it.
func channelKeys(w *wallet.Wallet, index uint32) (twoOfTwo bsv.PrivateKey, out bsv.Hash160, err error) {
	twoOfTwo, err = w.Key(wallet.BranchChannel, index)
	if err != nil {
		return bsv.PrivateKey{}, bsv.Hash160{}, fmt.Errorf("channel key %d: %w", index, err)
	}
	payout, err := w.Key(wallet.BranchPayout, index)
	if err != nil {
		return bsv.PrivateKey{}, bsv.Hash160{}, fmt.Errorf("payout key %d: %w", index, err)
	}
	return twoOfTwo, payout.Public().Hash(), nil
}

// identityIndex is the key of BranchIdentity that signs terms.
const identityIndex = 0

// withTimeout is a context for a write that must not be cut short by the end
// of a connection or of the program.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
}

// about is the channel that a message is about; zero where it is about none.
func about(m wire.Message) wire.ChannelID {
	switch m := m.(type) {
	case *wire.Open:
		return channel.ID(bsv.Outpoint{Txid: m.FundingTxid, Index: m.FundingIndex})
	case *wire.RefundSig:
		return m.Channel
	case *wire.Funded:
		return m.Channel
	case *wire.Ready:
		return m.Channel
	case *wire.Pay:
		return m.Channel
	case *wire.Ack:
		return m.Channel
	case *wire.Close:
		return m.Channel
	case *wire.Closed:
		return m.Channel
	case *wire.Resume:
		return m.Channel
	case *wire.Resumed:
		return m.Last.Channel
	case *wire.Refusal:
		return m.Channel
	}
	return wire.ChannelID{}
}
