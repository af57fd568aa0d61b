package wire

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// Sizes of the secret in a cancel key: four bytes in protocol 3.0, up to 256 since 3.2.
const (
	minSecret = 4
	maxSecret = 256
	pidSize   = 4

	// MaxKeyData is the size of the largest BackendKeyData, header included.
	MaxKeyData = HeaderSize + pidSize + maxSecret
)

// Key is a cancel key as it stands in BackendKeyData and in a CancelRequest: four bytes of process
// ID, then the secret. It never goes to a log.
type Key string

// ParseKey reads the body of a BackendKeyData, or what follows the code of a CancelRequest.
func ParseKey(b []byte) (Key, error) {
	if n := len(b) - pidSize; n < minSecret || n > maxSecret {
		return "", fmt.Errorf("a cancel key of %d bytes; want %d to %d", len(b), pidSize+minSecret, pidSize+maxSecret)
	}
	return Key(b), nil
}

// String keeps a key out of logs.
func (Key) String() string { return "cancel key" }

// GoString keeps a key out of logs.
func (Key) GoString() string { return "cancel key" }

// Instance is the 15 bits by which a router marks the cancel keys that it hands out, so that a
// router that is given another one's key can tell whose it is. It is derived from the name, which
// every router can learn.
func Instance(name string) uint16 {
	h := fnv.New32a()
	io.WriteString(h, name) // a hash.Hash never fails
	s := h.Sum32()
	return uint16(s^s>>16) & 0x7fff
}

// NewKey returns a key of the size of like. The first two bytes hold instance; the rest is read
// from random, 48 bits at least. The process ID in it is therefore positive and no process's.
func NewKey(like Key, instance uint16, random io.Reader) (Key, error) {
	b := make([]byte, len(like))
	if _, err := io.ReadFull(random, b[2:]); err != nil {
		return "", fmt.Errorf("cancel key: %w", err)
	}
	binary.BigEndian.PutUint16(b, instance&0x7fff)
	return Key(b), nil
}

// Instance returns the mark of the router that handed k out.
func (k Key) Instance() uint16 { return uint16(k[0])<<8 | uint16(k[1]) }

// AppendKeyData writes a BackendKeyData to the end of dst.
func (k Key) AppendKeyData(dst []byte) []byte {
	dst = append(dst, 'K')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(k)))
	return append(dst, k...)
}

// CancelRequest returns the packet that asks a server to cancel what runs under k.
func (k Key) CancelRequest() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, MinStartup+len(k)), uint32(MinStartup+len(k)))
	b = binary.BigEndian.AppendUint32(b, codeCancel)
	return append(b, k...)
}
