package statement

import (
	"encoding/binary"
	"math/bits"
)

// Remembered keeps texts that turned out to write, as hashes: a standby refused them with 25006. It holds a bounded
// number; where there is no room an older one is forgotten, at the price of one more refusal. Two texts with the same
// hash are taken for one, at the price of a read on the primary. It is not safe for concurrent use.
type Remembered struct {
	buckets []bucket
}

// bucket holds the hashes of one place in the table, the newest first; 0 is none.
type bucket [4]uint64

// NewRemembered returns a set with room for about size texts, 32 bytes for every four of them.
func NewRemembered(size int) *Remembered {
	n := 1
	for n*len(bucket{}) < size {
		n *= 2
	}
	return &Remembered{buckets: make([]bucket, n)}
}

func (r *Remembered) bucket(h uint64) *bucket { return &r.buckets[h&uint64(len(r.buckets)-1)] }

// Add remembers a text.
func (r *Remembered) Add(text []byte) {
	h := hashOf(text)
	b := r.bucket(h)
	i := 0
	for i < len(b)-1 && b[i] != h {
		i++
	}
	copy(b[1:i+1], b[:i])
	b[0] = h
}

// Has reports whether the text is remembered. It allocates nothing.
func (r *Remembered) Has(text []byte) bool {
	h := hashOf(text)
	b := r.bucket(h)
	return b[0] == h || b[1] == h || b[2] == h || b[3] == h
}

// Forget forgets all, as when the functions of the database have changed.
func (r *Remembered) Forget() { clear(r.buckets) }

// hashOf folds eight bytes at a time by a multiplication of 64 to 128 bits. It is never 0.
func hashOf(text []byte) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	h := uint64(len(text)) ^ k0
	for len(text) >= 8 {
		high, low := bits.Mul64(h^binary.LittleEndian.Uint64(text), k1)
		h = high ^ low ^ k0
		text = text[8:]
	}
	var rest [8]byte
	copy(rest[:], text)
	high, low := bits.Mul64(h^binary.LittleEndian.Uint64(rest[:]), k1)
	if h = high ^ low; h == 0 {
		return 1
	}
	return h
}
