package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"rsc.io/qr"
)

// What is drawn is the code, module for module, with its quiet zone and in
// colours that do not depend on the terminal's.
func TestDrawnQR(t *testing.T) {
	const address = "mk6ZyPyc9JJyxjjgDJBj3Et9C5A5oToEFK"
	drawn, columns, err := drawQR(address)
	if err != nil {
		t.Fatal(err)
	}
	code, err := qr.Encode(address, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]bool // black
	step := regexp.MustCompile("^\x1b\\[38;5;(16|231);48;5;(16|231)m")
	for line := range strings.Lines(drawn) {
		line, ok := strings.CutSuffix(line, "\x1b[0m\n")
		if !ok {
			t.Fatalf("a line that leaves its colours on: %q", line)
		}
		var top, bottom []bool
		var up, down bool
		for line != "" {
			if m := step.FindStringSubmatch(line); m != nil {
				up, down = m[1] == "16", m[2] == "16"
				line = line[len(m[0]):]
			}
			rest, ok := strings.CutPrefix(line, "▀")
			if !ok {
				t.Fatalf("unknown: %q", line)
			}
			top, bottom, line = append(top, up), append(bottom, down), rest
		}
		rows = append(rows, top, bottom)
	}
	if columns != code.Size+2*quietZone || len(rows) < columns || len(rows) > columns+1 {
		t.Fatalf("%d rows, %d columns for %d modules", len(rows), columns, code.Size)
	}
	for y, row := range rows {
		if len(row) != columns {
			t.Fatalf("row %d has %d columns, not %d", y, len(row), columns)
		}
		for x, black := range row {
			if black != code.Black(x-quietZone, y-quietZone) {
				t.Fatalf("module %d,%d is wrong", x, y)
			}
		}
	}
	var out bytes.Buffer
	if err := showQR(&out, address); err != nil || out.Len() != 0 {
		t.Errorf("where there is no terminal: %d bytes, %v", out.Len(), err)
	}
	if _, _, err := drawQR(fmt.Sprint(strings.Repeat("x", 5000))); err == nil {
		t.Error("more than fits was drawn")
	}
}
