// Package node is the view of the chain that a full node gives over JSON-RPC.
//
// Two kinds of node are spoken to, bsvd and bitcoin-sv; which one it is, the
// backend finds out with its first call. The node must keep a transaction
// index (txindex), since the program asks for transactions that are not its
// node wallet's. bsvd with an address index (addrindex) answers everything;
// bitcoin-sv has no index of scripts, so that Unspent is ErrUnsupported there.
//
// The node is trusted to tell the truth about the chain, but not to behave:
// answers are capped in size and time, transactions are parsed by bsv and must
// have the txid that was asked for.
package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var _ chain.Backend = (*Backend)(nil)

// Options of a Backend. The zero value is good for a node nearby.
type Options struct {
	// Timeout of one request; 0 means 30 s. The context's own deadline holds
	// too.
	Timeout time.Duration
	// Concurrency is how many requests may be under way at once; 0 means 4.
	// Further ones wait. bsvd refuses more than 10 from all its clients.
	Concurrency int
	// MaxResponse is the largest answer in bytes; 0 means 16 MiB.
	MaxResponse int64
	// FeeFloor is the least that FeeRate answers. What a node relays, miners
	// need not mine.
	FeeFloor money.FeeRate
	// RootCAs are the certificates that an https node is checked against; nil
	// means the system's.
	RootCAs *x509.CertPool
}

var (
	// ErrURL says that an address of a node is not of the form
	// http://user:password@host:port.
	ErrURL = errors.New("not the URL of a node (http://user:password@host:port)")
	// ErrCredentials says that the node refuses the user or the password.
	ErrCredentials = errors.New("the node refuses the user or password")
	// ErrProtocol says that what answers is not a node that this package
	// knows, or that it contradicts itself.
	ErrProtocol = errors.New("not the answer of a known kind of node")
)

// Backend is a node. Use Dial.
type Backend struct {
	rpc   *client
	floor money.FeeRate
	kind  atomic.Uint32 // a dialect, once it is known

	mu     sync.Mutex
	blocks []blockTxids // asked for last, the newest first
	sent   chain.Sent
}

// Dial returns the backend for a node at http://user:password@host:port; https
// works too. It does not connect: a node that is not there yet makes the calls
// fail with ErrUnavailable. Errors are ErrURL.
func Dial(address string, opt Options) (*Backend, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, ErrURL // the parser's error would repeat the password
	}
	password, _ := u.User.Password()
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: %w", u.Redacted(), ErrURL)
	}
	return &Backend{
		rpc:   newClient(u, u.User.Username(), password, opt),
		floor: opt.FeeFloor,
	}, nil
}

// Close drops idle connections. The backend can still be used.
func (b *Backend) Close() { b.rpc.http.CloseIdleConnections() }

// Call makes a request that the chain.Backend interface has no method for.
// The result is decoded into result, which may be nil. An error that the node
// itself reports is an *Error.
func (b *Backend) Call(ctx context.Context, result any, method string, params ...any) error {
	return b.rpc.call(ctx, result, method, params...)
}

// Network says which chain the node is on, so that a wallet can refuse
// another. ErrUnsupported where it is none that the program knows.
func (b *Backend) Network(ctx context.Context) (bsv.Network, error) {
	var info struct{ Chain string }
	if err := b.rpc.call(ctx, &info, "getblockchaininfo"); err != nil {
		return 0, fmt.Errorf("ask the node for its network: %w", err)
	}
	switch info.Chain {
	case "main", "mainnet":
		return bsv.Main, nil
	case "test", "testnet3":
		return bsv.Test, nil
	case "regtest":
		return bsv.Regtest, nil
	}
	return 0, fmt.Errorf("network %.20q: %w", info.Chain, chain.ErrUnsupported)
}

type dialect uint32

const (
	bsvd dialect = iota + 1
	bitcoinSV
)

// dialect asks for getnetworkinfo, which bsvd has not implemented, and then
// for version, which bitcoin-sv does not know.
func (b *Backend) dialect(ctx context.Context) (dialect, error) {
	if d := dialect(b.kind.Load()); d != 0 {
		return d, nil
	}
	d := bitcoinSV
	err := b.rpc.call(ctx, nil, "getnetworkinfo")
	if refused := new(Error); errors.As(err, &refused) {
		d = bsvd
		err = b.rpc.call(ctx, nil, "version")
		if errors.As(err, &refused) {
			err = ErrProtocol
		}
	}
	if err != nil {
		return 0, fmt.Errorf("ask the node what it is: %w", err)
	}
	b.kind.Store(uint32(d))
	return d, nil
}

// verbose is the value of that parameter of getrawtransaction.
func (d dialect) verbose(on bool) any {
	if d == bitcoinSV {
		return on
	}
	if on {
		return 1
	}
	return 0
}
