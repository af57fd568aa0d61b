package session_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	rt "howdah/router/routertest"
)

// model is a PostgreSQL backend reduced to what matters here: which message is answered by what,
// and what is made permanent when. It is told one client message at a time.
type model struct {
	rng        *rand.Rand
	status     byte
	implicit   bool // something ran outside a transaction block and is not committed yet
	dirty      bool // something ran inside the block
	skipping   bool
	copying    byte // 'Q' or 'E': what began the copy that takes data now
	statements map[string]string
	portal     string

	out []byte
	// commits holds, for each thing made permanent, how long out was once the client was told.
	commits []int
	untold  int // made permanent, and out does not tell of it yet
}

func (m *model) say(b []byte) {
	m.out = append(m.out, b...)
}

// told: the client learns of everything permanent by what has been said so far.
func (m *model) told() {
	for ; m.untold > 0; m.untold-- {
		m.commits = append(m.commits, len(m.out))
	}
}

func (m *model) commit() {
	if m.implicit || m.dirty {
		m.untold++
	}
	m.implicit, m.dirty = false, false
}

func (m *model) fail() {
	m.say(rt.Error("XX000", "no"))
	m.implicit, m.dirty = false, false
	if m.status == 'T' {
		m.status = 'E'
	}
}

// run executes a statement; false if it failed.
func (m *model) run(sql string) bool {
	if m.rng.IntN(12) == 0 && sql != "COMMIT" && sql != "ROLLBACK" {
		return false
	}
	switch sql {
	case "COMMIT":
		if m.status == 'T' {
			m.commit()
		}
		m.status = 'I'
	case "ROLLBACK":
		m.dirty, m.implicit = false, false
		m.status = 'I'
	case "BEGIN":
		if m.status == 'E' {
			return false
		}
		m.status = 'T'
		m.dirty = m.dirty || m.implicit
		m.implicit = false
	case "INSERT":
		switch m.status {
		case 'E':
			return false
		case 'T':
			m.dirty = true
		default:
			m.implicit = true
		}
	case "SHOW x":
		return m.status != 'E'
	}
	return true
}

func (m *model) receive(typ byte, body []byte) {
	if m.copying != 0 {
		m.receiveCopy(typ)
		return
	}
	if m.skipping && typ != 'S' {
		return
	}
	switch typ {
	case 'Q':
		sql := string(bytes.TrimRight(body, "\x00"))
		if sql == "COPY" && m.status != 'E' {
			m.say(rt.CopyIn)
			m.copying = 'Q'
			return
		}
		m.finishQuery(m.run(sql))
	case 'S':
		m.skipping = false
		// No other Execute may begin a copy that nobody feeds.
		if m.portal == "COPY" {
			m.portal = ""
		}
		if m.statements[""] == "COPY" {
			m.statements[""] = "INSERT"
		}
		if m.status == 'I' {
			m.commit()
		}
		m.say(rt.Ready(m.status))
		m.told()
	case 'd', 'c', 'f', 'H':
	default:
		if !m.extended(typ, body) {
			m.fail()
			m.skipping = true
		}
	}
}

func (m *model) finishQuery(ok bool) {
	if !ok {
		m.fail()
	} else {
		if m.status == 'I' {
			m.commit()
		}
		m.say(rt.Complete("OK"))
		m.told()
	}
	m.say(rt.Ready(m.status))
}

func (m *model) extended(typ byte, body []byte) bool {
	name, rest, _ := bytes.Cut(body, []byte{0})
	portal := m.portal
	if typ == 'E' && portal == "COPY" {
		m.portal = ""
	}
	if m.rng.IntN(25) == 0 {
		return false
	}
	switch typ {
	case 'P':
		sql, _, _ := bytes.Cut(rest, []byte{0})
		if _, taken := m.statements[string(name)]; taken && len(name) > 0 {
			return false
		}
		m.statements[string(name)] = string(sql)
		m.say(rt.ParseComplete)
	case 'B':
		statement, _, _ := bytes.Cut(rest, []byte{0})
		sql, there := m.statements[string(statement)]
		if !there {
			return false
		}
		m.portal = sql
		m.say(rt.BindComplete)
	case 'D':
		m.say(rt.NoData)
	case 'C':
		m.say(rt.CloseComplete)
	case 'E':
		if portal == "" {
			return false
		}
		if portal == "COPY" && m.status != 'E' {
			m.say(rt.CopyIn)
			m.copying = 'E'
			return true
		}
		if !m.run(portal) {
			return false
		}
		m.say(rt.Complete("OK"))
		// An explicit COMMIT is told by its own completion.
		if portal == "COMMIT" {
			m.told()
		}
	}
	return true
}

func (m *model) receiveCopy(typ byte) {
	by := m.copying
	ok := m.rng.IntN(10) != 0
	switch typ {
	case 'S', 'H':
		return
	case 'd':
		if ok {
			return
		}
	case 'f':
		ok = false
	}
	m.copying = 0
	if ok {
		ok = m.run("INSERT")
	}
	switch {
	case by == 'Q':
		m.finishQuery(ok)
	case ok:
		m.say(rt.Complete("COPY 1"))
	default:
		m.fail()
		m.skipping = true
	}
}

var texts = []string{"INSERT", "INSERT", "BEGIN", "COMMIT", "ROLLBACK", "SHOW x"}

// clientMessage makes up one message.
func clientMessage(rng *rand.Rand) []byte {
	names := []string{"", "", "a", "b"}
	name := names[rng.IntN(len(names))]
	switch rng.IntN(9) {
	case 0, 1:
		return rt.Query(texts[rng.IntN(len(texts))])
	case 2:
		return rt.Parse(name, texts[rng.IntN(len(texts))])
	case 3:
		return rt.Bind("", name)
	case 4:
		return rt.Describe("")
	case 5, 6:
		return rt.Execute("")
	case 7:
		return rt.Flush
	}
	return rt.Sync
}

// copyMessages make up a copy of one batch, sent whole. A Sync inside of it is left out: whether
// the server counts it depends on a race that only the server knows the end of.
func copyMessages(rng *rand.Rand) [][]byte {
	end := rt.CopyDone
	if rng.IntN(4) == 0 {
		end = rt.CopyFail("no")
	}
	if rng.IntN(2) == 0 {
		return [][]byte{rt.Query("COPY"), rt.CopyData([]byte("x")), rt.CopyData([]byte("y")), end}
	}
	return [][]byte{rt.Parse("", "COPY"), rt.Bind("", ""), rt.Execute(""), rt.CopyData([]byte("x")), end, rt.Sync}
}

// The machine is run against the model with messages made up, and arriving, in any order. At every
// moment: if the server has made something permanent of which the client has not been told, then
// the outcome counts as unknown. In the end, both agree that nothing is outstanding.
func TestAgainstTheModel(t *testing.T) {
	runs := 3000
	if testing.Short() {
		runs = 300
	}
	for seed := range uint64(runs) {
		rng := rand.New(rand.NewPCG(seed, 7))
		b := ready()
		m := &model{rng: rng, status: 'I', statements: map[string]string{}}
		var sent [][]byte // on the way to the server
		delivered := 0    // bytes of m.out that the router has passed on
		for step := range 120 {
			switch rng.IntN(5) {
			case 0, 1:
				if len(sent) > 20 {
					break
				}
				messages := [][]byte{clientMessage(rng)}
				if rng.IntN(12) == 0 {
					messages = copyMessages(rng)
				}
				for _, msg := range messages {
					b.client.feed(msg)
					sent = append(sent, msg)
				}
			case 2, 3:
				if len(sent) > 0 {
					m.receive(sent[0][0], sent[0][5:])
					sent = sent[1:]
				}
			case 4:
				n := rng.IntN(len(m.out) - delivered + 1)
				b.server.feed(m.out[delivered : delivered+n])
				delivered += n
			}
			untold := m.untold
			for _, at := range m.commits {
				if at > delivered {
					untold++
				}
			}
			// In the middle of a message the client is told nothing at all, whatever the outcome.
			if untold > 0 && !b.MidMessage() && !b.OutcomeUnknown() {
				t.Fatalf("seed %d, step %d: %d commits of which the client was not told, and the outcome counts as known", seed, step, untold)
			}
		}
		for _, msg := range [][]byte{rt.CopyDone, rt.Sync} {
			b.client.feed(msg)
			sent = append(sent, msg)
		}
		for _, msg := range sent {
			m.receive(msg[0], msg[5:])
		}
		b.server.feed(m.out[delivered:])
		if b.Busy() || b.Status() != m.status || b.client.err != nil || b.server.err != nil {
			t.Fatalf("seed %d: busy %v, status %q, want %q", seed, b.Busy(), b.Status(), m.status)
		}
	}
}
