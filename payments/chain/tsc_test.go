package chain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// Block 100,000 of the main chain.
const (
	block100k  = "000000000003ba27aa200b1cecaad478d2b00432346c3f1f3986da1afd33e506"
	root100k   = "f3e94742aca4b5ef85488dc37c06c3282295ffec960994b2c0d5ac2a25a95766"
	header100k = "0100000050120119172a610421a6c3011dd330d9df07b63616c2cc1f1cd00200000000006657a9252aacd5c0b2940996ecff952228c3067cc38d4885efb5a4ac4247e9f337221b4d4c86041b0f2b5710"
)

var txids100k = []string{
	"8c14f0db3df150123e6f3dbbf30f8b955a8249b62ac1d1ff16284aefa3d06d87",
	"fff2525b8931402dd09222c50775608f75787bd2b87e56995a7bdd30f79702c4",
	"6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",
	"e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",
}

const tsc100k = `{"index":2,"txOrId":"6359f0868171b1d194cbee1af2f16ea598ae8fad666d9b012c8ed2b79a236ec4",` +
	`"target":"` + block100k + `","nodes":["e9a66845e05d5abc0ad04ec80f774a7e585c6e8db975962d069a522137b80c1d",` +
	`"ccdafb73d8dcd0173d5d5c3c9a0770d0b3953db889dab99ef05b1907518cb815"]}`

func txid(t testing.TB, text string) bsv.Txid {
	t.Helper()
	id, err := bsv.ParseTxid(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestParseTSC(t *testing.T) {
	id := txid(t, txids100k[2])
	header := strings.Replace(tsc100k, `"target":"`+block100k, `"targetType":"header","target":"`+header100k, 1)
	for name, text := range map[string]string{
		"bitcoin-sv":   tsc100k,
		"WhatsOnChain": "[" + tsc100k + "]",
		"with types":   strings.Replace(tsc100k, "{", `{"targetType":"hash","proofType":"branch","composite":false,`, 1),
		"with more":    strings.Replace(tsc100k, "{", `{"flags":2,"else":{"x":[1]},`, 1),
		"header":       header,
	} {
		p, err := chain.ParseTSC([]byte(text), id)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if root, err := p.Root(id); err != nil || root.String() != root100k || p.Block.String() != block100k || p.Height != 0 {
			t.Errorf("%s: block %s, root %s, %v", name, p.Block, root, err)
		}
	}
}

func TestParseTSCRefuses(t *testing.T) {
	id := txid(t, txids100k[2])
	replace := func(old, new string) string {
		if !strings.Contains(tsc100k, old) {
			t.Fatal("there is no", old)
		}
		return strings.Replace(tsc100k, old, new, 1)
	}
	for name, text := range map[string]string{
		"nothing":           "",
		"null":              "null",
		"text":              `"x"`,
		"none":              "[]",
		"two":               "[" + tsc100k + "," + tsc100k + "]",
		"nested":            "[[" + tsc100k + "]]",
		"trailing":          tsc100k + "1",
		"cut off":           tsc100k[:100],
		"too large":         strings.Repeat(" ", chain.MaxTSCSize) + tsc100k,
		"another":           replace(txids100k[2], txids100k[1]),
		"a transaction":     replace(txids100k[2], txids100k[2]+"00"),
		"no index":          replace(`"index":2,`, ""),
		"negative":          replace(`"index":2`, `"index":-2`),
		"fraction":          replace(`"index":2`, `"index":2.5`),
		"index too large":   replace(`"index":2`, `"index":4`),
		"index of 65 bits":  replace(`"index":2`, `"index":18446744073709551616`),
		"index of text":     replace(`"index":2`, `"index":"2"`),
		"no target":         replace(`"target"`, `"x"`),
		"zero target":       replace(block100k, strings.Repeat("0", 64)),
		"short target":      replace(block100k, block100k[1:]),
		"root":              replace("{", `{"targetType":"merkleRoot",`),
		"short header":      replace("{", `{"targetType":"header",`),
		"bad header":        strings.Replace(replace("{", `{"targetType":"header",`), block100k, strings.Repeat("x", 160), 1),
		"tree":              replace("{", `{"proofType":"tree",`),
		"composite":         replace("{", `{"composite":true,`),
		"bad node":          replace(txids100k[3], txids100k[3][1:]+"x"),
		"node null":         replace(`"`+txids100k[3]+`"`, "null"),
		"nodes of text":     replace(`[`, `"x","y":[`),
		"doubled left":      replace(`"index":2`, `"index":3`)[:strings.Index(tsc100k, `"nodes"`)] + `"nodes":["*","*"]}`,
		"in full, left":     replace(`"index":2`, `"index":3`)[:strings.Index(tsc100k, `"nodes"`)] + `"nodes":["` + txids100k[2] + `","*"]}`,
		"depth 33":          replace(`"nodes":[`, `"nodes":[`+strings.Repeat(`"*",`, 31)),
		"no nodes, index 2": replace(`"nodes"`, `"x"`),
	} {
		if p, err := chain.ParseTSC([]byte(text), id); !errors.Is(err, chain.ErrProof) || p != nil {
			t.Errorf("%s: %v, %v; want ErrProof", name, p, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

// Every transaction of blocks of every shape, with the doubled nodes written
// both ways.
func TestParseTSCDoubledNodes(t *testing.T) {
	for size := 1; size <= 17; size++ {
		txids := make([]bsv.Txid, size)
		for i := range txids {
			txids[i] = bsv.Txid{byte(i), 1}
		}
		block := chain.Hash{9}
		for i, id := range txids {
			want, err := chain.NewProof(0, block, txids, i)
			if err != nil {
				t.Fatal(err)
			}
			full, stars := make([]string, len(want.Path)), make([]string, len(want.Path))
			for level, sibling := range want.Path {
				full[level], stars[level] = sibling.String(), sibling.String()
				below := chain.Proof{Index: want.Index & (1<<level - 1), Path: want.Path[:level]}
				if node, err := below.Root(id); err != nil {
					t.Fatal(err)
				} else if node == sibling {
					stars[level] = "*"
				}
			}
			for _, nodes := range [][]string{full, stars} {
				text, err := json.Marshal(map[string]any{"index": i, "txOrId": id, "target": block.String(), "nodes": nodes})
				if err != nil {
					t.Fatal(err)
				}
				got, err := chain.ParseTSC(text, id)
				if err != nil || got.Index != want.Index || got.Block != block || !slices.Equal(got.Path, want.Path) {
					t.Fatalf("transaction %d of %d, %q: %v, %v; want %v", i, size, nodes, got, err, want)
				}
			}
		}
	}
}

func FuzzParseTSC(f *testing.F) {
	id := txid(f, txids100k[2])
	f.Add([]byte(tsc100k))
	f.Add([]byte("[" + tsc100k + "]"))
	f.Add(fmt.Appendf(nil, `{"index":0,"txOrId":%q,"target":%q,"nodes":["*","*"]}`, id, block100k))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := chain.ParseTSC(text, id)
		if err != nil {
			if !errors.Is(err, chain.ErrProof) || p != nil {
				t.Fatal(p, err)
			}
			return
		}
		if _, err := p.Root(id); err != nil || p.Block.IsZero() || p.Height != 0 || len(p.Path) > chain.MaxProofDepth {
			t.Fatalf("%v, %v", p, err)
		}
	})
}
