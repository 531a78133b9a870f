package publish

import (
	"errors"
	"fmt"

	"github.com/anacrolix/torrent/bencode"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/storage/pieces"
)

// assemble writes the torrent file and reads it back.
func assemble(opt *Options, l *pieces.Layout) (*Result, error) {
	dict := map[string]any{ // the encoder sorts keys
		"name":         l.Name,
		"piece length": l.PieceLength,
		"pieces":       l.Hashes,
	}
	if l.Single {
		dict["length"] = l.Files[0].Length
	} else {
		list := make([]map[string]any, len(l.Files))
		for i, f := range l.Files {
			list[i] = map[string]any{"length": f.Length, "path": f.Path}
		}
		dict["files"] = list
	}
	if opt.Private {
		dict["private"] = 1
	}
	info, err := bencode.Marshal(dict)
	if err != nil {
		return nil, fmt.Errorf("write info dict: %w", err)
	}
	if opt.Key != nil {
		if info, err = catalog.SignManifest(info, opt.manifest(), *opt.Key); err != nil {
			return nil, err
		}
	}
	file := map[string]any{
		"created by": "BitCDN",
		"encoding":   "UTF-8",
		"info":       bencode.Bytes(info),
	}
	if len(opt.Trackers) > 0 {
		file["announce"] = opt.Trackers[0]
	}
	if len(opt.Trackers) > 1 {
		tiers := make([][]string, len(opt.Trackers))
		for i, u := range opt.Trackers {
			tiers[i] = []string{u}
		}
		file["announce-list"] = tiers
	}
	if len(opt.WebSeeds) > 0 {
		file["url-list"] = opt.WebSeeds
	}
	if opt.Clock != nil {
		file["creation date"] = opt.Clock().Unix()
	}
	b, err := bencode.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("write torrent: %w", err)
	}
	t, err := catalog.ParseTorrent(b)
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	if (t.Manifest != nil) != (opt.Key != nil) {
		return nil, errors.New("read back: manifest lost")
	}
	return &Result{Bytes: b, Torrent: t, Magnet: t.Magnet(opt.Peers...)}, nil
}
