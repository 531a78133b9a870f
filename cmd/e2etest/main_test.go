package e2etest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

const (
	titleLength             = 48 << 20
	pieceLength             = 256 << 10
	royalty      money.Rate = 8_000
	ask          money.Rate = 40_000 // of a box that nothing else is said about
	generous     money.Rate = 60_000 // the client's usual price limit
	bigBudget               = money.Satoshis(10_000)
	uploadRate              = 8 << 20 // bytes per second, where something has to happen meanwhile
	titleName               = "A title to sell"
	contentsName            = "contents"
)

// goods are what all tests share and none changes.
type goods struct {
	bin      string
	folder   string // contains the title's own folder
	torrent  string // file
	infoHash [20]byte
	magnet   string
	creator  bsv.Hash160 // whom the royalty is paid to
}

var shared goods

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if shared, err = prepare(context.Background(), dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// prepare builds the programs and has a creator publish something.
func prepare(ctx context.Context, dir string) (g goods, err error) {
	g = goods{bin: filepath.Join(dir, "bin"), folder: filepath.Join(dir, "sold"), torrent: filepath.Join(dir, "title.torrent")}
	if err := os.Mkdir(g.bin, 0o755); err != nil {
		return g, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", g.bin+"/",
		"github.com/bitcdn/bitcdn/cmd/bitcdn", "github.com/bitcdn/bitcdn/cmd/bitcdnd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return g, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	if err := writeContents(filepath.Join(g.folder, contentsName)); err != nil {
		return g, err
	}
	key, err := bsv.NewPrivateKey(bytes.Repeat([]byte{0x77}, bsv.PrivateKeySize))
	if err != nil {
		return g, err
	}
	g.creator = key.Public().Hash()
	publish := exec.CommandContext(ctx, filepath.Join(g.bin, "bitcdn"), "publish", filepath.Join(g.folder, contentsName), "-q",
		"--data", filepath.Join(dir, "creator"), "--network", "regtest", "--title", titleName, "--piece-length", fmt.Sprint(pieceLength),
		"--royalty", fmt.Sprint(int64(royalty)), "--royalty-to", g.creator.Address(regnode.Network), "-o", g.torrent)
	var complaint bytes.Buffer
	publish.Stderr = &complaint
	out, err := publish.Output()
	if err != nil {
		return g, fmt.Errorf("publish: %w\n%s", err, complaint.Bytes())
	}
	g.magnet = strings.TrimSpace(string(out))
	_, rest, _ := strings.Cut(g.magnet, "urn:btih:")
	if _, err := hex.Decode(g.infoHash[:], []byte(rest[:min(len(rest), 2*len(g.infoHash))])); err != nil {
		return g, fmt.Errorf("magnet link %q: %w", g.magnet, err)
	}
	return g, nil
}

// writeContents makes files of odd lengths that add up to titleLength.
func writeContents(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		return err
	}
	source := rand.NewChaCha8([32]byte{1})
	left := titleLength
	for _, f := range []struct {
		name   string
		length int
	}{{"a", 20_000_001}, {"b", 1}, {"sub/c", 7_654_321}, {"sub/d", 0}, {"sub/e", -1}} {
		if f.length < 0 {
			f.length = left
		}
		left -= f.length
		b := make([]byte, f.length)
		_, _ = source.Read(b) // never fails
		if err := os.WriteFile(filepath.Join(dir, f.name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
