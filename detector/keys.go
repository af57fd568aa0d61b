package detector

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/memberlist"
)

// KeyBytes is the length of a gossip key: AES-256.
const KeyBytes = 32

// maxKeys bounds the ring: every key is tried on each packet that none before it has opened.
const maxKeys = 8

// ErrKey says that a key, or a file of keys, cannot be used.
var ErrKey = errors.New("bad gossip key")

const howToMakeKey = "make one with: head -c 32 /dev/urandom | base64"

// ParseKeys reads gossip keys, one in a line, each 32 bytes in base64; empty lines and lines that
// begin with # are passed over. The first encrypts, all of them decrypt. The error is an ErrKey and
// never contains a key.
func ParseKeys(text []byte) ([][]byte, error) {
	var keys [][]byte
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d is not base64; %s", ErrKey, i+1, howToMakeKey)
		}
		if len(k) != KeyBytes {
			return nil, fmt.Errorf("%w: line %d holds %d bytes, want %d; %s", ErrKey, i+1, len(k), KeyBytes, howToMakeKey)
		}
		keys = append(keys, k)
	}
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	return keys, nil
}

// ReadKeyFile reads a file in the form of ParseKeys.
func ReadKeyFile(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("gossip keys: %w; %s", err, howToMakeKey)
	}
	keys, err := ParseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("gossip keys in %s: %w", path, err)
	}
	return keys, nil
}

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("%w: there is none, and gossip is always encrypted; %s", ErrKey, howToMakeKey)
	}
	if len(keys) > maxKeys {
		return fmt.Errorf("%w: there are %d, at most %d are allowed; remove those no longer in use", ErrKey, len(keys), maxKeys)
	}
	for i, k := range keys {
		if len(k) != KeyBytes {
			return fmt.Errorf("%w: number %d holds %d bytes, want %d; %s", ErrKey, i+1, len(k), KeyBytes, howToMakeKey)
		}
		for _, other := range keys[:i] {
			if bytes.Equal(k, other) {
				return fmt.Errorf("%w: number %d stands in the list twice", ErrKey, i+1)
			}
		}
	}
	return nil
}

// rotate makes ring hold keys, the first of which encrypts.
//
// Keyring.GetKeys hands out the ring's own slice, and RemoveKey moves the elements of that slice
// while packets are being decrypted by it. Removing the last one moves nothing. So
// the wanted keys are brought to the front first, by making each of them the primary in turn, the
// wanted primary last; then the rest is taken from the end. A packet that is sent
// meanwhile is encrypted with one of the wanted keys.
func rotate(ring *memberlist.Keyring, keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	for _, k := range keys {
		if err := ring.AddKey(bytes.Clone(k)); err != nil {
			return fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	for i := len(keys) - 1; i >= 0; i-- {
		if err := ring.UseKey(keys[i]); err != nil {
			return fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
	for {
		held := ring.GetKeys()
		if len(held) == len(keys) {
			return nil
		}
		if err := ring.RemoveKey(held[len(held)-1]); err != nil {
			return fmt.Errorf("%w: %w", ErrKey, err)
		}
	}
}
