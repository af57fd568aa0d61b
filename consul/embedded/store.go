package embedded

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// pair is one key with its value, as Consul's structs.DirEntry has it in JSON. A stored pair is
// never changed, only replaced.
type pair struct {
	LockIndex   uint64
	Key         string
	Flags       uint64
	Value       []byte
	Session     string `json:",omitempty"`
	CreateIndex uint64
	ModifyIndex uint64
}

// same reports whether a write of b over a changes nothing, which Consul does not count as a write.
func (a pair) same(b pair) bool {
	return a.LockIndex == b.LockIndex && a.Key == b.Key && a.Flags == b.Flags &&
		string(a.Value) == string(b.Value) && a.Session == b.Session
}

// store is the state, guarded by the server's mutex.
type store struct {
	index      uint64 // of the last write; as Raft's
	kvs        map[string]pair
	kvIndex    uint64            // of the last write to any key
	tombstones map[string]uint64 // deleted keys, by the index of the deletion
	sessions   map[string]*session
	sessIndex  uint64
	delays     map[string]time.Time // keys that may not be locked before
	services   map[string]service
}

// newStore starts at an index that is above those of a store that was started earlier, so that
// whoever outlives a restart never takes a new record for the one that it saw before.
func newStore(now time.Time) *store {
	return &store{
		index:      uint64(now.UnixMilli()),
		kvs:        map[string]pair{},
		tombstones: map[string]uint64{},
		sessions:   map[string]*session{},
		delays:     map[string]time.Time{},
		services:   map[string]service{},
	}
}

// get returns the pair and the index of the answer.
func (s *store) get(key string) (pair, uint64, bool) {
	p, ok := s.kvs[key]
	if !ok {
		return pair{}, s.kvIndex, false
	}
	return p, p.ModifyIndex, true
}

// list returns the pairs under prefix by key, and the index of the answer: the newest of theirs and
// of their deletions, or that of the whole table where there are none.
func (s *store) list(prefix string) ([]pair, uint64) {
	var pairs []pair
	var index uint64
	for _, k := range slices.Sorted(maps.Keys(s.kvs)) {
		if strings.HasPrefix(k, prefix) {
			pairs = append(pairs, s.kvs[k])
			index = max(index, s.kvs[k].ModifyIndex)
		}
	}
	if prefix == "" {
		return pairs, s.kvIndex
	}
	for k, i := range s.tombstones {
		if strings.HasPrefix(k, prefix) {
			index = max(index, i)
		}
	}
	if index == 0 {
		index = s.kvIndex
	}
	return pairs, index
}

// tx is one transaction: what it has written so far lies over the store, and is put in by commit.
type tx struct {
	store  *store
	index  uint64
	writes map[string]*pair // nil: deleted
}

func (s *store) begin() *tx {
	return &tx{store: s, index: s.index + 1, writes: map[string]*pair{}}
}

// commit reports whether anything was changed.
func (t *tx) commit() bool {
	t.store.index = t.index
	for k, p := range t.writes {
		t.store.kvIndex = t.index
		if p == nil {
			delete(t.store.kvs, k)
			t.store.tombstones[k] = t.index
			continue
		}
		t.store.kvs[k] = *p
	}
	return len(t.writes) > 0
}

func (t *tx) get(key string) (pair, bool) {
	if p, written := t.writes[key]; written {
		if p == nil {
			return pair{}, false
		}
		return *p, true
	}
	p, ok := t.store.kvs[key]
	return p, ok
}

// put writes p with the session and lock index that it carries, and returns it as stored.
func (t *tx) put(p pair) pair {
	p.CreateIndex, p.ModifyIndex = t.index, t.index
	if len(p.Value) == 0 {
		p.Value = nil // null in JSON, as from Consul
	}
	if old, ok := t.get(p.Key); ok {
		p.CreateIndex = old.CreateIndex
		if old.same(p) {
			return old
		}
	}
	t.writes[p.Key] = &p
	return p
}

// set writes a value and leaves the lock as it is. Consul stores such a pair with LockIndex 0 where it
// is new, and with LockIndex 0 also where it is not (kvsSetTxn copies only the session).
func (t *tx) set(p pair) pair {
	p.Session, p.LockIndex = "", 0
	if old, ok := t.get(p.Key); ok {
		p.Session = old.Session
	}
	return t.put(p)
}

// cas sets if the key is as of index, or missing where index is 0.
func (t *tx) cas(p pair, index uint64) (pair, bool) {
	old, ok := t.get(p.Key)
	if index == 0 && ok || index != 0 && (!ok || old.ModifyIndex != index) {
		return pair{}, false
	}
	return t.set(p), true
}

// lock writes p if its session is alive and no other session holds the key.
func (t *tx) lock(p pair) (pair, bool, error) {
	if p.Session == "" {
		return pair{}, false, fmt.Errorf("missing session")
	}
	if t.store.sessions[p.Session] == nil {
		return pair{}, false, fmt.Errorf("invalid session %#v", p.Session)
	}
	old, ok := t.get(p.Key)
	switch {
	case !ok:
		p.LockIndex = 1
	case old.Session == p.Session:
		p.LockIndex = old.LockIndex
	case old.Session != "":
		return pair{}, false, nil
	default:
		p.LockIndex = old.LockIndex + 1
	}
	return t.put(p), true, nil
}

// unlock writes p without a session if p.Session holds the key.
func (t *tx) unlock(p pair) (pair, bool, error) {
	if p.Session == "" {
		return pair{}, false, fmt.Errorf("missing session")
	}
	old, ok := t.get(p.Key)
	if !ok || old.Session != p.Session {
		return pair{}, false, nil
	}
	p.Session, p.LockIndex = "", old.LockIndex
	return t.put(p), true, nil
}

func (t *tx) remove(key string) {
	if _, ok := t.get(key); ok {
		t.writes[key] = nil
	}
}

// removeCAS reports whether the key is gone afterwards.
func (t *tx) removeCAS(key string, index uint64) bool {
	old, ok := t.get(key)
	if !ok {
		return true
	}
	if old.ModifyIndex != index {
		return false
	}
	t.remove(key)
	return true
}

func (t *tx) removeTree(prefix string) {
	for k := range t.store.kvs {
		if strings.HasPrefix(k, prefix) {
			t.remove(k)
		}
	}
	for k, p := range t.writes {
		if p != nil && strings.HasPrefix(k, prefix) {
			t.writes[k] = nil
		}
	}
}

// delayed reports whether key may not be locked yet, because the session that held it was invalidated.
func (s *store) delayed(key string, now time.Time) bool {
	until, ok := s.delays[key]
	if ok && !until.After(now) {
		delete(s.delays, key)
		return false
	}
	return ok
}
