package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Limits of what is walked through. They bound the work and the depth of the
// stack, not the memory: the walker allocates nothing.
const (
	maxDepth  = 32
	maxValues = 4 << 20
)

var errBencode = errors.New("not bencode")

// walker goes through bencoded text in place (BEP 3). It refuses leading
// zeros, "-0", text that ends too early, and what passes the limits. The order
// of keys it only notes, because torrents with unsorted keys are about and
// their info hash is that of the bytes as they stand.
type walker struct {
	text     []byte
	values   int  // seen so far
	unsorted bool // a dict's keys are out of order, or one is there twice
}

// entry is one key and value of a dict, with its place in the walked text.
type entry struct {
	key        []byte
	value      []byte // bencoded, as it stands
	start, end int    // of key and value together
}

func (w *walker) fault(at int, why string) error {
	return fmt.Errorf("byte %d: %s: %w", at, why, errBencode)
}

// value walks over the value that begins at at and returns where it ends.
func (w *walker) value(at, depth int) (int, error) {
	if at >= len(w.text) {
		return 0, w.fault(at, "ends too early")
	}
	switch w.text[at] {
	case 'd':
		return w.dict(at, depth, nil)
	case 'l':
		return w.list(at, depth, nil)
	case 'i':
		if err := w.count(at); err != nil {
			return 0, err
		}
		end, err := w.digits(at+1, 'e', true)
		if err != nil {
			return 0, err
		}
		return end + 1, nil
	}
	_, end, err := w.str(at)
	return end, err
}

// dict walks over the dict that begins at at and calls each, if not nil, with
// every entry.
func (w *walker) dict(at, depth int, each func(entry) error) (int, error) {
	at, err := w.open(at, depth, 'd')
	if err != nil {
		return 0, err
	}
	var last []byte
	for first := true; ; first = false {
		if at < len(w.text) && w.text[at] == 'e' {
			return at + 1, nil
		}
		key, middle, err := w.str(at)
		if err != nil {
			return 0, err
		}
		if !first && bytes.Compare(last, key) >= 0 {
			w.unsorted = true
		}
		last = key
		end, err := w.value(middle, depth+1)
		if err != nil {
			return 0, err
		}
		if each != nil {
			if err := each(entry{key: key, value: w.text[middle:end], start: at, end: end}); err != nil {
				return 0, err
			}
		}
		at = end
	}
}

// list walks over the list that begins at at and calls each, if not nil, with
// every element as it stands.
func (w *walker) list(at, depth int, each func(value []byte) error) (int, error) {
	at, err := w.open(at, depth, 'l')
	if err != nil {
		return 0, err
	}
	for {
		if at < len(w.text) && w.text[at] == 'e' {
			return at + 1, nil
		}
		end, err := w.value(at, depth+1)
		if err != nil {
			return 0, err
		}
		if each != nil {
			if err := each(w.text[at:end]); err != nil {
				return 0, err
			}
		}
		at = end
	}
}

func (w *walker) open(at, depth int, kind byte) (int, error) {
	if at >= len(w.text) || w.text[at] != kind {
		return 0, w.fault(at, "want "+strconv.QuoteRune(rune(kind)))
	}
	if depth >= maxDepth {
		return 0, w.fault(at, "nested too deep")
	}
	return at + 1, w.count(at)
}

func (w *walker) count(at int) error {
	if w.values++; w.values > maxValues {
		return w.fault(at, "too many values")
	}
	return nil
}

// str reads the string at at. Its length is held against what is there, so a
// length costs nothing until its bytes have been sent.
func (w *walker) str(at int) (text []byte, end int, err error) {
	if err := w.count(at); err != nil {
		return nil, 0, err
	}
	colon, err := w.digits(at, ':', false)
	if err != nil {
		return nil, 0, err
	}
	n, err := strconv.ParseUint(string(w.text[at:colon]), 10, 32)
	if err != nil || n > uint64(len(w.text)-colon-1) {
		return nil, 0, w.fault(at, "string ends too early")
	}
	end = colon + 1 + int(n)
	return w.text[colon+1 : end], end, nil
}

// digits walks over a decimal number and returns where its terminator stands.
func (w *walker) digits(at int, terminator byte, signed bool) (int, error) {
	const most = 20 // characters of the longest 64-bit number
	i := at
	if signed && i < len(w.text) && w.text[i] == '-' {
		i++
	}
	begin := i
	for i < len(w.text) && i-at <= most && w.text[i] >= '0' && w.text[i] <= '9' {
		i++
	}
	if i == begin || i >= len(w.text) || w.text[i] != terminator {
		return 0, w.fault(at, "not a number")
	}
	if w.text[begin] == '0' && (i-begin > 1 || begin > at) {
		return 0, w.fault(at, "number with leading zero")
	}
	return i, nil
}

// whole walks over text, which must be one dict and nothing behind it.
func (w *walker) whole(each func(entry) error) error {
	end, err := w.dict(0, 0, each)
	if err == nil && end != len(w.text) {
		err = w.fault(end, "bytes after the end")
	}
	return err
}

// integer reads a bencoded integer that has been walked over.
func integer(value []byte) (int64, error) {
	if len(value) < 3 || value[0] != 'i' {
		return 0, fmt.Errorf("not an integer: %w", errBencode)
	}
	n, err := strconv.ParseInt(string(value[1:len(value)-1]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("integer out of range: %w", errBencode)
	}
	return n, nil
}

// str reads a bencoded string that has been walked over, without a copy.
func str(value []byte) ([]byte, error) {
	w := walker{text: value}
	text, _, err := w.str(0)
	return text, err
}

func appendString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	return append(append(b, ':'), s...)
}

func appendInteger(b []byte, n int64) []byte {
	return append(strconv.AppendInt(append(b, 'i'), n, 10), 'e')
}
