package scram

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Kind is what pg_authid.rolpassword holds.
type Kind uint8

// The kinds, as get_password_type in PostgreSQL's src/backend/libpq/crypt.c tells them apart.
const (
	// KindNone is no password, or none that is valid still.
	KindNone Kind = iota
	KindSCRAM
	KindMD5
)

// Verifier is a role's password as the server stores it: what a proof is held against.
type Verifier struct {
	Kind Kind
	// Salt is the raw salt and Iterations the count of a KindSCRAM.
	Salt       string
	Iterations int

	keys func() verifierKeys // nil for a KindNone
	// mock: nothing is a proof of it.
	mock bool
}

type verifierKeys struct {
	stored, server key
	md5            string // the digest of a KindMD5
}

func (k verifierKeys) sealed() func() verifierKeys { return func() verifierKeys { return k } }

// maxVerifier bounds the text of a verifier. PostgreSQL's own has 133 bytes.
const maxVerifier = 1024

var errVerifier = errors.New("not a SCRAM-SHA-256 or md5 verifier")

// ParseVerifier reads pg_authid.rolpassword; "" is a role without a password. No error shows any part of it.
func ParseVerifier(text string) (Verifier, error) {
	if text == "" {
		return Verifier{}, nil
	}
	if len(text) > maxVerifier {
		return Verifier{}, fmt.Errorf("a verifier of %d bytes: %w", len(text), errVerifier)
	}
	if digest, is := strings.CutPrefix(text, "md5"); is && len(digest) == 32 && strings.Trim(digest, "0123456789abcdef") == "" {
		return Verifier{Kind: KindMD5, keys: verifierKeys{md5: digest}.sealed()}, nil
	}
	rest, is := strings.CutPrefix(text, Mechanism+"$")
	count, rest, hasSalt := strings.Cut(rest, ":")
	salt64, rest, hasKeys := strings.Cut(rest, "$")
	stored64, server64, hasServer := strings.Cut(rest, ":")
	if !is || !hasSalt || !hasKeys || !hasServer {
		return Verifier{}, errVerifier
	}
	v := Verifier{Kind: KindSCRAM}
	var err error
	if v.Iterations, err = parseIterations(count); err != nil {
		return Verifier{}, errVerifier
	}
	salt, err := decode(salt64)
	if err != nil || len(salt) == 0 {
		return Verifier{}, errVerifier
	}
	v.Salt = string(salt)
	var k verifierKeys
	if k.stored, err = decodeKey(stored64); err != nil {
		return Verifier{}, errVerifier
	}
	if k.server, err = decodeKey(server64); err != nil {
		return Verifier{}, errVerifier
	}
	v.keys = k.sealed()
	return v, nil
}

// Text writes v as PostgreSQL stores it. It is a secret.
func (v Verifier) Text() string {
	b64 := base64.StdEncoding.EncodeToString
	var k verifierKeys
	switch v.Kind {
	case KindNone:
		return ""
	case KindMD5:
		return "md5" + v.keys().md5
	case KindSCRAM:
		k = v.keys()
	}
	return fmt.Sprintf("%s$%d:%s$%s:%s", Mechanism, v.Iterations, b64([]byte(v.Salt)), b64(k.stored[:]), b64(k.server[:]))
}

// String tells the kind, and nothing secret.
func (v Verifier) String() string {
	return [...]string{KindNone: "no password", KindSCRAM: Mechanism, KindMD5: "md5"}[v.Kind]
}

// GoString is String.
func (v Verifier) GoString() string { return v.String() }

// Mock returns a verifier of which nothing is a proof, for a user that has none. It has the same salt whenever the same user asks: secret must be random,
// and known to nobody, or it could be told from a real one.
func Mock(secret []byte, user string) Verifier {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("salt of "))
	h.Write([]byte(user))
	return MockLike(secret, user, string(h.Sum(nil)[:mockSalt]), mockIterations)
}

// MockLike is Mock with the salt and the iteration count that a server has asked for.
func MockLike(secret []byte, user, salt string, iterations int) Verifier {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("key of "))
	h.Write([]byte(user))
	k := key(h.Sum(nil))
	return Verifier{Kind: KindSCRAM, Salt: salt, Iterations: iterations, keys: verifierKeys{stored: k, server: k}.sealed(), mock: true}
}

// Fits reports whether an exchange that was begun with salt and iterations can be decided by v.
func (v Verifier) Fits(salt string, iterations int) bool {
	return v.Kind == KindSCRAM && v.Salt == salt && v.Iterations == iterations
}

// Asked is what a server asks its client for: SCRAM with the salt and the iteration count that it has for the user, or pretends to have; or md5. The zero
// value is a server that asks for nothing.
type Asked struct {
	Salt       string
	Iterations int
	MD5        bool
}

// Fits reports whether v decides the exchange that a server has begun so. PostgreSQL asks for SCRAM by a made-up salt where there is no verifier of that
// kind, and never for md5 where there is one.
func (a Asked) Fits(v Verifier) bool {
	return a != Asked{} && (v.Kind != KindSCRAM || !a.MD5 && v.Fits(a.Salt, a.Iterations))
}

// parseIterations reads a count: digits alone, from 1 to what an int of the server holds.
func parseIterations(text string) (int, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, errors.New("not a number")
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 || n > math.MaxInt32 {
		return 0, errors.New("out of range")
	}
	return int(n), nil
}

// decode reads base64 of the standard alphabet, padded, without line breaks (which Go's decoder would pass over).
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("a line break in base64")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

func decodeKey(text string) (key, error) {
	b, err := decode(text)
	if err != nil {
		return key{}, err
	}
	if len(b) != KeySize {
		return key{}, fmt.Errorf("%d bytes, want %d", len(b), KeySize)
	}
	return key(b), nil
}
