package chain

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// MaxBUMPSize is the longest BUMP in bytes that ParseBUMP reads. The path of one
// transaction needs at most 1,500; the rest is room for several.
const MaxBUMPSize = 64 << 10

// Flags of a leaf in a BUMP.
const (
	bumpHash      = 0 // a hash follows
	bumpDuplicate = 1 // nothing follows: the hash is that of the leaf to the left
	bumpTxid      = 2 // a hash follows, of a transaction that the BUMP is about
)

// bumpLevel holds the nodes of one level by their offset. A zero hash stands
// for a duplicate of the node to the left.
type bumpLevel map[uint64]Hash

// ParseBUMP reads a Merkle path in the binary form of BRC-74 (BUMP), and
// returns the part of it that leads up from txid. The Proof has the Height and
// no Block.
//
// ErrProof for anything but exactly one BUMP, for lengths that do not fit into
// b, more than MaxProofDepth levels, nodes that stand twice or outside of their
// level, and a BUMP without txid or with gaps in its path. A node that follows
// from the level below may be left out, as in BUMPs of several transactions.
// Whether the path leads to a block is Check's to say.
func ParseBUMP(b []byte, txid bsv.Txid) (*Proof, error) {
	if len(b) > MaxBUMPSize {
		return nil, fmt.Errorf("BUMP of %d bytes: %w", len(b), ErrProof)
	}
	r := bumpReader{rest: b}
	height := r.varInt()
	depth := int(r.byte())
	if r.failed || height > math.MaxUint32 || depth == 0 || depth > MaxProofDepth {
		return nil, fmt.Errorf("BUMP for height %d with %d levels: %w", height, depth, ErrProof)
	}
	levels := make([]bumpLevel, depth)
	for i := range levels {
		levels[i] = r.level(uint64(1) << (depth - i))
	}
	if r.failed || len(r.rest) > 0 {
		return nil, fmt.Errorf("malformed BUMP: %w", ErrProof)
	}
	index, found := uint64(0), false
	for offset, hash := range levels[0] {
		// The doubled last transaction of a block stands there twice.
		if hash == Hash(txid) && (!found || offset < index) {
			index, found = offset, true
		}
	}
	if !found || txid.IsZero() {
		return nil, fmt.Errorf("BUMP without transaction %s: %w", txid, ErrProof)
	}
	p := &Proof{Height: uint32(height), Index: index}
	if depth == 1 && len(levels[0]) == 1 && index == 0 {
		return p, nil // the only transaction of its block
	}
	node := Hash(txid)
	for i := range levels {
		at := index >> i
		sibling, ok := node, levels[i].duplicates(at^1)
		if !ok {
			sibling, ok = bumpNode(levels, i, at^1)
		}
		if !ok {
			return nil, fmt.Errorf("BUMP without a node on level %d: %w", i, ErrProof)
		}
		p.Path = append(p.Path, sibling)
		if at&1 == 0 {
			node = hashPair(node, sibling)
		} else {
			node = hashPair(sibling, node)
		}
	}
	if _, err := p.Root(txid); err != nil {
		return nil, err
	}
	return p, nil
}

// duplicates reports whether the node is given as the double of its neighbour.
func (l bumpLevel) duplicates(offset uint64) bool {
	hash, ok := l[offset]
	return ok && hash.IsZero()
}

// bumpNode returns a node that is given, or that follows from what is given
// below it. Every node that it looks at is given or leads to given ones, so that
// its work is bounded by their number.
func bumpNode(levels []bumpLevel, level int, offset uint64) (Hash, bool) {
	if hash, ok := levels[level][offset]; ok {
		return hash, !hash.IsZero()
	}
	if level == 0 {
		return Hash{}, false
	}
	left, ok := bumpNode(levels, level-1, 2*offset)
	if !ok {
		return Hash{}, false
	}
	right, ok := left, levels[level-1].duplicates(2*offset+1)
	if !ok {
		right, ok = bumpNode(levels, level-1, 2*offset+1)
	}
	return hashPair(left, right), ok
}

// BUMP returns the path that leads up from txid in the binary form of BRC-74.
// It is of use for a Proof that Root takes for txid.
func (p *Proof) BUMP(txid bsv.Txid) []byte {
	b := appendBUMPVarInt(nil, uint64(p.Height))
	if len(p.Path) == 0 {
		b = append(b, 1, 1, 0, bumpTxid)
		return append(b, txid[:]...)
	}
	b = append(b, byte(len(p.Path)))
	node := Hash(txid)
	for level, sibling := range p.Path {
		at := p.Index >> level
		own := func() {
			if level == 0 {
				b = append(appendBUMPVarInt(b, at), bumpTxid)
				b = append(b, node[:]...)
			}
		}
		if level == 0 {
			b = append(b, 2)
		} else {
			b = append(b, 1)
		}
		if at&1 == 0 {
			own()
		}
		b = appendBUMPVarInt(b, at^1)
		if at&1 == 0 && sibling == node {
			b = append(b, bumpDuplicate)
		} else {
			b = append(b, bumpHash)
			b = append(b, sibling[:]...)
		}
		if at&1 == 1 {
			own()
			node = hashPair(sibling, node)
		} else {
			node = hashPair(node, sibling)
		}
	}
	return b
}

// bumpReader takes bytes from the front. After the first failure it gives only
// zeros.
type bumpReader struct {
	rest   []byte
	failed bool
}

func (r *bumpReader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed = true
		return make([]byte, n)
	}
	head := r.rest[:n]
	r.rest = r.rest[n:]
	return head
}

func (r *bumpReader) byte() byte { return r.take(1)[0] }

// varInt reads a number in its shortest form.
func (r *bumpReader) varInt() uint64 {
	n, shortest := uint64(0), uint64(0)
	switch first := r.byte(); first {
	default:
		n = uint64(first)
	case 0xfd:
		n, shortest = uint64(binary.LittleEndian.Uint16(r.take(2))), 0xfd
	case 0xfe:
		n, shortest = uint64(binary.LittleEndian.Uint32(r.take(4))), 1<<16
	case 0xff:
		n, shortest = binary.LittleEndian.Uint64(r.take(8)), 1<<32
	}
	if r.failed || n < shortest {
		r.failed = true
		return 0
	}
	return n
}

// level reads the nodes of a level that is at most width nodes wide.
func (r *bumpReader) level(width uint64) bumpLevel {
	const shortest = 1 + 1
	n := r.varInt()
	if n > uint64(len(r.rest)/shortest) {
		r.failed = true
	}
	if r.failed {
		return nil
	}
	l := make(bumpLevel, n)
	for range n {
		offset := r.varInt()
		var hash Hash
		switch flag := r.byte(); {
		case flag == bumpHash || flag == bumpTxid:
			copy(hash[:], r.take(len(hash)))
			r.failed = r.failed || hash.IsZero()
		case flag != bumpDuplicate || offset&1 == 0: // only the last node is doubled
			r.failed = true
		}
		if _, twice := l[offset]; twice || offset >= width {
			r.failed = true
		}
		if r.failed {
			return nil
		}
		l[offset] = hash
	}
	return l
}

func appendBUMPVarInt(b []byte, n uint64) []byte {
	switch {
	case n < 0xfd:
		return append(b, byte(n))
	case n <= math.MaxUint16:
		return binary.LittleEndian.AppendUint16(append(b, 0xfd), uint16(n))
	case n <= math.MaxUint32:
		return binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(n))
	}
	return binary.LittleEndian.AppendUint64(append(b, 0xff), n)
}
