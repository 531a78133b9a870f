package chain

import "strings"

// refusals are the words of bsvd and bitcoin-sv. The order matters: bad-txns-
// stands before many things.
var refusals = []struct {
	reason Reason
	known  bool
	words  []string
}{
	{Other, true, []string{"already have transaction", "transaction already", "txn-already-", "already in the mempool",
		"already in block chain"}},
	{DoubleSpend, false, []string{"already spent by transaction", "txn-mempool-conflict", "txn-double-spend", "double spend"}},
	{MissingInputs, false, []string{"orphan transaction", "missing inputs", "missing-inputs", "missingorspent", "inputs-spent"}},
	{NonFinal, false, []string{"not finalized", "non-final", "nonfinal", "non-bip68-final", "sequence locks"}},
	{LowFee, false, []string{"insufficient priority", "under the required amount", "low fees", "min fee not met",
		"insufficient fee", "relay fee not met"}},
	{Other, false, []string{"premature-spend-of-coinbase", "required maturity"}},
	{Invalid, false, []string{"decode failed", "script-verify-flag", "bad-txns-", "failed to validate input",
		"failed to parse input", "less than the amount spent", "duplicate inputs"}},
}

// ParseRefusal reads the words in which a node refuses a transaction, as many
// services pass them on. known means that the node has the transaction, which
// is no refusal; the reason is Other then, and for words that nobody knows.
func ParseRefusal(text string) (reason Reason, known bool) {
	text = strings.ToLower(text[:min(len(text), 4<<10)])
	for _, r := range refusals {
		for _, w := range r.words {
			if strings.Contains(text, w) {
				return r.reason, r.known
			}
		}
	}
	return Other, false
}
