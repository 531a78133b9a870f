package arc

import (
	"bytes"
	"context"
	"time"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

// MaxAnswer is the largest answer that is read.
const MaxAnswer = maxAnswer

// Token is what the backend sends as X-CallbackToken.
func (b *Backend) Token() string { return b.token }

// MarkSent has the backend take tx for one that it has broadcast.
func (b *Backend) MarkSent(tx *bsv.Tx) { b.sent.Add(tx) }

// SetPause has the backend call f where it would wait.
func (b *Backend) SetPause(f func(ctx context.Context, d time.Duration) error) { b.pause = f }

// SetIdle sets after which silence the event stream is taken for lost.
func (b *Backend) SetIdle(d time.Duration) { b.idle = d }

// ReadStatus reads an answer to the question for a transaction.
func ReadStatus(code int, body []byte, txid bsv.Txid) (chain.Status, error) {
	d, err := parseDetails(answer{code, body}, txid)
	if err != nil {
		return chain.Status{}, err
	}
	return d.status(txid)
}

// ReadSubmitted reads an answer to a broadcast.
func ReadSubmitted(code int, body []byte, txid bsv.Txid) error {
	c := new(client)
	d, err := c.parseSubmitted(answer{code, body}, txid)
	if err != nil {
		return err
	}
	return c.verdict(d)
}

// ReadPolicy reads an answer with a policy.
func ReadPolicy(body []byte) (money.FeeRate, error) { return parsePolicy(answer{200, body}) }

// ReadEvents reads a stream of events.
func ReadEvents(b []byte, alive func(), each func(id, kind, data string)) error {
	return readEvents(bytes.NewReader(b), alive, func(e event) { each(e.id, e.kind, e.data) })
}
