package catalog

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/anacrolix/torrent/bencode"
	"github.com/anacrolix/torrent/metainfo"

	"github.com/bitcdn/bitcdn/storage/pieces"
)

// Limits of a torrent file.
const (
	MaxTorrent  = 32 << 20 // bytes of the file, and of an info dict
	MaxFiles    = 200_000
	maxTrackers = 100
	maxWebSeeds = 100
	maxURL      = 2048 // bytes; longer ones are left out
)

// ErrTorrent says that a torrent file is too large, malformed, or describes
// data that cannot be kept. Those of package pieces and of manifests are
// wrapped beside it.
var ErrTorrent = errors.New("unusable torrent")

// Torrent is what a torrent file says (BEP 3).
type Torrent struct {
	InfoHash [20]byte // v1: SHA-1 of Info
	Info     []byte   // the info dict as it stands in the file
	Layout   pieces.Layout
	Private  bool // BEP 27: peers from the trackers only
	Manifest *Manifest
	Trackers [][]string // announce URLs by tier (BEP 12)
	WebSeeds []string   // BEP 19
}

// ParseTorrent reads a torrent file. What is about in swarms loads: any piece
// length, unsorted keys, fields of other programs, hybrid torrents (their v1
// part). A manifest that does not verify makes the torrent unusable, as it
// could not be sold on its creator's terms. The torrent refers to b's memory.
// Errors are ErrTorrent, and with it the reason.
func ParseTorrent(b []byte) (*Torrent, error) {
	if len(b) > MaxTorrent {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTorrent, len(b), MaxTorrent)
	}
	var info, announce, tiers, seeds []byte
	w := walker{text: b}
	err := w.whole(func(e entry) error {
		switch string(e.key) {
		case "info":
			if info != nil {
				return fmt.Errorf("two info dicts: %w", errBencode)
			}
			info = e.value
		case "announce":
			announce = e.value
		case "announce-list":
			tiers = e.value
		case "url-list":
			seeds = e.value
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	if info == nil {
		return nil, fmt.Errorf("%w: no info dict", ErrTorrent)
	}
	t, err := ParseInfo(info)
	if err != nil {
		return nil, err
	}
	t.Trackers = trackers(announce, tiers)
	t.WebSeeds = urls(seeds, maxWebSeeds)
	return t, nil
}

// ParseInfo reads a bencoded info dict alone, as a peer sends it for a magnet
// (BEP 9), under the rules of ParseTorrent. The caller compares the info hash.
func ParseInfo(info []byte) (*Torrent, error) {
	manifest, err := ReadManifest(info)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	// The decoder makes hundreds of bytes out of a file entry of twenty, so
	// what it is given is counted first.
	if err := checkCounts(info); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	var decoded metainfo.Info
	if err := bencode.Unmarshal(info, &decoded); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	layout, err := pieces.LayoutOf(&decoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorrent, err)
	}
	return &Torrent{
		InfoHash: sha1.Sum(info),
		Info:     info,
		Layout:   layout,
		Private:  decoded.Private != nil && *decoded.Private,
		Manifest: manifest,
	}, nil
}

// checkCounts bounds the number of files and of path elements.
func checkCounts(info []byte) error {
	const maxTree = 16 * MaxFiles // values: a file has five to ten
	return (&walker{text: info}).whole(func(e entry) error {
		switch string(e.key) {
		case "files", "file tree":
			w := walker{text: e.value}
			files := 0
			var err error
			if e.value[0] == 'l' {
				_, err = w.list(0, 0, func([]byte) error {
					if files++; files > MaxFiles {
						return fmt.Errorf("more than %d files: %w", MaxFiles, errBencode)
					}
					return nil
				})
			} else {
				_, err = w.value(0, 0)
			}
			if err == nil && w.values > maxTree {
				err = fmt.Errorf("more than %d values in %q: %w", maxTree, e.key, errBencode)
			}
			return err
		}
		return nil
	})
}

// trackers reads "announce" and "announce-list". What is malformed there is
// left out: a broken tracker does not make the content unusable.
func trackers(announce, tiers []byte) [][]string {
	var out [][]string
	left := maxTrackers
	if len(tiers) > 0 && tiers[0] == 'l' {
		w := walker{text: tiers}
		_, _ = w.list(0, 0, func(tier []byte) error {
			if list := urls(tier, left); len(list) > 0 {
				out = append(out, list)
				left -= len(list)
			}
			return nil
		})
	}
	if len(out) == 0 { // BEP 12: the list, where there is one, replaces the single one
		if list := urls(announce, 1); len(list) > 0 {
			out = [][]string{list}
		}
	}
	return out
}

// urls reads a string or a list of strings, at most most of them.
func urls(value []byte, most int) []string {
	var out []string
	add := func(value []byte) error {
		text, err := str(value)
		if err != nil || len(out) >= most || len(text) > maxURL {
			return nil
		}
		if u, err := url.Parse(string(text)); err == nil && u.Scheme != "" && u.Host != "" {
			out = append(out, string(text))
		}
		return nil
	}
	switch {
	case len(value) == 0:
	case value[0] == 'l':
		w := walker{text: value}
		_, _ = w.list(0, 0, add)
	default:
		_ = add(value)
	}
	return out
}

// Name is what the title is called: by its manifest, or else by its file or folder.
func (t *Torrent) Name() string {
	if t.Manifest != nil && t.Manifest.Title != "" {
		return t.Manifest.Title
	}
	return t.Layout.Name
}

// Magnet is the torrent's magnet link (BEP 9): info hash, name, length,
// trackers, web seeds, and as "x.pe" the peers given, each "host:port".
func (t *Torrent) Magnet(peers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "magnet:?xt=urn:btih:%s&dn=%s&xl=%d",
		hex.EncodeToString(t.InfoHash[:]), escape(t.Name()), t.Layout.Length())
	for _, group := range []struct {
		key    string
		values []string
	}{
		{"tr", slices.Concat(t.Trackers...)},
		{"ws", t.WebSeeds},
		{"x.pe", peers},
	} {
		for _, v := range group.values {
			v = escape(v)
			if group.key == "x.pe" { // libtorrent reads an address as it stands
				v = strings.NewReplacer("%3A", ":", "%5B", "[", "%5D", "]").Replace(v)
			}
			b.WriteString("&" + group.key + "=" + v)
		}
	}
	return b.String()
}

// escape is for a link's values. A space is "%20": that "+" is one holds for
// forms, and aria2 among others shows it as it stands.
func escape(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }
