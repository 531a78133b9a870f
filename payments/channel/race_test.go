//go:build race

package channel_test

// Signatures take some twenty times as long under the race detector, and the
// model is one goroutine.
func init() { modelRuns = 1 }
