package chain_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
)

// The example of BRC-74: three transactions of block 813,706 in one BUMP.
const (
	bumpExample = "fe8a6a0c000c04" +
		"fde80b0011774f01d26412f0d16ea3f0447be0b5ebec67b0782e321a7a01cbdf7f734e30" +
		"fde90b02004e53753e3fe4667073063a17987292cfdea278824e9888e52180581d7188d8" +
		"fdea0b025e441996fc53f0191d649e68a200e752fb5f39e0d5617083408fa179ddc5c998" +
		"fdeb0b0102" +
		"fdf405000671394f72237d08a4277f4435e5b6edf7adc272f25effef27cdfe805ce71a81" +
		"fdf50500262bccabec6c4af3ed00cc7a7414edea9c5efa92fb8623dd6160a001450a5282" +
		"01fdfb020101" +
		"fd7c010093b3efca9b77ddec914f8effac691ecb54e2c81d0ab81cbc4c4b93befe418e85" +
		"01bf0101" +
		"5e005881826eb6973c54003a02118fe270f03d46d02681c8bc71cd44c613e86302f801" +
		"2e00e07a2bb8bb75e5accff266022e1e5e6e7b4d6d943a04faadcf2ab4a22f796ff301" +
		"16008120cafa17309c0bb0e0ffce835286b3a2dcae48e4497ae2d2b7ced4f051507d01" +
		"0a00502e59ac92f46543c23006bff855d96f5e648043f0fb87a7a5949e6a9bebae4301" +
		"04001ccd9f8f64f4d0489b30cc815351cf425e0e78ad79a589350e4341ac165dbe4501" +
		"030101" +
		"0000af8764ce7e1cc132ab5ed2229a005c87201c9a5ee15c0f91dd53eff31ab30cd4"
	bumpExampleRoot = "57aab6e6fb1b697174ffb64e062c4728f2ffd33ddcfa02a43b64d8cd29b483b4"
)

// The merklePath of the answer for a mined transaction in ARC's description:
// four transactions, with what follows from them.
const (
	bumpARC = "fe54251800020400028d97f9ebeddd9f9aa8e0e953b3a76f316298ab05e9834aa811716e9d397564e5" +
		"01025f64aa8e012e26a5c5803c9f94d1c2c8ea68ecef1415011e1c2e26b9c966b6ad" +
		"02021f5fa39607ca3b48d53c902bd5bb4bbf6a7ac99cf9fda45cc21b71e6e2f78896" +
		"03024a2bb116e86325c9b8512f10b22c228ab3272fe3f373b1bd4a9a6b334b068bb6" +
		"02000061793b278303101a1390ceae5a713de0eabd9cda63702fe84c928970acf7c45e" +
		"0100a567e3d066e38638b27897559302eabc85eb69b202c2e86d4338bab73008f460"
	bumpARCTxid = "b68b064b336b9a4abdb173f3e32f27b38a222cb2102f51b8c92563e816b12b4a"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseBUMP(t *testing.T) {
	for _, v := range []struct {
		bump, txid, root string
		height           uint32
		index            uint64
	}{
		{bumpExample, "304e737fdfcb017a1a322e78b067ecebb5e07b44f0a36ed1f01264d2014f7711", bumpExampleRoot, 813706, 3048},
		{bumpExample, "d888711d588021e588984e8278a2decf927298173a06737066e43f3e75534e00", bumpExampleRoot, 813706, 3049},
		{bumpExample, "98c9c5dd79a18f40837061d5e0395ffb52e700a2689e641d19f053fc9619445e", bumpExampleRoot, 813706, 3050},
		{bumpARC, bumpARCTxid, "", 1582420, 3},
	} {
		id := txid(t, v.txid)
		p, err := chain.ParseBUMP(unhex(t, v.bump), id)
		if err != nil {
			t.Errorf("%s: %v", v.txid, err)
			continue
		}
		if p.Height != v.height || p.Index != v.index || !p.Block.IsZero() {
			t.Errorf("%s: %+v", v.txid, p)
		}
		root, err := p.Root(id)
		if err != nil || v.root != "" && root.String() != v.root {
			t.Errorf("%s: root %s, %v", v.txid, root, err)
		}
		again, err := chain.ParseBUMP(p.BUMP(id), id)
		if err != nil || again.Height != p.Height || again.Index != p.Index || !slices.Equal(again.Path, p.Path) {
			t.Errorf("%s: %+v came back as %+v, %v", v.txid, p, again, err)
		}
	}
}

// The same root, also where nodes that follow from the level below are left out.
func TestParseBUMPComputesNodes(t *testing.T) {
	sparse := strings.Replace(bumpARC, bumpARC[strings.Index(bumpARC, "02000061793b"):], "00", 1)
	full, err := chain.ParseBUMP(unhex(t, bumpARC), txid(t, bumpARCTxid))
	if err != nil {
		t.Fatal(err)
	}
	p, err := chain.ParseBUMP(unhex(t, sparse), txid(t, bumpARCTxid))
	if err != nil || !slices.Equal(p.Path, full.Path) {
		t.Fatal(p, err)
	}
	// The node on the right of the first transactions follows from a doubled one.
	alone := unhex(t, strings.Replace(bumpExample, "02fdf405", "01fdf405", 1))
	from := bytes.Index(alone, unhex(t, "fdf505"))
	alone = slices.Delete(alone, from, from+3+1+32)
	p, err = chain.ParseBUMP(alone, txid(t, "304e737fdfcb017a1a322e78b067ecebb5e07b44f0a36ed1f01264d2014f7711"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := p.Root(txid(t, "304e737fdfcb017a1a322e78b067ecebb5e07b44f0a36ed1f01264d2014f7711"))
	if err != nil || root.String() != bumpExampleRoot {
		t.Error(root, err)
	}
}

func someTxids(n int) []bsv.Txid {
	ids := make([]bsv.Txid, n)
	for i := range ids {
		ids[i] = sha256.Sum256(binary.LittleEndian.AppendUint32(nil, uint32(i)))
	}
	return ids
}

func TestBUMPOfBlocks(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 100, 255, 256, 257, 300} {
		ids := someTxids(n)
		var root chain.Hash
		for i, id := range ids {
			p, err := chain.NewProof(70_000, chain.Hash{}, ids, i)
			if err != nil {
				t.Fatal(err)
			}
			want, err := p.Root(id)
			if err != nil || i > 0 && want != root {
				t.Fatal(want, err)
			}
			root = want
			b := p.BUMP(id)
			got, err := chain.ParseBUMP(b, id)
			if err != nil || got.Height != 70_000 || got.Index != uint64(i) || !slices.Equal(got.Path, p.Path) {
				t.Fatalf("%d of %d: %+v, %v; want %+v", i, n, got, err, p)
			}
			if _, err := chain.ParseBUMP(b, bsv.Txid{7}); !errors.Is(err, chain.ErrProof) {
				t.Fatal("proves another transaction:", err)
			}
		}
	}
}

func TestParseBUMPRefuses(t *testing.T) {
	id := txid(t, bumpARCTxid)
	good := unhex(t, bumpARC)
	leaf := func(offset byte, flag byte, hash ...byte) []byte {
		return append([]byte{offset, flag}, hash...)
	}
	own := leaf(0, 2, id[:]...)
	other := bytes.Repeat([]byte{9}, 32)
	bump := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	for name, b := range map[string][]byte{
		"nothing":               {},
		"half":                  good[:len(good)/2],
		"one short":             good[:len(good)-1],
		"one long":              append(slices.Clone(good), 0),
		"height of 64 bits":     bump([]byte{0xff, 0, 0, 0, 0, 1, 0, 0, 0, 1, 2}, own, leaf(1, 0, other...)),
		"long form":             bump([]byte{0xfd, 5, 0, 1, 2}, own, leaf(1, 0, other...)),
		"no levels":             {5, 0},
		"33 levels":             bump([]byte{5, 33, 2}, own, leaf(1, 0, other...), bytes.Repeat(bump([]byte{1}, leaf(1, 0, other...)), 32)),
		"2^64-1 nodes":          {5, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"more nodes than bytes": bump([]byte{5, 1, 0xfe, 0, 0, 0, 0x20}, own),
		"unknown flag":          bump([]byte{5, 1, 2}, own, leaf(1, 3, other...)),
		"a node twice":          bump([]byte{5, 1, 3}, own, leaf(1, 0, other...), leaf(1, 0, other...)),
		"outside of its level":  bump([]byte{5, 1, 3}, own, leaf(1, 0, other...), leaf(2, 0, other...)),
		"outside of the top":    bump([]byte{5, 2, 2}, own, leaf(1, 0, other...), []byte{1}, leaf(2, 0, other...)),
		"doubled on the left":   bump([]byte{5, 1, 2}, leaf(0, 1), leaf(1, 2, id[:]...)),
		"the same on the left":  bump([]byte{5, 2, 2}, own, leaf(1, 0, other...), []byte{1}, leaf(0, 1)),
		"zero hash":             bump([]byte{5, 1, 2}, own, leaf(1, 0, make([]byte, 32)...)),
		"without a sibling":     bump([]byte{5, 2, 1}, own, []byte{1}, leaf(1, 0, other...)),
		"without a level":       bump([]byte{5, 2, 2}, own, leaf(1, 0, other...), []byte{0}),
		"without the txid":      bump([]byte{5, 1, 2}, leaf(0, 2, other...), leaf(1, 0, other...)),
		"too long":              make([]byte, chain.MaxBUMPSize+1),
	} {
		if p, err := chain.ParseBUMP(b, id); !errors.Is(err, chain.ErrProof) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	single := bump([]byte{5, 1, 1}, own)
	if p, err := chain.ParseBUMP(single, id); err != nil || len(p.Path) != 0 || p.Height != 5 || !bytes.Equal(p.BUMP(id), single) {
		t.Error("the only transaction of a block:", p, err)
	}
	if _, err := chain.ParseBUMP(make([]byte, 100), bsv.Txid{}); !errors.Is(err, chain.ErrProof) {
		t.Error("of no transaction:", err)
	}
}

// Whatever the bytes: what is taken has a root, and comes back the same.
func FuzzParseBUMP(f *testing.F) {
	f.Add(unhex(f, bumpExample), unhex(f, "11774f01d26412f0d16ea3f0447be0b5ebec67b0782e321a7a01cbdf7f734e30"))
	f.Add(unhex(f, bumpExample), unhex(f, "5e441996fc53f0191d649e68a200e752fb5f39e0d5617083408fa179ddc5c998"))
	id := txid(f, bumpARCTxid)
	f.Add(unhex(f, bumpARC), id[:])
	f.Add([]byte{5, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, id[:])
	f.Add(append([]byte{5, 1, 1, 0, 2}, id[:]...), id[:])
	f.Fuzz(func(t *testing.T, b, of []byte) {
		if len(of) != 32 {
			return
		}
		id := bsv.Txid(of)
		p, err := chain.ParseBUMP(b, id)
		if err != nil {
			if !errors.Is(err, chain.ErrProof) {
				t.Fatal(err)
			}
			return
		}
		root, err := p.Root(id)
		if err != nil || len(p.Path) > chain.MaxProofDepth {
			t.Fatalf("%+v: %v", p, err)
		}
		again, err := chain.ParseBUMP(p.BUMP(id), id)
		if err != nil || again.Height != p.Height || again.Index != p.Index || !slices.Equal(again.Path, p.Path) {
			t.Fatalf("%+v of root %s came back as %+v, %v", p, root, again, err)
		}
	})
}
