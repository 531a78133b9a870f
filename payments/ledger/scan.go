package ledger

import (
	"fmt"
	"time"
)

// fixed scans a blob of exactly len(f) bytes; NULL leaves zeros.
type fixed []byte

// Scan implements sql.Scanner.
func (f fixed) Scan(v any) error {
	switch b := v.(type) {
	case nil:
		clear(f)
		return nil
	case []byte:
		if len(b) == len(f) {
			copy(f, b)
			return nil
		}
		return fmt.Errorf("%d bytes where there must be %d", len(b), len(f))
	}
	return fmt.Errorf("%T where there must be bytes", v)
}

// nullHash stores the zero hash as NULL, which indexes leave out.
func nullHash(h [32]byte) any {
	if h == [32]byte{} {
		return nil
	}
	return h[:]
}

// Times are stored as milliseconds since 1970; the zero time is 0.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
