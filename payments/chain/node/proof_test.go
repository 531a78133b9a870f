package node_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/chain"
	"github.com/bitcdn/bitcdn/payments/chain/node"
	"github.com/bitcdn/bitcdn/payments/chain/regnode"
)

// The first block of the regression test network, as a node describes it, and
// its only transaction.
const (
	firstBlock  = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
	firstTxid   = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
	firstHeader = `{"height":0,"merkleroot":"` + firstTxid + `","time":1296688602,"nonce":2,"bits":"207fffff","version":1,"confirmations":5}`
)

// A node that proves something else than was asked for is not believed; one
// that gives no proof is taken at its word, without one.
func TestProofContradictions(t *testing.T) {
	txid, err := bsv.ParseTxid(firstTxid)
	if err != nil {
		t.Fatal(err)
	}
	zero := strings.Repeat("0", 64)
	tsc := func(id, target, nodes string) string {
		return fmt.Sprintf(`{"index":0,"txOrId":%q,"targetType":"hash","target":%q,"nodes":[%s]}`, id, target, nodes)
	}
	for name, c := range map[string]struct {
		kind, method, answer string
		want                 error
		proof                bool
	}{
		"bsvd":                             {"version", "getblock", `{"tx":["` + firstTxid + `"]}`, nil, true},
		"bsvd without the block":           {"version", "", "", nil, false},
		"bsvd, not in its block":           {"version", "getblock", `{"tx":["` + zero + `"]}`, node.ErrProtocol, false},
		"bsvd, an empty block":             {"version", "getblock", `{"tx":[]}`, node.ErrProtocol, false},
		"bsvd, not a txid":                 {"version", "getblock", `{"tx":["x"]}`, node.ErrProtocol, false},
		"bitcoin-sv":                       {"getnetworkinfo", "getmerkleproof2", tsc(firstTxid, firstBlock, ""), nil, true},
		"bitcoin-sv, which gives no proof": {"getnetworkinfo", "", "", nil, false},
		"bitcoin-sv, another transaction":  {"getnetworkinfo", "getmerkleproof2", tsc(zero, firstBlock, ""), node.ErrProtocol, false},
		"bitcoin-sv, another block":        {"getnetworkinfo", "getmerkleproof2", tsc(firstTxid, firstTxid, ""), node.ErrProtocol, false},
		"bitcoin-sv, an index beyond":      {"getnetworkinfo", "getmerkleproof2", strings.Replace(tsc(firstTxid, firstBlock, ""), `"index":0`, `"index":1`, 1), node.ErrProtocol, false},
		"bitcoin-sv, no proof at all":      {"getnetworkinfo", "getmerkleproof2", `"x"`, node.ErrProtocol, false},
	} {
		b := answers(t, map[string]string{
			c.kind: "{}", c.method: c.answer,
			"getrawtransaction": `{"blockhash":"` + firstBlock + `"}`, "getblockheader": firstHeader,
		})
		s, err := b.Status(t.Context(), txid)
		if !errors.Is(err, c.want) || err == nil && (s.State != chain.Mined || (s.Proof != nil) != c.proof) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

// Blocks are not asked for again while they are among the last ones.
func TestBlocksAreRemembered(t *testing.T) {
	asked := make(map[string]int)
	block := 0
	b := serve(t, node.Options{Concurrency: 1}, func(w http.ResponseWriter, r *http.Request) {
		call := request(t, r)
		asked[call.Method]++
		hash := fmt.Sprintf("%064x", block)
		switch call.Method {
		case "getblock":
			_, _ = fmt.Fprintf(w, `{"result":{"tx":["%064x"]},"error":null}`, block)
		case "version":
			_, _ = fmt.Fprint(w, `{"result":{},"error":null}`)
		default:
			_, _ = fmt.Fprintf(w, `{"result":null,"error":{"code":-1,"message":%q}}`, hash)
		}
	})
	ask := func(n int) {
		t.Helper()
		block = n
		hash, err := chain.ParseHash(fmt.Sprintf("%064x", n))
		if err != nil {
			t.Fatal(err)
		}
		if ids, err := b.Txids(t.Context(), hash); err != nil || len(ids) != 1 {
			t.Fatal(ids, err)
		}
	}
	for range 3 {
		for n := range 8 {
			ask(n)
		}
	}
	if asked["getblock"] != 8 {
		t.Errorf("asked %d times for 8 blocks", asked["getblock"])
	}
	for range 3 {
		ask(0) // the newest again
		ask(100)
		ask(101)
	}
	if asked["getblock"] != 10 {
		t.Errorf("asked %d times for 10 blocks", asked["getblock"])
	}
	ask(1) // long ago
	if asked["getblock"] != 11 {
		t.Errorf("asked %d times; 8 blocks are remembered", asked["getblock"])
	}
}

// Every transaction of a block has its own place in it.
func TestProofsOfBsvd(t *testing.T) {
	n := regnode.ForTest(t)
	var ids []bsv.Txid
	for i := range 6 {
		coin, err := n.Pay(t.Context(), bsv.Hash160{byte(i)}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, coin.Outpoint.Txid)
	}
	if err := n.Mine(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	places := make(map[uint64]bool)
	for _, id := range ids {
		s, err := n.Backend().Status(t.Context(), id)
		if err != nil || s.Proof == nil {
			t.Fatal(s, err)
		}
		h, err := n.Backend().Header(t.Context(), s.Height)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Proof.Check(id, h); err != nil {
			t.Error(err)
		}
		places[s.Proof.Index] = true
	}
	if len(places) != len(ids) || places[0] {
		t.Error("places:", places)
	}
}
