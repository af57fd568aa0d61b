package conformance

import (
	"time"

	"github.com/hashicorp/consul/api"
)

// shortly is how long a query may take that has reason to answer at once, on a machine that is busy.
const shortly = 2 * time.Second

// asked is one blocking query on its way.
type asked struct {
	pairs api.KVPairs
	meta  *api.QueryMeta
	err   error
	took  time.Duration
}

// block asks for name, or for all below it, and gives the answer on a channel.
func (r *room) block(name string, recurse bool, index uint64, wait time.Duration) <-chan asked {
	out := make(chan asked, 1)
	go func() {
		begin := time.Now()
		var a asked
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: wait, RequireConsistent: true}).WithContext(r.ctx)
		if recurse {
			a.pairs, a.meta, a.err = r.raw.KV().List(r.key(name), q)
		} else {
			var p *api.KVPair
			if p, a.meta, a.err = r.raw.KV().Get(r.key(name), q); p != nil {
				a.pairs = api.KVPairs{p}
			}
		}
		a.took = time.Since(begin)
		out <- a
	}()
	return out
}

func (r *room) answer(from <-chan asked) asked {
	r.Helper()
	a := <-from
	r.must(a.err)
	return a
}

// silent demands that no answer comes for a while.
func (r *room) silent(what string, from <-chan asked) {
	r.Helper()
	select {
	case a := <-from:
		r.Fatalf("%s: an answer came after %s: %+v", what, a.took, a)
	case <-time.After(200 * time.Millisecond):
	}
}

func (r *room) drop(name string) {
	r.Helper()
	_, err := r.raw.KV().Delete(r.key(name), nil)
	r.must(err)
}

func blockKey(r *room) {
	r.put("key", "1")
	r.put("other", "1")
	first := r.answer(r.block("key", false, 0, 0))
	q := r.block("key", false, first.meta.LastIndex, time.Minute)
	r.put("other", "2")
	r.silent("a change of another key", q)
	r.put("key", "1") // the same value is no change
	r.silent("a write that changes nothing", q)
	r.put("key", "2")
	second := r.answer(q)
	if string(second.pairs[0].Value) != "2" || second.meta.LastIndex <= first.meta.LastIndex || second.meta.LastIndex != second.pairs[0].ModifyIndex {
		r.Errorf("after the change: %+v", second)
	}
	// An index that is in the past is answered at once; so is no index.
	if a := r.answer(r.block("key", false, first.meta.LastIndex, time.Minute)); a.took > shortly || a.meta.LastIndex != second.meta.LastIndex {
		r.Errorf("an old index: %+v", a)
	}
	q = r.block("key", false, second.meta.LastIndex, time.Minute)
	r.drop("key")
	if gone := r.answer(q); len(gone.pairs) != 0 || gone.meta.LastIndex <= second.meta.LastIndex {
		r.Errorf("after the deletion: %+v", gone)
	}
}

func blockMissing(r *room) {
	r.put("other", "1")
	first := r.answer(r.block("missing", false, 0, 0))
	if len(first.pairs) != 0 || first.meta.LastIndex == 0 {
		r.Fatalf("a missing key: %+v", first)
	}
	q := r.block("missing", false, first.meta.LastIndex, time.Minute)
	r.silent("nothing", q)
	r.put("other", "2")
	r.silent("a change of another key", q)
	r.put("other", "3")
	r.silent("a second change of another key", q)
	r.put("missing", "1")
	if a := r.answer(q); len(a.pairs) != 1 || a.meta.LastIndex <= first.meta.LastIndex {
		r.Errorf("after the key was made: %+v", a)
	}
}

func blockPrefix(r *room) {
	r.put("members/a", "1")
	r.put("members/b", "1")
	index := r.answer(r.block("members/", true, 0, 0)).meta.LastIndex
	step := func(what string, change func(), keys int) {
		r.Helper()
		q := r.block("members/", true, index, time.Minute)
		r.put("membership", what) // not below members/
		r.silent("a change outside", q)
		change()
		a := r.answer(q)
		if len(a.pairs) != keys || a.meta.LastIndex <= index {
			r.Errorf("after %s: %d keys, index %d after %d", what, len(a.pairs), a.meta.LastIndex, index)
		}
		index = a.meta.LastIndex
	}
	step("a change", func() { r.put("members/b", "2") }, 2)
	step("a new key", func() { r.put("members/c", "1") }, 3)
	step("a deletion", func() { r.drop("members/a") }, 2)
	step("a deletion of the newest", func() { r.drop("members/c") }, 1)
	step("a deletion of the last", func() { r.drop("members/b") }, 0)
	step("a key that comes back", func() { r.put("members/a", "1") }, 1)
}

func blockTimeout(r *room) {
	const wait = 300 * time.Millisecond
	r.put("key", "1")
	for _, recurse := range []bool{false, true} {
		first := r.answer(r.block("key", recurse, 0, 0))
		a := r.answer(r.block("key", recurse, first.meta.LastIndex, wait))
		if a.took < wait || a.took > wait+shortly || a.meta.LastIndex != first.meta.LastIndex || len(a.pairs) != 1 {
			r.Errorf("recurse %v: a wait of %s ended after %s with %+v", recurse, wait, a.took, a)
		}
		// An index from the future, as after a restore: the answer comes with the wait's end, and is older.
		a = r.answer(r.block("key", recurse, first.meta.LastIndex+1_000_000, wait))
		if a.took < wait || a.meta.LastIndex != first.meta.LastIndex {
			r.Errorf("recurse %v: an index from the future: %+v", recurse, a)
		}
	}
}
