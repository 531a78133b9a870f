package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
	"github.com/bitcdn/bitcdn/payments/money"
)

// Contents is the name of the title's own folder.
const Contents = "contents"

// File is one file of a title, filled with random bytes.
type File struct {
	Name   string // slash-separated, below Contents
	Length int
}

// Title is what a creator publishes.
type Title struct {
	Name        string
	Files       []File
	PieceLength int // bytes
	Royalty     money.Rate
}

// Goods are the programs and a published title, which tests share and none
// changes.
type Goods struct {
	Bin      string // folder with the programs
	Folder   string // contains the title's own folder
	Torrent  string // file
	InfoHash [20]byte
	Magnet   string
	Length   int64       // bytes
	Creator  bsv.Hash160 // whom the royalty is paid to
}

// Prepare builds the programs in dir and has a creator publish a title. The
// programs are built without the race detector, whatever the test is built with.
func Prepare(ctx context.Context, dir string, t Title) (*Goods, error) {
	g := &Goods{Bin: filepath.Join(dir, "bin"), Folder: filepath.Join(dir, "sold"), Torrent: filepath.Join(dir, "title.torrent")}
	if err := os.Mkdir(g.Bin, 0o755); err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", g.Bin+"/",
		"github.com/bitcdn/bitcdn/cmd/bitcdn", "github.com/bitcdn/bitcdn/cmd/bitcdnd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return g, g.publish(ctx, dir, t, 0x77)
}

// Another has another creator publish a title in dir, with the same programs.
func (g *Goods) Another(ctx context.Context, dir string, t Title) (*Goods, error) {
	other := &Goods{Bin: g.Bin, Folder: filepath.Join(dir, "sold"), Torrent: filepath.Join(dir, "title.torrent")}
	return other, other.publish(ctx, dir, t, 0x66)
}

// publish makes the title's files and its torrent. The creator's key is made of
// one byte.
func (g *Goods) publish(ctx context.Context, dir string, t Title, creator byte) error {
	if err := g.write(t.Files); err != nil {
		return err
	}
	key, err := bsv.NewPrivateKey(bytes.Repeat([]byte{creator}, bsv.PrivateKeySize))
	if err != nil {
		return err
	}
	g.Creator = key.Public().Hash()
	publish := exec.CommandContext(ctx, filepath.Join(g.Bin, "bitcdn"), "publish", filepath.Join(g.Folder, Contents), "-q",
		"--data", filepath.Join(dir, "creator"), "--network", "regtest", "--title", t.Name, "--piece-length", fmt.Sprint(t.PieceLength),
		"--royalty", fmt.Sprint(int64(t.Royalty)), "--royalty-to", g.Creator.Address(regnode.Network), "-o", g.Torrent)
	var complaint bytes.Buffer
	publish.Stderr = &complaint
	out, err := publish.Output()
	if err != nil {
		return fmt.Errorf("publish: %w\n%s", err, complaint.Bytes())
	}
	g.Magnet = strings.TrimSpace(string(out))
	_, rest, _ := strings.Cut(g.Magnet, "urn:btih:")
	if _, err := hex.Decode(g.InfoHash[:], []byte(rest[:min(len(rest), 2*len(g.InfoHash))])); err != nil {
		return fmt.Errorf("magnet link %q: %w", g.Magnet, err)
	}
	return nil
}

func (g *Goods) write(files []File) error {
	source := rand.NewChaCha8([32]byte{1})
	for _, f := range files {
		path := filepath.Join(g.Folder, Contents, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		b := make([]byte, f.Length)
		_, _ = source.Read(b) // never fails
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
		g.Length += int64(f.Length)
	}
	return nil
}
