package fetch

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

// Bounds on what a link or a torrent file may name.
const (
	// MaxTorrent is the largest torrent file that is read, in bytes.
	MaxTorrent = 32 << 20
	// MaxMagnet is the longest magnet link that is read, in bytes.
	MaxMagnet   = 64 << 10
	maxTrackers = 100
	maxSourcePe = 100
)

// Source names a torrent and where to look for it.
type Source struct {
	InfoHash [20]byte
	// InfoBytes is the bencoded info dictionary; nil asks peers for it (BEP 9).
	InfoBytes []byte
	// Name is shown until the metadata is known.
	Name string
	// Trackers are announce addresses in tiers (BEP 12).
	Trackers [][]string
	// Peers are host:port; a host may be a name.
	Peers []string
}

// MagnetSource reads a magnet link: xt (a version 1 info hash, hexadecimal or
// base32), dn, tr and x.pe. Web seeds are not taken from a link. Errors are
// ErrTorrent.
func MagnetSource(link string) (Source, error) {
	if len(link) > MaxMagnet {
		return Source{}, fmt.Errorf("%w: magnet link of %d bytes", ErrTorrent, len(link))
	}
	m, err := metainfo.ParseMagnetV2Uri(strings.TrimSpace(link))
	if err != nil {
		return Source{}, fmt.Errorf("%w: magnet link: %v", ErrTorrent, err)
	}
	if !m.InfoHash.Ok || m.InfoHash.Value.IsZero() {
		return Source{}, &hintError{
			fmt.Errorf("%w: magnet link has no version 1 info hash (xt=urn:btih:…)", ErrTorrent),
			"Ask the publisher for a link of a v1 or hybrid torrent.",
		}
	}
	s := Source{
		InfoHash: m.InfoHash.Value,
		Name:     m.DisplayName,
		Peers:    head(m.Params["x.pe"], maxSourcePe),
	}
	// Each tr of a link is a tier of its own: they are announced to in turn.
	for _, tr := range head(m.Trackers, maxTrackers) {
		if trackerURL(tr) {
			s.Trackers = append(s.Trackers, []string{tr})
		}
	}
	return s, nil
}

// TorrentSource reads a torrent file. Errors are ErrTorrent.
func TorrentSource(file []byte) (Source, error) {
	if len(file) > MaxTorrent {
		return Source{}, fmt.Errorf("%w: file of %d bytes", ErrTorrent, len(file))
	}
	var mi metainfo.MetaInfo
	d := bencode.NewDecoder(bytes.NewReader(file))
	if err := d.Decode(&mi); err != nil {
		return Source{}, fmt.Errorf("%w: %v", ErrTorrent, err)
	}
	if err := d.ReadEOF(); err != nil && !errors.Is(err, io.EOF) {
		return Source{}, fmt.Errorf("%w: %v", ErrTorrent, err)
	}
	if len(mi.InfoBytes) == 0 {
		return Source{}, fmt.Errorf("%w: no info dictionary", ErrTorrent)
	}
	s := Source{InfoHash: sha1.Sum(mi.InfoBytes), InfoBytes: mi.InfoBytes}
	info, _, err := parseInfo(mi.InfoBytes)
	if err != nil {
		return Source{}, err
	}
	s.Name = info.BestName()
	n := 0
	for _, tier := range mi.UpvertedAnnounceList() {
		var t []string
		for _, tr := range tier {
			if trackerURL(tr) && n < maxTrackers {
				t = append(t, tr)
				n++
			}
		}
		if t != nil {
			s.Trackers = append(s.Trackers, t)
		}
	}
	return s, nil
}

// trackerURL tells trackers that the client can speak to: WebTorrent's are not,
// since WebRTC is off.
func trackerURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	switch u.Scheme {
	case "http", "https", "udp", "udp4", "udp6":
		return true
	}
	return false
}

func head(s []string, n int) []string { return s[:min(len(s), n)] }

// parseInfo reads an info dictionary and refuses one that cannot be kept.
func parseInfo(b []byte) (*metainfo.Info, pieces.Layout, error) {
	var info metainfo.Info
	if err := bencode.Unmarshal(b, &info); err != nil {
		return nil, pieces.Layout{}, fmt.Errorf("%w: info dictionary: %v", ErrTorrent, err)
	}
	l, err := pieces.LayoutOf(&info)
	if err != nil {
		return nil, pieces.Layout{}, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	return &info, l, nil
}
