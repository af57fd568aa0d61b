package split

import (
	"strings"
	"testing"

	"howdah/router/route"
	rt "howdah/router/routertest"
)

// A value of howdah.consistency that is none fails, and changes nothing.
func TestConsistencyThatIsNone(t *testing.T) {
	const fails = "DO $howdah$BEGIN RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'invalid value for parameter \"howdah.consistency\": \"%\"', HINT = 'Available values: eventual, session, strict.'; END$howdah$"
	for sql, want := range map[string]string{
		"SET howdah.consistency = strict": "", "SET howdah.consistency TO 'Session'": "", `SET SESSION "howdah".consistency = "eventual"`: "", "SET HOWDAH.Consistency = DEFAULT": "",
		"RESET howdah.consistency": "", "SHOW howdah.consistency": "", "SET howdah.other = x": "",
		"SET howdah.consistency = lax": "lax", "SET howdah.consistency = 'default'": "default", "SET LOCAL howdah.consistency = 5": "5", "SET howdah.consistency = strict, session": "strict, session",
		"SET howdah.consistency = 'a''b\\c$howdah$ü'": "a??b??c?howdah???",
	} {
		for kind, message := range map[string][]byte{"query": rt.Query(sql), "parse": rt.Parse("s", sql)} {
			tr := newTracker()
			o := tr.FromClient(message, true)
			if want != "" {
				tr.FromClient(message, false) // in a transaction, or behind another
			}
			if want == "" {
				if o.Verb != Pass {
					t.Errorf("%s, %s: %+v", sql, kind, o)
				}
				continue
			}
			instead := rt.Query(strings.Replace(fails, "%", want, 1))
			if kind == "parse" {
				instead = rt.Parse("s", strings.Replace(fails, "%", want, 1))
			}
			if o != (Order{Replace, len(message)}) || string(tr.Replacement()) != string(instead) {
				t.Errorf("%s, %s: %+v, %q", sql, kind, o, tr.Replacement())
			}
			if kind == "parse" {
				send(t, tr, rt.Sync)
				useFunctions(tr, 's')
				send(t, tr, join(rt.Bind("", "s"), rt.Execute(""), rt.Sync))
			}
			tr.ServerError()
			if got := send(t, tr, query("SELECT 1")); got != "standby" || len(tr.SettingsSince(0)) != 0 {
				t.Errorf("%s, %s: %s, pinned: %s, %q", sql, kind, got, tr.Pinned(), tr.SettingsSince(0))
			}
		}
	}
	tr := newTracker()
	for sql, want := range map[string]route.Consistency{"SET howdah.consistency = STRICT": route.Strict, "SET howdah.consistency TO 'eventual'": route.Eventual} {
		send(t, tr, query(sql))
		tr.FromClient(query("SELECT 1"), true)
		if got, err := route.ParseConsistency(tr.Consistency()); got != want || err != nil {
			t.Errorf("%s: %q", sql, got)
		}
	}
	send(t, tr, query("SET howdah.consistency = DEFAULT"))
	tr.FromClient(query("SELECT 1"), true)
	if got := tr.Consistency(); got != "" {
		t.Errorf("%q by default", got)
	}
}
