package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgproto3/v2"
)

// Limits of a startup packet, the length field included. PostgreSQL's MAX_STARTUP_PACKET_LENGTH
// (src/include/libpq/pqcomm.h) is 10000; eight bytes hold the length and the code.
const (
	MinStartup = 8
	MaxStartup = 10000
)

// Codes that stand where a startup packet has its protocol version; PostgreSQL's
// src/include/libpq/pqcomm.h.
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
)

// TLSHandshake is the first byte of a TLS connection (a record of type handshake, RFC 8446, section 5.1). No valid length
// begins with it.
const TLSHandshake = 0x16

// ErrDirectTLS is a client that begins with a TLS handshake instead of a startup packet.
var ErrDirectTLS = errors.New("client began with a TLS handshake (sslnegotiation=direct); this router offers no TLS, use sslmode=disable or prefer")

// Kind is what a first packet asks for.
type Kind int

// The kinds of first packet.
const (
	KindStartup Kind = iota
	KindCancel
	KindSSL
	KindGSS
)

// Startup is a first packet.
type Startup struct {
	Kind Kind
	// Raw is the packet as it came, to be forwarded verbatim.
	Raw []byte
	// Major and Minor are the protocol version asked for; of a KindStartup only.
	Major, Minor uint16
	// Parameters are those of a KindStartup. A name sent twice has its last value, as in PostgreSQL.
	Parameters map[string]string
	// Key is what a KindCancel names.
	Key Key
}

// ReadStartup reads one first packet from r and not one byte more. It returns io.EOF if the peer
// closed without sending anything, ErrDirectTLS, an *Error that can be sent to the client if the
// packet is not one, or the error of r.
func ReadStartup(r io.Reader) (Startup, error) {
	var head [MinStartup]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Startup{}, err
	}
	if head[0] == TLSHandshake {
		return Startup{}, ErrDirectTLS
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < MinStartup || length > MaxStartup {
		return Startup{}, Fatal(CodeProtocolViolation, "invalid length of startup packet: %d", length).
			WithHint("The length must be from %d to %d.", MinStartup, MaxStartup)
	}
	packet := make([]byte, length)
	copy(packet, head[:])
	if _, err := io.ReadFull(r, packet[MinStartup:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Startup{}, err
	}
	s, perr := ParseStartup(packet)
	if perr != nil {
		return Startup{}, perr
	}
	return s, nil
}

// ParseStartup reads a whole first packet, length field included.
func ParseStartup(packet []byte) (Startup, *Error) {
	if len(packet) < MinStartup || len(packet) > MaxStartup || uint32(len(packet)) != binary.BigEndian.Uint32(packet) {
		return Startup{}, Fatal(CodeProtocolViolation, "invalid length of startup packet")
	}
	s := Startup{Raw: packet}
	code := binary.BigEndian.Uint32(packet[4:])
	switch code {
	case codeSSL, codeGSS:
		if len(packet) != MinStartup {
			return Startup{}, Fatal(CodeProtocolViolation, "invalid length of an encryption request: %d", len(packet))
		}
		s.Kind = KindSSL
		if code == codeGSS {
			s.Kind = KindGSS
		}
		return s, nil
	case codeCancel:
		s.Kind = KindCancel
		key, err := ParseKey(packet[MinStartup:])
		if err != nil {
			return Startup{}, Fatal(CodeProtocolViolation, "invalid cancel request: %s", err)
		}
		s.Key = key
		return s, nil
	}
	s.Major, s.Minor = uint16(code>>16), uint16(code)
	if s.Major != 3 {
		return Startup{}, Fatal(CodeFeatureNotSupported, "unsupported frontend protocol %d.%d: server supports 3.0 and newer minor versions", s.Major, s.Minor)
	}
	if err := checkParameters(packet[MinStartup:]); err != nil {
		return Startup{}, Fatal(CodeProtocolViolation, "invalid startup packet layout: %s", err)
	}
	params, err := decodeParameters(packet[4:])
	if err != nil {
		return Startup{}, Fatal(CodeProtocolViolation, "invalid startup packet layout: %s", err)
	}
	s.Parameters = params
	return s, nil
}

// checkParameters holds b against the layout that ProcessStartupPacket in PostgreSQL's
// src/backend/postmaster/postmaster.c asks for: pairs of strings, then one zero byte at the very end.
func checkParameters(b []byte) error {
	for len(b) > 0 && b[0] != 0 {
		for range 2 {
			end := bytes.IndexByte(b, 0)
			if end < 0 {
				return errors.New("a name or a value has no end")
			}
			b = b[end+1:]
		}
	}
	if len(b) != 1 {
		return errors.New("expected terminator as last byte")
	}
	return nil
}

// decodeParameters gives a packet whose layout has been checked to pgproto3, which accepts no
// version but 3.0 and not an empty list.
func decodeParameters(body []byte) (map[string]string, error) {
	if len(body) == 5 {
		return map[string]string{}, nil
	}
	plain := bytes.Clone(body)
	binary.BigEndian.PutUint32(plain, pgproto3.ProtocolVersionNumber)
	var m pgproto3.StartupMessage
	if err := m.Decode(plain); err != nil {
		return nil, err
	}
	return m.Parameters, nil
}

// SSLRequest returns the packet by which a client asks for TLS.
func SSLRequest() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, MinStartup), codeSSL)
}

// String names the kind, for logs.
func (k Kind) String() string {
	switch k {
	case KindStartup:
		return "startup"
	case KindCancel:
		return "cancel"
	case KindSSL:
		return "SSL request"
	case KindGSS:
		return "GSSENC request"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}
