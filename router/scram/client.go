package scram

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Codes of the authentication requests that are known here; src/include/libpq/protocol.h.
const (
	CodeOK           = 0
	CodePassword     = 3
	CodeMD5          = 5
	CodeSASL         = 10
	CodeSASLContinue = 11
	CodeSASLFinal    = 12
)

// ErrOtherVerifier is a server whose verifier of the user is not the one that the credentials are from: its password was changed, or the server has not
// replayed the change yet.
var ErrOtherVerifier = errors.New("the server asks for another salt, iteration count or method than the credentials are for")

// ErrMethod is a server that asks for something else than SCRAM-SHA-256 or md5.
type ErrMethod struct{ Method string }

// Error names the method.
func (e *ErrMethod) Error() string {
	return "the server asks for " + e.Method + ", not for " + Mechanism + " or md5"
}

// Client is the client's side of one login: it is shown the bodies of a server's authentication requests and returns whole messages to answer them with.
//
//	login := scram.NewClient(channel, nonce)
//	for !login.Done() {
//		reply, err := login.Request(body) // the body of the next message R
//		...                               // send reply unless it is empty
//		if login.Challenged() {
//			reply, err = login.Answer(credentials)
//			... // send reply
//		}
//	}
type Client struct {
	channel   Channel
	nonce     string
	header    string // the gs2 header
	firstBare string
	challenge string
	fullNonce string
	asked     Asked
	md5Salt   [MD5SaltSize]byte
	serverKey key
	message   string
	state     state
}

type state uint8

const (
	stateNew state = iota
	stateFirst
	stateChallenged
	stateAnswered
	stateVerified
	stateDone
)

// NewClient begins a login with a nonce of its own (Nonce).
func NewClient(channel Channel, nonce string) *Client { return &Client{channel: channel, nonce: nonce} }

// Done reports whether the server has accepted: everything after is a session's.
func (c *Client) Done() bool { return c.state == stateDone }

// Challenged reports whether Answer is to be called next.
func (c *Client) Challenged() bool { return c.state == stateChallenged }

// Asked returns what the server asks for, once it is Challenged.
func (c *Client) Asked() Asked { return c.asked }

// Request takes the body of an authentication request (message R) and returns the message that answers it; empty for none. AuthenticationOk without any
// exchange is accepted: the server trusts the router. Once an exchange has begun it counts only after the server has proved that it knows the user's verifier,
// which is not a part of md5.
func (c *Client) Request(body []byte) ([]byte, error) {
	if len(body) < 4 {
		return nil, errors.New("an authentication request without a code")
	}
	code, rest := binary.BigEndian.Uint32(body), body[4:]
	switch {
	case code == CodeOK && len(rest) == 0 && (c.state == stateNew || c.state == stateVerified):
		c.state = stateDone
		return nil, nil
	case code == CodeSASL && c.state == stateNew:
		return c.begin(rest)
	case code == CodeMD5 && c.state == stateNew && len(rest) == MD5SaltSize:
		c.md5Salt, c.asked, c.state = [MD5SaltSize]byte(rest), Asked{MD5: true}, stateChallenged
		return nil, nil
	case code == CodeSASLContinue && c.state == stateFirst:
		return nil, c.takeChallenge(rest)
	case code == CodeSASLFinal && c.state == stateAnswered:
		return nil, c.takeSignature(rest)
	case c.state == stateNew:
		return nil, &ErrMethod{Method: methodName(code)}
	}
	return nil, fmt.Errorf("an authentication request %d that does not belong here", code)
}

// methodName names what an authentication request asks for, as pg_hba.conf does where one method sends it.
func methodName(code uint32) string {
	switch code {
	case CodePassword:
		return "a password in clear (method password, ldap, pam, radius or bsd)"
	case CodeMD5:
		return "an md5 password without a salt"
	case 7, 8:
		return "GSSAPI"
	case 9:
		return "SSPI"
	}
	return fmt.Sprintf("authentication of an unknown kind (%d)", code)
}

// begin chooses the mechanism and returns the SASLInitialResponse. The flag y stands for "I could bind and you did not offer it", by which a server that did
// learns that somebody took its offer away.
func (c *Client) begin(offer []byte) ([]byte, error) {
	var offered []string
	for name := range bytes.SplitSeq(offer, []byte{0}) {
		if len(name) > 0 {
			offered = append(offered, string(name))
		}
	}
	mechanism := Mechanism
	c.header = "n,,"
	switch {
	case c.channel.EndPoint != nil && slices.Contains(offered, MechanismPlus):
		mechanism, c.header = MechanismPlus, bindingHeader
	case !slices.Contains(offered, Mechanism):
		return nil, &ErrMethod{Method: fmt.Sprintf("SASL with %.100q", offered)}
	case c.channel.EndPoint != nil:
		c.header = "y,,"
	}
	// No name, as libpq: the server takes that of the startup packet.
	c.firstBare = "n=,r=" + c.nonce
	first := c.header + c.firstBare
	body := append([]byte(mechanism), 0)
	body = binary.BigEndian.AppendUint32(body, uint32(len(first)))
	c.state = stateFirst
	return message(append(body, first...)), nil
}

func (c *Client) takeChallenge(b []byte) error {
	if err := checkMessage(b); err != nil {
		return fmt.Errorf("server-first-message: %w", err)
	}
	c.challenge = string(b)
	a := &attributes{c.challenge}
	var values [3]string
	for i, name := range []byte("rsi") {
		v, err := a.value(name)
		if err != nil {
			return fmt.Errorf("server-first-message: %w", err)
		}
		values[i] = v
	}
	c.fullNonce = values[0]
	if !strings.HasPrefix(c.fullNonce, c.nonce) || len(c.fullNonce) == len(c.nonce) || !isNonce(c.fullNonce) {
		return errors.New("server-first-message: the nonce does not continue ours")
	}
	salt, err := decode(values[1])
	if err != nil || len(salt) == 0 {
		return errors.New("server-first-message: the salt is not base64")
	}
	if c.asked.Iterations, err = parseIterations(values[2]); err != nil {
		return fmt.Errorf("server-first-message: iteration count: %w", err)
	}
	c.asked.Salt = string(salt)
	c.state = stateChallenged
	return nil
}

// Answer returns the answer to the challenge as a whole message: the client-final-message of SCRAM, or a PasswordMessage. ErrOtherVerifier if the
// credentials are not for what the server asks.
func (c *Client) Answer(with Credentials) ([]byte, error) {
	if c.state != stateChallenged {
		return nil, errors.New("nothing to answer")
	}
	if c.asked.MD5 && with.Known() && with.keys().md5 != "" {
		c.state = stateVerified
		return message(append(answerMD5(with.keys().md5, c.md5Salt[:]), 0)), nil
	}
	if !with.Fit(c.asked.Salt, c.asked.Iterations) {
		return nil, ErrOtherVerifier
	}
	bound := c.header
	if c.header == bindingHeader {
		bound += string(c.channel.EndPoint)
	}
	bare := "c=" + base64.StdEncoding.EncodeToString([]byte(bound)) + ",r=" + c.fullNonce
	c.message = c.firstBare + "," + c.challenge + "," + bare
	k := with.keys()
	stored := sha256.Sum256(k.client[:])
	proof := xor(k.client, mac(stored, c.message))
	c.serverKey = k.server
	c.state = stateAnswered
	return message([]byte(bare + ",p=" + base64.StdEncoding.EncodeToString(proof[:]))), nil
}

func (c *Client) takeSignature(b []byte) error {
	if err := checkMessage(b); err != nil {
		return fmt.Errorf("server-final-message: %w", err)
	}
	a := &attributes{string(b)}
	value, bad := a.value('v')
	if bad != nil {
		return fmt.Errorf("server-final-message: %w", bad)
	}
	got, err := decodeKey(value)
	want := mac(c.serverKey, c.message)
	if err != nil || a.rest != "" || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return errors.New("server-final-message: the server does not know the user's verifier")
	}
	c.state = stateVerified
	return nil
}

// message makes a message p of a body.
func message(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{'p'}, uint32(len(body)+4)), body...)
}

// Response is a client's message p, read by somebody who expects SASL.
type Response struct {
	// Mechanism is what the client chose, in its first message only.
	Mechanism string
	// Data is the mechanism's own message; nil if the first message had none.
	Data []byte
}

// ParseInitial reads the body of a SASLInitialResponse. Data has a bound of MaxMessage.
func ParseInitial(body []byte) (Response, error) {
	name, rest, found := bytes.Cut(body, []byte{0})
	if !found || len(rest) < 4 {
		return Response{}, errors.New("a SASL response without a mechanism or a length")
	}
	r := Response{Mechanism: string(name)}
	n := int32(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	switch {
	case n == -1 && len(rest) == 0:
		return r, nil
	case n < 0 || int(n) != len(rest) || n > MaxMessage:
		return Response{}, errors.New("a SASL response with a wrong length")
	}
	r.Data = rest
	return r, nil
}
