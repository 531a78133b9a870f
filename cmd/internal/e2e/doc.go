// Package e2e is what the tests of whole sales share: the real programs, bitcdn
// and bitcdnd, as child processes, a real node in regression test mode, and the
// books that must agree in the end. Everything runs on loopback and ends with
// the test.
package e2e
