package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"howdah/consul/schema"
)

// The set of a promotion is written beside everything else: a primary that is promoted already does not become a standby by it, and
// reserved timelines stay reserved. AwaitSynchronous returns when commits wait, and not before.
func TestSetSynchronousStandbys(t *testing.T) {
	t.Parallel()
	m := newPrimary(t, "one")
	if yes, err := m.Synchronous(t.Context()); err != nil || yes {
		t.Errorf("without a set: %t, %v", yes, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := m.AwaitSynchronous(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it was awaited without a set: %v", err)
	}
	if err := m.SetSynchronousStandbys(`ANY 1 ("two", "it's")`); err != nil {
		t.Fatal(err)
	}
	m.reload()
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.AwaitSynchronous(long); err != nil {
		t.Fatal(err)
	}
	if got := m.server.Query("SHOW synchronous_standby_names"); got != `ANY 1 ("two", "it's")` {
		t.Errorf("it is %s", got)
	}
	if d := m.inspect(); d.StandbySignal {
		t.Error("standby.signal was written")
	}
	if got := m.configure(Settings{Role: schema.RolePrimary, SynchronousStandbyNames: `ANY 1 ("two", "it's")`}); got != ChangeNone {
		t.Errorf("Configure would write something else: %s", got)
	}
}

// A standby of a synchronous cluster has a set from the beginning, of nobody; one of an asynchronous cluster has none.
func TestSynchronousOfAStandby(t *testing.T) {
	for mode, want := range map[string]string{"": "", schema.SyncOff: "", schema.SyncOn: nobodyYet, schema.SyncStrict: nobodyYet} {
		c := schema.DefaultClusterConfig()
		c.SynchronousMode = mode
		all, _, err := Options{Name: "one"}.settings(Settings{Role: schema.RoleStandby, Config: c}, facts{major: 15})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.name == "synchronous_standby_names" && s.value != want {
				t.Errorf("%q: %s", mode, s.value)
			}
		}
	}
}
