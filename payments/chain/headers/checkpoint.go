package headers

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/bitcdn/bitcdn/payments/chain"
)

// ErrCheckpoint says that a text is no checkpoint, that one is too old to be
// of use, or that a chain does not have the one that the owner has set.
var ErrCheckpoint = errors.New("not a usable checkpoint (height:hash)")

// Checkpoint is a block that the owner trusts. The zero value is none.
type Checkpoint struct {
	Height uint32
	Hash   chain.Hash
}

// ParseCheckpoint reads "height:hash", as String writes it; an empty text is no
// checkpoint. ErrCheckpoint for anything else.
func ParseCheckpoint(text string) (Checkpoint, error) {
	if text == "" {
		return Checkpoint{}, nil
	}
	height, hash, _ := strings.Cut(text, ":")
	n, errHeight := strconv.ParseUint(height, 10, 31)
	h, errHash := chain.ParseHash(hash)
	if errHeight != nil || errHash != nil || h.IsZero() {
		return Checkpoint{}, fmt.Errorf("%.80q: %w", text, ErrCheckpoint)
	}
	return Checkpoint{Height: uint32(n), Hash: h}, nil
}

// IsZero reports whether there is no checkpoint.
func (c Checkpoint) IsZero() bool { return c.Hash.IsZero() }

// String returns "height:hash", or an empty text for none.
func (c Checkpoint) String() string {
	if c.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d:%s", c.Height, c.Hash)
}

// MarshalText writes what String returns.
func (c Checkpoint) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what ParseCheckpoint does.
func (c *Checkpoint) UnmarshalText(text []byte) error {
	parsed, err := ParseCheckpoint(string(text))
	if err == nil {
		*c = parsed
	}
	return err
}
