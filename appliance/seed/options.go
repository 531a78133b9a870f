package seed

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/bitcdn/bitcdn/appliance/peerwire"
	"github.com/bitcdn/bitcdn/payments/paylink"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// Catalogue is what the server is allowed to serve. Has and All answer from
// memory: twenty bytes a title, nothing loaded. It must be safe for concurrent
// use.
type Catalogue interface {
	peerwire.Hashes
	// Wake loads a title when its first peer has come. The server calls Sleep
	// for every one that it woke.
	Wake(ctx context.Context, ih [20]byte) (*Awake, error)
	// Sleep gives back what Wake returned, and closes its store. No peer uses
	// it any more.
	Sleep(ih [20]byte, a *Awake)
}

// Awake is a title that peers are served from.
type Awake struct {
	Info  []byte // the bencoded info dictionary, for magnets; may be nil
	Store *pieces.Store
	Title paylink.Title
	// FreeForAll says that everybody is served, whatever the price.
	FreeForAll bool
}

// free reports whether nobody has to pay.
func (a *Awake) free() bool {
	return a.FreeForAll || a.Title.Ask == 0 && a.Title.Royalty == nil
}

// Payments opens the payment side of connections. It must be safe for
// concurrent use, and Open must not block.
type Payments interface {
	Open(conn paylink.SellerConn, t paylink.Title) paylink.Sale
}

// Defaults of Options.
const (
	DefaultMaxConns      = 500
	DefaultMaxPerAddress = 32
	DefaultMaxHandshakes = 64
	DefaultSleepAfter    = 2 * time.Minute
)

// Options of a Server. Zero stands for a default, but for Catalogue and PeerID,
// which are needed.
type Options struct {
	Catalogue Catalogue
	// Payments is nil where nothing is sold: then only free titles, and the
	// free share, are served.
	Payments Payments
	PeerID   [20]byte // NewPeerID
	Version  string   // the client's name to peers; "BitCDN"

	// FreeShare is what all peers that do not pay may have together of titles
	// that are not free, bytes a second. 0 is none.
	FreeShare int64
	// UploadRate bounds all connections together, bytes a second of block
	// data. 0 is no bound.
	UploadRate int64

	MaxConns      int // connections in all, handshakes included
	MaxPerAddress int // of one IPv4 address or IPv6 /64
	MaxHandshakes int // that have not said yet what they want

	HandshakeTimeout time.Duration // peerwire.DefaultHandshakeTimeout
	IdleTimeout      time.Duration // peerwire.DefaultIdleTimeout
	WriteTimeout     time.Duration // peerwire.DefaultWriteTimeout
	// SleepAfter is how long a title stays awake without a peer.
	SleepAfter time.Duration

	// Unservable, where set, is told of a piece that cannot be sent: once for
	// each piece while its title is awake. It must not block.
	Unservable func(ih [20]byte, piece int, err error)

	Clock func() time.Time // time.Now
	Log   *slog.Logger     // silent
}

func (o *Options) setDefaults() {
	for _, n := range []struct {
		field *int
		value int
	}{
		{&o.MaxConns, DefaultMaxConns},
		{&o.MaxPerAddress, DefaultMaxPerAddress},
		{&o.MaxHandshakes, DefaultMaxHandshakes},
	} {
		if *n.field <= 0 {
			*n.field = n.value
		}
	}
	if o.SleepAfter <= 0 {
		o.SleepAfter = DefaultSleepAfter
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// NewPeerID makes a peer id (BEP 20) of 12 random bytes.
func NewPeerID(random io.Reader) ([20]byte, error) {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
	id := [20]byte([]byte("-BC0001-............"))
	if _, err := io.ReadFull(random, id[8:]); err != nil {
		return id, err
	}
	for i, b := range id[8:] {
		id[8+i] = letters[b%64]
	}
	return id, nil
}
