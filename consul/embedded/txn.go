package embedded

import (
	"fmt"
	"time"
)

// op is one operation of a transaction, as consul/api sends it.
type op struct {
	Verb    string
	Key     string
	Value   []byte
	Flags   uint64
	Index   uint64
	Session string
}

type txnOp struct{ KV *op }

type txnResult struct{ KV pair }

type txnError struct {
	OpIndex int
	What    string
}

type txnAnswer struct {
	Results []txnResult
	Errors  []txnError
}

// The verbs that this server speaks, and whether they write.
var verbs = map[string]bool{
	"set": true, "cas": true, "lock": true, "unlock": true, "delete": true, "delete-cas": true, "delete-tree": true,
	"get": false, "get-or-empty": false, "get-tree": false,
	"check-index": false, "check-session": false, "check-not-exists": false,
}

// run carries out all operations, or none. It reports whether anything was changed.
func (s *store) run(ops []txnOp, now time.Time) (txnAnswer, bool) {
	var answer txnAnswer
	fail := func(i int, err error) {
		answer.Errors = append(answer.Errors, txnError{OpIndex: i, What: err.Error()})
	}
	for i, o := range ops {
		if err := s.precheck(o.KV, now); err != nil {
			fail(i, err)
		}
	}
	if len(answer.Errors) > 0 {
		return answer, false
	}
	answer.Results = []txnResult{} // [] in JSON
	t := s.begin()
	for i, o := range ops {
		results, err := t.do(o.KV)
		if err != nil {
			fail(i, err)
			continue // Consul tells of every operation that fails
		}
		answer.Results = append(answer.Results, results...)
	}
	if len(answer.Errors) > 0 {
		answer.Results = nil
		s.index = t.index // a rolled back transaction is an entry of Raft's log all the same
		return answer, false
	}
	return answer, t.commit()
}

// precheck is kvsPreApply: what is settled before the transaction begins.
func (s *store) precheck(o *op, now time.Time) error {
	switch {
	case o == nil:
		return fmt.Errorf("unknown operation type")
	case o.Key == "" && o.Verb != "delete-tree":
		return asConsul("Must provide key")
	}
	if _, known := verbs[o.Verb]; !known {
		return fmt.Errorf("unknown KV operation: %s", o.Verb)
	}
	if o.Verb == "lock" && s.delayed(o.Key, now) {
		return fmt.Errorf("failed to lock key %q due to lock delay", o.Key)
	}
	return nil
}

// do is txnKVS. Results carry the value only for the verbs that read.
func (t *tx) do(o *op) ([]txnResult, error) {
	in := pair{Key: o.Key, Value: o.Value, Flags: o.Flags, Session: o.Session}
	var out pair
	var ok bool
	var err error
	switch o.Verb {
	case "set":
		out = t.set(in)
	case "cas":
		if out, ok = t.cas(in, o.Index); !ok {
			err = fmt.Errorf("failed to set key %q, index is stale", o.Key)
		}
	case "lock":
		if out, ok, err = t.lock(in); !ok && err == nil {
			err = fmt.Errorf("failed to lock key %q, lock is already held", o.Key)
		}
	case "unlock":
		if out, ok, err = t.unlock(in); !ok && err == nil {
			err = fmt.Errorf("failed to unlock key %q, lock isn't held, or is held by another session", o.Key)
		}
	case "delete":
		t.remove(o.Key)
		return nil, nil
	case "delete-cas":
		if !t.removeCAS(o.Key, o.Index) {
			err = fmt.Errorf("failed to delete key %q, index is stale", o.Key)
		}
		return nil, err
	case "delete-tree":
		t.removeTree(o.Key)
		return nil, nil
	default:
		return t.look(o)
	}
	if err != nil {
		return nil, err
	}
	out.Value = nil
	return []txnResult{{KV: out}}, nil
}

// look carries out the verbs that do not write.
func (t *tx) look(o *op) ([]txnResult, error) {
	p, exists := t.get(o.Key)
	switch o.Verb {
	case "get":
		if !exists {
			return nil, fmt.Errorf("key %q doesn't exist", o.Key)
		}
		return []txnResult{{KV: p}}, nil
	case "get-or-empty":
		if !exists {
			p = pair{Key: o.Key, Flags: o.Flags, Session: o.Session, ModifyIndex: o.Index} // the operation itself
		}
		return []txnResult{{KV: p}}, nil
	case "get-tree":
		return t.tree(o.Key), nil
	case "check-not-exists":
		if exists {
			return nil, fmt.Errorf("key %q exists", o.Key)
		}
		return nil, nil
	case "check-index":
		if !exists {
			return nil, fmt.Errorf("failed to check index, key %q doesn't exist", o.Key)
		}
		if p.ModifyIndex != o.Index {
			return nil, fmt.Errorf("failed index check for key %q, current modify index %d != %d", o.Key, p.ModifyIndex, o.Index)
		}
	case "check-session":
		if !exists {
			return nil, fmt.Errorf("failed to check session, key %q doesn't exist", o.Key)
		}
		if p.Session != o.Session {
			return nil, fmt.Errorf("failed session check for key %q, current session %q != %q", o.Key, p.Session, o.Session)
		}
	}
	p.Value = nil
	return []txnResult{{KV: p}}, nil
}

// tree is get-tree: it sees what the transaction has written.
func (t *tx) tree(prefix string) []txnResult {
	merged := store{kvs: map[string]pair{}}
	for k, p := range t.store.kvs {
		merged.kvs[k] = p
	}
	for k, p := range t.writes {
		delete(merged.kvs, k)
		if p != nil {
			merged.kvs[k] = *p
		}
	}
	pairs, _ := merged.list(prefix)
	results := make([]txnResult, len(pairs))
	for i, p := range pairs {
		results[i].KV = p
	}
	return results
}
