package announce

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"github.com/anacrolix/torrent/bencode"
)

const (
	maxReply  = 128 << 10 // bytes of an answer; peers are not asked for
	maxReason = 128       // bytes kept of what a tracker says
)

// reply is a tracker's answer.
type reply struct {
	interval, minInterval time.Duration // 0: not named
	seeders, leechers     int32         // -1: not named
	external              netip.Addr    // BEP 24; invalid: not named
}

// refusal is a tracker's "failure reason": it works and does not want the title.
type refusal struct {
	reason string
	retry  time.Duration // BEP 31; 0: not named
}

func (r *refusal) Error() string { return "tracker refuses: " + r.reason }

// fault is a tracker's failure that is not its host's: other URLs there may do.
type fault struct{ err error }

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// busy is a host's word that it wants to be left alone.
type busy struct {
	status string
	retry  time.Duration // 0: not named
}

func (b *busy) Error() string { return "tracker answers " + b.status }

var (
	errReply       = errors.New("malformed answer")
	errInterrupted = errors.New("interrupted")
)

// parseReply reads the bencoded answer of an HTTP tracker (BEP 3). Fields of
// the wrong kind count as not there, as trackers are many. Errors are errReply
// and *refusal.
func parseReply(b []byte) (reply, error) {
	var fields map[string]bencode.Bytes
	d := bencode.NewDecoder(bytes.NewReader(b))
	d.MaxStrLen = int64(len(b))
	d.MaxDepth = 8
	if err := d.Decode(&fields); err != nil || fields == nil {
		return reply{}, errReply // the decoder's words hold the tracker's
	}
	if reason, ok := fields["failure reason"]; ok {
		text, _ := decodeText(reason)
		return reply{}, &refusal{reason: printable(text), retry: retryIn(fields["retry in"])}
	}
	r := reply{
		interval:    seconds(fields["interval"]),
		minInterval: seconds(fields["min interval"]),
		seeders:     count(fields["complete"]),
		leechers:    count(fields["incomplete"]),
	}
	// Peers are not asked for. Where they stand in for the number of leechers,
	// it is because a seeder is mostly told of those.
	if n := peers(fields["peers"], 6) + peers(fields["peers6"], 18); n > 0 && r.leechers < 0 {
		r.leechers = int32(n)
	}
	if text, ok := decodeText(fields["external ip"]); ok {
		r.external, _ = netip.AddrFromSlice([]byte(text))
	}
	return r, nil
}

func decodeInt(b bencode.Bytes) (int64, bool) {
	var n int64
	if len(b) == 0 || b[0] != 'i' || bencode.Unmarshal(b, &n) != nil {
		return 0, false
	}
	return n, true
}

func decodeText(b bencode.Bytes) (string, bool) {
	var s string
	if len(b) == 0 || b[0] < '0' || b[0] > '9' || bencode.Unmarshal(b, &s) != nil {
		return "", false
	}
	return s, true
}

// seconds reads a time, at most a day: what is longer is cut anyway.
func seconds(b bencode.Bytes) time.Duration {
	n, ok := decodeInt(b)
	if !ok {
		return 0
	}
	return time.Duration(min(max(n, 0), 86_400)) * time.Second
}

func count(b bencode.Bytes) int32 {
	n, ok := decodeInt(b)
	if !ok || n < 0 {
		return -1
	}
	return int32(min(n, math.MaxInt32))
}

// peers counts a list in either form (BEP 3, and 7 and 23 with size bytes each).
func peers(b bencode.Bytes, size int) int {
	if text, ok := decodeText(b); ok {
		return len(text) / size
	}
	var list []bencode.Bytes
	if len(b) == 0 || b[0] != 'l' || bencode.Unmarshal(b, &list) != nil {
		return 0
	}
	return len(list)
}

const neverAgain = 24 * time.Hour

// retryIn reads minutes, or "never".
func retryIn(b bencode.Bytes) time.Duration {
	if n, ok := decodeInt(b); ok {
		return time.Duration(min(max(n, 0), int64(neverAgain/time.Minute))) * time.Minute
	}
	if text, _ := decodeText(b); text == "never" {
		return neverAgain
	}
	return 0
}

// printable is a tracker's text, fit for a log and a page.
func printable(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason]
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, strings.TrimRight(text, "\x00\r\n "))
	if text == "" {
		return "no reason given"
	}
	return strings.Clone(text)
}

func faultf(format string, args ...any) error { return &fault{fmt.Errorf(format, args...)} }
