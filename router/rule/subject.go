package rule

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Subject is whom a certificate is for.
type Subject struct{ CN, DN string }

// attribute is one part of a name; its value is kept as it stands, because what it means depends on its tag.
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type attributesSET []attribute // encoding/asn1 knows a set by the end of its name

// commonName is the object identifier of CN.
const commonName = "2.5.4.3"

// shortNames are OpenSSL's (crypto/objects/objects.txt), for what stands in the names of people and machines.
var shortNames = map[string]string{
	commonName: "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.9": "street", "2.5.4.10": "O",
	"2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description", "2.5.4.17": "postalCode", "2.5.4.41": "name", "2.5.4.42": "GN", "2.5.4.43": "initials",
	"2.5.4.44": "generationQualifier", "2.5.4.46": "dnQualifier", "2.5.4.65": "pseudonym", "2.5.4.97": "organizationIdentifier",
	"0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC", "1.2.840.113549.1.9.1": "emailAddress",
}

// ReadSubject reads a subject in DER. CN is the first common name, and DN the whole in the form of RFC 2253, both as PostgreSQL gets them from OpenSSL
// (be_tls_open_server, src/backend/libpq/be-secure-openssl.c). One with a zero byte in it is an error there too: somebody means to have it read as another.
func ReadSubject(der []byte) (Subject, error) {
	var parts []attributesSET
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return Subject{}, errors.New("the subject of the certificate is malformed")
	}
	var s Subject
	var written []string
	found := false
	for _, set := range parts {
		var together []string
		for _, a := range set {
			if a.Type.String() == commonName && !found {
				s.CN, found = string(a.Value.Bytes), true
			}
			together = append([]string{a.text()}, together...)
		}
		written = append([]string{strings.Join(together, "+")}, written...)
	}
	s.DN = strings.Join(written, ",")
	if strings.ContainsRune(s.CN, 0) {
		return Subject{}, errors.New("the common name of the certificate contains a zero byte")
	}
	return s, nil
}

// text is NAME=value.
func (a attribute) text() string {
	name, known := shortNames[a.Type.String()]
	if !known {
		return fmt.Sprintf("%s=#%X", a.Type, a.Value.FullBytes)
	}
	value, ok := a.utf8()
	if !ok {
		return fmt.Sprintf("%s=#%X", name, a.Value.FullBytes)
	}
	return name + "=" + escape(value)
}

// utf8 is the value in UTF-8; false if it is no text.
func (a attribute) utf8() (string, bool) {
	b := a.Value.Bytes
	if a.Value.Class != asn1.ClassUniversal {
		return "", false
	}
	switch a.Value.Tag {
	case asn1.TagUTF8String:
		return string(b), true
	case asn1.TagNumericString, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String: // OpenSSL takes all of them for Latin-1
		var text strings.Builder
		for _, c := range b {
			text.WriteRune(rune(c))
		}
		return text.String(), true
	case asn1.TagBMPString:
		units := make([]uint16, 0, len(b)/2)
		for i := 0; i+1 < len(b); i += 2 {
			units = append(units, uint16(b[i])<<8|uint16(b[i+1]))
		}
		text := string(utf16.Decode(units))
		return text, len(b)%2 == 0 && !strings.ContainsRune(text, utf8.RuneError)
	}
	return "", false
}

// escape writes a value as RFC 2253 wants it, and what is not ASCII in hex.
func escape(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c >= utf8.RuneSelf, c < ' ', c == 0x7f:
			const digits = "0123456789ABCDEF"
			b.Write([]byte{'\\', digits[c>>4], digits[c&15]})
		case strings.IndexByte(`,+"\<>;`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
