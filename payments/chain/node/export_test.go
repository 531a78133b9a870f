package node

import (
	"encoding/json"

	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/money"
)

func Satoshis(text string, up bool) (money.Satoshis, error) { return satoshis(json.Number(text), up) }

func Classify(e *Error) (chain.Reason, bool) { return classify(e) }

// Remembered returns how many transactions the backend can tell conflicts of.
func (b *Backend) Remembered() int { return b.sent.Len() }
