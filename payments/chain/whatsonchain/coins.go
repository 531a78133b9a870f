package whatsonchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	// bulkScripts is how many scripts or outputs one request may ask for,
	// bulkOutputs how many outputs the answer about scripts holds at most.
	bulkScripts, bulkOutputs = 20, 20
	// pageSize is asked for where the outputs of a script come in pages, and
	// maxPages bounds them.
	pageSize, maxPages = 1000, 200
)

// ScriptHash is how the service names a locking script: its SHA-256 with the
// bytes reversed, in hexadecimal.
func ScriptHash(script bsv.Script) string {
	h := sha256.Sum256(script)
	slices.Reverse(h[:])
	return hex.EncodeToString(h[:])
}

// unspent is what is listed of one output.
type unspent struct {
	TxHash             string `json:"tx_hash"`
	TxPos              int64  `json:"tx_pos"`
	Value              int64
	Height             int64
	IsSpentInMempoolTx bool
	Hex                string
}

// listing is what is listed of one script.
type listing struct {
	Script        string
	Result        []unspent
	NextPageToken string
	Error         string
}

func (l *listing) check(hash string) error {
	if l.Error != "" {
		return fmt.Errorf("outputs of script %s: %w: %.100q", hash, chain.ErrUnavailable, l.Error)
	}
	if l.Script != hash {
		return fmt.Errorf("outputs of script %.64q, not of %s: %w", l.Script, hash, ErrProtocol)
	}
	return nil
}

// Unspent implements chain.Backend.
func (b *Backend) Unspent(ctx context.Context, script bsv.Script) ([]chain.Coin, error) {
	hash := ScriptHash(script)
	var all listing
	err := b.list(ctx, hash, "/unspent/all", &all)
	if err != nil && !errors.Is(err, errLarge) {
		return nil, err
	}
	found := make(coins)
	if err == nil && all.NextPageToken == "" {
		return found.of(script, all.Result)
	}
	// The unconfirmed ones first: what is mined meanwhile is listed twice then,
	// and not never.
	var pending listing
	if err := b.list(ctx, hash, "/unconfirmed/unspent", &pending); err != nil {
		return nil, err
	}
	if err := found.add(script, pending.Result); err != nil {
		return nil, err
	}
	query := url.Values{"limit": {fmt.Sprint(pageSize)}}
	for range maxPages {
		var page listing
		if err := b.list(ctx, hash, "/confirmed/unspent?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		if page.NextPageToken == "" || len(page.Result) == 0 {
			return found.of(script, page.Result)
		}
		if err := found.add(script, page.Result); err != nil {
			return nil, err
		}
		query.Set("token", page.NextPageToken)
	}
	return nil, fmt.Errorf("more than %d outputs of one script: %w", pageSize*maxPages, chain.ErrUnsupported)
}

func (b *Backend) list(ctx context.Context, hash, what string, l *listing) error {
	err := b.client.get(ctx, "/script/"+hash+what, l)
	if refusedWith(err, http.StatusNotFound) { // never used
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for the outputs of a script: %w", err)
	}
	return l.check(hash)
}

// UnspentBulk implements chain.BulkUnspent: two requests for 20 scripts that
// hold few coins.
func (b *Backend) UnspentBulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	all := make([][]chain.Coin, 0, len(scripts))
	for some := range slices.Chunk(scripts, bulkScripts) {
		coins, err := b.bulk(ctx, some)
		if err != nil {
			return nil, err
		}
		all = append(all, coins...)
	}
	return all, nil
}

// bulk asks for up to 20 scripts at once. Where the answer is full, and may be
// cut off, it asks for each half.
func (b *Backend) bulk(ctx context.Context, scripts []bsv.Script) ([][]chain.Coin, error) {
	if len(scripts) == 1 {
		coins, err := b.Unspent(ctx, scripts[0])
		return [][]chain.Coin{coins}, err
	}
	hashes := make([]string, len(scripts))
	for i, s := range scripts {
		hashes[i] = ScriptHash(s)
	}
	found := make([]coins, len(scripts))
	for _, path := range []string{"/scripts/unconfirmed/unspent", "/scripts/confirmed/unspent"} {
		listings, full, err := b.bulkList(ctx, path, hashes)
		if err != nil {
			return nil, err
		}
		if full {
			half := len(scripts) / 2
			first, err := b.bulk(ctx, scripts[:half])
			if err != nil {
				return nil, err
			}
			second, err := b.bulk(ctx, scripts[half:])
			return append(first, second...), err
		}
		for i, script := range scripts {
			if found[i] == nil {
				found[i] = make(coins)
			}
			if err := found[i].add(script, listings[hashes[i]].Result); err != nil {
				return nil, err
			}
		}
	}
	all := make([][]chain.Coin, len(scripts))
	for i := range scripts {
		all[i] = found[i].sorted()
	}
	return all, nil
}

func (b *Backend) bulkList(ctx context.Context, path string, hashes []string) (_ map[string]*listing, full bool, err error) {
	var answer []*listing
	if err := b.client.post(ctx, path, map[string][]string{"scripts": hashes}, &answer); err != nil {
		return nil, false, fmt.Errorf("ask for the outputs of %d scripts: %w", len(hashes), err)
	}
	listings := make(map[string]*listing)
	outputs := 0
	for _, l := range answer {
		if l != nil {
			listings[l.Script] = l
			outputs += len(l.Result)
			full = full || l.NextPageToken != ""
		}
	}
	for _, hash := range hashes {
		l := listings[hash]
		if l == nil {
			return nil, false, fmt.Errorf("outputs of script %s are not in the answer: %w", hash, ErrProtocol)
		}
		if err := l.check(hash); err != nil {
			return nil, false, err
		}
	}
	return listings, full || outputs >= bulkOutputs, nil
}

// coins are the unspent outputs of one script. An output may be listed twice.
type coins map[bsv.Outpoint]chain.Coin

func (c coins) add(script bsv.Script, list []unspent) error {
	for _, u := range list {
		if u.IsSpentInMempoolTx {
			continue
		}
		txid, err := bsv.ParseTxid(u.TxHash)
		if err != nil {
			return fmt.Errorf("output of a script: %w: %w", ErrProtocol, err)
		}
		if u.TxPos < 0 || u.TxPos > math.MaxUint32 || u.Height < -1 || u.Height > math.MaxInt32 ||
			!money.Satoshis(u.Value).Valid() || u.Hex != "" && u.Hex != script.String() {
			return fmt.Errorf("output %s:%d of a script, %d sat at height %d: %w", txid, u.TxPos, u.Value, u.Height, ErrProtocol)
		}
		at := bsv.Outpoint{Txid: txid, Index: uint32(u.TxPos)}
		coin := chain.Coin{
			Coin:   bsv.Coin{Outpoint: at, Output: bsv.Output{Value: money.Satoshis(u.Value), Script: slices.Clone(script)}},
			Height: uint32(max(u.Height, 0)), // 0 and -1 have been used for the mempool
		}
		if c[at].Height == 0 {
			c[at] = coin
		}
	}
	return nil
}

// of adds the last ones and returns them all.
func (c coins) of(script bsv.Script, last []unspent) ([]chain.Coin, error) {
	if err := c.add(script, last); err != nil {
		return nil, err
	}
	return c.sorted(), nil
}

func (c coins) sorted() []chain.Coin {
	var all []chain.Coin
	for _, coin := range c {
		all = append(all, coin)
	}
	slices.SortFunc(all, chain.Compare)
	return all
}

// Spent implements chain.Backend.
func (b *Backend) Spent(ctx context.Context, o bsv.Outpoint) (bool, error) {
	_, spent, err := b.spender(ctx, o)
	return spent, err
}

// spender is Spent, and who spent it.
func (b *Backend) spender(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	var answer struct{ Txid string }
	err = b.client.get(ctx, fmt.Sprintf("/tx/%s/%d/spent", o.Txid, o.Index), &answer)
	switch {
	case refusedWith(err, http.StatusNotFound, http.StatusBadRequest):
		// The index of outputs may be behind that of transactions.
		unknown := refusedWith(err, http.StatusBadRequest)
		tx, err := b.RawTx(ctx, o.Txid)
		if err != nil {
			return by, false, err
		}
		if uint64(o.Index) >= uint64(len(tx.Outputs)) {
			return by, false, fmt.Errorf("output %s: %w", o, chain.ErrNotFound)
		}
		if unknown {
			return by, false, fmt.Errorf("output %s is not in the index yet: %w", o, chain.ErrUnavailable)
		}
		return by, false, nil
	case err != nil:
		return by, false, fmt.Errorf("ask who spent %s: %w", o, err)
	}
	if by, err = bsv.ParseTxid(answer.Txid); err != nil {
		return by, false, fmt.Errorf("spender of %s: %w: %w", o, ErrProtocol, err)
	}
	return by, true, nil
}

// SpentBy implements chain.SpentBy.
func (b *Backend) SpentBy(ctx context.Context, o bsv.Outpoint) (by bsv.Txid, spent bool, err error) {
	return b.spender(ctx, o)
}

// spenders returns what spends any of these outputs, once for each: one request
// for 20 of them. Outputs that do not exist are passed over.
func (b *Backend) spenders(ctx context.Context, outputs []bsv.Outpoint) ([]bsv.Txid, error) {
	type utxo struct {
		Txid bsv.Txid `json:"txid"`
		Vout uint32   `json:"vout"`
	}
	var all []bsv.Txid
	left := maxSingly
	for some := range slices.Chunk(outputs, bulkScripts) {
		question := make([]utxo, len(some))
		for i, o := range some {
			question[i] = utxo{o.Txid, o.Index}
		}
		var answer []struct{ SpentIn struct{ Txid string } }
		err := b.client.post(ctx, "/utxos/spent", map[string][]utxo{"utxos": question}, &answer)
		if refusedWith(err, http.StatusNotFound, http.StatusBadRequest) { // for the sake of one of them
			some = some[:min(len(some), left)]
			left -= len(some)
			one, err := b.spendersSingly(ctx, some)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask who spent %d outputs: %w", len(some), err)
		}
		for _, a := range answer[:min(len(answer), len(some))] {
			if a.SpentIn.Txid == "" {
				continue
			}
			by, err := bsv.ParseTxid(a.SpentIn.Txid)
			if err != nil {
				return nil, fmt.Errorf("spender of an output: %w: %w", ErrProtocol, err)
			}
			all = append(all, by)
		}
	}
	return all, nil
}

// maxSingly is how many outputs are asked about one by one because the service
// does not answer for all of them at once.
const maxSingly = 2 * bulkScripts

func (b *Backend) spendersSingly(ctx context.Context, outputs []bsv.Outpoint) ([]bsv.Txid, error) {
	var all []bsv.Txid
	for _, o := range outputs {
		by, spent, err := b.spender(ctx, o)
		if err != nil && !errors.Is(err, chain.ErrNotFound) {
			return nil, err
		}
		if spent {
			all = append(all, by)
		}
	}
	return all, nil
}

// UsedBulk implements chain.BulkUsed: two requests for 20 scripts.
func (b *Backend) UsedBulk(ctx context.Context, scripts []bsv.Script) ([]bool, error) {
	all := make([]bool, 0, len(scripts))
	for some := range slices.Chunk(scripts, bulkScripts) {
		hashes := make([]string, len(some))
		for i, s := range some {
			hashes[i] = ScriptHash(s)
		}
		used := make([]bool, len(some))
		if err := b.used(ctx, hashes, used); err != nil {
			return nil, err
		}
		all = append(all, used...)
	}
	return all, nil
}

// used sets which of up to 20 scripts have a history. Where an answer is full,
// and may be cut off, it asks for each half.
func (b *Backend) used(ctx context.Context, hashes []string, used []bool) error {
	if len(hashes) == 1 {
		err := b.client.get(ctx, "/script/"+hashes[0]+"/used", &used[0])
		if err != nil {
			return fmt.Errorf("ask whether a script was used: %w", err)
		}
		return nil
	}
	for _, path := range []string{"/scripts/confirmed/history", "/scripts/unconfirmed/history"} {
		listings, full, err := b.bulkList(ctx, path, hashes)
		if err != nil {
			return err
		}
		unused := false
		for i, hash := range hashes {
			used[i] = used[i] || len(listings[hash].Result) > 0
			unused = unused || !used[i]
		}
		if full && unused {
			half := len(hashes) / 2
			if err := b.used(ctx, hashes[:half], used[:half]); err != nil {
				return err
			}
			return b.used(ctx, hashes[half:], used[half:])
		}
	}
	return nil
}
