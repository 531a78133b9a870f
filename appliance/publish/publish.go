// Package publish makes torrents out of files and folders, and signs their
// creator's terms into them.
//
// A torrent is a function of the data's names and bytes and of the options,
// and of nothing else: the same input gives the same bytes and info hash, on
// any machine, with any number of cores. Without a manifest it is what
// mktorrent makes, to the byte of the info dict.
//
// What is published is what lies there: regular files, empty ones included, in
// the byte order of their paths. Symbolic links, sockets, pipes and devices
// below the path are refused, not skipped: a creator signs for a folder as it
// is seen, and a link would mean another file on another day. Only the path
// itself may be a link. Files that change while they are hashed are refused too.
package publish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// Piece lengths in bytes. What is asked for lies between the two; multiples of
// the smaller one, which is what peers request at a time, are the best.
const (
	MinPieceLength = 16 << 10
	MaxPieceLength = 16 << 20
)

var (
	// ErrOptions says that the options contradict each other or are out of range.
	ErrOptions = errors.New("cannot publish like this")
	// ErrEmpty says that there is no byte to publish.
	ErrEmpty = errors.New("nothing to publish")
	// ErrFileType says that something below the path is no regular file.
	ErrFileType = errors.New("not a regular file")
	// ErrName says that a name cannot stand in a torrent.
	ErrName = errors.New("unusable file name")
	// ErrChanged says that a file or folder changed while it was read.
	ErrChanged = errors.New("changed while it was read")
)

// Options of a publication. Only Path is required.
type Options struct {
	// Path is the file or folder; its last element names the torrent.
	Path string
	// PieceLength is in bytes; 0 chooses a power of two for about 1,500 pieces.
	PieceLength int64

	// Key is the creator's, which signs the manifest; nil makes a torrent
	// without one, and then the next four must be zero.
	Key *bsv.PrivateKey
	// Title is shown instead of the name; see catalog.CheckTitle.
	Title     string
	Royalty   money.Rate
	RoyaltyTo bsv.Hash160 // P2PKH; required where there is a royalty
	Network   bsv.Network // the chain that RoyaltyTo lies on

	Trackers []string // announce URLs, http, https or udp, each a tier of its own (BEP 12)
	WebSeeds []string // http or https (BEP 19)
	Peers    []string // "host:port", written into the magnet link only
	Private  bool     // BEP 27: peers come from the trackers only

	// Progress, if not nil, is told after each piece how many bytes of the
	// total have been read. It is called from one goroutine at a time and must
	// be quick.
	Progress func(done, total int64)
	// Clock, if not nil, gives the creation date. Without one there is none
	// and the output can be reproduced.
	Clock func() time.Time
}

// Result is a torrent that has been made.
type Result struct {
	Bytes   []byte           // the torrent file
	Torrent *catalog.Torrent // what it says, read back and verified
	Magnet  string           // BEP 9, with the peers asked for
}

// Make hashes the data on all cores and returns its torrent. It holds at most
// 64 MiB, or three pieces, of the data in memory. Errors are this package's,
// those of catalog.SignManifest, and those of the file system; what is wrong
// with the options or the names is said before anything is hashed.
func Make(ctx context.Context, opt Options) (*Result, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	src, err := open(opt.Path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	files, err := src.scan(ctx)
	if err != nil {
		return nil, err
	}
	layout, err := plan(src, files, opt.PieceLength)
	if err != nil {
		return nil, err
	}
	if err := hash(ctx, src, files, &layout, opt.Progress); err != nil {
		return nil, err
	}
	// Files were compared one by one as they were read; this finds what was
	// changed after its turn, added, or taken away.
	again, err := src.scan(ctx)
	if err != nil {
		return nil, err
	}
	if path, same := compare(files, again); !same {
		return nil, fmt.Errorf("%q: %w", path, ErrChanged)
	}
	return assemble(&opt, &layout)
}

func (opt *Options) check() error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrOptions, fmt.Errorf(format, args...))
	}
	if n := opt.PieceLength; n != 0 && (n < MinPieceLength || n > MaxPieceLength) {
		return refuse("piece length %d: want %d to %d", n, MinPieceLength, MaxPieceLength)
	}
	for _, u := range opt.Trackers {
		if !isURL(u, "http", "https", "udp") {
			return refuse("tracker %q: want a URL with http, https or udp", u)
		}
	}
	for _, u := range opt.WebSeeds {
		if !isURL(u, "http", "https") {
			return refuse("web seed %q: want a URL with http or https", u)
		}
	}
	for _, p := range opt.Peers {
		if host, port, err := net.SplitHostPort(p); err != nil || host == "" || port == "" {
			return refuse("peer %q: want host:port", p)
		}
	}
	if opt.Key == nil {
		if opt.Title != "" || opt.Royalty != 0 || !opt.RoyaltyTo.IsZero() {
			return refuse("a title or a royalty needs the creator's key")
		}
		return nil
	}
	// Signing the smallest dict there is tells now, and not after hours of
	// hashing, whether these terms can be signed.
	if _, err := catalog.SignManifest([]byte("de"), opt.manifest(), *opt.Key); err != nil {
		return fmt.Errorf("%w: %w", ErrOptions, err)
	}
	return nil
}

func (opt *Options) manifest() catalog.Manifest {
	return catalog.Manifest{Royalty: opt.Royalty, RoyaltyTo: opt.RoyaltyTo, Network: opt.Network, Title: opt.Title}
}

func isURL(text string, schemes ...string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && slices.Contains(schemes, u.Scheme)
}

// plan lays the files out, with hashes that are still zero, and refuses what
// could not be loaded afterwards.
func plan(src *source, files []file, pieceLength int64) (pieces.Layout, error) {
	if len(files) > catalog.MaxFiles {
		return pieces.Layout{}, fmt.Errorf("%w: %d files, at most %d", ErrOptions, len(files), catalog.MaxFiles)
	}
	l := pieces.Layout{Name: src.name, Single: src.single, PieceLength: pieceLength}
	for _, f := range files {
		l.Files = append(l.Files, pieces.File{Path: f.elements(), Length: f.info.Size()})
	}
	total := l.Length()
	if total == 0 {
		return pieces.Layout{}, fmt.Errorf("%q: %w", src.name, ErrEmpty)
	}
	if l.PieceLength == 0 {
		l.PieceLength = choosePieceLength(total)
	}
	count := (total + l.PieceLength - 1) / l.PieceLength
	if count*pieces.HashSize > catalog.MaxTorrent/2 { // the other half is for names
		return pieces.Layout{}, fmt.Errorf("%w: %d pieces of %d bytes: choose longer pieces", ErrOptions, count, l.PieceLength)
	}
	l.Hashes = make([]byte, count*pieces.HashSize)
	if err := l.Validate(); err != nil {
		return pieces.Layout{}, fmt.Errorf("%w: %w", ErrName, err)
	}
	return l, nil
}

// choosePieceLength is the power of two that makes 1,024 to 2,048 pieces,
// within the limits: few enough for a magnet's metadata to be fetched at once,
// enough for peers to have something to trade.
func choosePieceLength(total int64) int64 {
	n := int64(MinPieceLength)
	for n < MaxPieceLength && total/n >= 2048 {
		n *= 2
	}
	return n
}
