package bsv

import (
	"bytes"
	"strings"
	"testing"

	"github.com/libsv/go-bk/bip39"
)

func TestMnemonicsOfAllLengths(t *testing.T) {
	for size, count := range map[int]int{16: 12, 20: 15, 24: 18, 28: 21, 32: 24} {
		for fill := range 256 {
			if fill%17 != 0 && size != 16 {
				continue
			}
			words, err := NewMnemonic(bytes.Repeat([]byte{byte(fill)}, size))
			ok(t, err)
			list := strings.Fields(words)
			if len(list) != count {
				t.Fatalf("%d bytes give %d words", size, len(list))
			}
			got, err := CheckMnemonic("\t" + strings.ToUpper(words) + "\r\n")
			ok(t, err)
			if got != words {
				t.Errorf("%q became %q", words, got)
			}
		}
	}
	for _, size := range []int{0, 1, 15, 17, 18, 33, 36, 64} {
		_, err := NewMnemonic(make([]byte, size))
		wantErr(t, err, ErrEntropy)
	}
}

// Of the 2,048 last words exactly those that carry the right checksum are
// taken: one in 16 for 12 words, one in 256 for 24.
func TestChecksumTakesExactlyItsShare(t *testing.T) {
	for count, want := range map[int]int{12: 128, 15: 64, 18: 32, 21: 16, 24: 8} {
		taken := 0
		begin := strings.Repeat("legal ", count-1)
		for _, last := range bip39.English {
			if _, err := CheckMnemonic(begin + last); err == nil {
				taken++
			} else {
				wantErr(t, err, ErrWordsChecksum)
			}
		}
		if taken != want {
			t.Errorf("%d of 2048 last words taken for %d words, want %d", taken, count, want)
		}
	}
}

func TestCheckMnemonicSaysWhy(t *testing.T) {
	for _, words := range []string{"", "abandon", strings.Repeat("abandon ", 11), strings.Repeat("abandon ", 13), strings.Repeat("abandon ", 27),
		strings.Repeat("a", maxWords+1), strings.Repeat(" ", maxWords+1)} {
		_, err := CheckMnemonic(words)
		wantErr(t, err, ErrWordsCount)
	}
	_, err := CheckMnemonic(strings.Replace(abandon, "about", "abuot", 1))
	wantErr(t, err, ErrWord)
	if want := `word 12, "abuot"`; !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %s", err, want)
	}
	_, err = CheckMnemonic(strings.Replace(abandon, "about", strings.Repeat("ü", 300), 1))
	wantErr(t, err, ErrWord)
	if len(err.Error()) > 120 {
		t.Errorf("the message has %d characters", len(err.Error()))
	}
	_, err = SeedOf(abandon, "grün")
	wantErr(t, err, ErrPassphrase)
}

func TestNewMasterSeedLengths(t *testing.T) {
	for _, size := range []int{0, 15, 65} {
		_, err := NewMaster(make([]byte, size))
		wantErr(t, err, ErrSeed)
	}
	_, err := HDKey{}.Derive("0")
	wantErr(t, err, ErrPath)
	_, err = HDKey{}.Derive("")
	wantErr(t, err, ErrPath)
}

// A branch that is kept gives the keys that the whole path gives.
func TestBranch(t *testing.T) {
	seed, err := SeedOf(abandon, "")
	ok(t, err)
	master, err := NewMaster(seed)
	ok(t, err)
	branch, err := master.Branch("44'/236'/0'/0")
	ok(t, err)
	short, err := branch.Derive("5")
	ok(t, err)
	long, err := master.Derive("44'/236'/0'/0/5")
	ok(t, err)
	if short.Public() != long.Public() {
		t.Errorf("%s and %s", short, long)
	}
}
