package node_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/chaintest"
	"github.com/bitcdn/bitcdn/payments/chain/memory"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/money"
)

type rpcRequest struct {
	Method string
	Params []json.RawMessage
}

func request(t *testing.T, r *http.Request) rpcRequest {
	var call rpcRequest
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		t.Error(err)
	}
	return call
}

// bitcoinSV is the dialect of bitcoin-sv 1.2 in front of a chain in memory:
// its methods, the types it insists on, and its errors and HTTP statuses.
type bitcoinSV struct {
	t      *testing.T
	chain  *memory.Chain
	noTxid atomic.Bool // runs without -txindex
}

func (s *bitcoinSV) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); password != "secret" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	call := request(s.t, r)
	result, err := s.answer(r, call)
	answer := map[string]any{"result": result, "error": nil, "id": 1}
	if err != nil {
		refused := new(node.Error)
		if !errors.As(err, &refused) {
			refused = &node.Error{Code: -1, Message: err.Error()}
		}
		answer["error"] = refused
		w.WriteHeader(http.StatusInternalServerError)
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.t.Error(err)
	}
}

func (s *bitcoinSV) answer(r *http.Request, call rpcRequest) (any, error) {
	ctx := r.Context()
	param := func(i int, to any) error {
		if i >= len(call.Params) {
			return &node.Error{Code: -1, Message: "too few parameters"}
		}
		if err := json.Unmarshal(call.Params[i], to); err != nil {
			return &node.Error{Code: -1, Message: "JSON value is not as expected"}
		}
		return nil
	}
	var text string
	switch call.Method {
	case "getnetworkinfo":
		return map[string]any{"subversion": "/Bitcoin SV:1.2.2/"}, nil
	case "getsettings":
		rate, err := s.chain.FeeRate(ctx)
		return map[string]any{"minminingtxfee": float64(rate) / 1e8}, err
	case "getbestblockhash":
		tip, err := s.chain.Tip(ctx)
		return tip.Hash.String(), err
	case "getblockcount":
		tip, err := s.chain.Tip(ctx)
		return tip.Height, err
	case "getblockhash":
		var height uint32
		if err := param(0, &height); err != nil {
			return nil, err
		}
		h, err := s.chain.Header(ctx, height)
		if errors.Is(err, chain.ErrNotFound) {
			return nil, &node.Error{Code: -8, Message: "Block height out of range"}
		}
		return h.Hash.String(), err
	case "getblockheader":
		var verbose bool
		if err := errors.Join(param(0, &text), param(1, &verbose)); err != nil {
			return nil, err
		}
		return s.header(r, text)
	case "sendrawtransaction":
		if err := param(0, &text); err != nil {
			return nil, err
		}
		return s.send(r, text)
	case "getrawtransaction":
		var verbose bool
		if err := errors.Join(param(0, &text), param(1, &verbose)); err != nil {
			return nil, err
		}
		return s.raw(r, text, verbose)
	case "getmerkleproof2":
		var block, kind string
		var whole bool
		if err := errors.Join(param(0, &block), param(1, &text), param(2, &whole), param(3, &kind)); err != nil {
			return nil, err
		}
		return s.proof(r, block, text, kind)
	case "gettxout":
		var o bsv.Outpoint
		var mempool bool
		if err := errors.Join(param(0, &text), param(1, &o.Index), param(2, &mempool)); err != nil {
			return nil, err
		}
		var err error
		if o.Txid, err = bsv.ParseTxid(text); err != nil || !mempool {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		if spent, err := s.chain.Spent(ctx, o); err != nil || spent {
			return nil, nil
		}
		return map[string]any{"value": 0.1}, nil
	}
	return nil, &node.Error{Code: -32601, Message: "Method not found"}
}

func (s *bitcoinSV) header(r *http.Request, hash string) (any, error) {
	tip, err := s.chain.Tip(r.Context())
	if err != nil {
		return nil, err
	}
	for height := range tip.Height + 1 {
		h, err := s.chain.Header(r.Context(), height)
		if err != nil {
			return nil, err
		}
		if h.Hash.String() != hash {
			continue
		}
		answer := map[string]any{
			"hash": hash, "height": height, "merkleroot": h.MerkleRoot.String(), "time": h.Time.Unix(),
			"confirmations": tip.Height - height + 1, "version": h.Version, "nonce": h.Nonce, "bits": fmt.Sprintf("%08x", h.Bits),
		}
		if height > 0 {
			answer["previousblockhash"] = h.Prev.String()
		}
		return answer, nil
	}
	return nil, &node.Error{Code: -5, Message: "Block not found"}
}

func (s *bitcoinSV) send(r *http.Request, text string) (any, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return nil, &node.Error{Code: -22, Message: "TX decode failed"}
	}
	tx, err := bsv.ParseTx(raw, chain.MaxTxSize)
	if err != nil {
		return nil, &node.Error{Code: -22, Message: "TX decode failed"}
	}
	switch status, err := s.chain.Status(r.Context(), tx.Txid()); {
	case err != nil:
		return nil, err
	case status.State == chain.Mined:
		for i := range tx.Outputs {
			if spent, _ := s.chain.Spent(r.Context(), bsv.Outpoint{Txid: tx.Txid(), Index: uint32(i)}); !spent {
				return nil, &node.Error{Code: -27, Message: "transaction already in block chain"}
			}
		}
		return nil, &node.Error{Code: -25, Message: "Missing inputs"}
	case status.State == chain.Seen:
		return nil, &node.Error{Code: -27, Message: "Transaction already in the mempool"}
	}
	err = s.chain.Broadcast(r.Context(), tx, nil)
	rejected := new(chain.Rejected)
	if !errors.As(err, &rejected) {
		return tx.Txid().String(), err
	}
	switch rejected.Reason {
	case chain.NonFinal:
		s.t.Error("a transaction that is not final was sent: it would stay in a pool of its own")
		return tx.Txid().String(), nil
	case chain.MissingInputs:
		return nil, &node.Error{Code: -25, Message: "Missing inputs"}
	case chain.DoubleSpend:
		for _, in := range tx.Inputs {
			if status, err := s.chain.Status(r.Context(), in.Prev.Txid); err == nil && status.State == chain.Mined && len(s.chain.Mempool()) == 0 {
				return nil, &node.Error{Code: -25, Message: "Missing inputs"} // the spender is mined
			}
		}
		return nil, &node.Error{Code: -26, Message: "258: txn-mempool-conflict"}
	case chain.LowFee:
		return nil, &node.Error{Code: -26, Message: "66: mempool min fee not met"}
	}
	if strings.Contains(rejected.Text, "spends") {
		return nil, &node.Error{Code: -26, Message: "16: bad-txns-in-belowout"}
	}
	return nil, &node.Error{Code: -26, Message: "16: mandatory-script-verify-flag-failed (" + rejected.Text + ")"}
}

func (s *bitcoinSV) raw(r *http.Request, text string, verbose bool) (any, error) {
	txid, err := bsv.ParseTxid(text)
	if err != nil {
		return nil, &node.Error{Code: -8, Message: "parameter 1 must be hexadecimal string"}
	}
	tx, err := s.chain.RawTx(r.Context(), txid)
	if errors.Is(err, chain.ErrNotFound) {
		if s.noTxid.Load() {
			return nil, &node.Error{Code: -5, Message: "No such mempool transaction. Use -txindex to enable blockchain transaction queries. Use gettransaction for wallet transactions."}
		}
		return nil, &node.Error{Code: -5, Message: "No such mempool or blockchain transaction. Use gettransaction for wallet transactions."}
	}
	if err != nil {
		return nil, err
	}
	raw := hex.EncodeToString(tx.Bytes())
	if !verbose {
		return raw, nil
	}
	status, err := s.chain.Status(r.Context(), txid)
	if err != nil {
		return nil, err
	}
	answer := map[string]any{"hex": raw}
	if status.State == chain.Mined {
		answer["blockhash"] = status.Block.String()
	}
	return answer, nil
}

// proof is the TSC form: display order, and a star for a node that is its own
// sibling.
func (s *bitcoinSV) proof(r *http.Request, block, text, kind string) (any, error) {
	txid, err := bsv.ParseTxid(text)
	if err != nil {
		return nil, &node.Error{Code: -8, Message: "parameter 2 must be hexadecimal string"}
	}
	status, err := s.chain.Status(r.Context(), txid)
	if err != nil {
		return nil, err
	}
	if status.Proof == nil || status.Block.String() != block || kind != "hash" {
		return nil, &node.Error{Code: -5, Message: "Transaction(s) not found in provided block"}
	}
	nodes := make([]string, len(status.Proof.Path))
	for level, sibling := range status.Proof.Path {
		nodes[level] = sibling.String()
		below := chain.Proof{Index: status.Proof.Index & (1<<level - 1), Path: status.Proof.Path[:level]}
		if at, err := below.Root(txid); err == nil && at == sibling {
			nodes[level] = "*"
		}
	}
	return map[string]any{
		"index": status.Proof.Index, "txOrId": text, "targetType": kind, "target": block, "nodes": nodes,
	}, nil
}

func TestConformanceBitcoinSV(t *testing.T) {
	c := memory.New(func() time.Time { return time.Unix(1_900_000_000, 0) })
	dialect := &bitcoinSV{t: t, chain: c}
	server := httptest.NewServer(dialect)
	defer server.Close()
	b, err := node.Dial(strings.Replace(server.URL, "http://", "http://user:secret@", 1), node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	chaintest.Run(t, chaintest.Harness{
		Backend: b,
		Mine:    func(_ testing.TB, n int) { c.Mine(n) },
		Fund: func(_ testing.TB, script bsv.Script, value money.Satoshis) bsv.Coin {
			return c.FundUnconfirmed(script, value)
		},
		Reorganise:    func(_ testing.TB, depth int) { c.Reorganise(depth) },
		Stop:          func(testing.TB) { server.Close() },
		NoUnspent:     true,
		NoCompeting:   true,
		RefusesLowFee: true,
	})
}

// Without an index of transactions nothing can be said of one that is not in
// the mempool, least of all that it is unknown.
func TestNoTransactionIndex(t *testing.T) {
	dialect := &bitcoinSV{t: t, chain: memory.New(time.Now)}
	dialect.noTxid.Store(true)
	server := httptest.NewServer(dialect)
	defer server.Close()
	b, err := node.Dial(strings.Replace(server.URL, "http://", "http://user:secret@", 1), node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Status(t.Context(), bsv.Txid{1}); !errors.Is(err, chain.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := b.RawTx(t.Context(), bsv.Txid{1}); !errors.Is(err, chain.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := b.Spent(t.Context(), bsv.Outpoint{Txid: bsv.Txid{1}}); !errors.Is(err, chain.ErrUnsupported) {
		t.Error(err)
	}
}
