package route_test

import (
	"errors"
	"slices"
	"testing"

	"howdah/router/route"
)

// rows makes rows of pg_db_role_setting, in an order that says nothing.
func rows(all, database, role, both []string) []route.Row {
	var rs []route.Row
	for _, r := range []route.Row{{Config: all}, {OfRole: true, Config: role}, {InDatabase: true, Config: database}, {OfRole: true, InDatabase: true, Config: both}} {
		if r.Config != nil {
			rs = append(rs, r)
		}
	}
	return rs
}

func one(s string) []string { return []string{s} }

func TestSet(t *testing.T) {
	ro, rw, auto, bad := one("howdah.route=ro"), one("howdah.route=rw"), one("howdah.route=auto"), one("howdah.route=rwo")
	for name, c := range map[string]struct {
		rows []route.Row
		want route.Route
		from route.Source
		bad  int
	}{
		"nothing":                          {nil, route.Auto, route.FromDefault, 0},
		"nothing of the router's":          {rows(one("work_mem=1MB"), nil, one("default_transaction_read_only=on"), one("howdah.consistency=strict")), route.Auto, route.FromDefault, 0},
		"for all":                          {rows(ro, nil, nil, nil), route.RO, route.FromAll, 0},
		"a database before all":            {rows(ro, rw, nil, nil), route.RW, route.FromDatabase, 0},
		"a role before its database":       {rows(auto, rw, ro, nil), route.RO, route.FromRole, 0},
		"a role in a database before it":   {rows(auto, rw, ro, auto), route.Auto, route.FromRoleInDatabase, 0},
		"another setting of the strongest": {rows(nil, nil, ro, one("howdah.consistency=strict")), route.RO, route.FromRole, 0},
		"none, passed over":                {rows(nil, ro, nil, bad), route.RO, route.FromDatabase, 1},
		"nones":                            {rows(bad, bad, bad, bad), route.Auto, route.FromDefault, 4},
		"none that does not count":         {rows(nil, bad, ro, nil), route.RO, route.FromRole, 0},
		"empty":                            {rows(nil, nil, one("howdah.route="), nil), route.Auto, route.FromDefault, 1},
		"as it was typed":                  {rows(nil, nil, one("Howdah.Route=Standby"), nil), route.RO, route.FromRole, 0},
		"twice":                            {rows(nil, nil, []string{"howdah.route=ro", "HOWDAH.ROUTE=rw"}, nil), route.RW, route.FromRole, 0},
	} {
		for range len(c.rows) + 1 {
			got, from, errs := route.Set(c.rows)
			if got != c.want || from != c.from || len(errs) != c.bad {
				t.Errorf("%s: %q from %s, %v", name, got, from, errs)
			}
			for _, err := range errs {
				if !errors.As(err, new(*route.ErrRoute)) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if len(c.rows) > 0 { // their order says nothing
				c.rows = append(slices.Clone(c.rows[1:]), c.rows[0])
			}
		}
	}
}

func TestSetConsistency(t *testing.T) {
	strict, eventual, bad := one("howdah.consistency=strict"), one("Howdah.consistency=Eventual"), one("howdah.consistency=strickt")
	for name, c := range map[string]struct {
		rows []route.Row
		want route.Consistency
		from route.Source
		bad  bool
	}{
		"nothing":                {rows(one("howdah.route=ro"), nil, nil, nil), "", route.FromDefault, false},
		"for all":                {rows(strict, nil, nil, nil), route.Strict, route.FromAll, false},
		"a database before all":  {rows(strict, eventual, nil, nil), route.Eventual, route.FromDatabase, false},
		"a role before that":     {rows(nil, eventual, strict, nil), route.Strict, route.FromRole, false},
		"a role in a database":   {rows(nil, nil, strict, eventual), route.Eventual, route.FromRoleInDatabase, false},
		"none is as the most":    {rows(nil, eventual, bad, nil), route.Strict, route.FromRole, true},
		"none that is overruled": {rows(nil, bad, eventual, nil), route.Eventual, route.FromRole, false},
	} {
		got, from, err := route.SetConsistency(c.rows)
		if got != c.want || from != c.from || errors.As(err, new(*route.ErrConsistency)) != c.bad {
			t.Errorf("%s: %q from %s, %v", name, got, from, err)
		}
	}
}

// What the client and the listener choose, and where that leaves room for what is set.
func TestOfSaysWhoChose(t *testing.T) {
	for _, c := range []struct {
		params   map[string]string
		listener route.Route
		want     route.Source
	}{
		{nil, route.Auto, route.FromDefault}, {nil, route.RW, route.FromListener}, {nil, route.RO, route.FromListener},
		{map[string]string{"howdah.route": "auto"}, route.Auto, route.FromClient}, {map[string]string{"howdah.route": "rw"}, route.RO, route.FromClient},
		{map[string]string{"options": "-c howdah.route=ro"}, route.Auto, route.FromClient},
		{map[string]string{"default_transaction_read_only": "on"}, route.Auto, route.FromClient},
		{map[string]string{"default_transaction_read_only": "off"}, route.Auto, route.FromDefault},
		{map[string]string{"default_transaction_read_only": "on"}, route.RW, route.FromListener},
	} {
		if _, got, err := route.Of(c.params, c.listener); got != c.want || err != nil {
			t.Errorf("%v on %s: from %s, %v, want %s", c.params, c.listener, got, err, c.want)
		}
	}
}
