package bsv

import (
	"errors"
	"fmt"
)

// Network is one of the block chains that the program can work on. The zero
// value is the main one.
type Network uint8

// The networks. Test and Regtest share the version byte of their addresses:
// an address of one is an address of the other.
const (
	Main Network = iota
	Test
	Regtest
)

// ErrNetwork says that a text names no network.
var ErrNetwork = errors.New("not a network: main, test or regtest")

// ParseNetwork reads "main", "test" or "regtest", or returns ErrNetwork.
func ParseNetwork(text string) (Network, error) {
	for _, n := range []Network{Main, Test, Regtest} {
		if text == n.String() {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%.40q: %w", text, ErrNetwork)
}

// String returns the name that ParseNetwork reads.
func (n Network) String() string {
	switch n {
	case Main:
		return "main"
	case Test:
		return "test"
	case Regtest:
		return "regtest"
	}
	return fmt.Sprintf("network %d", uint8(n))
}

// MarshalText writes the name, or returns ErrNetwork.
func (n Network) MarshalText() ([]byte, error) {
	if n > Regtest {
		return nil, fmt.Errorf("%d: %w", uint8(n), ErrNetwork)
	}
	return []byte(n.String()), nil
}

// UnmarshalText reads what ParseNetwork reads.
func (n *Network) UnmarshalText(text []byte) error {
	m, err := ParseNetwork(string(text))
	if err != nil {
		return err
	}
	*n = m
	return nil
}
