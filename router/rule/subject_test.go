package rule

import (
	"encoding/asn1"
	"strings"
	"testing"
)

// part is an attribute of a subject: its identifier, its tag and the bytes of its value.
type part struct {
	oid   string
	tag   int
	value string
}

// subject writes a subject in DER; each list of parts is a set.
func subject(t testing.TB, sets ...[]part) []byte {
	t.Helper()
	var parts []attributesSET
	for _, set := range sets {
		var of attributesSET
		for _, p := range set {
			var oid asn1.ObjectIdentifier
			for number := range strings.SplitSeq(p.oid, ".") {
				n := 0
				for _, d := range number {
					n = 10*n + int(d-'0')
				}
				oid = append(oid, n)
			}
			value, err := asn1.Marshal(asn1.RawValue{Tag: p.tag, Bytes: []byte(p.value)})
			if err != nil {
				t.Fatal(err)
			}
			of = append(of, attribute{oid, asn1.RawValue{FullBytes: value}})
		}
		parts = append(parts, of)
	}
	der, err := asn1.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const cn, o, utf8Tag, printable = commonName, "2.5.4.10", asn1.TagUTF8String, asn1.TagPrintableString

// The distinguished names are what OpenSSL 3.0 prints with -nameopt RFC2253.
var subjects = []struct {
	sets   [][]part
	cn, dn string
}{
	{nil, "", ""},
	{[][]part{{{cn, printable, "alice"}}}, "alice", "CN=alice"},
	{[][]part{{{"2.5.4.6", printable, "SE"}}, {{o, utf8Tag, "Big, Inc."}}, {{cn, utf8Tag, "Ödön"}}}, "Ödön", `CN=\C3\96d\C3\B6n,O=Big\, Inc.,C=SE`},
	{[][]part{{{cn, utf8Tag, "first"}}, {{cn, utf8Tag, "last"}}}, "first", "CN=last,CN=first"},
	{[][]part{{{cn, utf8Tag, "x"}, {"2.5.4.11", utf8Tag, "unit"}}, {{o, utf8Tag, "o"}}}, "x", "O=o,OU=unit+CN=x"},
	{[][]part{{{"0.9.2342.19200300.100.1.25", asn1.TagIA5String, "org"}}, {{"0.9.2342.19200300.100.1.1", utf8Tag, "al"}}, {{"1.2.840.113549.1.9.1", asn1.TagIA5String, "a@b"}}}, "", "emailAddress=a@b,UID=al,DC=org"},
	{[][]part{{{cn, utf8Tag, ` #a=+"\<>; `}}}, ` #a=+"\<>; `, `CN=\ #a=\+\"\\\<\>\;\ `},
	{[][]part{{{cn, utf8Tag, "#a\nb\x7f"}}}, "#a\nb\x7f", `CN=\#a\0Ab\7F`},
	{[][]part{{{cn, utf8Tag, " "}}}, " ", `CN=\ `},
	{[][]part{{{cn, asn1.TagT61String, "caf\xe9"}}}, "caf\xe9", `CN=caf\C3\A9`},
	{[][]part{{{o, asn1.TagBMPString, "\x00a\x00\xe9"}}}, "", `O=a\C3\A9`},
	{[][]part{{{"1.3.6.1.4.1.99999.1", utf8Tag, "x"}}, {{cn, utf8Tag, "y"}}}, "y", "CN=y,1.3.6.1.4.1.99999.1=#0C0178"},
	{[][]part{{{o, asn1.TagBitString, "\x00ab"}}}, "", "O=#0303006162"},
	{[][]part{{{"2.5.4.5", printable, "1"}}, {{"2.5.4.12", utf8Tag, "t"}}, {{"2.5.4.42", utf8Tag, "g"}}, {{"2.5.4.4", utf8Tag, "s"}}, {{"2.5.4.9", utf8Tag, "st"}}, {{"2.5.4.17", utf8Tag, "p"}}, {{"2.5.4.46", printable, "q"}}}, "",
		"dnQualifier=q,postalCode=p,street=st,SN=s,GN=g,title=t,serialNumber=1"},
	{[][]part{{{"2.5.4.7", utf8Tag, "l"}}, {{"2.5.4.8", utf8Tag, "s"}}, {{"2.5.4.13", utf8Tag, "d"}}, {{"2.5.4.41", utf8Tag, "n"}}, {{"2.5.4.43", utf8Tag, "i"}}, {{"2.5.4.44", utf8Tag, "j"}}, {{"2.5.4.65", utf8Tag, "p"}}, {{"2.5.4.97", utf8Tag, "z"}}}, "",
		"organizationIdentifier=z,pseudonym=p,generationQualifier=j,initials=i,name=n,description=d,ST=s,L=l"},
	{[][]part{{{o, utf8Tag, "zero \x00 byte"}}}, "", `O=zero \00 byte`},
}

func TestReadSubject(t *testing.T) {
	for _, k := range subjects {
		got, err := ReadSubject(subject(t, k.sets...))
		if err != nil || got.CN != k.cn || got.DN != k.dn {
			t.Errorf("%v: %q, %v, want %q, %q", k.sets, got, err, k.cn, k.dn)
		}
	}
	for want, der := range map[string][]byte{
		"zero byte": subject(t, []part{{cn, utf8Tag, "root\x00.evil"}}), "malformed": []byte("x"), "the subject": append(subject(t, []part{{cn, utf8Tag, "a"}}), 0),
	} {
		if s, err := ReadSubject(der); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %s", der, s, err, want)
		}
	}
}

func FuzzReadSubject(f *testing.F) {
	for _, k := range subjects {
		f.Add(subject(f, k.sets...))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		s, err := ReadSubject(der)
		if err == nil && strings.ContainsFunc(s.DN, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: %q", der, s.DN)
		}
	})
}
