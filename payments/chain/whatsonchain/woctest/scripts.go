package woctest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// bulkItems is how many outputs or transactions a bulk answer holds at most.
const bulkItems = 20

// coins are the unspent outputs of the script with this hash.
func (s *server) coins(ctx context.Context, hash string) ([]chain.Coin, error) {
	script, ok, err := s.script(ctx, hash)
	if err != nil || !ok {
		return nil, err
	}
	return s.b.Unspent(ctx, script)
}

func (s *server) script(ctx context.Context, hash string) (bsv.Script, bool, error) {
	raw, err := hex.DecodeString(hash)
	if err != nil || len(raw) != 32 {
		return nil, false, errBad
	}
	slices.Reverse(raw)
	known := s.opt.Script
	if b, ok := s.b.(interface {
		Script([32]byte) (bsv.Script, bool)
	}); ok && known == nil {
		known = b.Script
	}
	if known != nil {
		script, ok := known([32]byte(raw))
		return script, ok, nil
	}
	if s.scan == nil {
		return nil, false, errors.New("the backend cannot find scripts by their hash")
	}
	return s.scan.script(ctx, [32]byte(raw))
}

// listed is what is said of the coins that are confirmed or not, or of all
// where which is empty.
func listed(coins []chain.Coin, which string) []map[string]any {
	list := []map[string]any{}
	for _, c := range coins {
		state := "confirmed"
		if c.Height == 0 {
			state = "unconfirmed"
		}
		if which != "" && which != state {
			continue
		}
		one := map[string]any{
			"tx_pos": c.Outpoint.Index, "tx_hash": c.Outpoint.Txid.String(), "value": int64(c.Output.Value),
			"isSpentInMempoolTx": false, "status": state,
		}
		if c.Height == 0 {
			one["hex"] = c.Output.Script.String()
		} else {
			one["height"] = c.Height
		}
		list = append(list, one)
	}
	return list
}

// unspent lists all outputs of a script, or a page of the confirmed ones.
func (s *server) unspent(r *http.Request) (any, error) {
	which := r.PathValue("which")
	if which != "" && which != "confirmed" && which != "unconfirmed" {
		return nil, chain.ErrNotFound
	}
	hash := r.PathValue("hash")
	coins, err := s.coins(r.Context(), hash)
	if err != nil {
		return nil, err
	}
	from := 0
	if token := r.URL.Query().Get("token"); token != "" {
		if from, err = strconv.Atoi(token); err != nil {
			return nil, errBad
		}
	}
	list := listed(coins, "unconfirmed")
	if which == "unconfirmed" {
		return map[string]any{"script": hash, "result": list, "error": ""}, nil
	}
	confirmed := listed(coins, "confirmed")
	confirmed = confirmed[min(from, len(confirmed)):]
	answer := map[string]any{"script": hash, "error": ""}
	if len(confirmed) > s.opt.Page {
		confirmed = confirmed[:s.opt.Page]
		answer["nextPageToken"] = strconv.Itoa(from + s.opt.Page)
	}
	if which == "" {
		confirmed = append(list, confirmed...)
	}
	answer["result"] = confirmed
	return answer, nil
}

func scripts(r *http.Request) (which string, hashes []string, err error) {
	which = r.PathValue("which")
	var question struct{ Scripts []string }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil || len(question.Scripts) > 20 {
		return "", nil, errBad
	}
	if which != "confirmed" && which != "unconfirmed" {
		return "", nil, chain.ErrNotFound
	}
	return which, question.Scripts, nil
}

func (s *server) unspentBulk(r *http.Request) (any, error) {
	which, hashes, err := scripts(r)
	if err != nil {
		return nil, err
	}
	answer := []map[string]any{}
	room := bulkItems
	for _, hash := range hashes {
		coins, err := s.coins(r.Context(), hash)
		if err != nil {
			return nil, err
		}
		list := listed(coins, which)
		list = list[:min(len(list), room)]
		room -= len(list)
		one := map[string]any{"script": hash, "result": list, "error": ""}
		if len(list) == 0 {
			one["result"] = nil
		}
		answer = append(answer, one)
	}
	return answer, nil
}

func (s *server) isUsed(ctx context.Context, hash string) (bool, error) {
	script, ok, err := s.script(ctx, hash)
	if err != nil || !ok {
		return false, err
	}
	if used, err := chain.UsedOf(ctx, s.b, []bsv.Script{script}); !errors.Is(err, chain.ErrUnsupported) {
		return err == nil && used[0], err
	}
	return true, nil // or it would not be known
}

func (s *server) used(r *http.Request) (any, error) {
	return s.isUsed(r.Context(), r.PathValue("hash"))
}

// historyBulk says of which scripts there are transactions, and no more.
func (s *server) historyBulk(r *http.Request) (any, error) {
	which, hashes, err := scripts(r)
	if err != nil {
		return nil, err
	}
	answer := []map[string]any{}
	for _, hash := range hashes {
		list := []map[string]any{}
		used, err := s.isUsed(r.Context(), hash)
		if err != nil {
			return nil, err
		}
		if used && which == "confirmed" {
			list = append(list, map[string]any{"tx_hash": hash, "height": 1})
		}
		answer = append(answer, map[string]any{"script": hash, "result": list, "error": ""})
	}
	return answer, nil
}

// noder is a node, whose blocks and mempool can be listed.
type noder interface {
	chain.Backend
	Call(ctx context.Context, result any, method string, params ...any) error
}

// scan knows the scripts of a node's chain by their hash, and who spent what.
// It reads what is new with each question.
type scan struct {
	node noder

	mu       sync.Mutex
	blocks   []chain.Hash
	read     map[bsv.Txid]bool
	scripts  map[[32]byte]bsv.Script
	spenders map[bsv.Outpoint]bsv.Txid
}

func newScan(n noder) *scan {
	return &scan{
		node: n, read: make(map[bsv.Txid]bool), scripts: make(map[[32]byte]bsv.Script),
		spenders: make(map[bsv.Outpoint]bsv.Txid),
	}
}

func (s *scan) script(ctx context.Context, hash [32]byte) (bsv.Script, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.update(ctx); err != nil {
		return nil, false, err
	}
	script, ok := s.scripts[hash]
	return script, ok, nil
}

func (s *scan) spender(ctx context.Context, o bsv.Outpoint) (bsv.Txid, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.update(ctx); err != nil {
		return bsv.Txid{}, err
	}
	return s.spenders[o], nil
}

func (s *scan) update(ctx context.Context) error {
	tip, err := s.node.Tip(ctx)
	if err != nil {
		return err
	}
	for len(s.blocks) > 0 {
		last, err := s.node.Header(ctx, uint32(len(s.blocks)-1))
		if err == nil && last.Hash == s.blocks[len(s.blocks)-1] {
			break
		}
		if err != nil && !errors.Is(err, chain.ErrNotFound) {
			return err
		}
		s.blocks = s.blocks[:len(s.blocks)-1] // replaced
	}
	for uint64(len(s.blocks)) <= uint64(tip.Height) {
		h, err := s.node.Header(ctx, uint32(len(s.blocks)))
		if err != nil {
			return err
		}
		var block struct{ Tx []string }
		if err := s.node.Call(ctx, &block, "getblock", h.Hash.String(), 1); err != nil {
			return err
		}
		if err := s.add(ctx, block.Tx); err != nil {
			return err
		}
		s.blocks = append(s.blocks, h.Hash)
	}
	var pending []string
	if err := s.node.Call(ctx, &pending, "getrawmempool"); err != nil {
		return err
	}
	return s.add(ctx, pending)
}

func (s *scan) add(ctx context.Context, txids []string) error {
	for _, text := range txids {
		id, err := bsv.ParseTxid(text)
		if err != nil {
			return err
		}
		if s.read[id] {
			continue
		}
		tx, err := s.node.RawTx(ctx, id)
		if errors.Is(err, chain.ErrNotFound) { // the first block's, which nodes do not give
			continue
		}
		if err != nil {
			return err
		}
		s.read[id] = true
		for _, o := range tx.Outputs {
			s.scripts[sha256.Sum256(o.Script)] = o.Script
		}
		for _, in := range tx.Inputs {
			s.spenders[in.Prev] = id
		}
	}
	return nil
}
