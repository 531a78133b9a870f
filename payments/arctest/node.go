package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// node is a bsvd over JSON-RPC.
type node struct {
	url, user, password string
}

// refusal is an error that the node itself answers with.
type refusal struct {
	Code    int
	Message string
}

func (r *refusal) Error() string { return r.Message }

func newNode(address string) (*node, error) {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return nil, errors.New("ARCTEST_NODE is not http://user:password@host:port")
	}
	n := &node{user: u.User.Username()}
	n.password, _ = u.User.Password()
	u.User = nil
	n.url = u.String()
	return n, nil
}

func (n *node) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(n.user, n.password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Result json.RawMessage
		Error  *refusal
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %s: %w", method, resp.Status, err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	return json.Unmarshal(answer.Result, result)
}

// raw returns a transaction in hexadecimal digits, and false where the node does
// not have it.
func (n *node) raw(ctx context.Context, txid string) (text string, ok bool, err error) {
	err = n.call(ctx, &text, "getrawtransaction", txid, 0)
	if errors.As(err, new(*refusal)) {
		return "", false, nil
	}
	return text, err == nil, err
}

// place is where the node has a transaction.
type place struct {
	known  bool // in the mempool or in a block
	block  string
	height int64
	depth  int64 // 1 where the block is the tip
	path   string
}

func (n *node) find(ctx context.Context, txid string) (place, error) {
	var tx struct{ BlockHash string }
	err := n.call(ctx, &tx, "getrawtransaction", txid, 1)
	if errors.As(err, new(*refusal)) {
		return place{}, nil
	}
	if err != nil || tx.BlockHash == "" {
		return place{known: err == nil}, err
	}
	var block struct {
		Height, Confirmations int64
		Tx                    []string
	}
	err = n.call(ctx, &block, "getblock", tx.BlockHash, 1)
	if err != nil || block.Confirmations <= 0 {
		return place{known: err == nil}, err
	}
	path, err := bump(block.Height, block.Tx, txid)
	return place{true, tx.BlockHash, block.Height, block.Confirmations, path}, err
}

// unspent reports whether an output is there and no block spends it.
func (n *node) unspent(ctx context.Context, txid string, index uint32) (bool, error) {
	var out *struct{}
	err := n.call(ctx, &out, "gettxout", txid, index, true)
	if errors.As(err, new(*refusal)) {
		return false, nil
	}
	return out != nil, err
}
