package scram

import (
	"crypto/md5" // what roles of old have
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"

	"github.com/xdg-go/stringprep"
)

// MD5SaltSize is the length of the salt of an md5 exchange.
const MD5SaltSize = 4

// CheckMD5 holds a client's answer to an md5 challenge against v; nothing is right but for a KindMD5. What PostgreSQL stores for such a role is all
// that answers any server of the cluster, so it is the client's credentials (md5_crypt_verify, src/backend/libpq/crypt.c).
func CheckMD5(user string, v Verifier, salt [MD5SaltSize]byte, answer []byte) (Credentials, bool) {
	if v.Kind != KindMD5 {
		return Credentials{}, false
	}
	digest := v.keys().md5
	if subtle.ConstantTimeCompare(answerMD5(digest, salt[:]), answer) != 1 {
		return Credentials{}, false
	}
	return Credentials{User: user, keys: keys{md5: digest}.sealed()}, true
}

// CheckPassword holds a password in clear against v (plain_crypt_verify, src/backend/libpq/crypt.c). It takes the same time whether v is a mock.
func CheckPassword(user string, v Verifier, password string) (Credentials, bool) {
	switch v.Kind {
	case KindMD5:
		digest := hexMD5(password + user)
		if subtle.ConstantTimeCompare([]byte(digest), []byte(v.keys().md5)) != 1 {
			return Credentials{}, false
		}
		return Credentials{User: user, keys: keys{md5: digest}.sealed()}, true
	case KindSCRAM:
		c, ok := checkSCRAM(user, v, password)
		// What SASLprep refuses counts as it is, as in PostgreSQL, which refuses more than the library does: what Unicode 3.2 did not have.
		if prepared, err := stringprep.SASLprep.Prepare(password); err == nil && prepared != "" && prepared != password {
			if other, right := checkSCRAM(user, v, prepared); right {
				return other, true
			}
		}
		return c, ok
	}
	return Credentials{}, false
}

func checkSCRAM(user string, v Verifier, password string) (Credentials, bool) {
	c, err := FromPassword(user, password, v.Salt, v.Iterations)
	if err != nil {
		return Credentials{}, false
	}
	k, known := c.keys(), v.keys()
	stored := sha256.Sum256(k.client[:])
	if subtle.ConstantTimeCompare(stored[:], known.stored[:]) != 1 || v.mock {
		return Credentials{}, false
	}
	return c, true
}

// answerMD5 is what a client answers that has the stored digest (32 hexadecimal digits).
func answerMD5(digest string, salt []byte) []byte { return []byte("md5" + hexMD5(digest+string(salt))) }

func hexMD5(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}
