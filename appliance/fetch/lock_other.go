//go:build !unix

package fetch

import (
	"fmt"
	"os"
)

// lockFile only opens the file: this system has no lock that ends with the
// process and is known to the Go library.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock download: %w", err)
	}
	return f, nil
}
