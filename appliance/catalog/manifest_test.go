package catalog_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"

	"github.com/bitcdn/bitcdn/appliance/catalog"
	"github.com/bitcdn/bitcdn/payments/bsv"
	"github.com/bitcdn/bitcdn/payments/money"
)

func TestManifestRoundTrip(t *testing.T) {
	want := terms(t)
	want.Version, want.Creator = catalog.ManifestVersion, creator(t).Public()
	got, err := catalog.ReadManifest(signedInfo(t))
	if err != nil {
		t.Fatal(err)
	}
	if *got != want {
		t.Errorf("%+v, want %+v", *got, want)
	}
	again := signedInfo(t)
	if !bytes.Equal(again, signedInfo(t)) {
		t.Error("signing twice gives different bytes")
	}
}

func TestNoManifest(t *testing.T) {
	for _, info := range [][]byte{plainInfo(t), []byte("de"), []byte("d1:bi1e1:ai2ee")} {
		if m, err := catalog.ReadManifest(info); m != nil || err != nil {
			t.Errorf("%.40q: %v, %v; want neither", info, m, err)
		}
	}
}

func TestManifestWithoutRoyalty(t *testing.T) {
	info, err := catalog.SignManifest([]byte("d4:name1:xe"), catalog.Manifest{}, creator(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := catalog.ReadManifest(info)
	if err != nil || m.Royalty != 0 || !m.RoyaltyTo.IsZero() || m.Network != bsv.Main {
		t.Errorf("%+v, %v", m, err)
	}
}

// The signature is specified by an encoder that is not this package's.
func TestSignatureAsSpecified(t *testing.T) {
	var dict map[string]any
	if err := bencode.Unmarshal(signedInfo(t), &dict); err != nil {
		t.Fatal(err)
	}
	manifest := dict["bitcdn"].(map[string]any)
	sig := manifest["sig"].(string)
	delete(manifest, "sig")
	once := sha256.Sum256(append([]byte("BitCDN manifest v1"), encode(t, dict)...))
	if err := bsv.VerifyDigest(creator(t).Public(), sha256.Sum256(once[:]), bsv.Signature(sig)); err != nil {
		t.Error(err)
	}
}

// Whatever single byte of a signed info dict is changed, the manifest is gone
// for good: refused, or no longer there under its name.
func TestEveryByteIsSigned(t *testing.T) {
	info := signedInfo(t)
	name := bytes.Index(info, []byte("6:bitcdn"))
	for i := range info {
		for _, flip := range []byte{1, 0x80} {
			changed := bytes.Clone(info)
			changed[i] ^= flip
			m, err := catalog.ReadManifest(changed)
			if m != nil || err == nil && (i < name || i >= name+len("6:bitcdn")) {
				t.Fatalf("byte %d (%q) changed by %#x: %+v, %v", i, info[max(0, i-5):min(len(info), i+5)], flip, m, err)
			}
		}
	}
}

func TestManifestOfOtherContent(t *testing.T) {
	info := signedInfo(t)
	at := bytes.Index(info, []byte("6:bitcdn"))
	end := bytes.Index(info, []byte("5:files"))
	other := append(append([]byte("d"), info[at:end]...), []byte("4:name5:othere")...)
	if _, err := catalog.ReadManifest(other); !errors.Is(err, catalog.ErrManifestSignature) {
		t.Errorf("moved to other content: %v, want ErrManifestSignature", err)
	}
}

func TestManifestOfAnotherCreator(t *testing.T) {
	other, err := bsv.NewPrivateKey(bytes.Repeat([]byte{9}, 32))
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := creator(t).Public(), other.Public()
	info := bytes.Replace(signedInfo(t), mine[:], theirs[:], 1)
	if _, err := catalog.ReadManifest(info); !errors.Is(err, catalog.ErrManifestSignature) {
		t.Errorf("%v, want ErrManifestSignature", err)
	}
}

func TestMalformedManifests(t *testing.T) {
	address := terms(t).RoyaltyTo.Address(bsv.Regtest)
	key := creator(t).Public()
	// fields in the order of their keys; a nil value leaves one out.
	fields := func(change map[string]string) string {
		all := map[string]string{
			"address": bstr(address), "creator": bstr(string(key[:])), "network": bstr("regtest"),
			"royalty": "i250e", "sig": bstr(strings.Repeat("x", 70)), "title": bstr("t"), "v": "i1e",
		}
		for k, v := range change {
			all[k] = v
		}
		var b strings.Builder
		for _, k := range []string{"address", "creator", "extra", "network", "royalty", "sig", "title", "v"} {
			if v := all[k]; v != "" {
				b.WriteString(bstr(k) + v)
			}
		}
		return "d" + b.String() + "e"
	}
	with := func(manifest string) string { return "d6:bitcdn" + manifest + "4:name1:xe" }
	one := func(k, v string) string { return with(fields(map[string]string{k: v})) }
	for name, c := range map[string]struct {
		info string
		want error
	}{
		"signature of nonsense": {with(fields(nil)), catalog.ErrManifestSignature},
		"empty signature":       {one("sig", "0:"), catalog.ErrManifestSignature},
		"long signature":        {one("sig", bstr(strings.Repeat("x", 74))), catalog.ErrManifestSyntax},
		"signature a number":    {one("sig", "i5e"), catalog.ErrManifestSyntax},
		"version 2":             {one("v", "i2e"), catalog.ErrManifestVersion},
		"version 2 and a field": {with(fields(map[string]string{"v": "i2e", "extra": "le"})), catalog.ErrManifestVersion},
		"version 0":             {one("v", "i0e"), catalog.ErrManifestVersion},
		"version a text":        {one("v", "1:1"), catalog.ErrManifestSyntax},
		"no version":            {one("v", ""), catalog.ErrManifestSyntax},
		"no title":              {one("title", ""), catalog.ErrManifestSyntax},
		"no signature":          {one("sig", ""), catalog.ErrManifestSyntax},
		"extra field":           {one("extra", "i1e"), catalog.ErrManifestSyntax},
		"extra for another":     {with(fields(map[string]string{"extra": "i1e", "title": ""})), catalog.ErrManifestSyntax},
		"title too long":        {one("title", bstr(strings.Repeat("ü", 201))), catalog.ErrManifestSyntax},
		"title not UTF-8":       {one("title", bstr("a\xff")), catalog.ErrManifestSyntax},
		"title with control":    {one("title", bstr("a\x1b[2J")), catalog.ErrManifestSyntax},
		"title with override":   {one("title", bstr("a\u202egpj.exe")), catalog.ErrManifestSyntax},
		"title a list":          {one("title", "le"), catalog.ErrManifestSyntax},
		"royalty negative":      {one("royalty", "i-1e"), catalog.ErrManifestSyntax},
		"royalty above maximum": {one("royalty", fmt.Sprintf("i%de", money.MaxRate+1)), catalog.ErrManifestSyntax},
		"royalty out of range":  {one("royalty", "i99999999999999999999e"), catalog.ErrManifestSyntax},
		"royalty leading zero":  {one("royalty", "i0250e"), catalog.ErrManifestSyntax},
		"royalty minus zero":    {one("royalty", "i-0e"), catalog.ErrManifestSyntax},
		"royalty a text":        {one("royalty", "3:250"), catalog.ErrManifestSyntax},
		"royalty to nobody":     {one("address", "0:"), catalog.ErrManifestSyntax},
		"address mistyped":      {one("address", bstr(address[1:]+"1")), catalog.ErrManifestSyntax},
		"address of main":       {one("address", bstr(terms(t).RoyaltyTo.Address(bsv.Main))), catalog.ErrManifestSyntax},
		"address with space":    {one("address", bstr(address+" ")), catalog.ErrManifestSyntax},
		"network unknown":       {one("network", bstr("regtes")), catalog.ErrManifestSyntax},
		"creator short":         {one("creator", bstr(string(key[:32]))), catalog.ErrManifestSyntax},
		"creator not a point":   {one("creator", bstr("\x02"+strings.Repeat("\xff", 32))), catalog.ErrManifestSyntax},
		"unsorted manifest":     {with("d1:vi1e7:address0:e"), catalog.ErrManifestSyntax},
		"unsorted info":         {"d4:name1:x6:bitcdn" + fields(nil) + "e", catalog.ErrManifestSyntax},
		"unsorted deep inside":  {"d6:bitcdn" + fields(nil) + "5:filesld1:b0:1:a0:eee", catalog.ErrManifestSyntax},
		"key twice":             {"d6:bitcdn" + fields(nil) + "4:name1:x4:name1:ye", catalog.ErrManifestSyntax},
		"two manifests":         {"d6:bitcdn" + fields(nil) + "6:bitcdn" + fields(nil) + "e", catalog.ErrManifestSyntax},
		"not a dict":            {with("i1e"), catalog.ErrManifestSyntax},
		"a list":                {with("le"), catalog.ErrManifestSyntax},
		"too large":             {one("extra", bstr(strings.Repeat("x", 3000))), catalog.ErrManifestSyntax},
		"bytes behind":          {with(fields(nil)) + "e", catalog.ErrManifestSyntax},
		"cut off":               {strings.TrimSuffix(with(fields(nil)), "e"), catalog.ErrManifestSyntax},
		"nothing":               {"", catalog.ErrManifestSyntax},
		"hostile length":        {"d6:bitcdn99999999999:x", catalog.ErrManifestSyntax},
		"longer than 64 bits":   {"d6:bitcdn99999999999999999999999:x", catalog.ErrManifestSyntax},
		"negative length":       {"d-1:xe", catalog.ErrManifestSyntax},
		"deep":                  {"d1:a" + strings.Repeat("l", 1000) + strings.Repeat("e", 1000) + "e", catalog.ErrManifestSyntax},
	} {
		if m, err := catalog.ReadManifest([]byte(c.info)); m != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; want %v", name, m, err, c.want)
		}
	}
}

func TestUnsignableManifests(t *testing.T) {
	good := terms(t)
	for name, c := range map[string]struct {
		info   string
		change func(*catalog.Manifest)
	}{
		"royalty to nobody": {"de", func(m *catalog.Manifest) { m.RoyaltyTo = bsv.Hash160{} }},
		"royalty negative":  {"de", func(m *catalog.Manifest) { m.Royalty = -1 }},
		"title":             {"de", func(m *catalog.Manifest) { m.Title = "two\nlines" }},
		"signed already":    {string(signedInfo(t)), nil},
		"unsorted":          {"d1:bi1e1:ai2ee", nil},
		"not a dict":        {"i1e", nil},
	} {
		m := good
		if c.change != nil {
			c.change(&m)
		}
		if _, err := catalog.SignManifest([]byte(c.info), m, creator(t)); !errors.Is(err, catalog.ErrManifestSyntax) {
			t.Errorf("%s: %v, want ErrManifestSyntax", name, err)
		}
	}
}

func FuzzReadManifest(f *testing.F) {
	f.Add(plainInfo(f))
	f.Add(signedInfo(f))
	f.Add([]byte("d6:bitcdnd1:vi2eee"))
	f.Add([]byte("d6:bitcdn99999999999:x"))
	f.Add([]byte("d1:a" + strings.Repeat("l", 100)))
	key := creator(f)
	f.Fuzz(func(t *testing.T, info []byte) {
		m, err := catalog.ReadManifest(info)
		if m != nil && err != nil {
			t.Fatal("both a manifest and an error")
		}
		if m == nil {
			return
		}
		var dict map[string]any
		if err := bencode.Unmarshal(info, &dict); err != nil {
			t.Fatalf("read, but another decoder says %v", err)
		}
		if !bytes.Equal(encode(t, dict), info) {
			t.Fatal("read, but not canonical")
		}
		delete(dict, "bitcdn")
		if _, err := catalog.SignManifest(encode(t, dict), *m, key); err != nil {
			t.Fatalf("read, but cannot be written: %v", err)
		}
	})
}
