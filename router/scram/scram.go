// Package scram is SCRAM-SHA-256 as PostgreSQL speaks it, for somebody in the middle: the server's side towards a client, which recovers the
// ClientKey from a proof that holds, and the client's side towards a server, which logs in with that key instead of a password.
//
// Every physical standby has the verifier that its primary has, so one proof opens all servers of a cluster; until the password changes, and
// not a moment longer, because the keys depend on the verifier's salt. RFC 5802 and 7677 say how; PostgreSQL's src/backend/libpq/auth-scram.c and
// src/interfaces/libpq/fe-auth-scram.c say what it makes of them, and the errors are worded as there. Roles of old whose password is md5 are served as
// well: what is stored of those is itself all that opens a server.
//
// The package does no I/O, reads no clock and makes no random numbers: nonces and secrets are arguments.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// The mechanisms, by their names in SASL.
const (
	Mechanism     = "SCRAM-SHA-256"
	MechanismPlus = "SCRAM-SHA-256-PLUS"
)

// Sizes, from src/include/common/scram-common.h and auth-scram.c.
const (
	KeySize = sha256.Size
	// NonceBytes is how many random bytes each side puts into its nonce (SCRAM_RAW_NONCE_LEN).
	NonceBytes = 18
	// MaxMessage is the longest message that either side may send (PG_MAX_SASL_MESSAGE_LENGTH).
	MaxMessage = 1024
	// mockIterations and mockSalt are what an unknown user seems to have: SCRAM_SHA_256_DEFAULT_ITERATIONS and SCRAM_DEFAULT_SALT_LEN.
	mockIterations = 4096
	mockSalt       = 16
)

// bindingType is the only kind of channel binding that PostgreSQL has (RFC 5929, section 4).
const bindingType = "tls-server-end-point"

// Channel is what an exchange runs over.
type Channel struct {
	// EndPoint is the hash of the server's certificate, as tls-server-end-point wants it. Nil where there is no TLS, or no such hash: then channel binding
	// is neither offered nor used.
	EndPoint []byte
}

// key is a ClientKey, StoredKey, ServerKey, proof or signature.
type key [KeySize]byte

func mac(k key, text string) key {
	h := hmac.New(sha256.New, k[:])
	h.Write([]byte(text))
	return key(h.Sum(nil))
}

func xor(a, b key) key {
	for i := range a {
		a[i] ^= b[i]
	}
	return a
}

// Nonce makes a nonce of random bytes.
func Nonce(random [NonceBytes]byte) string { return base64.StdEncoding.EncodeToString(random[:]) }

// Credentials are what a client that has proved itself leaves behind: enough to log in as its user wherever the same verifier is. They equal a
// password; nothing in them can be printed.
type Credentials struct {
	// User is the role's name.
	User string
	keys func() keys
}

// keys are what a function returns, because fmt follows everything else in some way of printing.
type keys struct {
	client, server key
	salt           string
	iterations     int
	md5            string // the digest of a role whose password is md5; it has nothing else
}

func (k keys) sealed() func() keys { return func() keys { return k } }

// String names the user alone.
func (c Credentials) String() string { return "credentials of " + c.User }

// GoString is String.
func (c Credentials) GoString() string { return c.String() }

// Known reports whether there are any.
func (c Credentials) Known() bool { return c.keys != nil }

// Fit reports whether c opens a server that asks for this salt and iteration count.
func (c Credentials) Fit(salt string, iterations int) bool {
	if c.keys == nil {
		return false
	}
	k := c.keys()
	return k.md5 == "" && k.salt == salt && k.iterations == iterations
}

// FromPassword derives the credentials that a password is under a salt and an iteration count. The password must have been through SASLprep, which changes
// nothing in printable ASCII.
func FromPassword(user, password, salt string, iterations int) (Credentials, error) {
	salted, err := pbkdf2.Key(sha256.New, password, []byte(salt), iterations, KeySize)
	if err != nil {
		return Credentials{}, fmt.Errorf("SCRAM keys: %w", err)
	}
	k := key(salted)
	return Credentials{User: user, keys: keys{
		client: mac(k, "Client Key"), server: mac(k, "Server Key"), salt: salt, iterations: iterations,
	}.sealed()}, nil
}

// Verifier returns what PostgreSQL would store for c.
func (c Credentials) Verifier() Verifier {
	k := c.keys()
	if k.md5 != "" {
		return Verifier{Kind: KindMD5, keys: verifierKeys{md5: k.md5}.sealed()}
	}
	return Verifier{
		Kind: KindSCRAM, Salt: k.salt, Iterations: k.iterations, keys: verifierKeys{stored: sha256.Sum256(k.client[:]), server: k.server}.sealed(),
	}
}
