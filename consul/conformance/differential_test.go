package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"howdah/consul/consultest"
)

// twin sends one script of requests to one server, and writes down the answers in a form in which
// two servers can be compared: sessions and indexes by the order in which they appeared.
type twin struct {
	t        *testing.T
	address  string
	sessions []string
	indexes  map[string]string // of Consul -> by order
	modified map[string]uint64 // the newest ModifyIndex that was seen of each key
}

func newTwin(t *testing.T, address string) *twin {
	return &twin{t: t, address: address, indexes: map[string]string{"0": "0"}, modified: map[string]uint64{}}
}

// request is one line of a script. In path and body {s0} stands for the first session that was made, {s9} for one
// that was not, {m:key} for the key's ModifyIndex as last seen.
type request struct{ method, path, body string }

func (r request) String() string { return r.method + " " + r.path + " " + r.body }

var (
	sessionMark  = regexp.MustCompile(`\{s(\d+)\}`)
	modifiedMark = regexp.MustCompile(`\{m:([^}]*)\}`)
	indexField   = regexp.MustCompile(`"(CreateIndex|ModifyIndex)":(\d+)`)
	indexInText  = regexp.MustCompile(`modify index (\d+) != (\d+)`)
)

const noSession = "00000000-0000-4000-8000-000000000000"

func (w *twin) fill(s string) string {
	s = sessionMark.ReplaceAllStringFunc(s, func(m string) string {
		i, _ := strconv.Atoi(sessionMark.FindStringSubmatch(m)[1])
		if i < len(w.sessions) {
			return w.sessions[i]
		}
		return noSession
	})
	return modifiedMark.ReplaceAllStringFunc(s, func(m string) string {
		return strconv.FormatUint(w.modified[modifiedMark.FindStringSubmatch(m)[1]], 10)
	})
}

// send returns the status and the body of the answer, normalised.
func (w *twin) send(r request) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), r.method, w.address+w.fill(r.path), strings.NewReader(w.fill(r.body)))
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if r.path == "/v1/session/create" && resp.StatusCode == http.StatusOK {
		var made struct{ ID string }
		if err := json.Unmarshal(body, &made); err != nil {
			w.t.Fatal(err)
		}
		w.sessions = append(w.sessions, made.ID)
	}
	w.learn(body)
	typ, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if len(body) == 0 {
		typ = ""
	}
	hasIndex := resp.Header.Get("X-Consul-Index") != ""
	return fmt.Sprintf("%d %s index=%v %s", resp.StatusCode, typ, hasIndex, w.normal(string(body)))
}

// learn keeps the ModifyIndex of every pair in an answer.
func (w *twin) learn(body []byte) {
	type pair struct {
		Key         string
		ModifyIndex uint64
	}
	var pairs []pair
	var txn struct{ Results []struct{ KV pair } }
	if json.Unmarshal(body, &txn) == nil {
		for _, r := range txn.Results {
			pairs = append(pairs, r.KV)
		}
	}
	var list []pair
	if json.Unmarshal(body, &list) == nil {
		pairs = append(pairs, list...)
	}
	for _, p := range pairs {
		if p.Key != "" {
			w.modified[p.Key] = p.ModifyIndex
		}
	}
}

func (w *twin) normal(body string) string {
	for i, id := range w.sessions {
		body = strings.ReplaceAll(body, id, fmt.Sprintf("s%d", i))
	}
	name := func(index string) string {
		if _, ok := w.indexes[index]; !ok {
			w.indexes[index] = fmt.Sprintf("i%d", len(w.indexes))
		}
		return w.indexes[index]
	}
	body = indexInText.ReplaceAllStringFunc(body, func(m string) string {
		p := indexInText.FindStringSubmatch(m)
		return "modify index " + name(p[1]) + " != " + name(p[2])
	})
	if !json.Valid([]byte(body)) {
		return strings.TrimSpace(body)
	}
	body = indexField.ReplaceAllStringFunc(body, func(m string) string {
		p := indexField.FindStringSubmatch(m)
		return fmt.Sprintf(`%q:%q`, p[1], name(p[2]))
	})
	// The order of fields says nothing, and the metadata that Consul adds to the answer of a
	// transaction that only reads is read by nobody.
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		w.t.Fatalf("%s: %v", body, err)
	}
	if m, is := v.(map[string]any); is {
		for _, k := range []string{"Backend", "ConsistencyLevel", "Index", "KnownLeader", "LastContact", "NotModified", "ResultsFilteredByACLs"} {
			delete(m, k)
		}
	}
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(b.String())
}

// compare runs the script on both servers, line by line.
func compare(t *testing.T, real, ours *twin, script []request) {
	t.Helper()
	var sent []string
	for _, r := range script {
		want, got := real.send(r), ours.send(r)
		sent = append(sent, r.String())
		if d := cmp.Diff(want, got); d != "" {
			from := max(0, len(sent)-8)
			t.Fatalf("after\n  %s\nthe embedded server (+) answers otherwise than consul (-):\n%s", strings.Join(sent[from:], "\n  "), d)
		}
	}
}

func create(body string) request { return request{"PUT", "/v1/session/create", body} }

func txn(ops ...string) request {
	for i, o := range ops {
		ops[i] = `{"KV":{` + o + `}}`
	}
	return request{"PUT", "/v1/txn", "[" + strings.Join(ops, ",") + "]"}
}

// byHand are the corners that random requests seldom reach.
var byHand = []request{
	create(`{"TTL":"10s","LockDelay":"1ms","NodeChecks":[]}`),
	create(`{"TTL":"10s","LockDelay":"1ms","NodeChecks":[],"Behavior":"delete"}`),
	create(`{"TTL":"9s"}`), create(`{"TTL":"25h"}`), create(`{"TTL":"soon"}`), create(`{"Behavior":"x"}`), create(`{"LockDelay":"x"}`), create(`{`),
	create(`{"Node":"nowhere","NodeChecks":[]}`),
	{"PUT", "/v1/session/renew/{s9}", ""}, {"PUT", "/v1/session/destroy/{s9}", ""}, {"GET", "/v1/session/info/{s9}", ""},
	{"PUT", "/v1/session/renew/nonsense", ""},
	{"GET", "/v1/kv/", ""}, {"PUT", "/v1/kv/", "x"}, {"DELETE", "/v1/kv/", ""}, {"GET", "/v1/kv/none", ""}, {"GET", "/v1/kv/none?recurse", ""}, {"GET", "/v1/kv/none?raw", ""},
	{"PUT", "/v1/kv/d/a?flags=7", "value"}, {"GET", "/v1/kv/d/a", ""}, {"GET", "/v1/kv/d/a?raw", ""}, {"GET", "/v1/kv/d/a?consistent", ""}, {"GET", "/v1/kv/d/a?stale&consistent", ""},
	{"GET", "/v1/kv/d/a?ns=x", ""}, {"GET", "/v1/kv/d/a?partition=x", ""}, {"GET", "/v1/kv/d/a?dc=mars", ""}, {"GET", "/v1/kv/d/a?index=x", ""}, {"GET", "/v1/kv/d/a?wait=x", ""},
	{"PUT", "/v1/kv/d/a?cas=1&acquire={s0}", "x"}, {"PUT", "/v1/kv/d/a?acquire=", "x"}, {"PUT", "/v1/kv/d/a?release=", "x"}, {"PUT", "/v1/kv/d/a?acquire={s9}", "x"},
	{"PUT", "/v1/kv/d/a?acquire={s0}", "x"}, {"PUT", "/v1/kv/d/a?acquire={s1}", "x"}, {"PUT", "/v1/kv/d/a?release={s1}", "x"}, {"GET", "/v1/kv/d/a", ""},
	{"PUT", "/v1/kv/d/a", "set keeps the lock"}, {"GET", "/v1/kv/d/a", ""}, {"PUT", "/v1/kv/d/a?acquire={s0}", "again"}, {"GET", "/v1/kv/d/a", ""},
	{"PUT", "/v1/kv/d/a?release={s0}", "x"}, {"GET", "/v1/kv/d/a", ""},
	{"PUT", "/v1/kv/d//b/../c", "cleaned"}, {"GET", "/v1/kv/d/?recurse", ""},
	{"PUT", "/v1/kv/d/empty", ""}, {"GET", "/v1/kv/d/empty", ""},
	{"DELETE", "/v1/kv/d/a?cas=1", ""}, {"DELETE", "/v1/kv/d/a?cas=0", ""}, {"DELETE", "/v1/kv/none?cas=5", ""}, {"DELETE", "/v1/kv/d/a?cas={m:d/a}", ""}, {"DELETE", "/v1/kv/d/a?recurse&cas=1", ""},
	txn(`"Verb":"check-index","Key":"none","Index":5`), txn(`"Verb":"check-index","Key":"d/c","Index":0`), txn(`"Verb":"check-not-exists","Key":"d/c"`), txn(`"Verb":"check-not-exists","Key":"none"`),
	txn(`"Verb":"check-session","Key":"none","Session":"{s0}"`), txn(`"Verb":"check-session","Key":"d/c","Session":"{s0}"`), txn(`"Verb":"get","Key":"none"`), txn(`"Verb":"get-or-empty","Key":"none"`), txn(`"Verb":"get-tree","Key":"d/"`), txn(`"Verb":"get-tree","Key":"none"`),
	txn(`"Verb":"lock","Key":"none","Session":""`), txn(`"Verb":"lock","Key":"none","Session":"{s9}"`), txn(`"Verb":"unlock","Key":"none","Session":"{s0}"`), txn(`"Verb":"unlock","Key":"d/c","Session":""`),
	txn(`"Verb":"cas","Key":"none","Index":5`), txn(`"Verb":"cas","Key":"d/c","Index":0`), txn(`"Verb":"delete-cas","Key":"d/c","Index":1`), txn(`"Verb":"delete-cas","Key":"none","Index":1`), txn(`"Verb":"nonsense","Key":"d/c"`), txn(`"Verb":"set","Key":""`),
	txn(`"Verb":"check-index","Key":"none","Index":5`, `"Verb":"set","Key":"d/x","Value":"eA=="`, `"Verb":"lock","Key":"d/x","Session":"{s9}"`), {"GET", "/v1/kv/d/x", ""},
	txn(`"Verb":"set","Key":"d/x","Value":"eA=="`, `"Verb":"get","Key":"d/x"`, `"Verb":"delete","Key":"d/x"`, `"Verb":"get-or-empty","Key":"d/x"`, `"Verb":"check-not-exists","Key":"d/x"`), {"GET", "/v1/kv/d/x", ""},
	txn(`"Verb":"lock","Key":"d/l","Session":"{s0}","Value":"eA=="`, `"Verb":"unlock","Key":"d/l","Session":"{s0}","Value":"eA=="`, `"Verb":"lock","Key":"d/l","Session":"{s1}","Value":"eQ=="`), {"GET", "/v1/kv/d/l", ""},
	txn(), {"PUT", "/v1/txn", "{"},
	{"PUT", "/v1/session/destroy/{s1}", ""}, {"GET", "/v1/kv/d/l", ""}, // behaviour delete
	{"GET", "/v1/kv/d/?recurse", ""}, {"DELETE", "/v1/kv/d/?recurse", ""}, {"GET", "/v1/kv/d/?recurse", ""},
	{"PUT", "/v1/agent/service/register", `{}`}, {"PUT", "/v1/agent/service/register", `{"Name":"x","Port":1}`}, {"PUT", "/v1/agent/service/deregister/x", ""}, {"PUT", "/v1/agent/service/deregister/x", ""},
}

// atRandom makes requests over a few keys and sessions, so that they meet.
func atRandom(rng *rand.Rand, n int) []request {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	key := func() string { return "f/" + pick("a", "b", "c") }
	session := func() string { return pick("{s0}", "{s1}", "{s2}", "{s9}") }
	index := func(k string) string { return pick("0", "1", "{m:"+k+"}", "{m:"+k+"}", "{m:f/a}") }
	value := func() string { return pick("MQ==", "Mg==", "") }
	op := func() string {
		k := key()
		return fmt.Sprintf(`"Verb":%q,"Key":%q,"Value":%q,"Session":%q,"Index":%s,"Flags":%s`,
			pick("set", "cas", "lock", "lock", "unlock", "delete", "delete-cas", "delete-tree", "get", "get-or-empty", "get-tree", "check-index", "check-session", "check-not-exists"),
			k, value(), session(), index(k), pick("0", "0", "5"))
	}
	script := make([]request, 0, n)
	for range n {
		k := key()
		path := "/v1/kv/" + k
		switch rng.IntN(12) {
		case 0:
			script = append(script, request{"PUT", path + "?acquire=" + session(), value()})
		case 1:
			script = append(script, request{"PUT", path + "?release=" + session(), value()})
		case 2:
			script = append(script, request{"PUT", path + "?cas=" + index(k), value()})
		case 3:
			script = append(script, request{"DELETE", path + "?cas=" + index(k), ""})
		case 4:
			script = append(script, request{"PUT", path, value()})
		case 5:
			script = append(script, request{"GET", path, ""})
		default:
			ops := make([]string, 1+rng.IntN(4))
			for i := range ops {
				ops[i] = op()
			}
			script = append(script, txn(ops...))
		}
		// Both learn the newest indexes, which the next requests name.
		script = append(script, request{"GET", "/v1/kv/f/?recurse", ""})
	}
	return script
}

func TestSameAnswers(t *testing.T) {
	t.Parallel()
	real, ours := newTwin(t, consultest.Start(t).Address), newTwin(t, consultest.StartEmbedded(t))
	compare(t, real, ours, byHand)
	if d := cmp.Diff(slices.Sorted(maps.Keys(real.modified)), slices.Sorted(maps.Keys(ours.modified))); d != "" {
		t.Errorf("they have seen other keys:\n%s", d)
	}
}

func TestSameAnswersAtRandom(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	real, ours := newTwin(t, consultest.Start(t).Address), newTwin(t, consultest.StartEmbedded(t))
	made := create(`{"TTL":"60s","LockDelay":"1ms","NodeChecks":[]}`)
	compare(t, real, ours, []request{made, made, made})
	compare(t, real, ours, atRandom(rand.New(rand.NewPCG(seed, 0)), 600))
}
