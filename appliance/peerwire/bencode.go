package peerwire

import "errors"

// errBencode says that a peer's dictionary cannot be read.
var errBencode = errors.New("malformed bencode")

// maxDepth bounds nesting in what a peer sends. Extended handshakes nest two
// levels deep.
const maxDepth = 16

// scanner walks over bencoded bytes without building anything. It reads what
// two small dictionaries need, and nothing in its input makes it allocate or
// recurse.
type scanner struct {
	b []byte // what is left
}

// dict calls each for every key of a dictionary; each must consume the value.
// What follows the dictionary stays in s.b.
func (s *scanner) dict(each func(key []byte) error) error {
	if !s.take('d') {
		return errBencode
	}
	for !s.take('e') {
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) take(c byte) bool {
	if len(s.b) > 0 && s.b[0] == c {
		s.b = s.b[1:]
		return true
	}
	return false
}

// text reads a byte string; the result lies in the input.
func (s *scanner) text() ([]byte, error) {
	n, i := 0, 0
	for ; i < len(s.b) && s.b[i] != ':'; i++ {
		c := s.b[i]
		if c < '0' || c > '9' || n > len(s.b) {
			return nil, errBencode
		}
		n = n*10 + int(c-'0')
	}
	if i == 0 || i == len(s.b) || n > len(s.b)-i-1 {
		return nil, errBencode
	}
	text := s.b[i+1 : i+1+n]
	s.b = s.b[i+1+n:]
	return text, nil
}

// number reads an integer; one that does not fit is an error.
func (s *scanner) number() (int64, error) {
	if !s.take('i') {
		return 0, errBencode
	}
	negative := s.take('-')
	var n int64
	digits := 0
	for len(s.b) > 0 && s.b[0] != 'e' {
		c := s.b[0]
		if c < '0' || c > '9' || digits == 18 {
			return 0, errBencode
		}
		n = n*10 + int64(c-'0')
		digits++
		s.b = s.b[1:]
	}
	if digits == 0 || !s.take('e') {
		return 0, errBencode
	}
	if negative {
		n = -n
	}
	return n, nil
}

// isNumber reports whether an integer comes next.
func (s *scanner) isNumber() bool { return len(s.b) > 0 && s.b[0] == 'i' }

// isText reports whether a byte string comes next.
func (s *scanner) isText() bool { return len(s.b) > 0 && s.b[0] >= '0' && s.b[0] <= '9' }

// isDict reports whether a dictionary comes next.
func (s *scanner) isDict() bool { return len(s.b) > 0 && s.b[0] == 'd' }

// skip passes over one value of any type.
func (s *scanner) skip() error {
	depth := 0
	for {
		switch {
		case s.isNumber():
			s.b = s.b[1:]
			i := 0
			for i < len(s.b) && s.b[i] != 'e' {
				i++
			}
			if i == len(s.b) {
				return errBencode
			}
			s.b = s.b[i+1:]
		case s.isText():
			if _, err := s.text(); err != nil {
				return err
			}
		case s.take('d'), s.take('l'):
			if depth++; depth > maxDepth {
				return errBencode
			}
		case depth > 0 && s.take('e'):
			depth--
		default:
			return errBencode
		}
		if depth == 0 {
			return nil
		}
	}
}
