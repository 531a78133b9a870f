package chain

import (
	"context"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// Watcher is a backend that tells of news by itself.
type Watcher interface {
	// Watch calls changed with the id of each transaction of which the service
	// has something new to say, one call after the other, until ctx ends; it
	// returns ctx's error then. It connects again where the connection is lost.
	//
	// A call is a hint and no more: it may come twice or for nothing, and news
	// may be missed, so that whoever waits for a state asks for Status upon each
	// call and, more seldom, without one. Only transactions that this backend
	// broadcast are told of.
	//
	// Other errors are final: ErrUnsupported where the service has no such
	// thing, or refused credentials.
	Watch(ctx context.Context, changed func(txid bsv.Txid)) error
}
