// Package scanline tells a person how far something long is: on a terminal in
// one line that changes, elsewhere in a line every now and then.
package scanline

import (
	"fmt"
	"io"
	"os"

	"github.com/bitcdn/bitcdn/payments/wallet"
	"golang.org/x/term"
)

// quiet is how many keys go by without a line where nobody watches.
const quiet = 2000

// Line writes to a terminal or something else.
type Line struct {
	to     io.Writer
	live   bool
	begun  bool
	text   string
	branch uint32
	told   uint32
}

// New makes a Line.
func New(to io.Writer) *Line {
	f, ok := to.(*os.File)
	return &Line{to: to, live: ok && term.IsTerminal(int(f.Fd()))}
}

// Set shows a text, unless it is shown already.
func (l *Line) Set(text string) {
	if text == l.text {
		return
	}
	l.text = text
	if !l.live {
		fmt.Fprintln(l.to, text)
		return
	}
	fmt.Fprintf(l.to, "\r\x1b[K%s", text)
	l.begun = true
}

// Scanning shows how far a search for coins is; it fits wallet.Options.
func (l *Line) Scanning(s wallet.Scan) {
	if s.Branch != l.branch {
		l.branch, l.told = s.Branch, 0
	}
	if !l.live && s.Done < s.Of && s.Done-l.told < quiet {
		return
	}
	l.told = s.Done
	l.Set(fmt.Sprintf("looking for coins, %s: %d of %d keys; %d coins with %v so far", branchName(s.Branch), s.Done, s.Of, s.Coins, s.Value))
}

func branchName(branch uint32) string {
	switch branch {
	case wallet.BranchReceive:
		return "addresses"
	case wallet.BranchChange:
		return "change"
	case wallet.BranchPayout:
		return "channels"
	}
	return "others"
}

// End ends the line, so that others can write.
func (l *Line) End() {
	if l.begun {
		fmt.Fprintln(l.to)
		l.begun, l.text = false, ""
	}
}
