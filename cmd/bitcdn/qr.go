package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// quietZone is the light border around a QR code, in modules (ISO/IEC 18004).
const quietZone = 4

// terminalOf returns the file behind w or r where that is a terminal.
func terminalOf(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// showQR draws text as a QR code on a terminal that is wide enough and can show
// colours; elsewhere it does nothing.
func showQR(w io.Writer, text string) error {
	f, ok := terminalOf(w)
	if kind := os.Getenv("TERM"); !ok || kind == "dumb" || kind == "" {
		return nil
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return nil
	}
	drawn, columns, err := drawQR(text)
	if err != nil || columns > width {
		return err
	}
	_, err = io.WriteString(w, drawn)
	return err
}

// drawQR draws text as a QR code, two rows of modules on a line, in black and
// white of its own, so that it can be scanned on a dark and on a light terminal.
func drawQR(text string) (drawn string, columns int, err error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", 0, fmt.Errorf("QR code: %w", err)
	}
	// The 256-colour palette's own black and white: the first 16 are what the
	// terminal's theme makes of them.
	const black, white = 16, 231
	colour := func(x, y int) int {
		if code.Black(x, y) { // false outside of the code
			return black
		}
		return white
	}
	var b strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		was := ""
		for x := -quietZone; x < code.Size+quietZone; x++ {
			is := fmt.Sprintf("\x1b[38;5;%d;48;5;%dm", colour(x, y), colour(x, y+1))
			if is != was {
				b.WriteString(is)
				was = is
			}
			b.WriteString("▀")
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), code.Size + 2*quietZone, nil
}
