package ledger

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// recordColumns are the columns of WriteCSV and the names of WriteJSON. They
// are only ever added to, at the end.
var recordColumns = []string{"date", "time", "kind", "state", "title", "info_hash", "peer_key", "channel", "bytes", "satoshis", "fee",
	"royalty", "txid"}

// WriteCSV writes the records of a period with a line of column names (RFC
// 4180, UTF-8). Dates and times are UTC. Text that a spreadsheet would run as a
// formula is preceded by an apostrophe.
func (l *Ledger) WriteCSV(ctx context.Context, w io.Writer, p Period) error {
	out := csv.NewWriter(w)
	if err := out.Write(recordColumns); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	err := l.Records(ctx, p, func(r Record) error { return out.Write(r.cells()) })
	out.Flush()
	if err = errors.Join(err, out.Error()); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

func (r *Record) cells() []string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return []string{r.At.UTC().Format(time.DateOnly), r.At.UTC().Format(time.RFC3339), r.Kind, r.State, cell(r.Title),
		hexOf(r.InfoHash[:]), hexOf(r.Peer[:]), hexOf(r.Channel[:]), number(r.Bytes), number(r.Amount), number(r.Fee),
		number(r.Royalty), txidOf(r.Txid)}
}

// hexOf writes zeros as nothing.
func hexOf(b []byte) string {
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return ""
	}
	return hex.EncodeToString(b)
}

// txidOf writes a txid as the world writes it: in reverse.
func txidOf(h [32]byte) string {
	slices.Reverse(h[:])
	return hexOf(h[:])
}

// cell makes text of others harmless in a spreadsheet: one line, and no
// formula, not by the wide forms of the signs either, and not behind spaces.
func cell(text string) string {
	text = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if start := strings.TrimSpace(text); start != "" && strings.ContainsRune("=+-@\uFF1D\uFF0B\uFF0D\uFF20", []rune(start)[0]) {
		return "'" + text
	}
	return text
}

// WriteJSON writes the records of a period as a JSON array, each on a line of
// its own.
func (l *Ledger) WriteJSON(ctx context.Context, w io.Writer, p Period) error {
	out := bufio.NewWriter(w)
	separator := "[\n"
	err := l.Records(ctx, p, func(r Record) error {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, first := out.WriteString(separator)
		_, second := out.Write(line)
		separator = ",\n"
		return errors.Join(first, second)
	})
	if err == nil && separator == "[\n" {
		_, err = out.WriteString("[")
	}
	if err == nil {
		_, err = out.WriteString("\n]\n")
	}
	if err = errors.Join(err, out.Flush()); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	return nil
}

// MarshalJSON writes the record with the names of the columns of WriteCSV.
func (r Record) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Date     string    `json:"date"`
		Time     time.Time `json:"time"`
		Kind     string    `json:"kind"`
		State    string    `json:"state"`
		Title    string    `json:"title,omitempty"`
		InfoHash string    `json:"info_hash,omitempty"`
		Peer     string    `json:"peer_key,omitempty"`
		Channel  string    `json:"channel,omitempty"`
		Bytes    int64     `json:"bytes"`
		Amount   int64     `json:"satoshis"`
		Fee      int64     `json:"fee"`
		Royalty  int64     `json:"royalty"`
		Txid     string    `json:"txid,omitempty"`
	}{r.At.UTC().Format(time.DateOnly), r.At.UTC(), r.Kind, r.State, r.Title, hexOf(r.InfoHash[:]), hexOf(r.Peer[:]),
		hexOf(r.Channel[:]), r.Bytes, r.Amount, r.Fee, r.Royalty, txidOf(r.Txid)})
}
