// Package threattest tries the attacks on payment channels that the design
// knows of, on a real node, and measures what the victim loses in satoshis.
//
// There is one test for each row of the table of threats: (1) the payer does not
// pay, (2) the seller does not deliver, (3) the payer double-spends its funding,
// (4) underpays it, (5) rests it on what others can change or hold up, (6) sends
// the refund early, (7) the seller is offline, (8) or never closes, (9) the payer
// asks for a signature over another outpoint, (10) both leave the creator out;
// and (11) the payer or (12) the payee broadcasts an old commitment, (13) a proof
// is replayed, (14) a relay keeps the data. The victim is a real
// paylink.Seller or paylink.Buyer with a ledger, a wallet and an outbox of its
// own; the attacker is moved by hand, with a machine of its own or raw messages
// and transactions, and looks at the node on its own. Each side sees blocks as
// they are mined.
//
// A loss is what the victim would have got or kept, minus what it has in the
// end on the chain: a seller's is the worth of the bytes that it served, at
// price and royalty, minus what mined closes pay; a buyer's is what its coins
// came to before and do not after, minus the worth of what was verified, so that
// miners' fees are part of it. A bound comes from the settings alone: credit and
// exposure times price, Offer.UnconfirmedLimit and UnconfirmedTotal, a channel's
// capacity, and the fees of a channel's transactions. A test fails where the
// loss passes the bound. Two losses have no bound below all that is at risk: a
// funding that miners take out of its block again, and the royalty where both
// programs are modified, which are free to agree on a close without it; content
// that is encrypted and sold by its key is the remedy there. When all have run a table of them is printed.
package threattest
