package chain

import "fmt"

// Reason is why a transaction was refused.
type Reason uint8

const (
	// Other is a refusal that the backend cannot place.
	Other Reason = iota
	// MissingInputs means that an output it spends is not known, or spent and
	// the service does not tell the two apart.
	MissingInputs
	// DoubleSpend means that an input is spent by another transaction.
	DoubleSpend
	// NonFinal means that its lock time has not come.
	NonFinal
	// LowFee means that it pays less than the service wants.
	LowFee
	// Invalid means that it can never be mined: malformed, a wrong signature,
	// more spent than there is.
	Invalid
)

// String returns the reason in words.
func (r Reason) String() string {
	switch r {
	case MissingInputs:
		return "missing inputs"
	case DoubleSpend:
		return "double spend"
	case NonFinal:
		return "not final"
	case LowFee:
		return "fee too low"
	case Invalid:
		return "invalid"
	}
	return "refused"
}

// Final reports whether the transaction can never be accepted, whatever
// happens to the chain short of a reorganisation.
func (r Reason) Final() bool { return r == Invalid || r == DoubleSpend }

// Rejected is the error of a transaction that the network refuses.
type Rejected struct {
	Reason Reason
	Text   string // in the service's own words, at most MaxRejectText bytes
}

// MaxRejectText is the most of a service's words that a Rejected carries.
const MaxRejectText = 300

// Reject makes a Rejected, its text cut to MaxRejectText.
func Reject(reason Reason, text string) *Rejected {
	return &Rejected{Reason: reason, Text: text[:min(len(text), MaxRejectText)]}
}

// Error gives the reason and the service's own words.
func (r *Rejected) Error() string {
	if r.Text == "" {
		return fmt.Sprintf("transaction rejected: %s", r.Reason)
	}
	return fmt.Sprintf("transaction rejected: %s: %q", r.Reason, r.Text)
}
