// Package arc is the view of the chain that ARC gives, the service by which
// miners take transactions, and Arcade, which does the same in front of Teranode.
//
// Such a service takes transactions and tells what becomes of them; it knows only
// what was sent to it, and has no index. So it answers FeeRate, Broadcast and
// Status. What else a chain.Backend answers is ErrUnsupported.
//
// # The two services
//
// The backend finds out with its first call which one it speaks to, and again
// when the paths of that one are gone.
//
//	        ARC            Arcade
//	policy  GET /v1/policy GET /policy
//	send    POST /v1/tx    POST /tx
//	status  GET /v1/tx/ID  GET /tx/ID
//	news    none           GET /events?callbackToken=
//
// ARC answers a broadcast with 200 and waits a while for the network's word.
// Arcade answers 202 at once, so that the backend asks for the status until there
// is such a word, or for a few seconds.
//
// # What is made of the statuses
//
//   - Seen: QUEUED, RECEIVED, STORED, ANNOUNCED_TO_NETWORK, REQUESTED_BY_NETWORK,
//     SENT_TO_NETWORK, ACCEPTED_BY_NETWORK, SEEN_ON_NETWORK, SEEN_MULTIPLE_NODES:
//     the network may have it. None of them says that it will be mined.
//   - Seen with Competing: DOUBLE_SPEND_ATTEMPTED.
//   - Seen: MINED_IN_STALE_BLOCK, whose block was replaced; STUMP_PROCESSING,
//     whose proof is not ready.
//   - Mined: MINED and IMMUTABLE. Proof and Height come from the Merkle path; the
//     block's hash, and the height where there is no path, are the service's word.
//   - Conflicted: REJECTED, unless the reason is one that time may heal: missing
//     inputs, a low fee, a lock time. Then it is Unknown, and a broadcast asks
//     again.
//   - Unknown: what the service never got, UNKNOWN, PENDING_RETRY, words that this
//     package does not know, and SEEN_IN_ORPHAN_MEMPOOL: a node that waits for the
//     parents has not checked anything and may drop it, so that whoever sent it
//     has to send it again, after its parents.
//
// # What is refused
//
// Answers are capped in size and time and must be about the transaction that was
// asked for. Redirects are not followed: they could take the key elsewhere.
// Neither the key nor the token of the event stream stands in any error.
package arc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

var (
	_ chain.Backend = (*Backend)(nil)
	_ chain.Prover  = (*Backend)(nil)
	_ chain.Watcher = (*Backend)(nil)
)

// Options of a Backend. The zero value is good for a service that asks for no
// key, and for transactions without a lock time.
type Options struct {
	// Key is sent as a bearer key; empty means none.
	Key string
	// Timeout of one request; 0 means 30 s. The context's own deadline holds too.
	Timeout time.Duration
	// FeeFloor is the least that FeeRate answers, FeeCeiling the most; 0 means
	// none. A service that lies about its fee can make closes too cheap to be
	// mined, or payments too dear.
	FeeFloor, FeeCeiling money.FeeRate
	// Tip returns the height of the newest block, which the service does not
	// tell. Without it, or when it fails, a transaction with a lock time is
	// refused as NonFinal: the service would keep it, and a refund that it keeps
	// hinders the close.
	Tip func(ctx context.Context) (uint32, error)
	// Clock is what waiting times and the age of the policy are kept by; nil
	// means time.Now.
	Clock func() time.Time
}

var (
	// ErrURL says that an address is not of the form https://host/path.
	ErrURL = errors.New("not the address of an ARC service (https://host)")
	// ErrCredentials says that the service refuses the key, or to answer without
	// one.
	ErrCredentials = errors.New("the ARC service refuses the key")
	// ErrProtocol says that what answers is neither ARC nor Arcade, or that it
	// contradicts itself.
	ErrProtocol = errors.New("not an answer of ARC or Arcade")
)

// Backend is a service. Use Dial.
type Backend struct {
	client *client
	floor  money.FeeRate
	most   money.FeeRate
	sent   chain.Sent
	tip    func(ctx context.Context) (uint32, error)
	token  string // names this backend's broadcasts in the event stream
	clock  func() time.Time
	// pause waits, or returns the context's error.
	pause func(ctx context.Context, d time.Duration) error
	idle  time.Duration // after which silence the event stream is taken for lost

	mu    sync.Mutex
	kind  dialect // 0 until it is known
	rate  money.FeeRate
	asked time.Time // when rate was learned
}

// Dial returns the backend for a service at an address like https://host or
// https://host/path, with or without ARC's /v1 at its end. It does not connect.
// Errors are ErrURL, and ErrCredentials for a key that no header can carry.
func Dial(baseURL string, opt Options) (*Backend, error) {
	u, err := url.Parse(baseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, ErrURL // without the address: what is too much in it may be a key
	}
	for _, c := range []byte(opt.Key) {
		if c <= ' ' || c > '~' {
			return nil, fmt.Errorf("a key with other than visible ASCII characters: %w", ErrCredentials)
		}
	}
	u = u.JoinPath() // a clean path
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v1")
	u.RawPath = ""
	if opt.Timeout <= 0 {
		opt.Timeout = 30 * time.Second
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	token := rand.Text()
	return &Backend{
		client: newClient(u.String(), opt, token),
		floor:  opt.FeeFloor,
		most:   opt.FeeCeiling,
		tip:    opt.Tip,
		token:  token,
		clock:  opt.Clock,
		pause:  pause,
		idle:   idleStream,
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Close drops idle connections. The backend can still be used.
func (b *Backend) Close() { b.client.http.CloseIdleConnections() }

// unsupported is the answer to what such a service does not know.
func unsupported(what string) error {
	return fmt.Errorf("ask ARC for %s: %w", what, chain.ErrUnsupported)
}

// Tip returns ErrUnsupported.
func (b *Backend) Tip(context.Context) (chain.Header, error) {
	return chain.Header{}, unsupported("the tip")
}

// Header returns ErrUnsupported.
func (b *Backend) Header(context.Context, uint32) (chain.Header, error) {
	return chain.Header{}, unsupported("a header")
}

// RawTx returns ErrUnsupported.
func (b *Backend) RawTx(context.Context, bsv.Txid) (*bsv.Tx, error) {
	return nil, unsupported("a transaction")
}

// Unspent returns ErrUnsupported.
func (b *Backend) Unspent(context.Context, bsv.Script) ([]chain.Coin, error) {
	return nil, unsupported("coins")
}

// Spent returns ErrUnsupported.
func (b *Backend) Spent(context.Context, bsv.Outpoint) (bool, error) {
	return false, unsupported("a coin")
}
