package paylink

import (
	"errors"
	"net/netip"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Errors that a Conn's Send returns.
var (
	// ErrConnClosed says that the connection has ended.
	ErrConnClosed = errors.New("connection closed")
	// ErrBacklog says that the peer does not read: too many payloads wait.
	ErrBacklog = errors.New("peer does not read its payment messages")
)

// SellerConn is what a sale may do with the upload connection that it belongs
// to. All methods may be called from any goroutine and none of them blocks.
type SellerConn interface {
	// Send queues one bc_pay payload for the peer.
	Send(payload []byte) error
	// Allow sets how many bytes of block data the peer may be sent, counted
	// from the beginning of the connection. A rise above what was sent unchokes
	// the peer; at the limit its requests wait.
	Allow(total int64)
	// Stop chokes the peer and rejects its requests until the next Allow.
	Stop()
	// Fail ends the connection for a counted reason.
	Fail(reason error)
	// Remote is the peer's address.
	Remote() netip.AddrPort
}

// BuyerConn is what a purchase may do with the download connection that it
// belongs to. All methods may be called from any goroutine and none blocks.
type BuyerConn interface {
	// Send queues one bc_pay payload for the peer.
	Send(payload []byte) error
	// Fail ends the connection.
	Fail(reason error)
	// Remote is the peer's address.
	Remote() netip.AddrPort
}

// RestConn is a BuyerConn that knows how much of the title has not come yet, from
// whatever peer. What is bound in channels is reckoned from it; without it, from
// what came over this connection.
type RestConn interface {
	// Rest is in bytes. It may block for a moment.
	Rest() int64
}

// Title is what both ends of a sale know of the torrent that is sold.
type Title struct {
	InfoHash    [20]byte
	Name        string
	Length      int64 // bytes
	PieceLength int64 // bytes
	// Ask is the seller's own price; the buyer leaves it zero and learns it
	// from the terms.
	Ask money.Rate
	// Royalty is the creator's part, from the signed manifest; nil where the
	// torrent carries none, or one of zero.
	Royalty *Royalty
}

// Royalty is what the manifest grants the creator.
type Royalty struct {
	Creator bsv.PublicKey // signs manifests
	Rate    money.Rate    // satoshis per GiB, above zero
	To      bsv.Hash160   // of the address that the royalty is paid to
}

// Session is the payment side of one connection, whichever end pays. Its
// methods never block; they may be called from any goroutine.
type Session interface {
	// Message hands over one bc_pay payload that the peer sent.
	Message(payload []byte)
	// Close says that the connection has ended. Nothing is called after it.
	Close()
}

// Sale is a Session of the end that is paid.
type Sale interface {
	Session
	// Sent reports how many bytes of block data have been written to the peer
	// since the connection began. Totals never fall.
	Sent(total int64)
}

// Purchase is a Session of the end that pays.
type Purchase interface {
	Session
	// Received reports bytes of block data since the connection began: wire is
	// all that the peer sent at our request, payable the part that is owed:
	// blocks of pieces whose hash was right, and blocks that came twice because
	// we asked twice. Neither falls, and payable never passes wire.
	Received(wire, payable int64)
}
