package split

import (
	"fmt"
	"maps"
	"strings"

	rt "howdah/router/routertest"
	"howdah/router/wire"
)

// database is what a primary and its standby both have: the standby of the model is never behind.
type database struct{ rows int }

// backend is a PostgreSQL server process reduced to what a client of the model can tell apart: names and texts of statements, portals, settings, transactions,
// what is skipped after an error. A standby refuses to write, and nothing else.
type backend struct {
	db      *database
	standby bool

	statements, portals map[string]string
	session, local      map[string]string // settings
	saved               map[string]string // session, as it was before the transaction
	temp, savedTemp     bool
	added               int  // rows of the transaction
	status              byte // of the transaction block
	readOnly            bool
	running             bool // something ran since the last transaction ended
	skipping            bool

	out []byte
}

func newBackend(db *database, standby bool) *backend {
	return &backend{db: db, standby: standby, statements: map[string]string{}, portals: map[string]string{}, session: map[string]string{}, local: map[string]string{}, status: 'I'}
}

func (k *backend) say(m []byte) { k.out = append(k.out, m...) }

// take carries out one message.
func (k *backend) take(typ byte, body []byte) {
	if k.skipping && typ != 'S' {
		return
	}
	failed := ""
	switch typ {
	case 'Q':
		k.query(strings.TrimSuffix(string(body), "\x00"))
		return
	case 'S':
		k.skipping = false
		k.endImplicit(true)
		k.say(rt.Ready(k.status))
		return
	case 'H':
		return
	case 'P':
		parts := strings.SplitN(string(body), "\x00", 3)
		failed = k.parse(parts[0], parts[1])
	case 'B':
		parts := strings.SplitN(string(body), "\x00", 3)
		failed = k.bind(parts[0], parts[1])
	case 'D':
		failed = k.describe(body[0], strings.TrimSuffix(string(body[1:]), "\x00"))
	case 'C':
		k.close(body[0], strings.TrimSuffix(string(body[1:]), "\x00"))
	case 'E':
		name, _, _ := strings.Cut(string(body), "\x00")
		if failed = k.execute(name); failed == "" {
			return
		}
	}
	if failed != "" {
		k.fail(failed)
		k.skipping = true
	}
}

func (k *backend) fail(code string) {
	k.say(rt.Error(code, "no"))
	if k.status == 'T' {
		k.status = 'E'
	}
	k.endImplicit(false)
}

// endImplicit ends a transaction that no BEGIN began.
func (k *backend) endImplicit(commit bool) {
	if k.status == 'I' {
		k.end(commit)
	}
}

func (k *backend) start() {
	if !k.running {
		k.running, k.saved, k.savedTemp = true, maps.Clone(k.session), k.temp
	}
}

func (k *backend) end(commit bool) {
	if k.running && !commit {
		k.session, k.temp, k.added = k.saved, k.savedTemp, 0
	}
	k.db.rows += k.added
	k.added, k.running, k.readOnly, k.status = 0, false, false, 'I'
	clear(k.local)
	clear(k.portals)
}

func ends(sql string) bool { return sql == "COMMIT" || sql == "ROLLBACK" }

func (k *backend) parse(name, sql string) string {
	if name == "" {
		delete(k.statements, "") // also if it fails
	}
	switch {
	case strings.HasPrefix(sql, "SELEC "):
		return "42601"
	case k.status == 'E' && !ends(sql):
		return "25P02"
	case name != "" && k.statements[name] != "":
		return "42P05"
	}
	k.statements[name] = sql
	k.say(rt.Message('1'))
	return ""
}

func (k *backend) bind(portal, name string) string {
	sql, known := k.statements[name]
	switch {
	case !known:
		return "26000"
	case k.status == 'E' && !ends(sql):
		return "25P02"
	case portal != "" && k.portals[portal] != "":
		return "42P03"
	}
	k.portals[portal] = sql
	k.say(rt.Message('2'))
	return ""
}

func (k *backend) describe(of byte, name string) string {
	texts, missing := k.statements, "26000"
	if of == 'P' {
		texts, missing = k.portals, "34000"
	}
	sql, known := texts[name]
	switch {
	case !known:
		return missing
	case k.status == 'E' && !ends(sql):
		return "25P02"
	}
	if of == 'S' {
		k.say(rt.Message('t', rt.Int16(0)))
	}
	k.say(rt.RowDescription(sql))
	return ""
}

func (k *backend) close(of byte, name string) {
	if of == 'S' {
		delete(k.statements, name)
	} else {
		delete(k.portals, name)
	}
	k.say(rt.Message('3'))
}

func (k *backend) execute(portal string) string {
	sql, known := k.portals[portal]
	switch {
	case !known:
		return "34000"
	case sql == "done":
		return "55000"
	case sql == "DISCARD ALL" && k.running:
		return "25001"
	}
	k.portals[portal] = "done"
	return k.run(sql)
}

// query carries out a Query: it takes the place of the unnamed statement, and is one transaction unless it says otherwise.
func (k *backend) query(text string) {
	delete(k.statements, "")
	delete(k.portals, "")
	all := strings.Split(text, ";")
	for _, sql := range all {
		failed := ""
		switch sql = strings.TrimSpace(sql); {
		case strings.Contains(text, "SELEC "):
			failed = "42601"
		case sql == "DISCARD ALL" && len(all) > 1:
			failed = "25001"
		default:
			failed = k.run(sql)
		}
		if failed != "" {
			k.fail(failed)
			break
		}
	}
	k.endImplicit(true)
	k.say(rt.Ready(k.status))
}

// run executes a statement, says what it returns and completes it; or returns an SQLSTATE.
func (k *backend) run(sql string) string {
	if k.status == 'E' && !ends(sql) {
		return "25P02"
	}
	words := strings.Fields(sql)
	writes := words[0] == "INSERT" || words[0] == "CREATE" || strings.Contains(sql, "hidden")
	switch {
	case writes && (k.standby || k.readOnly):
		return "25006"
	case strings.Contains(sql, "1/0"):
		return "22012"
	case words[0] == "BEGIN":
		k.start()
		k.status = 'T'
		k.readOnly = k.readOnly || strings.Contains(sql, "READ ONLY")
	case ends(sql):
		k.end(sql == "COMMIT" && k.status != 'E')
	case sql == "DISCARD ALL" && k.status != 'I':
		return "25001"
	case words[0] == "ROLLBACK": // to a savepoint that is not there
		return "3B001"
	default:
		k.start()
		if failed := k.effect(sql, words, writes); failed != "" {
			return failed
		}
	}
	k.say(rt.Complete(words[0]))
	return ""
}

// effect is what a statement does inside its transaction.
func (k *backend) effect(sql string, words []string, writes bool) string {
	switch words[0] {
	case "SET":
		set := k.session
		if words[1] == "LOCAL" {
			set, words = k.local, words[1:]
		}
		set[words[1]] = words[len(words)-1]
		if set := k.session; words[1] == "SESSION" {
			delete(set, "ROLE")
		}
	case "RESET", "DISCARD":
		for name := range k.session {
			if words[0] == "DISCARD" || name == words[1] || words[1] == "ALL" && name != "ROLE" && name != "SESSION" {
				delete(k.session, name)
			}
		}
		if words[0] == "DISCARD" {
			k.temp = false
			k.deallocateAll()
		}
	case "CREATE":
		k.temp = true
	case "DEALLOCATE":
		if words[1] == "ALL" {
			k.deallocateAll()
		} else if _, known := k.statements[words[1]]; !known {
			return "26000"
		} else {
			delete(k.statements, words[1])
		}
	default:
		if writes {
			k.added++
		}
		if strings.Contains(sql, "set_config") {
			k.session["a.b"] = "configured"
		} else if strings.Contains(sql, "mine()") {
			k.session["c.d"] = "mine"
		}
		k.say(rt.Row(k.shown(sql)))
	}
	return ""
}

// deallocateAll takes all statements away that have names.
func (k *backend) deallocateAll() {
	maps.DeleteFunc(k.statements, func(name, _ string) bool { return name != "" })
}

// shown is what a statement sees: its own text, the settings in force, what is committed and what its transaction has added, whether temporary objects shadow others.
func (k *backend) shown(sql string) string {
	force := maps.Clone(k.session)
	maps.Copy(force, k.local)
	return fmt.Sprintf("%s %v %d %v", sql, force, k.db.rows+k.added, k.temp)
}

// eachMessage calls f with each message of b.
func eachMessage(b []byte, f func(typ byte, body, whole []byte)) {
	for len(b) > 0 {
		size := wire.ParseHeader(b).Size()
		f(b[0], b[wire.HeaderSize:size], b[:size])
		b = b[size:]
	}
}
