// Package faulttest has tests only: whole sales with the real programs and a
// real node, to which something happens. Programs are killed at any moment,
// disks fill up and turn read-only, database pages are torn, clocks jump, the
// chain goes away or is reorganised.
//
// After each fault:
//
//   - The ledgers add up, and agree with the transactions that the node has to
//     the satoshi.
//   - What one program had told the other is on its disk.
//   - What is lost is within the credit that the box gives.
//
// What is at risk and what is lost is measured, by the block data that crosses
// the wire between box and client, by the ledgers, and by the chain. The run
// ends with a table of all faults.
package faulttest
