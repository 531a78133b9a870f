package fetch

import "errors"

// Kinds of error that Fetch returns, for errors.Is.
var (
	// ErrNoPeers says that nothing moved for Request.Idle: no peer has the data,
	// or none gives it on terms that were accepted.
	ErrNoPeers = errors.New("no peer sends data")
	// ErrDiskFull says that the disk or a quota had no room for the data. What
	// was verified before is kept.
	ErrDiskFull = errors.New("disk full")
	// ErrTorrent says that the link, the torrent file or the metadata is
	// malformed or would write outside of its folder.
	ErrTorrent = errors.New("bad torrent")
	// ErrManifest says that the title's manifest did not pass Request.Manifest.
	ErrManifest = errors.New("bad manifest")
	// ErrBusy says that another download of the same torrent is running with the
	// same state folder.
	ErrBusy = errors.New("download already running")
)

// hintError is an error with advice for the person who started the download.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// Hint is what a person can do about it, in one sentence.
func (e *hintError) Hint() string { return e.hint }

// Hint returns what a person can do about an error of Fetch, or "".
func Hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
