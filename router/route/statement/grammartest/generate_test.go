//go:build cgo

package grammartest

import (
	"math/rand/v2"
	"strings"
)

// generator makes statements out of a random walk through the grammar, as pieces that join puts together. Most of them
// parse; what does not says nothing.
type generator struct {
	*rand.Rand
	out   []string
	depth int
}

// generate makes a text of one or more statements, and in one of four cases spoils it.
func generate(r *rand.Rand) string {
	g := &generator{Rand: r}
	g.statement()
	for g.chance(12) {
		g.add(";")
		g.statement()
	}
	if g.chance(20) {
		for range 1 + g.IntN(2) {
			g.spoil()
		}
	}
	return g.join()
}

func (g *generator) chance(percent int) bool       { return g.IntN(100) < percent }
func (g *generator) pick(among ...string) string   { return among[g.IntN(len(among))] }
func (g *generator) add(pieces ...string)          { g.out = append(g.out, pieces...) }
func (g *generator) maybe(percent int, add string) { g.when(percent, func() { g.words(add) }) }

// words adds pieces that stand with blanks between them.
func (g *generator) words(text string) { g.add(strings.Fields(text)...) }

func (g *generator) when(percent int, f func()) {
	if g.chance(percent) {
		f()
	}
}

// list calls f one to n times, with commas between.
func (g *generator) list(n int, f func()) {
	for i := range 1 + g.IntN(n) {
		if i > 0 {
			g.add(",")
		}
		f()
	}
}

func (g *generator) parens(f func()) {
	g.add("(")
	f()
	g.add(")")
}

// deeper chooses among all ways while there is room, and among the first simple ones where there is none.
func (g *generator) deeper(simple int, ways ...func()) {
	g.depth++
	if g.depth > 7 || g.chance(g.depth*8) {
		ways = ways[:simple]
	}
	ways[g.IntN(len(ways))]()
	g.depth--
}

// spoil deletes, doubles, exchanges or inserts a piece.
func (g *generator) spoil() {
	if len(g.out) < 2 {
		return
	}
	i := g.IntN(len(g.out) - 1)
	switch g.IntN(4) {
	case 0:
		g.out = append(g.out[:i:i], g.out[i+1:]...)
	case 1:
		g.out = append(g.out[:i+1:i+1], g.out[i:]...)
	case 2:
		g.out[i], g.out[i+1] = g.out[i+1], g.out[i]
	case 3:
		piece := g.pick("(", ")", ",", ".", ";", "[", "]", "::", "=", "nextval", "for", "update", "key", "no", "share", "into", "as", "from",
			"with", "on", "distinct", "filter", "over", "like", "join", "values", "select", "table", "delete", "materialized", "'x'", "1", "lower", g.odd())
		g.out = append(g.out[:i:i], append([]string{piece}, g.out[i:]...)...)
	}
}

// join puts the pieces together, in any case and with any white space and comments between them.
func (g *generator) join() string {
	var b strings.Builder
	tight := g.chance(50)
	for i, piece := range g.out {
		if i > 0 {
			g.separate(&b, tight && (edge(piece[0]) || edge(g.out[i-1][len(g.out[i-1])-1])))
		}
		if g.chance(20) && strings.Trim(piece, "abcdefghijklmnopqrstuvwxyz_") == "" {
			for _, c := range []byte(piece) {
				if g.chance(50) && c != '_' {
					c &^= 0x20
				}
				b.WriteByte(c)
			}
			continue
		}
		b.WriteString(piece)
	}
	return b.String()
}

// edge reports whether a byte is no part of a longer token.
func edge(c byte) bool { return strings.IndexByte("(),;[]", c) >= 0 }

func (g *generator) separate(b *strings.Builder, tight bool) {
	switch {
	case g.chance(6):
		b.WriteString(g.pick("/**/", "/* a; */", "/* ' */", "/* /* ( */ \" */", "-- ' /* \n", "\n--\n", " /*--*/ ", "/*$$*/", "/* howdah: */"))
	case tight && g.chance(80):
	default:
		b.WriteString(g.pick(" ", " ", " ", " ", "\n", "\t", "  ", "\r\n", "\f"))
	}
}

// name is of a column, a table or an alias, now and then one that PostgreSQL's grammar also uses as a keyword.
func (g *generator) name() {
	if g.chance(4) {
		g.add(g.odd())
		return
	}
	g.add(g.pick("a", "b", "c", "t", "u", "id", "name", "value", "x1", "_y", "a$b", "\"T\"", "\"select\"", "\"a b\"", "\"a;b(\"", "\"x'\"", "\"nextval\"", "bär"))
}

func (g *generator) odd() string {
	return g.pick("key", "no", "share", "update", "delete", "insert", "merge", "over", "filter", "columns", "cube", "rollup", "sets", "zone", "varying",
		"materialized", "system", "operator", "temp", "read", "only_x", "nextval", "rows", "set", "values", "row", "time", "lateral_x", "ordinality", "first",
		"repeatable", "search", "cycle", "depth", "within", "names", "json", "path", "nested", "locked", "skip", "nowait", "matched", "action", "\"a\"\"b\"", "u&\"\\0041\"")
}

func (g *generator) relation() {
	g.when(20, func() { g.add(g.pick("s", "public", "pg_catalog", g.pick("\"S\"", "\"S\"", "\"S\"", "pg_temp")), ".") })
	g.name()
}

func (g *generator) literal() {
	g.add(g.pick("1", "0", "42", "1.5e3", ".5", "5.", "0x1F", "0o17", "0b101", "1_000", "'x'", "'it''s'", "''", "';'", "'--'", "'/*'", "'\\'",
		"e'\\''", "E'\\\\'", "E'; delete from t; --'", "$$x$$", "$$ ' $$", "$t$ $$; $ $t$", "$_1$ nextval('s') $_1$", "u&'\\0041'", "U&'!0041' uescape '!'", "b'01'", "X'1F'",
		"n'x'", "'a'\n'b'", "e'a'\n'\\''", "true", "null", "$1", "$2", "date '2026-01-01'", "interval '1' hour", "interval(3) '1'", "s.ty 'x'", "current_date", "current_user", "localtime(2)"))
}

// call is a call with what may follow it in an expression.
func (g *generator) call() {
	g.bareCall()
	g.when(8, func() {
		g.words("within group ( order by")
		g.expression()
		g.add(")")
	})
	g.when(10, func() {
		g.words("filter ( where")
		g.expression()
		g.add(")")
	})
	g.when(12, func() {
		g.add("over")
		if g.chance(40) {
			g.add("w")
			return
		}
		g.parens(g.window)
	})
}

// bareCall is of a function that is harmless, or now and then of one that is not.
func (g *generator) bareCall() {
	if g.chance(6) {
		g.add(g.pick("nextval", "random", "set_config", "pg_advisory_lock", "txid_current", "lo_creat", "dblink", "my_f", "\"nextval\"", "\"NextVal\"", "u&\"nextval\"", "u&\"\\006eextval\"", "pg_notify", "operator_x", "\"lower\"\"\""))
	} else {
		g.when(15, func() { g.add("pg_catalog", ".") })
		g.add(g.pick("lower", "upper", "abs", "length", "max", "count", "sum", "round", "now", "unnest", "jsonb_build_object", "left", "right", "date_trunc", "\"lower\"", "rank", "row_number", "repeat", "replace", "concat", "generate_series"))
	}
	g.parens(func() {
		switch g.IntN(8) {
		case 0:
		case 1:
			g.add("*")
		case 2:
			g.add(g.pick("distinct", "all", "variadic"))
			g.expression()
			g.maybe(30, "order by a desc nulls last")
		case 3:
			g.add("a", g.pick("=>", ":="))
			g.expression()
		default:
			g.list(3, g.expression)
		}
	})
}

func (g *generator) window() {
	g.when(60, func() {
		g.words("partition by")
		g.list(2, g.expression)
	})
	g.when(50, g.orderBy)
	g.maybe(25, "rows between 1 preceding and current row")
}

func (g *generator) operator() {
	if g.chance(6) {
		g.words("operator ( pg_catalog .")
		g.add(g.pick("+", "=", "||"), ")")
		return
	}
	g.add(g.pick("+", "-", "*", "/", "=", "<>", ">=", "||", "->", "->>", "@>", "#>>", "and", "or", "and", "~", "^@", "@-", "?", "&&", "<=", "like", "ilike", "is distinct from", "is not distinct from", "not like", "similar to", "%"))
}

func (g *generator) expression() {
	g.deeper(4, g.literal, g.name, g.literal, func() { g.name(); g.add("."); g.name() }, g.call, g.call,
		func() { g.expression(); g.operator(); g.expression() },
		func() { g.expression(); g.operator(); g.expression() },
		func() { g.add(g.pick("not", "-", "+", "~", "@", "!!")); g.expression() },
		func() { g.parens(g.expression) },
		func() { g.parens(g.query) },
		func() { g.add(g.pick("exists", "array", "not exists")); g.parens(g.query) },
		func() {
			g.parens(g.expression)
			g.add(g.pick("in", "not in", "= any", "<> all", "= some"))
			g.parens(func() { g.deeper(1, func() { g.list(3, g.expression) }, g.query) })
		},
		func() {
			g.words("case")
			g.when(30, g.expression)
			g.add("when")
			g.expression()
			g.add("then")
			g.expression()
			g.when(60, func() { g.add("else"); g.expression() })
			g.add("end")
		},
		g.cast, g.special, g.special,
		func() { g.add("array", "["); g.list(3, g.expression); g.add("]") },
		func() { g.add("row"); g.parens(func() { g.list(3, g.expression) }) },
		func() { g.parens(g.expression); g.add("."); g.name() },
		func() { g.name(); g.add("["); g.expression(); g.maybe(30, ": 2"); g.add("]") },
		func() {
			g.parens(g.expression)
			g.words(g.pick("is null", "is not null", "isnull", "is true", "is not unknown", "is document", "is normalized", "collate \"C\"", "collate s . x", "at time zone 'utc'", "at time zone lower ( a )"))
		},
		func() {
			g.parens(g.expression)
			g.words(g.pick("between", "not between symmetric"))
			g.literal()
			g.add("and")
			g.literal()
		},
	)
}

func (g *generator) cast() {
	types := []string{"int", "text", "numeric ( 10 , 2 )", "varchar ( 3 )", "character varying ( 3 )", "national character varying ( 3 )", "bit varying ( 3 )", "timestamp ( 3 ) with time zone",
		"time ( 3 ) without time zone", "double precision", "s . geometry ( 1 , 2 )", "int [ ]", "setof int", "nextval ( 1 )", "interval day to second ( 3 )", "float ( 3 )", "regclass", "json"}
	if g.chance(60) {
		g.expression()
		g.add("::")
		g.words(g.pick(types...))
		return
	}
	g.add(g.pick("cast", "cast", "cast", "treat"))
	g.parens(func() { g.expression(); g.add("as"); g.words(g.pick(types...)) })
}

// special are the constructs that look like calls of functions.
func (g *generator) special() {
	name := g.pick("extract", "substring", "substring", "trim", "trim", "overlay", "position", "coalesce", "greatest", "nullif", "normalize", "xmlelement", "xmlserialize", "xmlforest", "xmlparse", "xmlexists",
		"json_object", "json_array", "json_value", "json_arrayagg", "grouping", "collation", "current_timestamp", "overlaps", "is json", "merge_action", "xmlconcat")
	switch name {
	case "overlaps":
		g.parens(func() { g.literal(); g.add(","); g.expression() })
		g.add("overlaps")
		g.parens(func() { g.expression(); g.add(","); g.literal() })
		return
	case "is json":
		g.parens(g.expression)
		g.words(g.pick("is json", "is not json object", "is json with unique keys"))
		return
	case "collation":
		g.add("collation", "for")
		g.parens(g.expression)
		return
	}
	g.add(name)
	g.parens(func() {
		switch name {
		case "extract":
			g.add(g.pick("year", "epoch", "'day'", "x"), "from")
			g.expression()
		case "substring":
			g.expression()
			g.words(g.pick("from", "for", "similar", ","))
			g.expression()
			g.maybe(20, "for 3")
		case "trim":
			g.maybe(60, g.pick("both", "leading", "trailing", "from"))
			g.expression()
			g.when(40, func() { g.add("from"); g.list(2, g.expression) })
		case "overlay":
			g.expression()
			g.add(g.pick("placing", ","))
			g.expression()
			g.add("from")
			g.expression()
		case "position":
			g.literal()
			g.add("in")
			g.expression()
		case "xmlelement":
			g.words("name x , xmlattributes (")
			g.expression()
			g.words("as y ) ,")
			g.expression()
		case "xmlserialize":
			g.add(g.pick("content", "document"))
			g.expression()
			g.words("as text")
		case "xmlparse":
			g.add(g.pick("content", "document"))
			g.expression()
		case "xmlexists":
			g.expression()
			g.words("passing by ref")
			g.expression()
		case "xmlforest":
			g.expression()
			g.words("as z")
		case "json_object":
			g.expression()
			g.add(g.pick(":", "value", ","))
			g.expression()
			g.maybe(30, "absent on null returning jsonb")
		case "json_value":
			g.expression()
			g.words(", '$.a'")
			g.when(30, func() { g.add("passing"); g.expression(); g.words("as x") })
			g.when(30, func() { g.words("default"); g.expression(); g.words("on empty") })
		case "json_arrayagg":
			g.expression()
			g.maybe(30, "order by 1")
		case "current_timestamp":
			g.add("3")
		case "normalize":
			g.expression()
			g.maybe(50, ", nfc")
		case "merge_action":
		default:
			g.list(3, g.expression)
		}
	})
}

func (g *generator) orderBy() {
	g.words("order by")
	g.list(2, func() {
		g.expression()
		g.maybe(30, g.pick("asc", "desc", "using >", "desc nulls last", "nulls first"))
	})
}

// alias is an alias or none, now and then with columns.
func (g *generator) alias() {
	if g.chance(40) {
		return
	}
	g.maybe(50, "as")
	g.name()
	g.when(30, func() { g.parens(func() { g.list(3, g.name) }) })
}

func (g *generator) from() {
	g.deeper(2,
		func() { g.maybe(10, "only"); g.relation(); g.alias() },
		func() {
			g.relation()
			g.alias()
			g.when(15, func() {
				g.add("tablesample", g.pick("bernoulli", "system", "\"system\"", "System", "my_sample", "pg_catalog.bernoulli"))
				g.parens(g.expression)
				g.when(50, func() { g.add("repeatable"); g.parens(g.expression) })
			})
		},
		func() { g.maybe(20, "lateral"); g.parens(g.query); g.alias() },
		func() { g.maybe(20, "lateral"); g.bareCall(); g.maybe(30, "with ordinality"); g.alias() },
		func() {
			g.bareCall()
			g.words(g.pick("as ( a int , b numeric ( 10 , 2 ) )", "as x ( a int )", "x ( a s . t ( 3 ) )"))
		},
		func() { g.words("rows from"); g.parens(func() { g.list(2, g.bareCall) }); g.alias() },
		func() {
			g.from()
			g.words(g.pick("join", "join", "inner join", "left join", "right outer join", "full join"))
			g.from()
			if g.chance(70) {
				g.add("on")
				g.expression()
			} else {
				g.words("using ( a , b )")
				g.maybe(20, "as j")
			}
		},
		func() { g.from(); g.words(g.pick("natural join", "cross join", "natural left join")); g.from() },
		func() {
			g.parens(func() { g.from(); g.words("cross join"); g.from() })
			g.alias()
		},
		func() {
			g.words("xmltable ( '/a' passing")
			g.literal()
			g.words("columns c int path 'c' default")
			g.literal()
			g.words(", o for ordinality )")
			g.alias()
		},
		func() {
			g.words("json_table (")
			g.expression()
			g.words(", '$' columns ( a int path '$.a' , nested path '$.b' columns ( c int exists ) ) )")
			g.alias()
		},
	)
}

func (g *generator) with() {
	g.add("with")
	g.maybe(30, "recursive")
	g.list(2, func() {
		g.name()
		g.when(30, func() { g.parens(func() { g.list(2, g.name) }) })
		g.add("as")
		g.maybe(20, g.pick("materialized", "not materialized"))
		g.parens(func() {
			if g.chance(6) {
				g.modify()
				g.add("returning", "*")
			} else {
				g.query()
			}
		})
		g.when(5, func() { g.words("search depth first by a , b set"); g.name() })
		g.when(5, func() { g.words("cycle a set"); g.name(); g.maybe(40, "to 1 default 2"); g.words("using"); g.name() })
	})
}

func (g *generator) query() {
	g.deeper(2, g.selects, g.selects,
		func() { g.words("values"); g.list(2, func() { g.parens(func() { g.list(2, g.expression) }) }) },
		func() { g.words("table"); g.relation() },
		func() { g.parens(g.query) },
		func() { g.with(); g.deeper(1, g.selects, func() { g.parens(g.query) }) },
		func() {
			g.parens(g.query)
			g.words(g.pick("union", "union all", "intersect", "except distinct"))
			g.deeper(1, func() { g.parens(g.query) }, g.selects)
		},
		func() { g.parens(g.query); g.orderBy(); g.words("limit"); g.expression() },
	)
}

func (g *generator) selects() {
	g.add("select")
	g.when(8, func() { g.words("distinct on"); g.parens(func() { g.list(2, g.expression) }) })
	g.maybe(8, g.pick("distinct", "all"))
	g.when(95, func() {
		g.list(3, func() {
			if g.chance(10) {
				g.words(g.pick("*", "t . *", "( t ) . *"))
				return
			}
			g.expression()
			g.when(20, func() { g.maybe(60, "as"); g.name() })
		})
	})
	g.when(1, func() { g.words("into"); g.maybe(50, g.pick("temp", "unlogged table", "temporary")); g.name() })
	g.when(70, func() { g.add("from"); g.list(2, g.from) })
	g.when(50, func() { g.add("where"); g.expression() })
	g.when(12, func() {
		g.words("group by")
		g.maybe(10, "distinct")
		g.list(2, func() {
			g.deeper(1, g.expression,
				func() { g.add(g.pick("rollup", "cube")); g.parens(func() { g.list(2, g.expression) }) },
				func() {
					g.words("grouping sets ( ( a ) , ( ) ,")
					g.add(g.pick("cube", "rollup"))
					g.parens(g.expression)
					g.add(")")
				})
		})
	})
	g.when(8, func() { g.add("having"); g.expression() })
	g.when(8, func() { g.words("window w as"); g.parens(g.window) })
	g.when(15, g.orderBy)
	g.when(12, func() {
		g.add(g.pick("limit", "offset"))
		g.expression()
	})
	g.maybe(4, g.pick("fetch first 3 rows only", "fetch next row with ties", "limit all", "offset 1 rows"))
	g.when(2, func() {
		g.words(g.pick("for update", "for no key update", "for share", "for key share"))
		g.when(30, func() { g.add("of"); g.name() })
		g.maybe(30, g.pick("nowait", "skip locked"))
	})
}

func (g *generator) modify() {
	g.when(15, g.with)
	switch g.IntN(4) {
	case 0:
		g.words("insert into")
		g.relation()
		g.maybe(15, "as x")
		g.maybe(50, "( a , b )")
		g.query()
		g.when(40, g.conflict)
	case 1:
		g.words("update")
		g.relation()
		g.add("set")
		g.list(2, g.assignment)
		g.when(20, g.from)
		g.when(40, func() { g.add("where"); g.expression() })
	case 2:
		g.words("delete from")
		g.relation()
		g.maybe(20, g.pick("using u x ( a , b )", "using u join v on conflict ( a )", "using nextval ( 's' )"))
		g.when(50, func() { g.add("where"); g.expression() })
	case 3:
		g.words("merge into t using u x ( a ) on")
		g.expression()
		g.words("when matched and")
		g.expression()
		g.words("then")
		g.words(g.pick("delete", "update set ( a , b ) = row ( 1 , 2 )", "update set a = nextval ( 's' )"))
		g.maybe(50, "when not matched then insert ( a , b ) values ( 1 , 2 )")
	}
	g.when(20, func() { g.add("returning"); g.list(2, g.expression) })
}

func (g *generator) conflict() {
	g.words("on conflict")
	g.when(60, func() {
		g.parens(func() { g.list(2, func() { g.parens(g.expression) }) })
	})
	g.add("do")
	if g.chance(50) {
		g.add("nothing")
		return
	}
	g.words("update set")
	g.list(2, g.assignment)
}

func (g *generator) assignment() {
	if g.chance(60) {
		g.words("a =")
		g.expression()
		return
	}
	g.words("( a , b ) =")
	g.parens(g.query)
}

// statement is a query in two of three cases.
func (g *generator) statement() {
	g.depth = 0
	switch n := g.IntN(30); n {
	case 0:
		g.modify()
	case 1, 2:
		g.words("explain")
		g.words(g.pick("", "analyze", "analyze verbose", "verbose", "( analyze , format json )", "( costs off )", "( values 1 )"))
		g.deeper(3, g.query, g.query, g.query, g.modify, func() { g.words("execute p ( 1 )") }, func() { g.words("create table x as"); g.query() })
	case 3, 4:
		g.add("copy")
		if g.chance(30) {
			g.relation()
			g.maybe(30, "( a , b )")
		} else {
			g.parens(func() { g.deeper(3, g.query, g.query, g.query, func() { g.modify(); g.words("returning a") }) })
		}
		g.words(g.pick("to stdout", "to stdout", "to stdout with ( format csv , header )", "to stdout csv", "to '/tmp/x'", "to program 'x'", "from stdin"))
	case 5:
		g.words("declare c")
		g.maybe(30, g.pick("binary", "no scroll", "insensitive scroll"))
		g.add("cursor")
		g.maybe(40, g.pick("with hold", "without hold"))
		g.add("for")
		g.query()
	case 6:
		g.words("prepare p")
		g.maybe(30, "( int , numeric ( 1 , 2 ) )")
		g.add("as")
		g.deeper(2, g.query, g.query, g.modify)
	case 7:
		g.words("execute p")
		g.when(60, func() { g.parens(func() { g.list(2, g.expression) }) })
	case 8, 9:
		g.words(g.pick(utilities...))
	default:
		g.query()
	}
}

// utilities are statements in one form.
var utilities = []string{
	"begin", "begin read only", "start transaction isolation level repeatable read , read only , not deferrable", "begin work isolation level serializable read write deferrable",
	"commit", "end and chain", "commit and no chain", "rollback", "abort work", "rollback to savepoint a", "rollback transaction to b", "savepoint a", "release savepoint a", "release key",
	"prepare transaction 'x'", "commit prepared 'x'", "rollback prepared 'x'", "set a = 1", "set local search_path to a , \"b\"", "set session time zone 'utc'", "set time zone interval '1' hour to minute", "set role none",
	"set session authorization default", "set local role x", "set names 'utf8'", "set schema 'x'", "set a . b . c to on", "set a from current", "set transaction read only", "set transaction snapshot 'x'",
	"set session characteristics as transaction isolation level serializable", "set constraints all deferred", "set xml option document", "set local transaction isolation level read committed",
	"reset a", "reset all", "reset session authorization", "reset time zone", "discard all", "discard temp", "discard plans", "deallocate p", "deallocate prepare all", "deallocate all", "show a", "show server_encoding", "show all",
	"show time zone", "show transaction isolation level", "show session authorization", "fetch all from c", "fetch forward 3 in c", "move c", "close c", "close all", "listen a", "unlisten *", "notify a , 'b'", "call p ( 1 )", "do $$ begin end $$",
	"do language plpgsql 'x'", "load 'x'", "lock table t in share mode", "truncate t", "vacuum t", "analyze t", "checkpoint", "cluster t", "reindex table t", "create temp table t ( a int )", "create table x as select 1",
	"create or replace temp view v as select 1", "create rule r as on insert to t do also ( select 1 ; select 2 )", "create function f ( ) returns int language sql begin atomic select 1 ; select 2 ; end",
	"create function f ( ) returns int language sql return 1", "alter function f ( ) volatile", "alter table t set ( a = 1 )", "alter system set a = 1", "drop table t", "grant select on t to x", "revoke all on t from x", "comment on table t is 'x'",
	"refresh materialized view m", "security label on table t is 'x'", "import foreign schema a from server b into c", "reassign owned by a to b", "create schema x create table t ( a int ) create view v as select 1", "copy t from stdin",
}
