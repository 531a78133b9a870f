package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/ledger"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Transaction is one that the node has, in its mempool or in a block.
func (w *World) Transaction(txid string) *bsv.Tx {
	w.Helper()
	id, err := bsv.ParseTxid(txid)
	w.Must(err)
	var tx *bsv.Tx
	w.Await("transaction "+txid, func() error {
		tx, err = w.Node.Backend().RawTx(w.Ctx, id)
		return err
	})
	return tx
}

// Mined mines blocks until the node says that a transaction is in one.
func (w *World) Mined(txid string) *bsv.Tx {
	w.Helper()
	tx := w.Transaction(txid)
	w.Await("block with "+txid, func() error {
		status, err := w.Node.Backend().Status(w.Ctx, tx.Txid())
		switch {
		case err != nil:
			return err
		case status.State == chain.Mined:
			return nil
		case status.State == chain.Seen:
			if err := w.Node.Mine(w.Ctx, 1); err != nil {
				return err
			}
		}
		return fmt.Errorf("state %v", status.State)
	})
	return tx
}

// Fee is what a transaction pays to the miner.
func (w *World) Fee(tx *bsv.Tx) money.Satoshis {
	w.Helper()
	var fee money.Satoshis
	for _, in := range tx.Inputs {
		fee += w.Transaction(in.Prev.Txid.String()).Outputs[in.Prev.Index].Value
	}
	for _, out := range tx.Outputs {
		fee -= out.Value
	}
	return fee
}

// PaidTo is what a transaction pays to an address.
func PaidTo(tx *bsv.Tx, to bsv.Hash160) (sum money.Satoshis) {
	for _, o := range tx.Outputs {
		if h, ok := o.Script.P2PKHHash(); ok && h == to {
			sum += o.Value
		}
	}
	return sum
}

// Ledger shows the ledger of a program that is not running, and checks it.
func (w *World) Ledger(data string, look func(*ledger.Ledger)) {
	w.Helper()
	l, err := ledger.Open(w.Ctx, filepath.Join(data, "money.db"), time.Now)
	w.Must(err)
	defer func() { w.Must(l.Close()) }()
	if err := l.Check(w.Ctx); err != nil {
		w.Errorf("ledger of %s: %v", filepath.Base(data), err)
	}
	if look != nil {
		look(l)
	}
}

// CompareFiles checks the download byte for byte.
func (w *World) CompareFiles(r Receipt) {
	w.Helper()
	if !r.Complete || r.Length != w.Goods.Length {
		w.Fatalf("complete %v, %d bytes", r.Complete, r.Length)
	}
	original := filepath.Join(w.Goods.Folder, Contents)
	w.Must(filepath.WalkDir(original, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(original, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(r.Path, rel))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s differs", rel)
		}
		return nil
	}))
}

// Books mines all closes and then compares, to the satoshi, the client's
// receipt, the boxes' ledgers, what the node has, and the client's wallet. It
// stops the boxes.
func (w *World) Books(c *Client, r Receipt) {
	w.Helper()
	var spent money.Satoshis
	earned := make(map[string]money.Satoshis)
	creators := make(map[string]money.Satoshis)
	sold := make(map[string]int64)
	shares := make(map[string]money.Satoshis) // of a funding's fee, by funding
	for _, ch := range r.Channels {
		if ch.Close == "" || ch.State != ledger.StateClosed {
			w.Fatalf("channel %s is %s, close %q", ch.Channel, ch.State, ch.Close)
		}
		tx := w.Mined(ch.Close)
		funding := w.Transaction(ch.Funding)
		if len(tx.Inputs) != 1 || tx.Inputs[0].Prev.Txid != funding.Txid() {
			w.Errorf("close %s does not spend funding %s alone", ch.Close, ch.Funding)
		}
		if ch.Payee > 0 && tx.Outputs[0].Value != ch.Payee {
			w.Errorf("close %s pays %v to the seeder, receipt %v", ch.Close, tx.Outputs[0].Value, ch.Payee)
		}
		if got := PaidTo(tx, w.Goods.Creator); got != ch.Creator {
			w.Errorf("close %s pays %v to the creator, receipt %v", ch.Close, got, ch.Creator)
		}
		shares[ch.Funding] += ch.Fee - w.Fee(tx)
		payee, err := ch.Price.Due(ch.Bytes)
		w.Must(err)
		creator, err := ch.Royalty.Due(ch.Bytes)
		w.Must(err)
		if payee != ch.Payee || creator != ch.Creator {
			w.Errorf("%d bytes cost %v and %v, paid %v and %v", ch.Bytes, payee, creator, ch.Payee, ch.Creator)
		}
		earned[ch.Seeder] += ch.Payee
		creators[ch.Seeder] += ch.Creator
		spent += ch.Payee + ch.Creator + ch.Fee
	}
	for txid, sum := range shares {
		if fee := w.Fee(w.Transaction(txid)); fee != sum {
			w.Errorf("funding %s cost %v in fees, the channels' shares are %v", txid, fee, sum)
		}
	}
	if spent != r.Spent {
		w.Errorf("receipt: %v spent, its lines say %v", r.Spent, spent)
	}
	for _, b := range w.Boxes {
		w.Await("settled earnings", func() error {
			if s := b.Status(); s.Earnings.Unsettled != 0 {
				return fmt.Errorf("%v are not settled", s.Earnings.Unsettled)
			}
			return nil
		})
		b.Stop()
		rows := b.Channels()
		for _, ch := range r.Channels {
			if ch.Seeder != b.Peers {
				continue
			}
			row, ok := rows[ch.Channel]
			sold[ch.Seeder] += row.Bytes
			// A box closes with the commitment that uses a channel up. One more may
			// be on its way then, for bytes that cost nothing by rounding.
			late := row.Seq+1 == ch.Commitments && row.Bytes < ch.Bytes
			same := row.Seq == ch.Commitments && row.Bytes == ch.Bytes
			if !ok || row.Payee != ch.Payee || row.Creator != ch.Creator || !same && !late || bsv.Txid(row.CloseTxid).String() != ch.Close {
				w.Errorf("receipt %+v, box: %v %v, %d bytes, %d commitments, close %v", ch, row.Payee, row.Creator, row.Bytes, row.Seq, bsv.Txid(row.CloseTxid))
			}
		}
		w.Ledger(b.Data, func(l *ledger.Ledger) {
			totals, err := l.Totals(w.Ctx)
			w.Must(err)
			if totals.Earned != earned[b.Peers] || totals.Settled != earned[b.Peers] || totals.Royalty != creators[b.Peers] {
				w.Errorf("box %s: earned %v (settled %v) and royalty %v, receipt %v and %v", b.Peers, totals.Earned, totals.Settled, totals.Royalty, earned[b.Peers], creators[b.Peers])
			}
			titles, err := l.EarningsByTitle(w.Ctx)
			w.Must(err)
			for _, t := range titles {
				if t.Bytes != sold[b.Peers] {
					w.Errorf("box %s sold %d bytes, receipt %d", b.Peers, t.Bytes, sold[b.Peers])
				}
			}
		})
	}
	confirmed, unconfirmed := c.Balance()
	if unconfirmed != 0 || confirmed != c.Pocket-r.Spent {
		w.Errorf("wallet: %v and %v on the way; had %v, spent %v", confirmed, unconfirmed, c.Pocket, r.Spent)
	}
	w.Ledger(c.Data, nil)
}
