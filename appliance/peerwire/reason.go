package peerwire

import "fmt"

// Reason is why a connection ended. There are few, so that they can be counted
// one by one; what happened exactly is in the error beside it.
type Reason string

// The reasons for which connections end.
const (
	// Before the connection belonged to a title.
	ReasonBadHandshake     Reason = "bad handshake"     // no BitTorrent, or cut short
	ReasonHandshakeTimeout Reason = "handshake timeout" // did not finish in time
	ReasonUnknownTitle     Reason = "unknown title"     // an info hash that is not served here
	ReasonSelf             Reason = "own peer id"       // the box reached itself

	// The peer's doing.
	ReasonClosed         Reason = "closed by peer"
	ReasonTooLong        Reason = "message too long"       // above its type's cap
	ReasonUnknownMessage Reason = "unknown message"        // a type that no BEP in use defines
	ReasonBadMessage     Reason = "malformed message"      // a length that its type cannot have, or data that nobody asked for
	ReasonBadExtension   Reason = "malformed extension"    // BEP 9 or BEP 10 bencode
	ReasonBadRequest     Reason = "bad request"            // beyond the piece, empty, or above 128 KiB
	ReasonRequestFlood   Reason = "request flood"          // far more requests than may be queued, or while choked
	ReasonSlowReader     Reason = "peer does not read"     // no block accepted in time, or too many answers waiting
	ReasonIdle           Reason = "idle"                   // not even a keepalive
	ReasonStorage        Reason = "data lost in mid block" // the disk had less than the piece's check had seen

	// The owner's doing.
	ReasonPayment  Reason = "payment" // the sale ended it
	ReasonShutdown Reason = "shut down"
)

// Error is the reason in words.
func (r Reason) Error() string { return string(r) }

// Ended is the error of a connection that has ended. Its Reason is found with
// errors.Is.
type Ended struct {
	Reason Reason
	Err    error // nil where the reason says it all
}

// Error is the reason, and the detail where there is one.
func (e *Ended) Error() string {
	if e.Err == nil {
		return string(e.Reason)
	}
	return fmt.Sprintf("%s: %v", e.Reason, e.Err)
}

// Unwrap gives the reason and the detail.
func (e *Ended) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}

func ended(r Reason, format string, args ...any) *Ended {
	return &Ended{Reason: r, Err: fmt.Errorf(format, args...)}
}
