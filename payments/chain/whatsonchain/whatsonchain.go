// Package whatsonchain is the view of the chain that WhatsOnChain gives: a
// public index of the whole chain, asked over HTTP and JSON.
//
// # What it relies on
//
// The base address is …/v1/bsv/main or …/v1/bsv/test; these are the paths below
// it and what is read from their answers.
//
//	GET  /chain/info                  chain, blocks, bestblockhash
//	GET  /block/{hash or height}/header
//	                                  hash, height, version, previousblockhash (none for the first block),
//	                                  merkleroot, time, bits (hexadecimal), nonce, confirmations
//	GET  /block/headers/latest?count= the newest 1 to 100 headers as their 80 bytes one after another;
//	                                  without count, up to 2,000
//	POST /txs/status                  {"txids"}: a list of txid, with blockhash, blockheight and confirmations
//	                                  where it is mined, with error where it is not known
//	GET  /tx/{txid}/proof/tsc         a list of TSC proofs, null or 404 where there is none
//	GET  /tx/{txid}/hex               the transaction, 404 where it is not known
//	GET  /tx/{txid}/{index}/spent     txid of the spender; 404 where the output is not spent, 400 where there is none
//	POST /utxos/spent                 {"utxos"}, at most 20 of txid and vout: a list with spentIn, whose txid is empty
//	                                  where the output is not spent
//	POST /tx/raw                      {"txhex"}: the txid, or 400 with the words of a bitcoin-sv node
//	GET  /script/{hash}/unspent/all   result: a list of tx_hash, tx_pos, value, isSpentInMempoolTx, height (none while
//	                                  unconfirmed), hex (the script, while unconfirmed); nextPageToken above 1,000
//	GET  /script/{hash}/unconfirmed/unspent
//	GET  /script/{hash}/confirmed/unspent?limit=&token=
//	                                  the same in parts: where there are too many for one answer
//	POST /scripts/unconfirmed/unspent, /scripts/confirmed/unspent
//	                                  {"scripts"}, at most 20: a list of script and result, at most 20 outputs
//	GET  /script/{hash}/used          true where any transaction ever paid to it
//	POST /scripts/unconfirmed/history, /scripts/confirmed/history
//	                                  the same as unspent, of all transactions
//
// {hash} of a script is its SHA-256 with the bytes reversed. A key stands in the
// header Authorization as it was given out. Without one, 3 requests a second are
// answered and what is above that gets 429.
//
// An output that is in the mempool and in a block may be listed twice. Whether a
// coin is a coinbase output is not told: Coin.Coinbase is always false, and what
// spends an immature one is refused and can be tried again.
//
// # What is checked
//
// Headers must have the hash that they claim, transactions the txid that was
// asked for, proofs must be for the transaction and the block. Nothing else that
// the service says is proof: see package spv. Answers are capped in size and
// time, and redirects are not followed, since they could take the key elsewhere.
package whatsonchain

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	_ chain.Backend     = (*Backend)(nil)
	_ chain.BulkUnspent = (*Backend)(nil)
	_ chain.HeaderRange = (*Backend)(nil)
	_ chain.Prover      = (*Backend)(nil)
	_ chain.BulkUsed    = (*Backend)(nil)
	_ chain.SpentBy     = (*Backend)(nil)
)

// Options of a Backend. The zero value is good for the public service.
type Options struct {
	// Key is sent as it is in the header Authorization; empty means none.
	Key string
	// Timeout of one request, which begins when its turn has come; 0 means 30 s.
	// The context's own deadline holds too.
	Timeout time.Duration
	// Rate is how many requests are made in a second; 0 means 3, and 10 with a
	// key. Further ones wait for their turn, first come, first served.
	Rate float64
	// Burst is how many may be made at once after a rest; 0 means 1.
	Burst int
	// Clock is what the rate is kept by; nil means time.Now.
	Clock func() time.Time
	// HTTP makes the requests; nil means a client of the backend's own. Its
	// CheckRedirect is not used.
	HTTP *http.Client
}

var (
	// ErrURL says that an address is not of the form https://host/v1/bsv/main, or
	// names another network.
	ErrURL = errors.New("not the address of a WhatsOnChain service (https://host/v1/bsv/main)")
	// ErrCredentials says that the service refuses the key, or to answer without one.
	ErrCredentials = errors.New("WhatsOnChain refuses the key")
	// ErrProtocol says that an answer is not of the form that this package
	// knows, or contradicts itself.
	ErrProtocol = errors.New("not an answer of WhatsOnChain")
)

// Backend is a WhatsOnChain service. Use Dial.
type Backend struct {
	client  *client
	network bsv.Network
	sent    chain.Sent

	mu     sync.Mutex
	tip    chain.Header
	proofs map[bsv.Txid]*chain.Proof // of the blocks that they were last mined in
}

// maxProofs is how many proofs are kept: a transaction that is watched until it
// is buried would cost two requests a look without.
const maxProofs = 1024

// Dial returns the backend for a service at an address like
// https://api.whatsonchain.com/v1/bsv/main. It does not connect. Errors are
// ErrURL, and ErrCredentials for a key that no header can carry.
func Dial(baseURL string, network bsv.Network, opt Options) (*Backend, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%.200q: %w", baseURL, ErrURL)
	}
	// The last part names the network: main coins are not looked for on test.
	if last := path.Base(u.Path); last != network.String() {
		return nil, fmt.Errorf("%.200q for network %s: %w", baseURL, network, ErrURL)
	}
	if strings.ContainsFunc(opt.Key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("a key with other than printable ASCII characters: %w", ErrCredentials)
	}
	return &Backend{
		client:  newClient(strings.TrimRight(u.String(), "/"), opt),
		network: network,
		proofs:  make(map[bsv.Txid]*chain.Proof),
	}, nil
}

// Close drops idle connections. The backend can still be used.
func (b *Backend) Close() { b.client.http.CloseIdleConnections() }

// FeeRate implements chain.Backend: ErrUnsupported, since the service does not
// say what miners want.
func (b *Backend) FeeRate(ctx context.Context) (money.FeeRate, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("fee: %w: %w", chain.ErrUnavailable, err)
	}
	return 0, fmt.Errorf("WhatsOnChain tells no fee: %w", chain.ErrUnsupported)
}
