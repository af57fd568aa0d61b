package decide

import (
	"slices"
	"testing"
	"time"

	"howdah/consul/schema"
)

// What the directory said before Postgres ran last does not say where it ended.
func TestAHandoverNamesNoEndOfOld(t *testing.T) {
	for name, c := range map[string]struct {
		at   schema.Instant
		want schema.LSN
	}{"looked at since": {t0, 0x4000}, "looked at before": {t0 - 2, 0}} {
		o, m := holder()
		o.Process = Process{State: ProcessCrashed, At: t0, Since: t0 - 1}
		o.Data.At, o.Data.ShutdownLSN, o.SQL = c.at, 0x4000, SQL{State: SQLUnknown}
		m.Reign.HandOver = "its disk hangs"
		p, _ := Decide(o.at(time.Second, 0), m)
		i := slices.IndexFunc(p.Actions, func(a Action) bool { return a.Kind == Release })
		if i < 0 {
			t.Fatalf("%s: planned %v", name, planned(p))
		}
		if got := p.Actions[i].Leader.ShutdownLSN; got != c.want {
			t.Errorf("%s: it names %s as its end", name, got)
		}
	}
}
