package channel_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain makes every run the same. To look for what no run has met yet, give a
// seed of your own: go test -run TestModel -rapid.seed=$RANDOM
func TestMain(m *testing.M) {
	flag.Parse()
	if seed := flag.Lookup("rapid.seed"); seed.Value.String() == "0" {
		if err := flag.Set("rapid.seed", "20090103"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
	}
	os.Exit(m.Run())
}
