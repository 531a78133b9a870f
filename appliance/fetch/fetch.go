// Package fetch downloads one torrent into a folder and, where a seeder asks
// for it, lets a payer settle with that seeder while the pieces flow. It is the
// only user of the anacrolix BitTorrent client, which it makes for one download
// and closes at the end.
//
// What may be relied on:
//
//   - The client dials out over TCP and never listens, never uploads, opens no
//     UDP socket unless the DHT is asked for, and speaks no uTP and no WebRTC.
//   - Data is read and written with pread and pwrite through storage/pieces.
//     Which pieces are complete is kept in the state folder and says so only of
//     data that has been synced to disk, so a power cut costs seconds of work
//     and never leaves a wrong claim. A download that was ended by whatever
//     means is taken up where it stood.
//   - For every peer that speaks bc_pay the bytes that it put on the wire at our
//     request are counted, and those that are owed: see paylink.Purchase. When
//     the download is complete and no request is open, the two are equal.
//   - A peer whose data failed its hash is never owed for that data, and is
//     dropped for the rest of the download.
//   - All goroutines and descriptors are gone when Fetch returns.
package fetch

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/bitcdn/bitcdn/payments/paylink"
)

// Payments opens the paying side of a connection. Open must not block; it is
// called from a goroutine of its own for each peer that names bc_pay in its
// extended handshake, once the torrent's metadata is known.
type Payments interface {
	Open(conn paylink.BuyerConn, t paylink.Title) paylink.Purchase
}

// Encryption says how connections to peers begin (Message Stream Encryption).
type Encryption uint8

const (
	// PreferPlain dials plain and falls back to encryption where a peer wants it.
	PreferPlain Encryption = iota
	// RequireRC4 dials encrypted and takes no peer that answers otherwise.
	RequireRC4
)

// Defaults of the fields of Request that are zero.
const (
	DefaultMaxConns    = 30
	DefaultIdle        = 5 * time.Minute
	DefaultFinishGrace = 5 * time.Second
	DefaultSaveEvery   = 3 * time.Second
)

// Request is one download.
type Request struct {
	// Source is what to fetch; see MagnetSource and TorrentSource.
	Source Source
	// Dir is the download folder. The torrent's name is made inside it.
	Dir string
	// State is a folder for what is needed to take up the download again: the
	// metadata of a magnet link and the bitmap of complete pieces, a few
	// kilobytes under the info hash. It is created when missing.
	State string

	// Peers are dialled in addition to those of the source, and again with
	// growing pauses when they are lost.
	Peers []netip.AddrPort
	// DHT asks the distributed hash table for peers (never for a private
	// torrent). DHTNodes are used to enter it; none means the public ones.
	DHT      bool
	DHTNodes []netip.AddrPort
	// AnnouncePort is told to trackers as the port that we listen on; a box
	// gives the port of its own listener. 0 tells 1, since many trackers refuse
	// 0, and nobody can reach it.
	AnnouncePort uint16
	// WebSeeds are HTTP addresses to fetch from besides peers (BEP 19). Those
	// that a torrent file lists are not used unless they are given here.
	WebSeeds []string

	// Payments pays peers that ask for it; nil fetches from free peers only.
	Payments Payments
	// Manifest reads what the metadata grants the creator, once the metadata is
	// known: the royalty (nil where there is none) and the title's name (empty
	// takes the torrent's). An error ends the download. Nil reads nothing.
	Manifest func(infoBytes []byte) (*paylink.Royalty, string, error)
	// Finish is called once when the last byte is here and everything received
	// has been reported to the purchases, or when ctx has ended early, and while
	// all connections are still open, so that last payments go out. After an
	// early end its context is given FinishGrace. Its error is Fetch's if there
	// is no other.
	Finish func(ctx context.Context) error

	// Progress, if not nil, is called about five times a second and once at the
	// end, from one goroutine at a time. It should return soon.
	Progress func(Progress)
	// Encryption of connections to peers.
	Encryption Encryption
	// MaxConns bounds the connections to peers; 0 is DefaultMaxConns.
	MaxConns int
	// Idle is how long nothing at all may move before the download is given up
	// with ErrNoPeers; 0 is DefaultIdle, below 0 is never.
	Idle time.Duration
	// FinishGrace bounds Finish after an early end; 0 is DefaultFinishGrace.
	FinishGrace time.Duration
	// SaveEvery is how often progress is synced to disk while data comes in; 0
	// is DefaultSaveEvery.
	SaveEvery time.Duration
	// Log receives what is worth knowing of the download; nil discards it.
	Log *slog.Logger

	// openBlocks stands in for the disk in tests.
	openBlocks openBlocksFunc
	// metadataPatience and stealAfter, which tests shorten.
	patience, stealAfter time.Duration
}

// Result is what a download brought, also where it ended with an error.
type Result struct {
	InfoHash [20]byte
	// Name is the manifest's title, or else the torrent's own name; empty while
	// the metadata is not known.
	Name string
	// Path is where the data lies: a file or a folder in Request.Dir.
	Path string
	// InfoBytes is the bencoded info dictionary, nil while it is not known.
	InfoBytes []byte
	// Length is the torrent's, in bytes; Have is how many bytes are verified
	// and on disk.
	Length, Have int64
	// Complete says that all of it is there. AlreadyComplete says that it was
	// when Fetch was called, so that nothing was fetched.
	Complete, AlreadyComplete bool
	// Peers has a line for each peer that sent data, by address.
	Peers []PeerBytes
	// Elapsed is the time that Fetch took.
	Elapsed time.Duration
}

// PeerBytes is what one peer sent, over all connections to it.
type PeerBytes struct {
	Remote netip.AddrPort
	// Paying says that the peer spoke bc_pay and a purchase was opened.
	Paying bool
	// Wire is the block data that the peer sent at our request; Payable is the
	// part that is owed if the peer is paid, as in paylink.Purchase; Forfeited
	// is the part whose hash was wrong.
	Wire, Payable, Forfeited int64
}

// Fetch downloads the source and returns when it is complete, when ctx ends, or
// when it cannot go on. What is verified is kept in every case, and a later
// Fetch of the same request goes on from there.
//
// Errors are those of this package (ErrNoPeers, ErrDiskFull, ErrTorrent,
// ErrManifest, ErrBusy), ctx's own, those of the disk, or what Finish returned.
// Hint gives a person advice on them.
func Fetch(ctx context.Context, r Request) (Result, error) {
	started := time.Now()
	if err := r.check(); err != nil {
		return Result{InfoHash: r.Source.InfoHash}, err
	}
	d := newDownload(r)
	err := d.run(ctx)
	res := d.result()
	res.Elapsed = time.Since(started)
	return res, err
}

func (r *Request) check() error {
	if r.Source.InfoHash == ([20]byte{}) {
		return fmt.Errorf("%w: no info hash", ErrTorrent)
	}
	if r.Dir == "" || r.State == "" {
		return fmt.Errorf("fetch %x: download and state folder must be given", r.Source.InfoHash)
	}
	if r.MaxConns <= 0 {
		r.MaxConns = DefaultMaxConns
	}
	if r.Idle == 0 {
		r.Idle = DefaultIdle
	}
	if r.FinishGrace <= 0 {
		r.FinishGrace = DefaultFinishGrace
	}
	if r.SaveEvery <= 0 {
		r.SaveEvery = DefaultSaveEvery
	}
	if r.patience <= 0 {
		r.patience = metadataPatience
	}
	if r.stealAfter <= 0 {
		r.stealAfter = stealAfter
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}
