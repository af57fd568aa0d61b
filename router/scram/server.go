package scram

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strconv"
	"strings"

	"howdah/router/wire"
)

// Server is the server's side of one exchange. Its methods are called in this order: First, Challenge, Final, Check; Check again with another verifier if
// the one before may have been an old one. The errors go to the client as they are.
type Server struct {
	channel Channel
	nonce   string
	// plus: the client chose the mechanism with channel binding. flag is its gs2 flag: n, y or p.
	plus bool
	flag byte

	clientNonce string
	// firstBare, challenge and finalBare are the three parts of the AuthMessage.
	firstBare, challenge, finalBare string
	salt                            string
	iterations                      int
	proof                           key
}

// NewServer begins an exchange with a nonce of its own (Nonce).
func NewServer(channel Channel, nonce string) *Server { return &Server{channel: channel, nonce: nonce} }

// Mechanisms are what the client is offered, the best first.
func (s *Server) Mechanisms() []string {
	if s.channel.EndPoint != nil {
		return []string{MechanismPlus, Mechanism}
	}
	return []string{Mechanism}
}

// First takes the mechanism that the client chose and its client-first-message.
func (s *Server) First(mechanism string, message []byte) *wire.Error {
	switch {
	case mechanism == Mechanism:
	case mechanism == MechanismPlus && s.channel.EndPoint != nil:
		s.plus = true
	default:
		return wire.Fatal(wire.CodeProtocolViolation, "client selected an invalid SASL authentication mechanism")
	}
	if err := checkMessage(message); err != nil {
		return err
	}
	a := &attributes{string(message)}
	if err := s.bindingFlag(a); err != nil {
		return err
	}
	switch a.at() {
	case 'a':
		return wire.Fatal(wire.CodeFeatureNotSupported, "client uses authorization identity, but it is not supported")
	case ',':
		a.rest = a.rest[1:]
	default:
		return malformed("Unexpected attribute \"%s\" in client-first-message.", printable(a.at()))
	}
	s.firstBare = a.rest
	if a.at() == 'm' {
		return wire.Fatal(wire.CodeFeatureNotSupported, "client requires an unsupported SCRAM extension")
	}
	// The name is that of the startup packet; what stands here is passed over, as PostgreSQL does (libpq sends none).
	if _, err := a.value('n'); err != nil {
		return err
	}
	var err *wire.Error
	if s.clientNonce, err = a.value('r'); err != nil {
		return err
	}
	if !isNonce(s.clientNonce) {
		return wire.Fatal(wire.CodeProtocolViolation, "non-printable characters in SCRAM nonce")
	}
	for a.rest != "" {
		if _, _, err := a.any(); err != nil {
			return err
		}
	}
	return nil
}

// bindingFlag takes the beginning of a client-first-message. Its y means: I could bind the channel and think that you cannot. From a client that was
// offered it somebody in between must have hidden the offer.
func (s *Server) bindingFlag(a *attributes) *wire.Error {
	s.flag = a.at()
	switch s.flag {
	case 'n', 'y':
		if s.plus {
			return malformed("The client selected %s, but the SCRAM message does not include channel binding data.", MechanismPlus)
		}
		if s.flag == 'y' && s.channel.EndPoint != nil {
			return wire.Fatal(wire.CodeInvalidAuthorization, "SCRAM channel binding negotiation error").
				WithDetail("The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.")
		}
		a.rest = a.rest[1:]
		if a.at() != ',' {
			return malformed("Comma expected, but found character \"%s\".", printable(a.at()))
		}
		a.rest = a.rest[1:]
	case 'p':
		if !s.plus {
			return malformed("The client selected %s without channel binding, but the SCRAM message includes channel binding data.", Mechanism)
		}
		kind, err := a.value('p')
		if err != nil {
			return err
		}
		if kind != bindingType {
			return wire.Fatal(wire.CodeProtocolViolation, "unsupported SCRAM channel-binding type \"%s\"", printableText(kind))
		}
	default:
		return malformed("Unexpected channel-binding flag \"%s\".", printable(s.flag))
	}
	return nil
}

// Challenge returns the server-first-message, with the salt of v, which must be a KindSCRAM.
func (s *Server) Challenge(v Verifier) []byte {
	s.salt, s.iterations = v.Salt, v.Iterations
	s.challenge = "r=" + s.clientNonce + s.nonce + ",s=" + base64.StdEncoding.EncodeToString([]byte(v.Salt)) + ",i=" + strconv.Itoa(v.Iterations)
	return []byte(s.challenge)
}

// Final takes the client-final-message.
func (s *Server) Final(message []byte) *wire.Error {
	if err := checkMessage(message); err != nil {
		return err
	}
	text := string(message)
	a := &attributes{text}
	binding, err := a.value('c')
	if err != nil {
		return err
	}
	if err := s.checkBinding(binding); err != nil {
		return err
	}
	nonce, err := a.value('r')
	if err != nil {
		return err
	}
	for {
		before := len(text) - len(a.rest)
		name, value, err := a.any()
		if err != nil {
			return err
		}
		if name != 'p' {
			continue // an extension
		}
		// A comma stands before every attribute but the first.
		s.finalBare = text[:before-1]
		var bad error
		if s.proof, bad = decodeKey(value); bad != nil {
			return malformed("Malformed proof in client-final-message.")
		}
		if before+len("p=")+len(value) != len(text) {
			return malformed("Garbage found at the end of client-final-message.")
		}
		break
	}
	if nonce != s.clientNonce+s.nonce {
		return wire.Fatal(wire.CodeProtocolViolation, "invalid SCRAM response").WithDetail("Nonce does not match.")
	}
	return nil
}

// checkBinding holds c= against the channel: a client that speaks to somebody in between has another server's certificate in it.
func (s *Server) checkBinding(binding string) *wire.Error {
	want := string(s.flag) + ",,"
	if s.plus {
		want = bindingHeader + string(s.channel.EndPoint)
	}
	if subtle.ConstantTimeCompare([]byte(binding), []byte(base64.StdEncoding.EncodeToString([]byte(want)))) == 1 {
		return nil
	}
	if s.plus {
		return wire.Fatal(wire.CodeInvalidAuthorization, "SCRAM channel binding check failed")
	}
	return wire.Fatal(wire.CodeProtocolViolation, "unexpected SCRAM channel-binding attribute in client-final-message")
}

// bindingHeader is the gs2 header of a client that binds the channel.
const bindingHeader = "p=" + bindingType + ",,"

// Check holds the client's proof against v. If it holds, it returns the client's credentials and the server-final-message. It takes the
// same time whether v is a mock, and whether the proof holds.
func (s *Server) Check(user string, v Verifier) (Credentials, []byte, bool) {
	message := s.firstBare + "," + s.challenge + "," + s.finalBare
	var known verifierKeys
	if v.keys != nil {
		known = v.keys()
	}
	client := xor(s.proof, mac(known.stored, message))
	stored := sha256.Sum256(client[:])
	holds := subtle.ConstantTimeCompare(stored[:], known.stored[:]) == 1
	signature := mac(known.server, message)
	if !holds || v.mock || !v.Fits(s.salt, s.iterations) {
		return Credentials{}, nil, false
	}
	return Credentials{User: user, keys: keys{client: client, server: known.server, salt: v.Salt, iterations: v.Iterations}.sealed()},
		[]byte("v=" + base64.StdEncoding.EncodeToString(signature[:])), true
}

// Offer is the body of the message AuthenticationSASL with these mechanisms, after its code.
func Offer(mechanisms []string) []byte { return []byte(strings.Join(mechanisms, "\x00") + "\x00\x00") }
