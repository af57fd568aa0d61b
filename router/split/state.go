package split

import (
	"bytes"
	"strings"

	"howdah/router/route/statement"
)

// Pin is why a session stays on the primary with all that it does.
type Pin uint8

// The pins.
const (
	Unpinned Pin = iota
	// PinTemp: it has temporary objects, which only the primary has.
	PinTemp
	// PinSettings: a setting was changed in a way that cannot be followed: by set_config, inside a transaction, or too many.
	PinSettings
	// PinCall: it called a function that may have changed a setting.
	PinCall
	// PinCode: it ran code: DO, CALL, LOAD.
	PinCode
	// PinUnseen: it sent a statement that is too long to be looked at, or that could not be read, or used one that is not known.
	PinUnseen
	// PinServer: no standby takes its login or its settings.
	PinServer
	pins
)

var pinNames = [pins]string{"none", "temp", "settings", "call", "code", "unseen", "server"}

// Pins are the reasons that there are, Unpinned left out.
func Pins() []Pin {
	var all []Pin
	for p := Unpinned + 1; p < pins; p++ {
		all = append(all, p)
	}
	return all
}

// String is one word, for metrics and logs.
func (p Pin) String() string {
	if p >= pins {
		return "unknown"
	}
	return pinNames[p]
}

// Bounds of the settings that are followed.
const (
	maxSettings      = 64
	maxSettingsBytes = 16 << 10
)

// setting is a statement that changed a setting of the session, and that was carried out.
type setting struct {
	name    string
	text    []byte
	version uint64
}

// change is a statement whose answer has not been seen yet.
type change struct {
	kind        statement.Kind
	name        string
	text        []byte
	consistency []byte
	// awaits: it is bound to that portal and has not been executed.
	awaits bool
	portal string
}

// state is what a session has set, as far as it bears on where its statements may go.
type state struct {
	settings, keeping statement.Settings
	parting           statement.Settings
	pin               Pin
	// bound: the server connection has something of the session's that another one cannot be given.
	bound          bool
	wrote, defined bool
	read           bool
	// hidden: SQL's EXECUTE may run a statement of the protocol that does more to the session than read or write.
	hidden bool
	// lists counts the lists of functions. stale: the session may have changed functions since the last; what it has called since then is judged by the next.
	stale bool
	lists uint64
	later later

	list           []setting
	version, reset uint64
	consistency    []byte
	consistencies  Enum

	// Since the session was idle last: the change that was asked for, how many batches were sent, and whether anything failed.
	pending *change
	batches int
	failed  bool
	// Of the batch that is being sent: whether it began while the session was idle, and how many statements were bound in it.
	openIdle bool
	binds    int
	// Of the last statement: forgets says that it may have taken any prepared statement away, takesAway is the name of the only one.
	forgets   bool
	takesAway []byte
	// asks: the last Query or Parse is SET howdah.consistency.
	asks bool
	// after is the pin that something behind a pending DISCARD ALL asks for, boundAfter that it binds the session.
	after      Pin
	boundAfter bool
}

// bind takes in that the session leaves something on its server connection.
func (s *state) bind() {
	s.bound = true
	s.boundAfter = s.boundAfter || s.pending != nil && s.pending.kind == statement.DiscardAll
}

// leaves reports whether a statement may leave something with the server connection that no text brings back: it listens, has a statement of SQL's
// PREPARE, a cursor that outlives its transaction, or calls a function that may do such a thing (an advisory lock, a backup, a connection elsewhere).
func (s *state) leaves(v *statement.Verdict, text []byte) bool {
	switch {
	case v.Has(statement.Listen), v.Has(statement.Prepare), v.Has(statement.Execute), v.Is(statement.FlagHold):
		return true
	case v.Is(statement.FlagUnknownCall):
		p := statement.Classify(text, &s.parting)
		return p.Is(statement.FlagUnknownCall)
	}
	return false
}

// changeFunctions takes in that the session may have changed the functions of its database.
func (s *state) changeFunctions() { s.defined, s.stale = true, true }

// use takes in what the functions are now.
func (s *state) use(harmless, keeping, parting *statement.Functions) {
	if !s.stale && s.settings.Functions == harmless && s.keeping.Functions == keeping && s.parting.Functions == parting {
		return
	}
	s.settings.Functions, s.keeping.Functions, s.parting.Functions = harmless, keeping, parting
	s.lists++
	s.stale = false
	for _, text := range s.later.texts {
		if k := statement.Classify(text, &s.keeping); k.Is(statement.FlagUnknownCall) {
			s.pinTo(PinCall)
		}
		if p := statement.Classify(text, &s.parting); p.Is(statement.FlagUnknownCall) {
			s.bind()
		}
	}
	s.later = later{}
}

// later are texts with calls that went to the primary while the functions were not known.
type later struct {
	texts [][]byte
	bytes int
}

// judgeLater keeps a text that calls something until it is known what the functions are. What is called is taken to write.
func (s *state) judgeLater(text []byte) {
	unknown := s.settings
	unknown.Functions = nil
	if v := statement.Classify(text, &unknown); !v.Is(statement.FlagUnknownCall) {
		return
	}
	s.wrote = true
	if s.later.bytes += len(text); s.later.bytes > maxSettingsBytes || s.pending != nil && s.pending.kind == statement.DiscardAll {
		s.pinTo(PinCall)
		return
	}
	s.later.texts = append(s.later.texts, bytes.Clone(text))
}

func (s *state) pinTo(p Pin) {
	if s.pending != nil && s.pending.kind == statement.DiscardAll && s.after == Unpinned {
		s.after = p
	}
	if s.pin == Unpinned {
		s.pin = p
	}
}

func (s *state) parameter(name, value []byte) {
	switch string(name) {
	case "standard_conforming_strings":
		s.settings.Strings = statement.EscapedStrings
		if string(value) == "on" {
			s.settings.Strings = statement.ConformingStrings
		}
		s.keeping.Strings, s.parting.Strings = s.settings.Strings, s.settings.Strings
	case "client_encoding":
		s.settings.SafeEncoding = statement.SafeEncoding(string(value))
		s.keeping.SafeEncoding, s.parting.SafeEncoding = s.settings.SafeEncoding, s.settings.SafeEncoding
	}
}

// run takes in a Query. alone says that it is sent outside a transaction with nothing outstanding.
func (s *state) run(text []byte, whole, alone bool) {
	s.batches++
	s.forgets, s.takesAway = false, nil
	if !whole {
		s.runUnknown()
		return
	}
	v := statement.Classify(text, &s.settings)
	if s.asks = v.Kind == statement.Set && v.Parameter == statement.HowdahConsistency; s.asks {
		if message, _ := s.bad(v.Value.Of(text)); message != "" {
			return // the primary gets another text
		}
	}
	s.apply(&v, text, alone)
}

// begin takes in that a batch of the extended protocol begins.
func (s *state) begin(idle bool) {
	s.batches++
	s.openIdle, s.binds = idle, 0
}

// runPrepared takes in a Bind: the statement is taken for executed, but for what is followed of it.
func (s *state) runPrepared(p *prepared, portal []byte) {
	s.binds++
	s.forgets, s.takesAway = false, nil
	text, _ := textOf(p.text)
	before := s.pending
	if s.apply(&p.verdict, text, s.openIdle && s.binds == 1); s.pending != nil && s.pending != before {
		s.pending.awaits, s.pending.portal = true, string(portal)
	}
	if s.binds > 1 && s.pending != nil {
		s.pinTo(PinSettings) // a BEGIN in the same batch would make it undoable
	}
}

// execute takes in an Execute.
func (s *state) execute(portal []byte) {
	if c := s.pending; c != nil && c.awaits && string(portal) == c.portal {
		c.awaits = false
	}
}

// sync takes in a Sync. The portals of a batch go with it, but in a transaction block, of which no change is followed.
func (s *state) sync() {
	if s.pending != nil && s.pending.awaits {
		s.pending = nil
	}
}

// runUnknown takes in something of which nothing is known.
func (s *state) runUnknown() {
	s.wrote, s.forgets = true, true
	s.changeFunctions()
	s.pinTo(PinUnseen)
}

// apply takes in what a statement does that goes to the primary.
func (s *state) apply(v *statement.Verdict, text []byte, alone bool) {
	const telling = statement.FlagTemp | statement.FlagSetConfig | statement.FlagUnknownCall | statement.FlagOpaque
	if s.stale {
		s.judgeLater(text)
	}
	if s.leaves(v, text) {
		s.bind()
	}
	if s.hidden && v.Has(statement.Execute) {
		s.pinTo(PinUnseen)
	}
	if v.Read && !v.Is(telling) {
		s.read = true
		return
	}
	s.wrote = s.wrote || !harmless(v)
	s.defined = s.defined || v.Has(statement.Define)
	if v.Is(statement.FlagFunctions|statement.FlagOpaque) || v.Has(statement.Run) {
		s.changeFunctions()
	}
	if v.Kind == statement.Deallocate {
		s.takesAway = nameOf(v.Name.Of(text))
	}
	s.forgets = s.forgets || v.Has(statement.Deallocate) && s.takesAway == nil || v.Has(statement.DeallocateAll) || v.Has(statement.DiscardAll) || v.Is(statement.FlagOpaque)
	switch {
	case v.Is(statement.FlagOpaque):
		s.pinTo(PinUnseen)
	case v.Is(statement.FlagTemp):
		s.pinTo(PinTemp)
	case v.Is(statement.FlagSetConfig), v.Has(statement.SetCharacteristics):
		s.pinTo(PinSettings)
	case v.Has(statement.Run):
		s.pinTo(PinCode)
	case v.Is(statement.FlagUnknownCall):
		if k := statement.Classify(text, &s.keeping); k.Is(statement.FlagUnknownCall) {
			s.changeFunctions() // it may run any text
			s.pinTo(PinCall)
		}
	}
	if v.Statements > 1 {
		if v.Has(statement.Set) || v.Has(statement.Reset) || v.Has(statement.ResetAll) || v.Has(statement.DiscardAll) {
			s.pinTo(PinSettings)
		}
		return
	}
	s.change(v, text, alone)
}

// hides takes in a statement of the protocol that has a name.
func (s *state) hides(v *statement.Verdict, known bool) {
	const telling = statement.FlagTemp | statement.FlagSetConfig | statement.FlagUnknownCall | statement.FlagOpaque
	s.hidden = s.hidden || !known || !v.Read && v.Kind != statement.Modify || v.Is(telling)
}

// harmless reports a statement that writes nothing by itself.
func harmless(v *statement.Verdict) bool {
	const telling = statement.FlagSetConfig | statement.FlagUnknownCall | statement.FlagOpaque
	if v.Statements == 0 {
		return !v.Is(telling)
	}
	switch v.Kind {
	case statement.Show, statement.Set, statement.SetTransaction, statement.Reset, statement.ResetAll, statement.Begin, statement.Commit, statement.Rollback,
		statement.Savepoint, statement.Release, statement.RollbackTo:
		return !v.Is(telling)
	}
	return false
}

// change takes in a statement that changes settings of the session.
func (s *state) change(v *statement.Verdict, text []byte, alone bool) {
	switch v.Kind {
	case statement.Set, statement.Reset:
		switch v.Parameter {
		case statement.TransactionReadOnly, statement.TransactionIsolation, statement.TransactionDeferrable:
			return // of the transaction
		case statement.StandardConformingStrings:
			s.pinTo(PinSettings) // the other statements of the list would be read in another way
			return
		}
		if v.Is(statement.FlagLocal) {
			return
		}
	case statement.ResetAll, statement.DiscardAll:
	default:
		return
	}
	if !alone || s.pending != nil {
		s.pinTo(PinSettings)
		return
	}
	c := &change{kind: v.Kind, name: v.Parameter.String(), text: bytes.Clone(text)}
	if c.name == "" {
		c.name = strings.ToLower(strings.Trim(string(v.Name.Of(text)), `"`))
	}
	if v.Parameter == statement.HowdahConsistency && v.Kind == statement.Set {
		c.consistency = bytes.Clone(v.Value.Of(text))
	}
	s.pending = c
}

// settle takes in that everything that was sent has been answered, outside a transaction. It reports whether the session began anew with it.
func (s *state) settle() (anew bool) {
	c, failed, batches := s.pending, s.failed, s.batches
	s.pending, s.failed, s.batches = nil, false, 0
	switch {
	case c == nil:
	case failed && batches > 1:
		s.pinTo(PinSettings) // whichever of them it was that failed
	case failed:
	default:
		s.commit(c)
		anew = c.kind == statement.DiscardAll
	}
	if anew {
		s.bound = s.boundAfter
	}
	s.after, s.boundAfter = Unpinned, false
	return anew
}

// counts reports whether a setting bears on the session although another one of its name has come: DateStyle is set in parts, and client_encoding is what
// the texts behind it were sent in. last says that there are none.
func counts(old *setting, now *change, last bool) bool {
	switch old.name {
	case "datestyle":
		return now.kind == statement.Set && !bytes.Equal(old.text, now.text)
	case statement.ClientEncoding.String():
		return !last
	}
	return false
}

// commit takes in a change that was carried out.
func (s *state) commit(c *change) {
	s.version++
	kept := s.list[:0]
	size := 0
	for i, old := range s.list {
		lasts := c.kind != statement.DiscardAll && (old.name != c.name || counts(&old, c, i == len(s.list)-1))
		if c.kind == statement.ResetAll { // it leaves these two alone
			lasts = old.name == statement.Role.String() || old.name == statement.SessionAuthorization.String()
		}
		if lasts {
			kept = append(kept, old)
			size += len(old.text)
		}
	}
	s.list = kept
	switch c.kind {
	case statement.DiscardAll:
		s.reset, s.consistency, s.later = s.version, nil, later{}
		if s.pin != PinServer {
			s.pin = s.after
		}
	case statement.ResetAll:
		s.reset, s.consistency = s.version, nil
	default:
		if c.name == statement.HowdahConsistency.String() {
			s.consistency = c.consistency
		}
		if len(s.list) == maxSettings || size+len(c.text) > maxSettingsBytes {
			s.pinTo(PinSettings)
			return
		}
		s.list = append(s.list, setting{name: c.name, text: c.text, version: s.version})
	}
}

// nameOf returns the name of a prepared statement that SQL names so; nil if that is not worked out.
func nameOf(written []byte) []byte {
	const longest = 63 // PostgreSQL cuts off what is longer, in SQL only
	if n := len(written); n > 2 && written[0] == '"' && written[n-1] == '"' {
		if written = written[1 : n-1]; len(written) > longest || bytes.IndexByte(written, '"') >= 0 {
			return nil
		}
		return written
	}
	name := make([]byte, 0, longest)
	for _, c := range written {
		switch {
		case c >= 0x80 || len(name) == longest || c == '"':
			return nil // the case of other letters is the server's
		case c >= 'A' && c <= 'Z':
			c |= 0x20
		}
		name = append(name, c)
	}
	if len(name) == 0 {
		return nil
	}
	return name
}

// since returns the statements that came after a version, oldest first.
func (s *state) since(version uint64) [][]byte {
	var texts [][]byte
	for _, one := range s.list {
		if one.version > version {
			texts = append(texts, one.text)
		}
	}
	return texts
}
