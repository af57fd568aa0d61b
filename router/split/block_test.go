package split

import (
	"strings"
	"testing"

	rt "howdah/router/routertest"
)

// blockTurn is a batch of an idle session, where it goes, and the status that the server it goes to leaves behind.
type blockTurn struct {
	batch  []byte
	where  string
	status byte
}

// followBlocks shows the tracker one batch after the other, and says what the primary is sent beside them.
func followBlocks(t *testing.T, tr *Tracker, turns []blockTurn) (takenOver []string) {
	t.Helper()
	primary := byte('I')
	for i, turn := range turns {
		where := "primary"
		for b := turn.batch; len(b) > 0; {
			idle := primary == 'I' && len(b) == len(turn.batch)
			switch o := tr.FromClient(b, idle); o.Verb {
			case Read:
				where, b = "standby", b[o.N:]
				if turn.where == "refused" {
					tr.Refuse()
					where, b = "refused", turn.batch
					turn.where = "primary" // the second time
					continue
				}
				tr.Done(turn.status, false)
			case TakeOver:
				takenOver = append(takenOver, string(tr.TakeOver()))
				primary = 'T'
			case Pass:
				where, b = "primary", b[o.N:]
			default:
				t.Fatalf("turn %d: %v", i, o)
			}
		}
		if where == "primary" {
			primary = turn.status
		}
		if where != turn.where {
			t.Errorf("turn %d, %q: %s, want %s", i, turn.batch, where, turn.where)
		}
	}
	return takenOver
}

func TestReadOnlyBlocks(t *testing.T) {
	s := func(sql string, status byte) blockTurn { return blockTurn{query(sql), "standby", status} }
	p := func(sql string, status byte) blockTurn { return blockTurn{query(sql), "primary", status} }
	begin := s("BEGIN READ ONLY", 'T')
	sync := rt.Message('S')
	parts := func(m ...[]byte) []byte { return join(append(m, sync)...) }
	run := func(sql string) []byte { return join(rt.Parse("", sql), rt.Bind("", ""), rt.Execute("")) }
	over := func(text string) string { return string(rt.Query(text)) }
	for name, c := range map[string]struct {
		turns []blockTurn
		over  string
	}{
		"read and committed": {[]blockTurn{begin, s("SELECT 1", 'T'), s("SELECT 2; SELECT 3", 'T'), s("COMMIT", 'I'), s("SELECT 1", 'I')}, ""},
		"START TRANSACTION":  {[]blockTurn{s("START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", 'T'), s("SELECT 1", 'T'), s("ROLLBACK", 'I')}, ""},
		"REPEATABLE READ":    {[]blockTurn{p("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 'T'), p("SELECT 1", 'T'), p("COMMIT", 'I'), s("SELECT 1", 'I')}, ""},
		"REPEATABLE READ in one batch": {[]blockTurn{{parts(run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), run("SELECT 1"), run("SELECT 2"), run("COMMIT")), "standby", 'I'},
			{parts(run("START TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ"), run("SELECT 1"), run("ROLLBACK")), "standby", 'I'}, s("SELECT 1", 'I')}, ""},
		"REPEATABLE READ in two batches": {[]blockTurn{{parts(run("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), run("SELECT 1")), "primary", 'T'}, p("SELECT 1", 'T'), p("COMMIT", 'I')}, ""},
		"REPEATABLE READ and a chain":    {[]blockTurn{{parts(run("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), run("COMMIT AND CHAIN")), "primary", 'T'}, p("COMMIT", 'I')}, ""},
		"REPEATABLE READ that fails": {[]blockTurn{{parts(run("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), run("SELECT 1"), run("COMMIT")), "standby", 'E'}, p("SAVEPOINT a", 'E'), p("ROLLBACK", 'I')},
			over("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ" + readBlock + failBlock)},
		"REPEATABLE READ that is refused": {[]blockTurn{{parts(run("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ"), run("SELECT 1"), run("COMMIT")), "refused", 'I'}, s("SELECT 1", 'I')}, ""},
		"SERIALIZABLE in one batch":       {[]blockTurn{{parts(run("BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE"), run("SELECT 1"), run("COMMIT")), "primary", 'I'}}, ""},
		"SERIALIZABLE":                    {[]blockTurn{p("BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE", 'T'), p("COMMIT", 'I')}, ""},
		"BEGIN":                           {[]blockTurn{p("BEGIN", 'T'), p("SELECT 1", 'T'), p("COMMIT", 'I')}, ""},
		"a hint":                          {[]blockTurn{p("/* howdah: primary */ BEGIN READ ONLY", 'T'), p("SELECT 1", 'T'), p("COMMIT", 'I')}, ""},
		"a text with more than BEGIN":     {[]blockTurn{p("BEGIN READ ONLY; SELECT 1", 'T'), p("COMMIT", 'I')}, ""},
		"what may write": {[]blockTurn{begin, s("SELECT 1", 'T'), p("SELECT nextval('q')", 'E'), p("SELECT 1", 'E'), p("ROLLBACK", 'I'), s("SELECT 1", 'I')},
			over("BEGIN READ ONLY" + readBlock)},
		"SET":                {[]blockTurn{begin, p("SET LOCAL a = 1", 'T'), p("SELECT 1", 'T'), p("COMMIT", 'I'), s("SELECT 1", 'I')}, over("BEGIN READ ONLY")},
		"a savepoint":        {[]blockTurn{begin, p("SAVEPOINT a", 'T'), p("COMMIT", 'I')}, over("BEGIN READ ONLY")},
		"AND CHAIN":          {[]blockTurn{begin, s("SELECT 1", 'T'), p("COMMIT AND CHAIN", 'T'), p("SELECT 1", 'T'), p("COMMIT", 'I')}, over("BEGIN READ ONLY" + readBlock)},
		"a second BEGIN":     {[]blockTurn{begin, p("BEGIN READ ONLY", 'T'), p("COMMIT", 'I')}, over("BEGIN READ ONLY")},
		"READ WRITE":         {[]blockTurn{begin, p("SET TRANSACTION READ WRITE", 'T'), p("INSERT INTO t VALUES (1)", 'T'), p("COMMIT", 'I')}, over("BEGIN READ ONLY")},
		"a comment behind":   {[]blockTurn{s("BEGIN READ ONLY -- so", 'T'), s("SELECT 1", 'E'), p("SAVEPOINT a", 'E'), p("ROLLBACK", 'I')}, over("BEGIN READ ONLY -- so" + readBlock + failBlock)},
		"failed and ended":   {[]blockTurn{begin, s("SELECT 1", 'E'), s("ROLLBACK", 'I'), s("SELECT 1", 'I')}, ""},
		"refused":            {[]blockTurn{begin, s("SELECT 1", 'T'), {query("SELECT 2"), "refused", 'T'}}, over("BEGIN READ ONLY" + readBlock)},
		"begun with a query": {[]blockTurn{{parts(run("BEGIN READ ONLY"), run("SELECT 1")), "standby", 'T'}, p("SET TRANSACTION READ WRITE", 'E')}, over("BEGIN READ ONLY" + readBlock)},
		"begun with SHOW":    {[]blockTurn{begin, s("SHOW server_encoding; SHOW block_size", 'T'), p("SET TRANSACTION READ WRITE", 'T')}, over("BEGIN READ ONLY")},
		"begun anew":         {[]blockTurn{begin, s("SELECT 1", 'T'), s("COMMIT", 'I'), begin, p("SET TRANSACTION READ WRITE", 'T')}, over("BEGIN READ ONLY")},
		"begin and read in one batch": {[]blockTurn{{parts(run("BEGIN READ ONLY"), run("SELECT 1")), "standby", 'T'}, {parts(run("SELECT 2")), "standby", 'T'},
			{parts(run("COMMIT")), "standby", 'I'}}, ""},
		"a whole block in one batch":   {[]blockTurn{{parts(run("BEGIN READ ONLY"), run("SELECT 1"), run("COMMIT")), "standby", 'I'}, s("SELECT 1", 'I')}, ""},
		"begin behind a read":          {[]blockTurn{{parts(run("SELECT 1"), run("BEGIN READ ONLY")), "primary", 'T'}, p("COMMIT", 'I')}, ""},
		"a read behind the end":        {[]blockTurn{begin, {parts(run("COMMIT"), run("SELECT 1")), "primary", 'I'}}, over("BEGIN READ ONLY")},
		"a portal with a name":         {[]blockTurn{begin, {parts(rt.Parse("", "SELECT 1"), rt.Bind("c", ""), rt.Execute("c")), "primary", 'T'}}, over("BEGIN READ ONLY")},
		"a limit of rows":              {[]blockTurn{begin, {parts(rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Message('E', rt.Text(""), rt.Int32(1))), "primary", 'T'}}, over("BEGIN READ ONLY")},
		"a portal for later":           {[]blockTurn{begin, {parts(run("SELECT 1"), rt.Bind("", "")), "primary", 'T'}}, over("BEGIN READ ONLY")},
		"begin and a limit of rows":    {[]blockTurn{{parts(run("BEGIN READ ONLY"), rt.Parse("", "SELECT 1"), rt.Bind("", ""), rt.Message('E', rt.Text(""), rt.Int32(1))), "primary", 'T'}}, ""},
		"a statement that gets a name": {[]blockTurn{begin, {parts(rt.Parse("a", "SELECT 1"), rt.Bind("", "a"), rt.Execute("")), "primary", 'T'}}, over("BEGIN READ ONLY")},
		"prepared": {[]blockTurn{
			{parts(rt.Parse("b", "BEGIN READ ONLY")), "primary", 'I'}, {parts(rt.Parse("c", "COMMIT")), "primary", 'I'}, {parts(rt.Parse("r", "SELECT 1")), "primary", 'I'},
			{parts(rt.Bind("", "b"), rt.Execute(""), rt.Bind("", "r"), rt.Execute("")), "standby", 'T'}, {parts(rt.Bind("", "r"), rt.Execute(""), rt.Bind("", "r"), rt.Execute("")), "standby", 'T'},
			{parts(rt.Bind("", "c"), rt.Execute("")), "standby", 'I'},
		}, ""},
		"goodbye": {[]blockTurn{begin, {rt.Message('X'), "primary", 'I'}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(followBlocks(t, newTracker(), c.turns), " "); got != c.over {
				t.Errorf("the primary takes over with %q, want %q", got, c.over)
			}
		})
	}
}

// A block whose default is not known is named as one, and what began it is not forgotten with the buffer that it stood in.
func TestABlockByDefault(t *testing.T) {
	tr := newTracker()
	b := query("BEGIN READ ONLY")
	if o := tr.FromClient(b, true); o.Verb != Read {
		t.Fatal(o)
	}
	if begins, byDefault, _ := tr.BeginsBlock(); !begins || !byDefault {
		t.Error(begins, byDefault)
	}
	tr.Done('T', false)
	clear(b)
	if o := tr.FromClient(query("SAVEPOINT a"), true); o.Verb != TakeOver || string(tr.TakeOver()) != string(query("BEGIN READ ONLY")) {
		t.Error(o)
	}
	tr = newTracker()
	tr.FromClient(query("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"), true)
	if begins, byDefault, _ := tr.BeginsBlock(); !begins || byDefault {
		t.Error(begins, byDefault)
	}
	tr.Done('I', false)
	tr.FromClient(join(rt.Parse("", "BEGIN READ ONLY"), rt.Bind("", ""), rt.Execute(""), rt.Parse("", "COMMIT"), rt.Bind("", ""), rt.Execute(""), rt.Message('S')), true)
	if begins, byDefault, ends := tr.BeginsBlock(); !begins || !byDefault || !ends {
		t.Error(begins, byDefault, ends)
	}
	tr.Done('I', false)
	tr.FromClient(query("SELECT 1"), true)
	if begins, _, _ := tr.BeginsBlock(); begins {
		t.Error("a read begins a block")
	}
}

// The answer to BEGIN is held back until what follows it in the batch has been answered.
func TestReplyToABatchThatBegins(t *testing.T) {
	head := join(rt.ParseComplete, rt.BindComplete, rt.Complete("BEGIN"), rt.ParseComplete, rt.BindComplete)
	r := Reply{Longest: 4096, Begins: true}
	for n := range len(head) {
		if o := r.FromServer(head[:n]); o.Verb != Need {
			t.Fatalf("%d bytes: %v", n, o)
		}
	}
	if o := r.FromServer(join(head, rt.Error("40001", "canceling statement due to conflict with recovery"))); o.Verb != Repeat || o.Code != "40001" || r.Begun() {
		t.Errorf("%v", o)
	}
	r = Reply{Longest: 4096, Begins: true}
	all := join(head, rt.Complete("SELECT 1"), rt.Ready('T'))
	if o := r.FromServer(all); o.Verb != Send {
		t.Errorf("%v", o)
	} else if o = r.FromServer(all[o.N:]); o.Verb != Finished || r.Status() != 'T' {
		t.Errorf("%v, status %c", o, r.Status())
	}
	r = Reply{Longest: 4096, Begins: true}
	alone := join(rt.Complete("BEGIN"), rt.Ready('T'))
	if o := r.FromServer(alone); o.Verb != Send || o.N != len(rt.Complete("BEGIN")) {
		t.Errorf("%v", o)
	} else if o = r.FromServer(alone[o.N:]); o.Verb != Finished || r.Status() != 'T' {
		t.Errorf("%v", o)
	}
}
