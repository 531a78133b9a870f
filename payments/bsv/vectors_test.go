package bsv

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/libsv/go-bk/bip39"
)

const abandon = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"

// The vectors of BIP 39's reference implementation, and the list's own hash.
func TestBIP39Vectors(t *testing.T) {
	for _, v := range []struct{ entropy, words, seed string }{
		{"00000000000000000000000000000000", abandon,
			"c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04"},
		{"7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f", "legal winner thank year wave sausage worth useful legal winner thank yellow",
			"2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6260e8d9739fce1f607"},
		{strings.Repeat("ff", 32), strings.Repeat("zoo ", 23) + "vote",
			"dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad"},
	} {
		words, err := NewMnemonic(fromHex(t, v.entropy))
		ok(t, err)
		if words != v.words {
			t.Errorf("entropy %s: %q, want %q", v.entropy, words, v.words)
		}
		seed, err := SeedOf(words, "TREZOR")
		ok(t, err)
		if got := hex.EncodeToString(seed); got != v.seed {
			t.Errorf("seed of %q: %s, want %s", words, got, v.seed)
		}
	}
	seed, err := SeedOf(abandon, "")
	ok(t, err)
	if got := hex.EncodeToString(seed[:16]); got != "5eb00bbddcf069084889a8ab91555681" {
		t.Errorf("seed without passphrase begins with %s", got)
	}
	list := sha256.Sum256([]byte(strings.Join(bip39.English, "\n") + "\n"))
	if got := hex.EncodeToString(list[:]); got != "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda" {
		t.Errorf("the word list is not BIP 39's: %s", got)
	}
}

// Vectors 1, 3 and 4 of BIP 32; the last two have keys with leading zeros.
func TestBIP32Vectors(t *testing.T) {
	for _, v := range []struct {
		seed string
		keys map[string]string
	}{
		{"000102030405060708090a0b0c0d0e0f", map[string]string{
			"":                     "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi",
			"0'":                   "xprv9uHRZZhk6KAJC1avXpDAp4MDc3sQKNxDiPvvkX8Br5ngLNv1TxvUxt4cV1rGL5hj6KCesnDYUhd7oWgT11eZG7XnxHrnYeSvkzY7d2bhkJ7",
			"0'/1":                 "xprv9wTYmMFdV23N2TdNG573QoEsfRrWKQgWeibmLntzniatZvR9BmLnvSxqu53Kw1UmYPxLgboyZQaXwTCg8MSY3H2EU4pWcQDnRnrVA1xe8fs",
			"0'/1/2'":              "xprv9z4pot5VBttmtdRTWfWQmoH1taj2axGVzFqSb8C9xaxKymcFzXBDptWmT7FwuEzG3ryjH4ktypQSAewRiNMjANTtpgP4mLTj34bhnZX7UiM",
			"0'/1/2'/2":            "xprvA2JDeKCSNNZky6uBCviVfJSKyQ1mDYahRjijr5idH2WwLsEd4Hsb2Tyh8RfQMuPh7f7RtyzTtdrbdqqsunu5Mm3wDvUAKRHSC34sJ7in334",
			"0'/1/2'/2/1000000000": "xprvA41z7zogVVwxVSgdKUHDy1SKmdb533PjDz7J6N6mV6uS3ze1ai8FHa8kmHScGpWmj4WggLyQjgPie1rFSruoUihUZREPSL39UNdE3BBDu76",
		}},
		{"4b381541583be4423346c643850da4b320e46a87ae3d2a4e6da11eba819cd4acba45d239319ac14f863b8d5ab5a0d0c64d2e8a1e7d1457df2e5a3c51c73235be", map[string]string{
			"":   "xprv9s21ZrQH143K25QhxbucbDDuQ4naNntJRi4KUfWT7xo4EKsHt2QJDu7KXp1A3u7Bi1j8ph3EGsZ9Xvz9dGuVrtHHs7pXeTzjuxBrCmmhgC6",
			"0'": "xprv9uPDJpEQgRQfDcW7BkF7eTya6RPxXeJCqCJGHuCJ4GiRVLzkTXBAJMu2qaMWPrS7AANYqdq6vcBcBUdJCVVFceUvJFjaPdGZ2y9WACViL4L",
		}},
		{"3ddd5602285899a946114506157c7997e5444528f3003f6134712147db19b678", map[string]string{
			"":      "xprv9s21ZrQH143K48vGoLGRPxgo2JNkJ3J3fqkirQC2zVdk5Dgd5w14S7fRDyHH4dWNHUgkvsvNDCkvAwcSHNAQwhwgNMgZhLtQC63zxwhQmRv",
			"0'":    "xprv9vB7xEWwNp9kh1wQRfCCQMnZUEG21LpbR9NPCNN1dwhiZkjjeGRnaALmPXCX7SgjFTiCTT6bXes17boXtjq3xLpcDjzEuGLQBM5ohqkao9G",
			"0'/1'": "xprv9xJocDuwtYCMNAo3Zw76WENQeAS6WGXQ55RCy7tDJ8oALr4FWkuVoHJeHVAcAqiZLE7Je3vZJHxspZdFHfnBEjHqU5hG1Jaj32dVoS6XLT1",
		}},
	} {
		master, err := NewMaster(fromHex(t, v.seed))
		ok(t, err)
		for path, want := range v.keys {
			k, err := master.Branch(path)
			ok(t, err)
			if got := k.key.String(); got != want {
				t.Errorf("seed %.8s… at %q: %s, want %s", v.seed, path, got, want)
			}
			_, err = master.Derive(path)
			ok(t, err)
		}
	}
}

func TestAddressVectors(t *testing.T) {
	one := make([]byte, 32)
	one[31] = 1
	k, err := NewPrivateKey(one)
	ok(t, err)
	if got := k.Public().String(); got != "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798" {
		t.Errorf("public key of 1: %s", got)
	}
	if got := k.Public().Hash().String(); got != "751e76e8199196d454941c45d1b3a323f1433bd6" {
		t.Errorf("hash of the public key of 1: %s", got)
	}
	genesis := Hash160(fromHex(t, "62e907b15cbf27d5425399ebf6f0fb50ebb88f18"))
	for _, v := range []struct {
		hash Hash160
		net  Network
		text string
	}{
		{k.Public().Hash(), Main, "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH"},
		{k.Public().Hash(), Test, "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r"},
		{k.Public().Hash(), Regtest, "mrCDrCybB6J1vRfbwM5hemdJz73FwDBC8r"},
		{genesis, Main, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"},
		{Hash160{}, Main, "1111111111111111111114oLvT2"},
	} {
		if got := v.hash.Address(v.net); got != v.text {
			t.Errorf("%s on %s: %s, want %s", v.hash, v.net, got, v.text)
		}
		got, err := ParseAddress(v.text, v.net)
		ok(t, err)
		if got != v.hash {
			t.Errorf("%s: hash %s, want %s", v.text, got, v.hash)
		}
	}
}

// genesisTx is the only transaction of the first block.
const genesisTx = "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d" +
	"0104455468652054696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64" +
	"206261696c6f757420666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828" +
	"e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"

func TestGenesisTransaction(t *testing.T) {
	tx, err := ParseTx(fromHex(t, genesisTx), 1000)
	ok(t, err)
	if got := tx.Txid().String(); got != "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b" {
		t.Errorf("txid %s", got)
	}
	if hex.EncodeToString(tx.Bytes()) != genesisTx || tx.Size() != len(genesisTx)/2 {
		t.Error("the transaction changed by being read and written")
	}
	if paid, err := tx.Paid(); err != nil || paid != 50_0000_0000 {
		t.Errorf("pays %v, %v", paid, err)
	}
}

// The worked example "Native P2WPKH" of BIP 143, whose second input spends a
// P2PKH script of 6 coins.
const (
	bip143Tx = "0100000002fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f0000000000eeffffff" +
		"ef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600000000" +
		"1976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d5" +
		"0ce2f0167faa815988ac11000000"
	bip143Key    = "619c335025c7f4012e556c2a58b2506e30b8511b53ade95ea316fd8c3286feb9"
	bip143Public = "025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357"
	bip143Digest = "c37af31116d1b27caf68aae9e3ac82f1477929014d5b917657d0eb49478cb670"
	bip143Sig    = "304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c4518331561406f90300e8f3358f51928d43c212a8caed02de67eebee"
)

// The test's own BIP 143 is first held to the published digest, with the hash
// type of that example, and then to the digest that is signed here, which
// differs in the hash type only.
func TestSignatureHashIsBIP143(t *testing.T) {
	tx, err := ParseTx(fromHex(t, bip143Tx), 1000)
	ok(t, err)
	k, err := NewPrivateKey(fromHex(t, bip143Key))
	ok(t, err)
	if got := k.Public().String(); got != bip143Public {
		t.Fatalf("public key %s, want %s", got, bip143Public)
	}
	prev := Output{Value: 6_0000_0000, Script: P2PKH(k.Public().Hash())}
	published := bip143(tx, 1, prev, 0x01)
	if got := hex.EncodeToString(published[:]); got != bip143Digest {
		t.Fatalf("BIP 143's digest %s, want %s", got, bip143Digest)
	}
	sig, err := k.SignDigest(published)
	ok(t, err)
	if got := hex.EncodeToString(sig); got != bip143Sig {
		t.Errorf("signature %s, want %s", got, bip143Sig)
	}
	for i := range tx.Inputs {
		got, err := tx.SignatureHash(i, prev)
		ok(t, err)
		if got != bip143(tx, i, prev, SigHashAllForkID) {
			t.Errorf("input %d: signature hash %x", i, got)
		}
		ok(t, SignP2PKH(tx, i, prev, k))
	}
	ok(t, VerifyInputs(tx, []Output{prev, prev}))
}

// bip143 is the digest as BIP 143 words it, for hash types that cover all.
func bip143(tx *Tx, i int, prev Output, hashType uint32) [32]byte {
	twice := func(b []byte) []byte {
		first := sha256.Sum256(b)
		second := sha256.Sum256(first[:])
		return second[:]
	}
	var prevouts, sequences, outputs []byte
	for _, in := range tx.Inputs {
		prevouts = in.Prev.append(prevouts)
		sequences = binary.LittleEndian.AppendUint32(sequences, in.Sequence)
	}
	for _, out := range tx.Outputs {
		outputs = binary.LittleEndian.AppendUint64(outputs, uint64(out.Value))
		outputs = append(appendVarInt(outputs, len(out.Script)), out.Script...)
	}
	b := binary.LittleEndian.AppendUint32(nil, tx.Version)
	b = append(append(b, twice(prevouts)...), twice(sequences)...)
	b = tx.Inputs[i].Prev.append(b)
	b = append(appendVarInt(b, len(prev.Script)), prev.Script...)
	b = binary.LittleEndian.AppendUint64(b, uint64(prev.Value))
	b = binary.LittleEndian.AppendUint32(b, tx.Inputs[i].Sequence)
	b = append(b, twice(outputs)...)
	b = binary.LittleEndian.AppendUint32(b, tx.LockTime)
	b = binary.LittleEndian.AppendUint32(b, hashType)
	return [32]byte(twice(b))
}
