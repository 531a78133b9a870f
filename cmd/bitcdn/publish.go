package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bitcdn/bitcdn/appliance/publish"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/wallet"
	"github.com/bitcdn/bitcdn/storage/durable"
)

func runPublish(ctx context.Context, args []string, io stdio) error {
	flags := flagSet(io, "publish", "DIR|FILE", `Makes a torrent with a manifest that you sign: who created it, and what you get
of every sale. Prints the magnet link.`)
	title := flags.String("title", "", "the title's `name`; the file's or folder's where it is not given")
	royalty := rateFlag(flags, "royalty", 0, "what you get for each GiB that somebody buys, on top of the seeder's price")
	royaltyTo := flags.String("royalty-to", "", "`address` that the royalty is paid to; one of your wallet's where it is not given")
	pieceLength := flags.Int64("piece-length", 0, "`bytes` in a piece, 16384 to 16777216, best a multiple of 16384; chosen by the size where it is not given")
	trackers := flags.StringArray("tracker", nil, "announce `URL`; may be repeated")
	peers := flags.StringArray("peer", nil, "`host:port` of a seeder, for the magnet link; may be repeated")
	private := flags.Bool("private", false, "peers come from the trackers only (BEP 27)")
	plain := flags.Bool("no-manifest", false, "make an ordinary torrent without terms")
	output := flags.StringP("output", "o", "", "torrent `file` to write; NAME.torrent where it is not given")
	force := flags.Bool("force", false, "replace a torrent file that says something else")
	quiet := flags.BoolP("quiet", "q", false, "print the magnet link only")
	purseOptions := addPurseFlags(flags)
	if done, err := parse(flags, args, 1, 1); done || err != nil {
		return err
	}
	network, err := purseOptions.parseNetwork()
	if err != nil {
		return err
	}
	options := publish.Options{Path: flags.Arg(0), PieceLength: *pieceLength, Trackers: *trackers, Peers: *peers, Private: *private}
	if !*plain {
		options.Title, options.Royalty, options.Network = *title, *royalty, network
		if *royaltyTo != "" {
			if options.RoyaltyTo, err = bsv.ParseAddress(*royaltyTo, network); err != nil {
				return fmt.Errorf("--royalty-to: %w", err)
			}
			if options.RoyaltyTo.IsZero() {
				return fmt.Errorf("--royalty-to: %s: nobody has the key of this address", *royaltyTo)
			}
		}
		if err := signAs(ctx, purseOptions, io, &options); err != nil {
			return err
		}
	} else if *title != "" || *royalty != 0 || *royaltyTo != "" {
		return fmt.Errorf("%w: --no-manifest leaves no place for a title or a royalty", errUsage)
	}
	meter := newMeter(io.err, "hashing")
	options.Progress = meter.update
	if *quiet {
		options.Progress = nil
	}
	result, err := publish.Make(ctx, options)
	meter.done()
	if err != nil {
		if ctx.Err() != nil {
			return errInterrupted
		}
		return err
	}
	path := *output
	if path == "" {
		path = filepath.Base(filepath.Clean(result.Torrent.Layout.Name)) + ".torrent"
	}
	if err := writeTorrent(path, result.Bytes, *force); err != nil {
		return err
	}
	if !*quiet {
		t := result.Torrent
		fmt.Fprintf(io.out, "torrent:   %s\ninfo hash: %s\nsize:      %s in %d files, %d pieces of %s\n", path,
			hex.EncodeToString(t.InfoHash[:]), size(t.Layout.Length()), len(t.Layout.Files), t.Layout.NumPieces(), size(t.Layout.PieceLength))
		if m := t.Manifest; m != nil {
			fmt.Fprintf(io.out, "creator:   %v\n", m.Creator)
			if m.Royalty > 0 {
				fmt.Fprintf(io.out, "royalty:   %v to %s\n", m.Royalty, m.RoyaltyTo.Address(m.Network))
			}
		}
		fmt.Fprint(io.out, "magnet:    ")
	}
	fmt.Fprintln(io.out, result.Magnet)
	return nil
}

// writeTorrent writes the torrent file, but not over another one: people may
// have its magnet link already.
func writeTorrent(path string, b []byte, force bool) error {
	info, err := os.Stat(path)
	switch {
	case force || errors.Is(err, fs.ErrNotExist):
		return durable.Replace(path, b, 0o644)
	case err != nil:
		return err
	case info.Size() == int64(len(b)):
		if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, b) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", path, errOtherTorrent)
}

var errOtherTorrent = errors.New("there is another torrent file of this name")

// signAs fills in the creator's key, and an address for the royalty. The key
// needs no chain, so that one can publish without a node.
func signAs(ctx context.Context, f purseFlags, io stdio, o *publish.Options) error {
	if *f.node == "" {
		*f.node = "http://nobody:nothing@127.0.0.1:1" // is never asked
	}
	p, err := openPurse(ctx, f, io)
	if err != nil {
		return err
	}
	defer p.close()
	key, err := p.wallet.Key(wallet.BranchIdentity, creatorIndex)
	if err != nil {
		return err
	}
	o.Key = &key
	if o.Royalty > 0 && o.RoyaltyTo.IsZero() {
		address, err := p.wallet.ReceiveAddress(ctx)
		if err != nil {
			return errors.Join(errors.New("no address for the royalty"), err)
		}
		if o.RoyaltyTo, err = bsv.ParseAddress(address, p.network); err != nil {
			return err
		}
	}
	return nil
}

// creatorIndex is the key of wallet.BranchIdentity that signs manifests.
const creatorIndex = 1
