package console

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Topic is what SHOW shows.
type Topic string

// shown are the topics.
var shown = map[Topic]func(View) Table{
	"HELP": showHelp, "VERSION": showVersion, "STATE": showState,
	"POOLS": showPools, "CLIENTS": showClients, "SERVERS": showServers, "DATABASES": showDatabases, "LISTS": showLists,
	"LIMITS": showLimits, "STATS": showStats, "STATS_TOTALS": showStatsTotals, "CONFIG": showConfig, "ROUTES": showRoutes, "TOPOLOGY": showTopology,
}

func topicNames() string {
	var names []string
	for _, t := range slices.Sorted(maps.Keys(shown)) {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func showHelp(View) Table {
	t := Table{columns: columns("command", "effect")}
	for _, line := range [][2]string{
		{"SHOW CLIENTS", "every session: id, state, member, the standby that it reads from, or why it does not, route, consistency"},
		{"SHOW CONFIG", "the options in force; changeable: RELOAD applies them"},
		{"SHOW DATABASES", "the databases that sessions are in"},
		{"SHOW LIMITS", "the clients of each user, database and address, and how many it may have"},
		{"SHOW LISTS", "how many of everything"},
		{"SHOW POOLS", "sessions by database and user"},
		{"SHOW ROUTES", "sessions by route, and where the next one goes"},
		{"SHOW SERVERS", "every session's connections to its servers"},
		{"SHOW STATE", "whether the router is paused or draining"},
		{"SHOW STATS, STATS_TOTALS", "what was done since the start, by database"},
		{"SHOW TOPOLOGY", "the members: who serves, how far behind"},
		{"SHOW VERSION", "the router's version"},
		{"PAUSE", "hold new sessions, and each session at its next transaction; waits until all are at rest"},
		{"RESUME", "let them go on"},
		{"RELOAD", "read the options again; says what is in force now and what needs a restart"},
		{"KILL id", "end a session, with 57P01"},
		{"SHUTDOWN", "end the router as SIGTERM does"},
	} {
		t.add(line[0], line[1])
	}
	return t
}

func showVersion(v View) Table {
	t := Table{columns: columns("version")}
	t.add("howdah " + v.Version)
	return t
}

func showState(v View) Table {
	t := Table{columns: columns("key", "value")}
	t.add("active", yesNo(!v.Paused && !v.Draining))
	t.add("paused", yesNo(v.Paused))
	t.add("draining", yesNo(v.Draining))
	return t
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// pool is the sessions of one user in one database.
type pool struct {
	active, waiting, login, readers int
	longest                         time.Duration
}

type poolKey struct{ database, user string }

func pools(v View) map[poolKey]*pool {
	m := map[poolKey]*pool{}
	for _, c := range v.Clients {
		k := poolKey{c.Database, c.User}
		p := m[k]
		if p == nil {
			p = &pool{}
			m[k] = p
		}
		switch {
		case c.State == StateWaiting:
			p.waiting++
			p.longest = max(p.longest, c.Waiting)
		case c.State == StateLogin:
			p.login++
			p.active++
		default:
			p.active++
		}
		if c.Reader != nil {
			p.readers++
		}
	}
	return m
}

func sortedPools(m map[poolKey]*pool) []poolKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b poolKey) int {
		return cmp.Or(cmp.Compare(a.database, b.database), cmp.Compare(a.user, b.user))
	})
}

// A session has its servers to itself, so each active client has one active server, and another one if it reads from a standby.
func showPools(v View) Table {
	t := Table{columns: columns("database", "user", "cl_active#", "cl_waiting#", "cl_active_cancel_req#", "cl_waiting_cancel_req#", "sv_active#",
		"sv_active_cancel#", "sv_being_canceled#", "sv_idle#", "sv_used#", "sv_tested#", "sv_login#", "maxwait#", "maxwait_us#", "pool_mode")}
	m := pools(v)
	for _, k := range sortedPools(m) {
		p := m[k]
		t.add(k.database, k.user, p.active, p.waiting, 0, 0, p.active-p.login+p.readers, 0, 0, 0, 0, 0, p.login,
			int64(p.longest/time.Second), int64(p.longest%time.Second/time.Microsecond), "session")
	}
	return t
}

func sortedClients(v View) []Client {
	return slices.SortedFunc(slices.Values(v.Clients), func(a, b Client) int { return cmp.Compare(a.ID, b.ID) })
}

var connectionColumns = []string{"type", "user", "database", "state", "addr", "port#", "local_addr", "local_port#", "connect_time", "wait#", "wait_us#",
	"close_needed#", "ptr", "link", "remote_pid#", "tls", "application_name", "id#"}

const moment = "2006-01-02 15:04:05 MST"

func showClients(v View) Table {
	t := Table{columns: columns(append(slices.Clone(connectionColumns), "route", "member", "held#", "reads_from", "pinned", "pinned_since", "route_from", "consistency", "consistency_from")...)}
	for _, c := range sortedClients(v) {
		link := ""
		if c.linked() {
			link = "s" + strconv.FormatUint(c.ID, 10)
		}
		var readsFrom, pinnedSince any
		if c.Reader != nil {
			readsFrom = c.Reader.Member
		}
		if c.Pinned != "" {
			pinnedSince = c.PinnedAt.Format(moment)
		}
		addr, port := hostPort(c.Addr)
		localAddr, localPort := hostPort(c.LocalAddr)
		t.add("C", c.User, c.Database, c.State, addr, port, localAddr, localPort, c.ConnectedAt.Format(moment),
			int64(c.Waiting/time.Second), int64(c.Waiting%time.Second/time.Microsecond), 0, "c"+strconv.FormatUint(c.ID, 10), link, 0, c.TLS, c.Application, c.ID,
			c.Route, c.Member, c.Held, readsFrom, c.Pinned, pinnedSince, c.RouteFrom, c.Consistency, c.ConsistencyFrom)
	}
	return t
}

// Both connections of a session that also reads from a standby have its id; the pointers differ.
func showServers(v View) Table {
	t := Table{columns: columns(append(slices.Clone(connectionColumns), "member", "role", "epoch#")...)}
	add := func(c Client, ptr, state, address, own string, since time.Time, of ...any) {
		addr, port := hostPort(address)
		localAddr, localPort := hostPort(own)
		id := strconv.FormatUint(c.ID, 10)
		t.add(append([]any{"S", c.User, c.Database, state, addr, port, localAddr, localPort, since.Format(moment), 0, 0, 0, ptr + id, "c" + id, 0, "", c.Application, c.ID}, of...)...)
	}
	for _, c := range sortedClients(v) {
		if c.linked() {
			var epoch any
			if c.Epoch != 0 {
				epoch = c.Epoch
			}
			add(c, "s", c.ServerState, c.ServerAddr, c.ServerOwnAddr, c.ConnectedAt, c.Member, c.Role, epoch)
		}
		if r := c.Reader; r != nil {
			add(c, "r", r.State, r.Addr, r.OwnAddr, r.ConnectedAt, r.Member, "standby", nil)
		}
	}
	return t
}

// hostPort takes an address apart; a missing port is NULL.
func hostPort(address string) (host string, port any) {
	i := strings.LastIndexByte(address, ':')
	n, err := strconv.Atoi(address[i+1:])
	if i < 0 || err != nil {
		return address, nil
	}
	return strings.TrimSuffix(strings.TrimPrefix(address[:i], "["), "]"), n
}

func databases(v View) []string {
	m := map[string]bool{}
	for _, c := range v.Clients {
		m[c.Database] = true
	}
	return slices.Sorted(maps.Keys(m))
}

func showDatabases(v View) Table {
	t := Table{columns: columns("name", "host", "port#", "database", "force_user", "pool_size#", "min_pool_size#", "reserve_pool#", "pool_mode", "max_connections#",
		"current_connections#", "max_client_connections#", "current_client_connections#", "paused#", "disabled#")}
	host, port := hostPort(v.Address)
	for _, d := range databases(v) {
		n := 0
		for _, c := range v.Clients {
			if c.Database == d {
				n += c.servers()
			}
		}
		l := v.limitOf("database", d)
		t.add(d, host, port, d, nil, v.MaxClients, 0, 0, "session", v.MaxClients, n, l.Max, l.Clients, v.Paused, 0)
	}
	return t
}

// limitOf is the limit of that kind and name; its zero value where there is nobody of whom it would be.
func (v View) limitOf(kind, name string) Limit {
	for _, l := range v.Limits {
		if l.Kind == kind && l.Name == name {
			return l
		}
	}
	return Limit{}
}

// showLimits has those who have a client; max_clients is NULL where there is no limit.
func showLimits(v View) Table {
	t := Table{columns: columns("kind", "name", "clients#", "max_clients#")}
	for _, l := range slices.SortedFunc(slices.Values(v.Limits), func(a, b Limit) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	}) {
		var most any
		if l.Max > 0 {
			most = l.Max
		}
		t.add(l.Kind, l.Name, l.Clients, most)
	}
	return t
}

func showLists(v View) Table {
	t := Table{columns: columns("list", "items#")}
	login, servers := 0, 0
	users := map[string]bool{}
	for _, c := range v.Clients {
		users[c.User] = true
		if c.State == StateLogin {
			login++
		}
		servers += c.servers()
	}
	t.add("databases", len(databases(v)))
	t.add("users", len(users))
	t.add("pools", len(pools(v)))
	t.add("free_clients", max(v.MaxClients-len(v.Clients), 0))
	t.add("used_clients", len(v.Clients))
	t.add("login_clients", login)
	t.add("free_servers", 0)
	t.add("used_servers", servers)
	return t
}

// showStats leaves out what pgbouncer measures and this router does not: times inside queries and transactions, and averages.
func showStats(v View) Table {
	t := Table{columns: columns("database", "total_server_assignment_count#", "total_xact_count#", "total_query_count#", "total_received#", "total_sent#", "total_wait_time#")}
	totals(v, &t)
	return t
}

func showStatsTotals(v View) Table {
	t := Table{columns: columns("database", "server_assignment_count#", "xact_count#", "query_count#", "bytes_received#", "bytes_sent#", "wait_time#")}
	totals(v, &t)
	return t
}

func totals(v View, t *Table) {
	for _, s := range slices.SortedFunc(slices.Values(v.Totals), func(a, b Totals) int { return cmp.Compare(a.Database, b.Database) }) {
		t.add(s.Database, s.Sessions, s.Transactions, s.Queries, s.FromClients, s.FromServers, s.US)
	}
}

func showConfig(v View) Table {
	t := Table{columns: columns("key", "value", "default", "changeable")}
	for _, s := range v.Settings {
		t.add(s.Name, s.Value, s.Default, yesNo(s.Changeable))
	}
	return t
}

func showRoutes(v View) Table {
	t := Table{columns: columns("route", "listen", "sessions#", "waiting#", "member", "reason", "reading#", "reader", "set#", "eventual#", "session#", "strict#")}
	for _, r := range v.Routes {
		t.add(r.Name, r.Listen, r.Sessions, r.Waiting, r.Member, r.Reason, r.Reading, r.Reader, r.Set, r.Eventual, r.Session, r.Strict)
	}
	return t
}

func showTopology(v View) Table {
	t := Table{columns: columns("member", "role", "address", "serves#", "sessions#", "replay_lsn", "lag_bytes#", "lag_us#", "epoch#", "phase", "reason")}
	for _, m := range v.Members {
		var lsn, bytes, lag any
		if m.Role == "standby" {
			lsn, bytes, lag = m.ReplayLSN, m.LagBytes, m.LagTime.Microseconds()
		}
		t.add(m.Name, m.Role, m.Address, m.Serves, m.Sessions, lsn, bytes, lag, v.Epoch, v.Phase, m.Reason)
	}
	return t
}

// changes is what RELOAD answers.
func changes(cs []Change) Table {
	t := Table{columns: columns("key", "old", "new", "effect")}
	for _, c := range cs {
		effect := "in force"
		if c.Restart {
			effect = "needs a restart"
		}
		t.add(c.Name, c.Old, c.New, effect)
	}
	return t
}
