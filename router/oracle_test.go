package router_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"howdah/router/route"
	rt "howdah/router/routertest"
	"howdah/sidecar/postgres/postgrestest"
)

// PostgreSQL is the oracle: a script is run once at the primary itself and once through the router, in two databases that have had the same
// done to them, and everything that the client is told must be equal. Where a batch ran is read from what the servers log.

// where is which servers may log the texts of a turn.
type where string

const (
	onPrimary where = "the primary"
	onStandby where = "the standby"
	anywhere  where = "either"
	nowhere   where = "neither"
	refused   where = "the standby, which refuses it, and then the primary"
)

// turn is what a client sends at once, and where that runs; or what happens beside it.
type turn struct {
	on   where
	sent []byte
	// settled: before it, it is waited for that reads of the session go to the standby.
	settled bool
	// beside is done by the superuser over a connection of its own; happens only to the cluster behind the router.
	beside  string
	happens func(*oracle)
}

// markPlace is a comment in each text. In each run it becomes another of the same length, which the servers log.
const markPlace = "/*mark....*/"

func query(sql string) []byte { return rt.Query(sql + markPlace) }

func parse(name, sql string) []byte { return rt.Parse(name, sql+markPlace) }

func describe(name string) []byte { return rt.Message('D', []byte("S"+name+"\x00")) }

// use binds a statement to the unnamed portal and executes that.
func use(name string) []byte {
	return slices.Concat(rt.Bind("", name), rt.Describe(""), rt.Execute(""))
}

// extended is a statement in the extended protocol.
func extended(sql string) []byte { return slices.Concat(parse("", sql), use(""), rt.Sync) }

// prepare is what a driver sends for a statement that gets a name.
func prepare(name, sql string) []byte {
	return slices.Concat(parse(name, sql), describe(name), rt.Sync)
}

func execute(name string) []byte { return slices.Concat(use(name), rt.Sync) }

func primary(sent ...[]byte) turn { return turn{on: onPrimary, sent: slices.Concat(sent...)} }

// quiet is for what makes the servers log nothing.
func quiet(sent ...[]byte) turn { return turn{on: nowhere, sent: slices.Concat(sent...)} }

func either(sent ...[]byte) turn { return turn{on: anywhere, sent: slices.Concat(sent...)} }

// standby is for what must run on the standby once that has what the session must see.
func standby(sent ...[]byte) turn {
	return turn{on: onStandby, sent: slices.Concat(sent...), settled: true}
}

// repeated is for what the standby refuses, the first time.
func repeated(sent ...[]byte) turn {
	return turn{on: refused, sent: slices.Concat(sent...), settled: true}
}

func beside(sql string) turn { return turn{beside: sql} }

func happens(f func(*oracle)) turn { return turn{happens: f} }

// oracle is a cluster with two databases, direct and routed.
type oracle struct {
	*splitCluster
	runs  int
	watch [2]*pgconn.PgConn
}

// oraclePatience is how long any one thing may take.
const oraclePatience = time.Minute

var databases = []string{"direct", "routed"}

func startOracle(t *testing.T, schema string) *oracle {
	t.Helper()
	o := &oracle{splitCluster: startSplit(t)}
	o.primary.CreateRole("carol", "SUPERUSER")
	for _, db := range databases {
		o.primary.Exec("CREATE DATABASE " + db)
		o.exec(t, db, schema)
	}
	o.two.CatchUp(o.primary)
	return o
}

// exec runs a text as the superuser in a database of the primary.
func (o *oracle) exec(t *testing.T, database, sql string) {
	t.Helper()
	if _, err := o.primary.Connect("postgres", database).Exec(context.Background(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// run is one script in one of the two databases.
type run struct {
	*oracle
	t          *testing.T
	database   string
	conn       net.Conn
	in         *pgproto3.Frontend
	mark       string
	transcript []string
}

func (o *oracle) begin(t *testing.T, user, database string) *run {
	t.Helper()
	address := o.primary.Addr()
	if database == "routed" {
		address = o.Address(route.Auto).String()
	}
	conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", user, postgrestest.Password, address, database))
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hijacked.Conn.Close() })
	o.runs++
	return &run{oracle: o, t: t, database: database, conn: hijacked.Conn, in: hijacked.Frontend, mark: fmt.Sprintf("/*mark%04d*/", o.runs%10000)}
}

// follow takes the turns one after the other and returns what the client was told.
func (r *run) follow(turns []turn) []string {
	r.t.Helper()
	for i, turn := range turns {
		switch {
		case turn.beside != "":
			r.exec(r.t, r.database, turn.beside)
		case turn.happens != nil:
			if r.database == "routed" {
				turn.happens(r.oracle)
			}
		case r.database == "direct":
			r.say("turn %d", i)
			r.send(turn.sent, r.mark)
		default:
			if turn.settled {
				r.settle()
			}
			r.say("turn %d", i)
			before := r.logged(r.mark)
			r.send(turn.sent, r.mark)
			if got := ranOn(before, r.logged(r.mark)); got != turn.on && turn.on != anywhere {
				r.t.Errorf("turn %d ran on %s, want %s: %q", i, got, turn.on, turn.sent)
			}
		}
	}
	return r.transcript
}

func (r *run) say(format string, args ...any) {
	r.transcript = append(r.transcript, fmt.Sprintf(format, args...))
}

// settle returns once reads of the session go to the standby. It takes the unnamed statement away.
func (r *run) settle() {
	r.t.Helper()
	kept := r.transcript
	ctx, stop := context.WithTimeout(r.t.Context(), oraclePatience)
	defer stop()
	postgrestest.Until(ctx, r.t, "reads on the standby", func() bool {
		r.primary.Exec("SELECT pg_logical_emit_message(true, '', '')") // a commit, so that all WAL is flushed
		mark := r.splitCluster.mark()
		r.send(rt.Query("SELECT 1 "+mark), "")
		return r.ran(mark) == r.two.Name
	})
	r.transcript = kept
}

// logged counts how often the primary and the standby have logged a mark, of all that was answered before.
func (o *oracle) logged(mark string) (n [2]int) {
	o.t.Helper()
	for i, server := range []*postgrestest.Server{o.primary, o.two} {
		if server.Running() {
			o.barrier(i, server)
		}
		n[i] = strings.Count(server.Log(), mark)
	}
	return n
}

// barrier returns once everything is read that a server has logged: the log is one pipe.
func (o *oracle) barrier(i int, server *postgrestest.Server) {
	o.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), oraclePatience)
	defer stop()
	if o.watch[i] == nil || o.watch[i].IsClosed() {
		conn, err := pgconn.Connect(ctx, server.SocketDSN("postgres", "postgres"))
		if err != nil {
			o.t.Fatal(err)
		}
		o.watch[i] = conn
	}
	mark := o.splitCluster.mark()
	if _, err := o.watch[i].Exec(ctx, "SELECT 1 "+mark).ReadAll(); err != nil {
		o.t.Fatal(err)
	}
	server.WaitLog(mark)
}

func ranOn(before, after [2]int) where {
	switch primary, standby := after[0] > before[0], after[1] > before[1]; {
	case primary && standby:
		return refused
	case primary:
		return onPrimary
	case standby:
		return onStandby
	}
	return nowhere
}

// send sends messages, and reads what is said to them: for each Query and Sync up to its ReadyForQuery, for what a Flush ends up to the last answer.
func (r *run) send(messages []byte, mark string) {
	r.t.Helper()
	if mark != "" {
		messages = bytes.ReplaceAll(messages, []byte(markPlace), []byte(mark))
	}
	r.conn.SetDeadline(time.Now().Add(oraclePatience))
	if _, err := r.conn.Write(messages); err != nil {
		r.t.Fatalf("%s: %v", r.database, err)
	}
	readies, answers := awaited(messages)
	for readies > 0 || answers > 0 {
		m, err := r.in.Receive()
		if err != nil {
			r.t.Fatalf("%s: %v after %q", r.database, err, r.transcript)
		}
		switch m := m.(type) {
		case *pgproto3.ReadyForQuery:
			readies--
		case *pgproto3.ErrorResponse:
			if m.Severity == "FATAL" {
				r.t.Fatalf("%s: %+v", r.database, m)
			}
			answers = 0
		case *pgproto3.ParseComplete, *pgproto3.BindComplete, *pgproto3.CloseComplete, *pgproto3.RowDescription, *pgproto3.NoData,
			*pgproto3.CommandComplete, *pgproto3.EmptyQueryResponse, *pgproto3.PortalSuspended:
			answers--
		}
		r.say("%s", told(m))
	}
}

// awaited says how many ReadyForQuery there will be, and how many answers to what comes after the last Sync.
func awaited(messages []byte) (readies, answers int) {
	for b := messages; len(b) > 0; {
		switch b[0] {
		case 'Q', 'S', 'F':
			readies, answers = readies+1, 0
		case 'P', 'B', 'D', 'E', 'C':
			answers++
		}
		b = b[1+int(b[1])<<24+int(b[2])<<16+int(b[3])<<8+int(b[4]):]
	}
	return readies, max(answers, 0)
}

// told is what a message tells a client, without what differs from server to server by itself.
func told(m pgproto3.BackendMessage) string {
	switch m := m.(type) {
	case *pgproto3.ErrorResponse:
		return "error " + m.Code
	case *pgproto3.NoticeResponse:
		return "notice " + m.Code
	case *pgproto3.RowDescription:
		var fields []string
		for _, f := range m.Fields {
			fields = append(fields, fmt.Sprintf("%s %d %s %d %d %d", f.Name, f.TableAttributeNumber, typeOf(f.DataTypeOID), f.DataTypeSize, f.TypeModifier, f.Format))
		}
		return "fields " + strings.Join(fields, ", ")
	case *pgproto3.ParameterDescription:
		var types []string
		for _, oid := range m.ParameterOIDs {
			types = append(types, typeOf(oid))
		}
		return "parameters " + strings.Join(types, ", ")
	case *pgproto3.FunctionCallResponse:
		return fmt.Sprintf("result %q", m.Result)
	case *pgproto3.DataRow:
		return fmt.Sprintf("row %q", m.Values)
	case *pgproto3.CopyData:
		return fmt.Sprintf("copy %q", m.Data)
	case *pgproto3.CommandComplete:
		return fmt.Sprintf("complete %s", m.CommandTag)
	case *pgproto3.ReadyForQuery:
		return fmt.Sprintf("ready %c", m.TxStatus)
	case *pgproto3.NotificationResponse:
		return fmt.Sprintf("notification %s %s", m.Channel, m.Payload)
	case *pgproto3.ParameterStatus:
		return fmt.Sprintf("parameter %s=%s", m.Name, m.Value)
	}
	return fmt.Sprintf("%T", m)
}

// typeOf is the number of a type, if that is the same in every database.
func typeOf(oid uint32) string {
	const firstOfUsers = 16384 // FirstNormalObjectId
	if oid >= firstOfUsers {
		return "of the user's"
	}
	return fmt.Sprint(oid)
}

// compare runs a script in both databases and demands that the client is told the same.
func (o *oracle) compare(t *testing.T, user string, turns []turn) {
	t.Helper()
	o.t = t
	var told [2][]string
	for i, database := range databases {
		told[i] = o.begin(t, user, database).follow(turns)
	}
	if !slices.Equal(told[0], told[1]) {
		t.Errorf("directly:\n%s\nthrough the router:\n%s", strings.Join(told[0], "\n"), strings.Join(told[1], "\n"))
	}
}
