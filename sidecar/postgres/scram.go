package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// What PostgreSQL uses when it makes a verifier itself: src/include/common/scram-common.h.
const (
	scramIterations = 4096 // SCRAM_SHA_256_DEFAULT_ITERATIONS
	scramSaltBytes  = 16   // SCRAM_DEFAULT_SALT_LEN
	// scramMostIterations bounds what a verifier found in the catalogue may make us compute.
	scramMostIterations = 10_000_000
)

// newVerifier returns what pg_authid.rolpassword holds for a password under scram-sha-256, with a new
// salt. Made here, so that the password in clear never reaches the server, whose log might keep it.
// The password must be printable ASCII, of which SASLprep changes nothing.
func newVerifier(password string) (string, error) {
	salt := make([]byte, scramSaltBytes)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	return verifier(password, salt, scramIterations)
}

func verifier(password string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("SCRAM verifier: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

// verifierMatches reports whether v is a SCRAM verifier of password. Anything else, an md5 one too, does not match.
func verifierMatches(v, password string) bool {
	rest, ok := strings.CutPrefix(v, "SCRAM-SHA-256$")
	if !ok {
		return false
	}
	head, _, ok := strings.Cut(rest, "$")
	if !ok {
		return false
	}
	count, salt64, ok := strings.Cut(head, ":")
	if !ok {
		return false
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > scramMostIterations {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil {
		return false
	}
	again, err := verifier(password, salt, n)
	return err == nil && hmac.Equal([]byte(again), []byte(v))
}
