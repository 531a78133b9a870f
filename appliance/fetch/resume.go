package fetch

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/bitcdn/bitcdn/storage/durable"
)

// resume is what the state folder keeps of a download between runs.
type resume struct {
	infoHash [20]byte
	pieces   int
	// done holds the pieces that were verified and then synced.
	done bitmap
	// saved is when the record was made, by the clock that also stamps files.
	saved time.Time
	// closed says that the download ended in order, so that none of its writes
	// came after saved.
	closed bool
}

// The record is
//
//	magic 8 | info hash 20 | pieces u32 | flags u8 | saved i64 (ns) | bitmap | CRC-32C u32
//
// in network byte order, under <info hash>.resume.
const (
	resumeMagic  = "bcdnget1"
	resumeHeader = 8 + 20 + 4 + 1 + 8
	flagClosed   = 1
	// maxPieces is what fits into the largest torrent file.
	maxPieces = MaxTorrent / sha1.Size
)

var errResume = errors.New("resume record unusable")

func (r *resume) encode() []byte {
	b := make([]byte, 0, resumeHeader+len(r.done)+4)
	b = append(b, resumeMagic...)
	b = append(b, r.infoHash[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.pieces))
	var flags byte
	if r.closed {
		flags |= flagClosed
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(r.saved.UnixNano()))
	b = append(b, r.done...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func decodeResume(b []byte) (*resume, error) {
	if len(b) < resumeHeader+4 || string(b[:8]) != resumeMagic {
		return nil, fmt.Errorf("%w: not one", errResume)
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return nil, fmt.Errorf("%w: checksum", errResume)
	}
	r := &resume{infoHash: [20]byte(body[8:28]), closed: body[32]&flagClosed != 0}
	n := binary.BigEndian.Uint32(body[28:32])
	if n > maxPieces || uint32(len(body)-resumeHeader) != (n+7)/8 {
		return nil, fmt.Errorf("%w: %d pieces", errResume, n)
	}
	r.pieces = int(n)
	r.saved = time.Unix(0, int64(binary.BigEndian.Uint64(body[33:41])))
	r.done = bytes.Clone(body[resumeHeader:])
	for i := r.pieces; i < len(r.done)*8; i++ {
		if r.done.has(i) {
			return nil, fmt.Errorf("%w: stray bits", errResume)
		}
	}
	return r, nil
}

// stateDir is the folder of Request.State with the names of one torrent in it.
type stateDir struct {
	dir      string
	infoHash [20]byte
}

func (s stateDir) path(ext string) string {
	return filepath.Join(s.dir, hex.EncodeToString(s.infoHash[:])+ext)
}

// readCapped reads a file of at most limit bytes.
func readCapped(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return b, err
}

// resume returns what is known of the download; nil where nothing usable is.
func (s stateDir) resume(pieces int) *resume {
	b, err := readCapped(s.path(".resume"), resumeHeader+4+maxPieces/8)
	if err != nil {
		return nil
	}
	r, err := decodeResume(b)
	if err != nil || r.infoHash != s.infoHash || r.pieces != pieces {
		return nil
	}
	return r
}

func (s stateDir) saveResume(r *resume) error {
	if err := durable.Replace(s.path(".resume"), r.encode(), 0o600); err != nil {
		return fmt.Errorf("save state of download: %w", err)
	}
	return nil
}

// info returns the metadata that an earlier run got from a peer, or nil.
func (s stateDir) info() []byte {
	b, err := readCapped(s.path(".info"), MaxTorrent)
	if err != nil || sha1.Sum(b) != s.infoHash {
		return nil
	}
	return b
}

func (s stateDir) saveInfo(b []byte) error {
	if bytes.Equal(s.info(), b) {
		return nil
	}
	if err := durable.Replace(s.path(".info"), b, 0o600); err != nil {
		return fmt.Errorf("save metadata: %w", err)
	}
	return nil
}

// How much younger than the record a file may be. While a download runs its
// files are written to after each record; what is younger than that was
// changed by somebody else.
const (
	slackClosed  = 2 * time.Second
	slackRunning = 2 * time.Minute
)

// onDisk is what a look at a file's name says.
type onDisk struct {
	exists  bool
	size    int64
	changed time.Time
}

func stat(root *os.Root, name string) (onDisk, error) {
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return onDisk{}, nil
	case err != nil:
		return onDisk{}, err
	case !info.Mode().IsRegular():
		return onDisk{}, nil
	}
	return onDisk{exists: true, size: info.Size(), changed: info.ModTime()}, nil
}

// plausible says whether the record can be believed about a file.
func (r *resume) plausible(f onDisk) bool {
	slack := slackRunning
	if r.closed {
		slack = slackClosed
	}
	return f.exists && !f.changed.After(r.saved.Add(slack))
}
