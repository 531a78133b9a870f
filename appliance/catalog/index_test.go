package catalog

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/bitcdn/bitcdn/payments/money"
)

// A box registers thousands of titles and uses a few.
func TestIndexIsSmall(t *testing.T) {
	const titles, most = 10_000, 300
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	index := map[[20]byte]*record{}
	before := heap()
	for i := range titles {
		price := money.Rate(i)
		m := &Manifest{Royalty: 100, Title: fmt.Sprintf("The collected recordings, volume %05d", i)}
		m.Creator[5] = byte(i % 100)
		title := Title{
			Name:    fmt.Sprintf("collected.recordings.volume.%05d.flac", i),
			DataDir: fmt.Sprintf("/srv/disk%d/seeds", i%4),
			Length:  1 << 33, PieceLength: 1 << 20, Price: &price, Manifest: m, AddedAt: time.Unix(1, 0),
		}
		binary.BigEndian.PutUint32(title.InfoHash[:], uint32(i))
		index[title.InfoHash] = newRecord(&title)
	}
	each := int64(heap()-before) / titles
	t.Logf("%d bytes a title", each)
	if each > most {
		t.Errorf("%d bytes a title, want at most %d", each, most)
	}
	if r := index[[20]byte{}]; r.title([20]byte{}).Manifest.Title != "The collected recordings, volume 00000" {
		t.Error("the record lost its title")
	}
	runtime.KeepAlive(index)
}
