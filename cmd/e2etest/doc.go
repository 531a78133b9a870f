// Package e2etest has tests only: whole sales with the real programs, bitcdn
// and bitcdnd, and a real node in regression test mode, all on loopback.
//
// What they hold the programs to:
//
//   - Receipt, both ledgers, the transactions that the node has, and the bytes
//     on the wire agree to the satoshi and to the byte.
//   - A program that is killed at any moment loses nothing and counts nothing
//     twice: what the other end was told is on the disk.
//   - The exit codes and the words on the standard error are as documented.
package e2etest
