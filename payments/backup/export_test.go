package backup

import (
	"io"
	"time"

	"github.com/bitcdn/bitcdn/payments/ledger"
)

// Seal and Unseal give tests the chunks without what is in them.
func Seal(w io.Writer, k *Key, made time.Time, random io.Reader, plain []byte) error {
	e, err := encrypt(w, k, State, made, random)
	if err != nil {
		return err
	}
	if _, err := e.Write(plain); err != nil {
		return err
	}
	return e.Close()
}

// Unseal is the other way round.
func Unseal(r io.Reader, k *Key) ([]byte, error) {
	d, err := decrypt(r, k)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(d)
}

// Decode reads a plaintext.
func Decode(r io.Reader) (Contents, error) { return decode(r) }

// Encode writes one.
func (c *Contents) Encode(w io.Writer) error { return c.encode(w) }

// ChannelRoundTrip is a channel after it was in a backup.
func ChannelRoundTrip(c ledger.Channel) (ledger.Channel, error) { return channelToRecord(&c).row() }

// RoomFor is the judgement about a disk.
var RoomFor = roomFor

// Sizes of the format.
const (
	HeaderSize = headerSize
	ChunkSize  = chunkSize
	TagSize    = 16
)
