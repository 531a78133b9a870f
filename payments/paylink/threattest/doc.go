// Package threattest tries the attacks on payment channels that the design
// knows of, on a real node, and measures what the victim loses in satoshis.
//
// There is one test for each row of the table of threats. The victim is a real
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
// loss passes the bound. When all have run a table of them is printed.
package threattest
