package peerwire

import (
	"strconv"
)

// The numbers under which this end receives extended messages (BEP 10).
const (
	extHandshake byte = 0
	extPay       byte = 1
	extMetadata  byte = 2
)

// Names of extensions in the extended handshake.
const (
	namePay      = "bc_pay"
	nameMetadata = "ut_metadata"
)

// MaxExtendedHandshake caps the payload of an extended handshake in bytes.
const MaxExtendedHandshake = 16 << 10

// maxMetadataRequest caps a ut_metadata message to this end, which never asks
// for metadata and so is never sent any, in bytes.
const maxMetadataRequest = 1 << 10

// metadataPiece is the size of a piece of metadata (BEP 9), bytes.
const metadataPiece = 16 << 10

// maxVersion is how much of a peer's client name is kept, bytes.
const maxVersion = 64

// Extended is what a peer's extended handshake (BEP 10) says.
type Extended struct {
	Version  string // the client's name, at most 64 printable ASCII bytes
	Pay      byte   // the peer's number for bc_pay; 0 where it has none
	Metadata byte   // the peer's number for ut_metadata; 0 where it has none
	Queue    int    // reqq: how many requests it queues; 0 where it does not say
}

// ParseExtended reads the payload of an extended handshake. It returns an error
// for one above MaxExtendedHandshake, nested deeper than any client nests, or
// malformed; keys that are unknown or of an unexpected type are passed over.
func ParseExtended(b []byte) (Extended, error) {
	var h Extended
	if err := h.merge(b); err != nil {
		return Extended{}, err
	}
	return h, nil
}

// merge changes h by a handshake, as ParseExtended reads it. What that does not
// name stays. After an error h is of no use.
func (h *Extended) merge(b []byte) error {
	if len(b) > MaxExtendedHandshake {
		return errBencode
	}
	s := scanner{b}
	return s.dict(func(key []byte) error {
		switch {
		case string(key) == "m" && s.isDict():
			return s.dict(func(name []byte) error {
				if !s.isNumber() {
					return s.skip()
				}
				n, err := s.number()
				if err != nil {
					return err
				}
				if n < 0 || n > 255 {
					return nil
				}
				switch string(name) {
				case namePay:
					h.Pay = byte(n)
				case nameMetadata:
					h.Metadata = byte(n)
				}
				return nil
			})
		case string(key) == "reqq" && s.isNumber():
			n, err := s.number()
			h.Queue = int(min(max(n, 0), 1<<20))
			return err
		case string(key) == "v" && s.isText():
			v, err := s.text()
			h.Version = printable(v)
			return err
		}
		return s.skip()
	})
}

// printable cuts a stranger's text to what may be logged and shown.
func printable(b []byte) string {
	out := make([]byte, 0, min(len(b), maxVersion))
	for _, c := range b {
		if len(out) == maxVersion {
			break
		}
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		out = append(out, c)
	}
	return string(out)
}

// appendExtended appends this end's extended handshake, a whole message.
func appendExtended(b []byte, version string, queue, metadataSize int, pay bool, yourIP []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(kindExtended), extHandshake)
	b = append(b, "d1:md"...)
	if pay {
		b = appendKeyInt(b, namePay, int(extPay))
	}
	if metadataSize > 0 {
		b = appendKeyInt(b, nameMetadata, int(extMetadata))
	}
	b = append(b, 'e')
	if metadataSize > 0 {
		b = appendKeyInt(b, "metadata_size", metadataSize)
	}
	b = appendKeyInt(b, "reqq", queue)
	b = appendText(b, "v")
	b = appendText(b, version)
	if len(yourIP) > 0 {
		b = appendText(b, "yourip")
		b = appendText(b, string(yourIP))
	}
	b = append(b, 'e')
	return setLength(b, start)
}

func appendText(b []byte, text string) []byte {
	b = strconv.AppendInt(b, int64(len(text)), 10)
	b = append(b, ':')
	return append(b, text...)
}

func appendKeyInt(b []byte, key string, n int) []byte {
	b = appendText(b, key)
	b = append(b, 'i')
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, 'e')
}

// Types of ut_metadata messages (BEP 9).
const (
	metadataRequest = 0
	metadataData    = 1
	metadataReject  = 2
)

// parseMetadata reads the type and the piece of a ut_metadata message.
func parseMetadata(b []byte) (kind, piece int64, err error) {
	if len(b) > maxMetadataRequest {
		return 0, 0, errBencode
	}
	kind, piece = -1, -1
	s := scanner{b}
	err = s.dict(func(key []byte) error {
		if !s.isNumber() {
			return s.skip()
		}
		switch string(key) {
		case "msg_type":
			kind, err = s.number()
			return err
		case "piece":
			piece, err = s.number()
			return err
		}
		return s.skip()
	})
	if err == nil && kind < 0 {
		err = errBencode
	}
	return kind, piece, err
}

// appendMetadata appends the piece of info that a peer asked for as a whole
// message; piece must exist.
func appendMetadata(b []byte, id byte, info []byte, piece int) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(kindExtended), id, 'd')
	b = appendKeyInt(b, "msg_type", metadataData)
	b = appendKeyInt(b, "piece", piece)
	b = appendKeyInt(b, "total_size", len(info))
	b = append(b, 'e')
	b = append(b, info[piece*metadataPiece:min(len(info), (piece+1)*metadataPiece)]...)
	return setLength(b, start)
}

// appendMetadataReject appends the refusal of a piece of metadata.
func appendMetadataReject(b []byte, id byte, piece int64) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(kindExtended), id, 'd')
	b = appendKeyInt(b, "msg_type", metadataReject)
	b = appendText(b, "piece")
	b = append(b, 'i')
	b = strconv.AppendInt(b, piece, 10)
	b = append(b, 'e', 'e')
	return setLength(b, start)
}
