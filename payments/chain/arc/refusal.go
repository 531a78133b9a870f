package arc

import (
	"strconv"
	"strings"

	"github.com/bitcdn/bitcdn/payments/chain"
)

// reasons are what ARC's and Arcade's codes mean. Those that are not here say
// nothing about the transaction: 409 and Arcade's 467 are for whatever else went
// wrong, 468, 469 and 475 are about proofs that this package does not send, and
// inputs that are frozen (471, 472) may be thawed.
var reasons = map[int]chain.Reason{
	460: chain.MissingInputs, // plain, and a parent is not known
	461: chain.Invalid,       // unlocking scripts
	462: chain.MissingInputs, // not there, or spent
	463: chain.Invalid,       // malformed
	464: chain.Invalid,       // outputs
	465: chain.LowFee,
	466: chain.DoubleSpend,
	473: chain.LowFee,  // with its ancestors
	474: chain.Invalid, // size
	476: chain.NonFinal,
}

// refusal is why a transaction was refused, by the code and by the words of the
// node, which services pass on. known means that it is no refusal: the network
// has the transaction.
func (d details) refusal() (reason chain.Reason, known bool) {
	if len(d.CompetingTxs) > 0 && d.TxStatus == "REJECTED" {
		return chain.DoubleSpend, false
	}
	words := strings.Join([]string{d.ExtraInfo, d.Reason, d.Error}, "\n")
	said, known := chain.ParseRefusal(words)
	if known {
		return said, true
	}
	code := d.Status
	if code < 460 {
		code = codeIn(words)
	}
	reason, ok := reasons[code]
	switch {
	case !ok:
		return said, false
	case said == chain.DoubleSpend:
		return said, false // 462 and 463 are for this too; the words tell it apart
	}
	return reason, false
}

// codeIn finds ARC's code in words that it writes before an error of its own.
func codeIn(words string) int {
	const mark = "arc error "
	at := strings.Index(words, mark)
	if at < 0 || len(words) < at+len(mark)+3 {
		return 0
	}
	code, err := strconv.Atoi(words[at+len(mark):][:3])
	if err != nil {
		return 0
	}
	return code
}
