package node

import (
	"context"
	"fmt"
	"math"

	"github.com/bitcdn/bitcdn/payments/chain"
)

var _ chain.Consolidator = (*Backend)(nil)

// Consolidation implements chain.Consolidator with bitcoin-sv's settings; it is
// ErrUnsupported with bsvd, which takes nothing without a fee on principle.
func (b *Backend) Consolidation(ctx context.Context) (chain.Consolidation, error) {
	d, err := b.dialect(ctx)
	if err != nil {
		return chain.Consolidation{}, err
	}
	if d != bitcoinSV {
		return chain.Consolidation{}, fmt.Errorf("free consolidations: %w", chain.ErrUnsupported)
	}
	// A node older than 1.0.8 has the second name of the confirmations only. One
	// that says nothing of a setting has no free consolidations.
	var answer struct {
		Factor   int64  `json:"minconsolidationfactor"`
		Maturity *int64 `json:"minconsolidationinputmaturity"`
		MinConf  *int64 `json:"minconfconsolidationinput"`
		Script   int64  `json:"maxconsolidationinputscriptsize"`
	}
	if err := b.rpc.call(ctx, &answer, "getsettings"); err != nil {
		return chain.Consolidation{}, fmt.Errorf("ask the node for free consolidations: %w", err)
	}
	confirmations := answer.Maturity
	if confirmations == nil {
		confirmations = answer.MinConf
	}
	if answer.Factor == 0 || confirmations == nil {
		return chain.Consolidation{}, nil
	}
	for _, n := range []int64{answer.Factor, *confirmations, answer.Script} {
		if n < 0 || n > math.MaxInt32 {
			return chain.Consolidation{}, fmt.Errorf("free consolidations: a setting of the node is %d: %w", n, ErrProtocol)
		}
	}
	return chain.Consolidation{Factor: int(answer.Factor), Confirmations: uint32(*confirmations), MaxScript: int(answer.Script)}, nil
}
