package bsv

import "testing"

func BenchmarkSignCommitment(b *testing.B) {
	c, payer, _ := testChannel(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.SignCommitment(payer, 1000, 50); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckCommitment(b *testing.B) {
	c, payer, _ := testChannel(b)
	sig, err := c.SignCommitment(payer, 1000, 50)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.CheckCommitment(c.Payer, 1000, 50, sig); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignatureHash(b *testing.B) {
	c, _, _ := testChannel(b)
	b.ReportAllocs()
	for b.Loop() {
		t, err := c.Commitment(1000, 50)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := t.SignatureHash(0, c.funding()); err != nil {
			b.Fatal(err)
		}
	}
}
func BenchmarkPoint(b *testing.B) {
	c, _, _ := testChannel(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Payer.point(); err != nil {
			b.Fatal(err)
		}
	}
}
