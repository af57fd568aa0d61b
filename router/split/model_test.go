package split

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// modelFaults are ways to get it wrong that the model must find.
type modelFaults struct {
	noSettings, noReset, noPrepare, oneGeneration, noErrors, alwaysIdle, alwaysAnswered, noPin, noInject, noTakeOver, noStray, bindRuns bool
}

// model is a session: a client that does not wait for answers, a router that does with the orders of Tracker and Reply what package router does, a primary and
// a standby. A third backend is sent the same by itself, and the client must be told the same by both.
type model struct {
	rng     *rand.Rand
	faults  modelFaults
	tracker *Tracker
	refused map[string]bool

	primary, standby *backend
	asked            []asked // of the primary, and not answered yet
	unsynced         bool    // messages were passed since the last Sync
	status           byte    // as the primary said last

	have           map[string]uint64
	version, reset uint64

	// sent by the client, held by the router, passed to the primary in part, got by the client.
	sent, held, passed, got []byte
	// unnamed: what the unnamed statement is does not depend on whether the server has passed over a Parse or a Close of it.
	unnamed                  bool
	reads, repeats, takeOver int
}

// asked is a message on its way to the primary. Of what it says to one that is hidden the client gets nothing, but an error where that belongs to what it sent itself.
type asked struct {
	message []byte
	hidden  bool
}

func (m *model) Has(text []byte) bool { return m.refused[string(text)] }

func newModel(seed uint64, faults modelFaults) *model {
	m := &model{rng: rand.New(rand.NewPCG(seed, 7)), faults: faults, refused: map[string]bool{}, primary: newBackend(&database{}, false), status: 'I'}
	m.tracker = newTracker()
	m.tracker.Refused = m
	return m
}

// writes is a text that only the server knows to write. It is sent alone: behind a row that the client has got it could not be repeated.
const writes = "SELECT n FROM hidden"

// texts are what the client says.
var texts = []string{
	"SELECT 1", "SELECT 2", "SELECT 3", "SELECT n FROM x", "SELECT calm()", "SELECT 1/0", "SELEC 1", "INSERT INTO t VALUES (1)", "SELECT mine()",
	"SELECT set_config('a.b', 'c', false)", "SET a.b = 1", "SET a.b = 2", "SET c.d = 1", "SET LOCAL a.b = 3", "RESET a.b", "RESET ALL", "SET ROLE r", "SET ROLE s", "SET SESSION AUTHORIZATION u", "DISCARD ALL",
	"BEGIN", "BEGIN READ ONLY", "COMMIT", "ROLLBACK", "CREATE TEMP TABLE x (n int)", "DEALLOCATE a", "DEALLOCATE ALL",
}

// text favours reads, or nothing would ever be asked of a standby.
func (m *model) text() string {
	if m.rng.IntN(4) > 0 {
		return texts[m.rng.IntN(5)]
	}
	return texts[m.rng.IntN(len(texts))]
}

// speak returns what the client sends next. It uses the unnamed statement only where no Parse of it was passed over behind an error, as DESIGN.md says.
func (m *model) speak() []byte {
	switch m.rng.IntN(18) {
	case 4:
		return m.say(rt.Query(writes))
	case 5:
		return m.say(extended(writes))
	case 0, 1:
		return m.say(rt.Query(m.text()))
	case 2:
		return m.say(rt.Query(m.text() + "; " + m.text()))
	case 3:
		if m.rng.IntN(2) == 0 {
			return m.say(join(rt.Parse("", m.text()), rt.Bind("", ""), rt.Sync)) // and not executed
		}
		return m.say(extended(m.text()))
	case 6:
		return m.say(join(rt.Parse("", m.text()), rt.Message('D', []byte("S\x00")), rt.Sync))
	case 7:
		return m.say(rt.Query("ROLLBACK"))
	case 8: // what was pinned is so no longer
		return m.say(rt.Query("DISCARD ALL"))
	case 9:
		return m.say(rt.Query("BEGIN READ ONLY"))
	case 10, 11:
		name := []string{"a", "b"}[m.rng.IntN(2)]
		return join(rt.Message('C', []byte("S"+name+"\x00")), rt.Parse(name, m.text()), rt.Sync)
	case 12, 13:
		name := []string{"a", "b"}[m.rng.IntN(2)]
		return join(rt.Bind("", name), rt.Execute(""), rt.Sync)
	}
	var b []byte
	usable, mine := m.unnamed, m.unnamed
	for range 1 + m.rng.IntN(4) {
		name, portal := []string{"", "", "a", "b"}[m.rng.IntN(4)], []string{"", "", "", "p"}[m.rng.IntN(4)]
		kind := m.rng.IntN(9)
		if name == "" {
			switch {
			case kind < 2:
				usable, mine = true, len(b) == 0
			case kind == 6:
				usable, mine = len(b) == 0, len(b) == 0
			case !usable:
				continue
			}
		}
		switch kind {
		case 0, 1:
			b = append(b, rt.Parse(name, m.text())...)
		case 2, 3, 4:
			if b = append(b, rt.Bind(portal, name)...); m.rng.IntN(6) > 0 {
				b = append(b, rt.Execute(portal)...)
			}
		case 5:
			b = append(b, rt.Message('D', []byte("S"+name+"\x00"))...)
		case 6:
			b = append(b, rt.Message('C', []byte("S"+name+"\x00"))...)
		case 7:
			b = append(b, join(rt.Bind(portal, name), rt.Describe(portal), rt.Execute(portal))...)
		case 8:
			if m.rng.IntN(3) == 0 {
				b = append(b, rt.Flush...)
			}
		}
	}
	m.unnamed = mine
	return append(b, rt.Sync...)
}

// say is for what begins with a Query or a Parse of the unnamed statement.
func (m *model) say(b []byte) []byte {
	m.unnamed = true
	return b
}

func (m *model) idle() bool {
	return m.faults.alwaysIdle || m.status == 'I' && m.answered()
}

func (m *model) answered() bool { return len(m.asked) == 0 && len(m.passed) == 0 && !m.unsynced }

// ask sends the primary a message.
func (m *model) ask(message []byte, hidden bool) {
	m.asked = append(m.asked, asked{message, hidden})
	if message[0] != 'Q' {
		m.unsynced = message[0] != 'S'
	}
}

// answer has the primary carry out the oldest message.
func (m *model) answer() {
	a := m.asked[0]
	m.asked = m.asked[1:]
	m.primary.out = nil
	m.primary.take(a.message[0], a.message[5:])
	eachMessage(m.primary.out, func(typ byte, body, whole []byte) {
		switch typ {
		case 'Z':
			m.status = body[0]
		case 'E':
			if !m.faults.noErrors && !(a.hidden && a.message[0] == 'Q') {
				m.tracker.ServerError()
			}
		}
		if !a.hidden || typ == 'E' && a.message[0] != 'Q' {
			m.got = append(m.got, whole...)
		}
	})
}

// deal carries out the orders about what the client has sent, as far as they go.
func (m *model) deal() {
	for len(m.held) > 0 {
		if m.faults.noPin {
			m.tracker.state.pin = Unpinned
		}
		if m.answered() || m.faults.alwaysAnswered {
			m.tracker.Answered()
		}
		o := m.tracker.FromClient(m.held, m.idle())
		if c := m.tracker.state.pending; c != nil && m.faults.bindRuns {
			c.awaits = false
		}
		switch o.Verb {
		case More:
			return
		case Pass:
			m.passed, m.held = append(m.passed, m.held[:o.N]...), m.held[o.N:]
			for len(m.passed) >= wire.HeaderSize && len(m.passed) >= wire.ParseHeader(m.passed).Size() {
				size := wire.ParseHeader(m.passed).Size()
				m.ask(bytes.Clone(m.passed[:size]), false)
				m.passed = m.passed[size:]
			}
		case Inject:
			if injected := []byte(injection(m.tracker)); !m.faults.noInject && !(m.faults.noStray && injected[0] == 'C') {
				m.ask(injected, true)
			}
		case TakeOver:
			m.takeOver++
			if text := m.tracker.TakeOver(); !m.faults.noTakeOver {
				m.ask(text, true)
			}
			m.rollBack()
		case Read:
			if m.read(m.held[:o.N]) {
				m.held = m.held[o.N:]
			}
		}
	}
}

func (m *model) rollBack() {
	if m.standby != nil {
		m.standby.take('Q', []byte("ROLLBACK\x00"))
	}
}

// read has the standby carry out a batch, as auto.read does.
func (m *model) read(batch []byte) (done bool) {
	if !m.ready() {
		m.tracker.Refuse()
		return false
	}
	if m.faults.oneGeneration {
		for _, p := range m.tracker.batch.needs {
			if m.have[p.name] > 0 {
				m.have[p.name] = p.generation
			}
		}
	}
	out, hidden := m.tracker.Prepare(nil, m.have)
	if m.faults.noPrepare {
		out, hidden = nil, 0
	}
	m.standby.out = nil
	eachMessage(append(out, batch...), func(typ byte, body, _ []byte) { m.standby.take(typ, body) })
	begins, _, _ := m.tracker.BeginsBlock()
	reply := Reply{Hidden: hidden, Longest: 1 << 20, Begins: begins}
	if done = m.reply(&reply, m.standby.out); done {
		m.reads++
		m.tracker.Done(reply.Status(), reply.Failed())
		return true
	}
	m.repeats++
	if begins {
		m.rollBack()
	}
	m.tracker.Refuse()
	return false
}

// ready returns whether there is a standby in the state of the session.
func (m *model) ready() bool {
	version, reset := m.tracker.SettingsVersion()
	if m.rng.IntN(10) == 0 {
		m.standby = nil // it went away
	}
	if m.tracker.InBlock() {
		return m.standby != nil
	}
	if m.rng.IntN(10) == 0 {
		return false
	}
	if m.standby == nil || m.reset != reset && !m.faults.noReset {
		m.standby, m.have = newBackend(m.primary.db, true), map[string]uint64{}
		m.version, m.reset = 0, reset
	}
	for _, text := range m.tracker.SettingsSince(m.version) {
		if !m.faults.noSettings {
			m.standby.take('Q', append(bytes.Clone(text), 0))
		}
	}
	m.version = version
	return true
}

// reply gives the client what the standby says, in pieces.
func (m *model) reply(reply *Reply, out []byte) (done bool) {
	shown := 0
	for {
		o := reply.FromServer(out[:shown])
		switch o.Verb {
		case Send, Finished:
			m.got = append(m.got, out[:o.N]...)
			out, shown = out[o.N:], shown-o.N
			if o.Verb == Finished {
				if reply.Failed() {
					Doubt(m.have)
				}
				return true
			}
		case Drop:
			out = append(bytes.Clone(out[:o.At]), out[o.At+o.N:]...)
			shown -= o.N
		case Repeat:
			if o.Code == "25006" {
				m.tracker.Texts(func(text []byte) { m.refused[string(text)] = true })
			}
			Doubt(m.have)
			return false
		case Need:
			shown = min(len(out), shown+1+m.rng.IntN(40))
		default:
			panic(fmt.Sprintf("%+v of a standby that lives", o))
		}
	}
}

// run returns what the client was told and should have been told, once it has said so much and everything is answered.
func (m *model) run(batches int) (got, want []byte) {
	for range batches {
		b := m.speak()
		m.sent = append(m.sent, b...)
		for len(b) > 0 {
			n := min(len(b), 1+m.rng.IntN(200))
			m.held, b = append(m.held, b[:n]...), b[n:]
			m.deal()
		}
		wait := m.rng.IntN(6) > 0
		for len(m.asked) > 0 && (wait || m.rng.IntN(3) > 0) {
			m.answer()
		}
	}
	for len(m.asked) > 0 {
		m.answer()
	}
	alone := newBackend(&database{}, false)
	eachMessage(m.sent, func(typ byte, body, _ []byte) { alone.take(typ, body) })
	return m.got, alone.out
}

// words makes messages readable.
func words(b []byte) (all []string) {
	eachMessage(b, func(typ byte, body, _ []byte) { all = append(all, fmt.Sprintf("%c %q", typ, body)) })
	return all
}

// difference says where the client was told something else than it should have been; empty if it was not.
func (m *model) difference(batches int) string {
	got, want := m.run(batches)
	if bytes.Equal(got, want) {
		return ""
	}
	g, w := words(got), words(want)
	i := 0
	for i < len(g) && i < len(w) && g[i] == w[i] {
		i++
	}
	from := max(0, i-8)
	return fmt.Sprintf("answer %d:\n got %q\nwant %q\nsent %q", i, g[from:min(len(g), i+3)], w[from:min(len(w), i+3)], words(m.sent))
}

const modelSeeds, modelBatches = 10000, 25

// TestClientIsToldTheSame: whatever a client sends, and whenever, it is told what one server alone tells it.
func TestClientIsToldTheSame(t *testing.T) {
	reads, repeats, takeOvers := 0, 0, 0
	for seed := range uint64(modelSeeds) {
		m := newModel(seed, modelFaults{})
		if d := m.difference(modelBatches); d != "" {
			t.Fatalf("seed %d: %s", seed, d)
		}
		reads, repeats, takeOvers = reads+m.reads, repeats+m.repeats, takeOvers+m.takeOver
	}
	t.Logf("%d batches by the standby, %d repeated, %d blocks taken over", reads, repeats, takeOvers)
	if reads < modelSeeds || repeats < modelSeeds/10 || takeOvers < modelSeeds/10 {
		t.Errorf("the model tests little: %d batches by the standby, %d repeated, %d blocks taken over", reads, repeats, takeOvers)
	}
}

// Each way to get it wrong must show.
func TestModelFindsFaults(t *testing.T) {
	for name, faults := range map[string]modelFaults{
		"settings are not put in force":                 {noSettings: true},
		"the connection is kept over DISCARD ALL":       {noReset: true},
		"statements are not made on the standby":        {noPrepare: true},
		"a name stands for what it stood for":           {oneGeneration: true},
		"errors of the primary are not noticed":         {noErrors: true},
		"a busy session is taken for idle":              {alwaysIdle: true},
		"what was parsed is taken to be there":          {alwaysAnswered: true},
		"nothing pins":                                  {noPin: true},
		"the primary is not given an unnamed statement": {noInject: true},
		"a block is not begun on the primary":           {noTakeOver: true},
		"the primary keeps an unnamed statement":        {noStray: true},
		"what is bound is taken for executed":           {bindRuns: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(modelSeeds) {
				if newModel(seed, faults).difference(modelBatches) != "" {
					return
				}
			}
			t.Error("the model does not find it")
		})
	}
}
