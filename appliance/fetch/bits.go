package fetch

import "math/bits"

// bitmap is a set of piece indexes, in the order of BEP 3: the first piece is
// the highest bit of the first byte.
type bitmap []byte

func newBitmap(n int) bitmap { return make(bitmap, (n+7)/8) }

func (b bitmap) has(i int) bool { return b[i>>3]&(0x80>>(i&7)) != 0 }
func (b bitmap) set(i int)      { b[i>>3] |= 0x80 >> (i & 7) }
func (b bitmap) clear(i int)    { b[i>>3] &^= 0x80 >> (i & 7) }

func (b bitmap) count() int {
	n := 0
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}
