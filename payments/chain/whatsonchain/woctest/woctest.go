// Package woctest is a double of WhatsOnChain for tests: the part of its HTTP
// interface that package whatsonchain relies on, answered from any
// chain.Backend, with the words and the odd manners of the real one.
package woctest

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Options of a double. The zero value is one on regtest.
type Options struct {
	// Network stands in the address. The zero value, which is main, is taken for
	// regtest: nothing here is on main.
	Network bsv.Network
	// Key is what the header Authorization must be; empty means anything.
	Key string
	// Page is how many confirmed outputs of a script are listed at once; 0 means
	// 1,000, as the real service does.
	Page int
	// Before is called with every request. Where it returns true, it has
	// answered it: so the service fails.
	Before func(w http.ResponseWriter, r *http.Request) bool
	// Script finds a locking script by its SHA-256. Nil means that the backend
	// can (memory.Chain), or is a node, whose blocks are read then.
	Script func(hash [32]byte) (bsv.Script, bool)
}

// Serve starts a double on loopback, which ends with the test, and returns the
// address that whatsonchain.Dial takes.
func Serve(t testing.TB, b chain.Backend, opt Options) string {
	if opt.Network == bsv.Main {
		opt.Network = bsv.Regtest
	}
	if opt.Page == 0 {
		opt.Page = 1000
	}
	s := &server{t: t, b: b, opt: opt, heights: make(map[chain.Hash]uint32)}
	if n, ok := b.(noder); ok {
		s.scan = newScan(n)
	}
	base := "/v1/bsv/" + opt.Network.String()
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET %s/chain/info":                    s.info,
		"GET %s/block/{id}/header":             s.header,
		"GET %s/block/headers/latest":          s.latest,
		"POST %s/txs/status":                   s.status,
		"GET %s/tx/{txid}/proof/tsc":           s.proof,
		"GET %s/tx/{txid}/hex":                 s.raw,
		"GET %s/tx/{txid}/{index}/spent":       s.spent,
		"POST %s/utxos/spent":                  s.spentBulk,
		"POST %s/tx/raw":                       s.broadcast,
		"GET %s/script/{hash}/unspent/all":     s.unspent,
		"GET %s/script/{hash}/{which}/unspent": s.unspent,
		"GET %s/script/{hash}/used":            s.used,
		"POST %s/scripts/{which}/unspent":      s.unspentBulk,
		"POST %s/scripts/{which}/history":      s.historyBulk,
	} {
		mux.HandleFunc(fmt.Sprintf(pattern, base), func(w http.ResponseWriter, r *http.Request) {
			result, err := answer(r)
			s.answer(w, result, err)
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if opt.Key != "" && r.Header.Get("Authorization") != opt.Key {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		if opt.Before == nil || !opt.Before(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + base
}

type server struct {
	t    testing.TB
	b    chain.Backend
	opt  Options
	scan *scan

	mu      sync.Mutex
	heights map[chain.Hash]uint32
}

// fail is an answer with a status and words.
type fail struct {
	status int
	text   string
}

func (f *fail) Error() string { return f.text }

func (s *server) answer(w http.ResponseWriter, result any, err error) {
	var f *fail
	switch {
	case err == nil:
	case errors.As(err, &f):
		http.Error(w, f.text, f.status)
		return
	case errors.Is(err, chain.ErrNotFound):
		http.Error(w, "Not Found", http.StatusNotFound)
		return
	default: // what stands before it has nobody behind
		http.Error(w, "<html>bad gateway</html>", http.StatusBadGateway)
		return
	}
	switch result := result.(type) {
	case []byte:
		_, err = w.Write(result)
	default:
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(w).Encode(result)
	}
	_ = err // the client has gone
}

var errBad = &fail{http.StatusBadRequest, "Bad Request"}

func (s *server) info(r *http.Request) (any, error) {
	tip, err := s.b.Tip(r.Context())
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"chain": s.opt.Network.String(), "blocks": tip.Height, "headers": tip.Height, "bestblockhash": tip.Hash.String(),
		"difficulty": 1, "pruned": false,
	}, nil
}

func (s *server) header(r *http.Request) (any, error) {
	tip, err := s.b.Tip(r.Context())
	if err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if len(id) == 64 {
		hash, err := chain.ParseHash(id)
		if err != nil {
			return nil, errBad
		}
		height, err := s.height(r.Context(), hash, tip)
		if err != nil {
			return nil, err
		}
		id = strconv.FormatUint(uint64(height), 10)
	}
	height, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return nil, errBad
	}
	h, err := s.b.Header(r.Context(), uint32(height))
	if err != nil {
		return nil, err
	}
	answer := map[string]any{
		"hash": h.Hash.String(), "confirmations": int64(tip.Height) - int64(h.Height) + 1, "height": h.Height,
		"version": h.Version, "merkleroot": h.MerkleRoot.String(), "time": h.Time.Unix(), "nonce": h.Nonce,
		"bits": fmt.Sprintf("%08x", h.Bits), "difficulty": 1.5, "nTx": 0,
	}
	if h.Height > 0 {
		answer["previousblockhash"] = h.Prev.String()
	}
	return answer, nil
}

// height finds the block of the best chain with this hash.
func (s *server) height(ctx context.Context, hash chain.Hash, tip chain.Header) (uint32, error) {
	s.mu.Lock()
	at, ok := s.heights[hash]
	s.mu.Unlock()
	if ok {
		if h, err := s.b.Header(ctx, at); err == nil && h.Hash == hash {
			return at, nil
		}
	}
	for h := tip; ; {
		s.mu.Lock()
		s.heights[h.Hash] = h.Height
		s.mu.Unlock()
		if h.Hash == hash {
			return h.Height, nil
		}
		if h.Height == 0 {
			return 0, chain.ErrNotFound
		}
		var err error
		if h, err = s.b.Header(ctx, h.Height-1); err != nil {
			return 0, err
		}
	}
}

func (s *server) latest(r *http.Request) (any, error) {
	count := 2000
	if text := r.URL.Query().Get("count"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return nil, errBad
		}
		count = n
	}
	h, err := s.b.Tip(r.Context())
	if err != nil {
		return nil, err
	}
	all := [][]byte{h.Bytes()}
	for len(all) < count && h.Height > 0 {
		if h, err = s.b.Header(r.Context(), h.Height-1); err != nil {
			return nil, err
		}
		all = append(all, h.Bytes())
	}
	slices.Reverse(all)
	return slices.Concat(all...), nil
}

func (s *server) status(r *http.Request) (any, error) {
	var question struct{ Txids []bsv.Txid }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil || len(question.Txids) > 20 {
		return nil, errBad
	}
	tip, err := s.b.Tip(r.Context())
	if err != nil {
		return nil, err
	}
	answer := []map[string]any{}
	for _, txid := range question.Txids {
		one := map[string]any{"txid": txid.String()}
		switch st, err := s.b.Status(r.Context(), txid); {
		case err != nil:
			return nil, err
		case st.State == chain.Mined:
			one["blockhash"], one["blockheight"] = st.Block.String(), st.Height
			one["confirmations"] = st.Confirmations(max(tip.Height, st.Height))
		case st.State != chain.Seen: // it keeps nothing of what it refused
			one["error"] = "unknown"
		}
		answer = append(answer, one)
	}
	return answer, nil
}

func txid(r *http.Request) (bsv.Txid, error) {
	id, err := bsv.ParseTxid(r.PathValue("txid"))
	if err != nil {
		return id, errBad
	}
	return id, nil
}

func (s *server) proof(r *http.Request) (any, error) {
	id, err := txid(r)
	if err != nil {
		return nil, err
	}
	st, err := s.b.Status(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if st.Proof == nil {
		return nil, nil // the JSON null
	}
	nodes := []string{}
	for level, sibling := range st.Proof.Path {
		below := chain.Proof{Index: st.Proof.Index & (1<<level - 1), Path: st.Proof.Path[:level]}
		if node, err := below.Root(id); err != nil {
			return nil, err
		} else if node == sibling {
			nodes = append(nodes, "*")
		} else {
			nodes = append(nodes, sibling.String())
		}
	}
	return []map[string]any{{
		"index": st.Proof.Index, "txOrId": id.String(), "target": st.Block.String(), "nodes": nodes,
	}}, nil
}

func (s *server) raw(r *http.Request) (any, error) {
	id, err := txid(r)
	if err != nil {
		return nil, err
	}
	tx, err := s.b.RawTx(r.Context(), id)
	if err != nil {
		return nil, err
	}
	return []byte(hex.EncodeToString(tx.Bytes())), nil
}

func (s *server) spent(r *http.Request) (any, error) {
	id, err := txid(r)
	if err != nil {
		return nil, err
	}
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 32)
	if err != nil {
		return nil, errBad
	}
	return s.spentIn(r.Context(), bsv.Outpoint{Txid: id, Index: uint32(index)})
}

// spentIn is what is said of an output that is spent.
func (s *server) spentIn(ctx context.Context, o bsv.Outpoint) (map[string]any, error) {
	by, spent, err := chain.SpenderOf(ctx, s.b, o)
	switch {
	case errors.Is(err, chain.ErrNotFound):
		return nil, errBad
	case err != nil:
		return nil, err
	case !spent:
		return nil, chain.ErrNotFound
	case by.IsZero() && s.scan != nil:
		if by, err = s.scan.spender(ctx, o); err != nil {
			return nil, err
		}
	}
	return map[string]any{"txid": by.String(), "vin": 0, "status": "confirmed"}, nil
}

func (s *server) spentBulk(r *http.Request) (any, error) {
	type utxo struct {
		Txid bsv.Txid `json:"txid"`
		Vout uint32   `json:"vout"`
	}
	var question struct{ Utxos []utxo }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil || len(question.Utxos) > 20 {
		return nil, errBad
	}
	answer := []map[string]any{}
	for _, u := range question.Utxos {
		one := map[string]any{"utxo": u, "spentIn": map[string]any{}, "error": ""}
		in, err := s.spentIn(r.Context(), bsv.Outpoint{Txid: u.Txid, Index: u.Vout})
		var f *fail
		switch {
		case err == nil:
			one["spentIn"] = in
		case errors.As(err, &f), errors.Is(err, chain.ErrNotFound):
			one["error"] = "Not Found"
		default:
			return nil, err
		}
		answer = append(answer, one)
	}
	return answer, nil
}

func (s *server) broadcast(r *http.Request) (any, error) {
	var question struct{ TxHex string }
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		return nil, errBad
	}
	raw, err := hex.DecodeString(question.TxHex)
	if err != nil {
		return nil, refuse("TX decode failed")
	}
	tx, err := bsv.ParseTx(raw, chain.MaxTxSize)
	if err != nil {
		return nil, refuse("TX decode failed")
	}
	switch st, err := s.b.Status(r.Context(), tx.Txid()); {
	case err != nil:
		return nil, err
	case st.State == chain.Seen:
		return nil, refuse("257: txn-already-known")
	case st.State == chain.Mined:
		return nil, refuse("Missing inputs") // its own ones: the node looks no further
	}
	err = s.b.Broadcast(r.Context(), tx, nil)
	rejected := new(chain.Rejected)
	switch {
	case err == nil:
		return tx.Txid().String(), nil
	case !errors.As(err, &rejected):
		return nil, err
	}
	switch rejected.Reason {
	case chain.MissingInputs:
		return nil, refuse("Missing inputs")
	case chain.DoubleSpend:
		st, err := s.b.Status(r.Context(), tx.Txid())
		if err != nil {
			return nil, err
		}
		for _, winner := range st.Competing {
			won, err := s.b.Status(r.Context(), winner)
			if err != nil {
				return nil, err
			}
			if won.State == chain.Mined {
				return nil, refuse("Missing inputs")
			}
		}
		return nil, refuse("258: txn-mempool-conflict")
	case chain.NonFinal:
		return nil, refuse("64: non-final")
	case chain.LowFee:
		return nil, refuse("66: mempool min fee not met")
	case chain.Invalid:
		return nil, refuse("16: mandatory-script-verify-flag-failed (" + rejected.Text + ")")
	}
	return nil, refuse("64: " + rejected.Text)
}

func refuse(text string) error {
	return &fail{http.StatusBadRequest, "unexpected response code 500: " + text}
}
