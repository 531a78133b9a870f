// Package bsv holds what the program knows of BSV transactions: keys and
// recovery words, addresses, transactions and their signatures, and the payment
// channel's transactions. It is the only package that imports go-bk and go-bt,
// and it stands between them and every byte that comes from a peer.
//
// It is pure: no clock, no network, no file, no randomness, no log. All values
// are plain data or immutable, so everything may be used by several goroutines
// as long as nobody writes what another one reads.
//
// # The payment channel
//
// A Channel is a bare 2-of-2 output, OP_2 payer payee OP_2 OP_CHECKMULTISIG,
// and two transactions that spend it. Script time locks (BIP 65, BIP 112) and
// P2SH have no force for outputs made since the Genesis upgrade, so the way back
// for the payer's money is a transaction signed in advance:
//
//   - The refund: one input of sequence 0, lock time RefundHeight, everything
//     but the fee to the payer. The payee signs it before the funding is
//     broadcast.
//   - A commitment: one input of final sequence, outputs to payee, creator and
//     payer, those of zero left out. Each payment signs a new one with larger
//     amounts; the payee adds its own signature to the last and broadcasts it.
//     One input and a final sequence are what lets it replace a refund that
//     was broadcast too early and waits in nodes for its time.
//
// Both sides rebuild the same bytes from a Channel and two amounts. Every
// transaction, the funding and its unconfirmed ancestors included, is version 1:
// since the Chronicle upgrade the rules against changing a transaction's id
// (low S, minimal pushes, clean stack and so on) bind only version 1, and a
// refund is void once the funding's id changes.
//
// # Sizes and fees
//
// Fees are for the largest size that signing can give, rounded up to a whole
// satoshi, so that both sides agree on them before there are signatures and no
// node finds them too low. In bytes: the 2-of-2 script 71; a refund 232, or one
// or two fewer with most signatures; a close with three outputs 300; a P2PKH
// input 148, an output 34. Outputs below 1 satoshi are left out.
//
// # What is refused
//
//   - Transactions whose claimed lengths do not fit into their bytes, before
//     anything is allocated; lengths in other than their shortest form; bytes
//     behind the end; amounts that cannot exist.
//   - Signatures other than the one that SignDigest would write: strict DER
//     (BIP 66), low S (BIP 62), numbers from 1 to N-1, and in transactions the
//     hash type ALL|FORKID and no other.
//   - Public keys other than compressed points with a coordinate below the
//     prime; private keys other than 1 to N-1.
//   - Scripts other than P2PKH and the 2-of-2, recognised byte by byte. No other
//     script is ever run.
//   - Addresses with a wrong checksum, of another network, or of other kinds.
//   - Recovery words with a wrong word, number or checksum.
//
// Every error can be told with errors.Is. No message holds a private key.
//
// # Sources
//
//   - Keys and signatures: SEC 1 and SEC 2 (secp256k1), RFC 6979, BIP 62, BIP 66.
//   - Transactions: BRC 12; in the extended format BRC 30. Signature hash: BIP
//     143 with hash type 0x41, the fork id of BSV's replay protection.
//   - Scripts: BRC 16 (P2PKH), BRC 47 (bare multi-signature).
//   - Recovery words and derivation: BIP 39, BIP 32, BIP 44 with coin type 236;
//     BRC 75 and BRC 32 describe the same.
//   - Addresses: base58check, version 0x00 on main, 0x6f on test and regtest.
//   - Lock times: BIP 65 and BIP 112 have no force since Genesis; nLockTime and
//     nSequence as in the original protocol.
package bsv
