package detector

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

func TestParseKeys(t *testing.T) {
	one, two := base64.StdEncoding.EncodeToString(key(1)), base64.StdEncoding.EncodeToString(key(2))
	keys, err := ParseKeys([]byte("# the new one\n" + one + "\r\n\n  " + two + "\n"))
	if err != nil || !cmp.Equal(keys, [][]byte{key(1), key(2)}) {
		t.Fatalf("%v, %v", keys, err)
	}
	short := base64.StdEncoding.EncodeToString(key(9)[:16])
	for text, want := range map[string]string{
		"":                 "there is none",
		"# nothing\n":      "head -c 32 /dev/urandom | base64",
		"!!secret!!":       "line 1 is not base64",
		one + "\n" + short: "line 2 holds 16 bytes, want 32",
		one + "\n" + one:   "twice",
	} {
		_, err := ParseKeys([]byte(text))
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), short)) {
			t.Errorf("the error shows a key: %v", err)
		}
	}
	path := filepath.Join(t.TempDir(), "gossip.key")
	if _, err := ReadKeyFile(path); err == nil || !strings.Contains(err.Error(), "/dev/urandom") {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte(one+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeyFile(path); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
}

// Readers go over the ring as memberlist does, which the race detector watches.
func TestRotateKeepsReadersWhole(t *testing.T) {
	ring, err := memberlist.NewKeyring(nil, key(1))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, k := range ring.GetKeys() {
					if len(k) != KeyBytes {
						panic("torn key")
					}
				}
			}
		})
	}
	sets := [][][]byte{{key(1), key(2)}, {key(2), key(1)}, {key(2)}, {key(3), key(2), key(4)}, {key(4)}, {key(1)}}
	for range 20 {
		for _, want := range sets {
			if err := rotate(ring, want); err != nil {
				t.Fatal(err)
			}
			if got := ring.GetKeys(); !cmp.Equal(got, want) {
				t.Fatalf("ring holds %v, want %v", got, want)
			}
		}
	}
	close(done)
	wg.Wait()
	if err := rotate(ring, nil); !errors.Is(err, ErrKey) {
		t.Errorf("no key: %v", err)
	}
}
