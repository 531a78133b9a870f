package chain

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/bitcdn/bitcdn/payments/bsv"
)

// MaxTSCSize is the longest TSC proof in bytes that ParseTSC reads: one of the
// greatest depth needs less than half of it.
const MaxTSCSize = 8 << 10

// ParseTSC reads a TSC Merkle proof (BRC-10) in its JSON form: one object, as
// bitcoin-sv's getmerkleproof2 answers it, or an array of exactly one, as
// WhatsOnChain does. Its target must be a block, given by its hash or by its
// header; the Proof has Block and no Height.
//
// ErrProof for everything else, and for a proof of another transaction than
// txid. Whether the path leads to the block is Check's to say.
func ParseTSC(text []byte, txid bsv.Txid) (*Proof, error) {
	if len(text) > MaxTSCSize {
		return nil, fmt.Errorf("%d bytes of JSON: %w", len(text), ErrProof)
	}
	type object struct {
		Index      *uint64
		TxOrID     string `json:"txOrId"`
		Target     string
		TargetType string
		Nodes      []string
		ProofType  string
		Composite  bool
	}
	var one object
	if err := json.Unmarshal(text, &one); err != nil {
		var all []object
		if json.Unmarshal(text, &all) != nil {
			return nil, fmt.Errorf("%w: %w", ErrProof, err)
		}
		if len(all) != 1 {
			return nil, fmt.Errorf("%d proofs: %w", len(all), ErrProof)
		}
		one = all[0]
	}
	if one.ProofType != "" && one.ProofType != "branch" || one.Composite {
		return nil, fmt.Errorf("of several transactions: %w", ErrProof)
	}
	if id, err := bsv.ParseTxid(one.TxOrID); err != nil || id != txid {
		return nil, fmt.Errorf("of %.64q, not of %s: %w", one.TxOrID, txid, ErrProof)
	}
	if one.Index == nil || len(one.Nodes) > MaxProofDepth {
		return nil, fmt.Errorf("no index, or depth %d: %w", len(one.Nodes), ErrProof)
	}
	block, err := tscTarget(one.TargetType, one.Target)
	if err != nil {
		return nil, err
	}
	p := &Proof{Block: block, Index: *one.Index}
	for level, text := range one.Nodes {
		var node Hash
		if text == "*" { // the same as the node that the path has come to
			below := Proof{Index: p.Index & (1<<level - 1), Path: p.Path}
			node, err = below.Root(txid)
		} else {
			node, err = ParseHash(text)
		}
		if err != nil {
			return nil, fmt.Errorf("node %d: %w: %w", level, ErrProof, err)
		}
		p.Path = append(p.Path, node)
	}
	if _, err := p.Root(txid); err != nil {
		return nil, err
	}
	return p, nil
}

// tscTarget returns the hash of the block that a proof leads to.
func tscTarget(kind, text string) (Hash, error) {
	switch kind {
	case "", "hash":
		h, err := ParseHash(text)
		if err != nil {
			return Hash{}, fmt.Errorf("target: %w: %w", ErrProof, err)
		}
		if h.IsZero() {
			return Hash{}, fmt.Errorf("no target: %w", ErrProof)
		}
		return h, nil
	case "header":
		var raw [HeaderSize]byte
		if len(text) != 2*len(raw) {
			return Hash{}, fmt.Errorf("a header of %d digits: %w", len(text), ErrProof)
		}
		if _, err := hex.Decode(raw[:], []byte(text)); err != nil {
			return Hash{}, fmt.Errorf("target: %w: %w", ErrProof, err)
		}
		return doubleHash(raw[:]), nil
	}
	return Hash{}, fmt.Errorf("target of the kind %.20q: %w", kind, ErrProof)
}
