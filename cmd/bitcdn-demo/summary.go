package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/bitcdn/bitcdn/appliance/box"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// receipt is the part of the client's receipt that the demo looks at.
type receipt struct {
	Path     string         `json:"path"`
	Length   int64          `json:"length"`
	Complete bool           `json:"complete"`
	Spent    money.Satoshis `json:"spent"`
	Channels []struct {
		Seeder      string         `json:"seeder"`
		Channel     string         `json:"channel"`
		Bytes       int64          `json:"bytes"`
		Commitments uint64         `json:"commitments"`
		Payee       money.Satoshis `json:"payee"`
		Creator     money.Satoshis `json:"creator"`
		Close       string         `json:"close_txid"`
	} `json:"channels"`
	Peers []struct {
		Wire int64 `json:"wire"`
	} `json:"peers"`
}

// mined is a transaction as the node reports it.
type mined struct {
	what   string
	txid   bsv.Txid
	height uint32
	outs   []bsv.Output
}

type sold struct {
	box         string
	bytes       int64
	commitments uint64
	earned      money.Satoshis
}

type summary struct {
	length int64
	spent  money.Satoshis
	sold   []sold
	txs    []mined
}

// settle mines what waits, sweeps both boxes, mines that too, and asks the node
// about all of it.
func (d *demo) settle(ctx context.Context, r *receipt) (*summary, error) {
	d.say("\n== the closes are mined, and each box sweeps its earnings to its owner")
	s := &summary{length: r.Length, spent: r.Spent}
	for _, c := range r.Channels {
		tx, err := d.await(ctx, "close   "+c.Channel[:16], c.Close)
		if err != nil {
			return nil, err
		}
		s.txs = append(s.txs, tx)
	}
	for _, b := range d.sellers {
		status, err := b.control.Status(ctx)
		if err != nil {
			return nil, err
		}
		line := sold{box: b.name, earned: status.Earnings.Earned()}
		for _, t := range status.Titles {
			line.bytes += t.Sold
		}
		for _, c := range r.Channels {
			if c.Seeder == b.peers {
				line.commitments += c.Commitments
			}
		}
		s.sold = append(s.sold, line)
		var sweep box.SweepResponse
		// The box learns of the block at its next look at the chain.
		if err := until(ctx, func() (bool, error) {
			status, err := b.control.Status(ctx)
			if err != nil {
				return false, err
			}
			if len(status.Earnings.Sweeps) > 0 { // it came by itself
				sweep.Txid = status.Earnings.Sweeps[0].Txid
				return true, nil
			}
			sweep, err = b.control.Sweep(ctx, box.SweepRequest{})
			return err == nil, nil
		}); err != nil {
			return nil, fmt.Errorf("%s does not sweep: %w", b.name, err)
		}
		tx, err := d.await(ctx, "sweep   "+b.name, sweep.Txid)
		if err != nil {
			return nil, err
		}
		s.txs = append(s.txs, tx)
	}
	return s, nil
}

// await mines blocks until the node reports the transaction mined.
func (d *demo) await(ctx context.Context, what, txid string) (mined, error) {
	id, err := bsv.ParseTxid(txid)
	if err != nil {
		return mined{}, fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	backend := d.node.Backend()
	tx := mined{what: what, txid: id}
	err = until(ctx, func() (bool, error) {
		status, err := backend.Status(ctx, id)
		switch {
		case err != nil:
			return false, err
		case status.State == chain.Mined:
			tx.height = status.Height
			return true, nil
		case status.State == chain.Seen:
			return false, d.node.Mine(ctx, 1)
		}
		return false, nil // on its way
	})
	if err != nil {
		return mined{}, fmt.Errorf("%s %s: %w", what, txid, err)
	}
	raw, err := backend.RawTx(ctx, id)
	if err != nil {
		return mined{}, err
	}
	tx.outs = raw.Outputs
	d.say("   %s  %s  mined in block %d", what, id, tx.height)
	return tx, nil
}

func (s *summary) print(w io.Writer) {
	fmt.Fprintf(w, "\n== summary\n")
	t := tabwriter.NewWriter(w, 3, 0, 2, ' ', 0)
	fmt.Fprintf(t, "   bytes\t%d\n", s.length)
	fmt.Fprintf(t, "   spent by the client, fees included\t%v\n", s.spent)
	for _, b := range s.sold {
		fmt.Fprintf(t, "   %s\t%d bytes, %v, %d commitments\n", b.box, b.bytes, b.earned, b.commitments)
	}
	for _, tx := range s.txs {
		fmt.Fprintf(t, "   %s\t%s in block %d\n", tx.what, tx.txid, tx.height)
	}
	_ = t.Flush()
}

// check compares what the client, the boxes and the chain say.
func (s *summary) check(r *receipt) error {
	var onWire, billed, soldBytes int64
	for _, p := range r.Peers {
		onWire += p.Wire
	}
	for _, c := range r.Channels {
		billed += c.Bytes
	}
	for _, b := range s.sold {
		soldBytes += b.bytes
	}
	if onWire != billed || billed != soldBytes {
		return fmt.Errorf("bytes disagree: %d on the wire, %d on the receipt, %d in the boxes' ledgers", onWire, billed, soldBytes)
	}
	for i, c := range r.Channels {
		outs := s.txs[i].outs
		if len(outs) < 2 || outs[0].Value != c.Payee || outs[1].Value != c.Creator {
			return fmt.Errorf("close %s pays %v, the receipt says %v and %v", c.Close, outs, c.Payee, c.Creator)
		}
	}
	return nil
}

// compare reads two folders and says how many files, of how many bytes, are the
// same in both; an error names the first difference.
func compare(ctx context.Context, original, copied string) (files int, size int64, err error) {
	if err := eachFile(ctx, copied, func(rel string) error {
		if _, err := os.Stat(filepath.Join(original, rel)); err != nil {
			return fmt.Errorf("%s is not in the original: %w", rel, err)
		}
		return nil
	}); err != nil {
		return 0, 0, err
	}
	err = eachFile(ctx, original, func(rel string) error {
		a, err := os.ReadFile(filepath.Join(original, rel))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(copied, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s differs", rel)
		}
		files, size = files+1, size+int64(len(a))
		return nil
	})
	if err == nil && files == 0 {
		err = errors.New("there is nothing to compare")
	}
	return files, size, err
}

func eachFile(ctx context.Context, root string, visit func(rel string) error) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return visit(rel)
	})
}
