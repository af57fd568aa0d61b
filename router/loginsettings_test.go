package router_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"howdah/consul/schema"
	"howdah/router"
	"howdah/router/own"
	"howdah/router/route"
)

// A login does not wait for a primary that does not say what roles and databases set. The session reads from no standby then, also once the answer is there, unless
// another one was told the same shortly before.
func TestLoginDoesNotWaitForTheSettings(t *testing.T) {
	var gate atomic.Pointer[chan struct{}] // questions wait for it
	shut := func() (open func()) {
		ch := make(chan struct{})
		gate.Store(&ch)
		return sync.OnceFunc(func() {
			gate.Store(nil)
			close(ch)
		})
	}
	var answered atomic.Int32
	s := startSplit(t, func(o *router.Options) {
		o.AskSettings(func(ask router.SettingsAsk) router.SettingsAsk {
			return func(ctx context.Context, at own.Server, user, database string) (own.Login, error) {
				if ch := gate.Load(); ch != nil {
					<-*ch
				}
				defer answered.Add(1)
				return ask(ctx, at, user, database)
			}
		})
	})
	open := shut()
	defer open()
	first := s.connect(t, route.Auto, "") // which would not return
	onPrimary := func(what string) {
		t.Helper()
		for range 10 {
			if _, on := s.text(first, "SELECT s FROM t WHERE n = 1"); on != "one" {
				t.Fatalf("%s it reads on %s", what, on)
			}
		}
	}
	onPrimary("without an answer")
	open()
	until(t, "the answer", func() bool { return answered.Load() == 1 })
	onPrimary("with an answer from after its login")
	s.caughtUp(s.connect(t, route.Auto, "")) // and the functions are known

	s.connect(t, route.Auto, "")
	defer shut()()
	s.caughtUp(s.connect(t, route.Auto, ""))
	if answered.Load() != 3 {
		t.Errorf("%d answers, want none for the last", answered.Load())
	}

	// A standby that is behind has what the answer of another says, and the session may have begun with something newer: not even an eventual one reads there.
	s.two.Exec("SELECT pg_wal_replay_pause()")
	defer s.two.Exec("SELECT pg_wal_replay_resume()")
	s.primary.Exec("CREATE SCHEMA other; CREATE TABLE other.t (n int, s text); INSERT INTO other.t VALUES (1, 'of other'); GRANT USAGE ON SCHEMA other TO alice; GRANT ALL ON other.t TO alice")
	s.primary.Exec("ALTER ROLE alice SET search_path = other, public")
	later := s.connect(t, route.Auto, "")
	if err := s.exec(later, pgx.QueryExecModeSimpleProtocol, "SET howdah.consistency = 'eventual'"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if v, on := s.text(later, "SELECT s FROM t WHERE n = 1"); v != "of other" || on != "one" {
			t.Errorf("read %q on %s", v, on)
		}
	}
}

func TestSettingsAnswersServeForAMoment(t *testing.T) {
	var k router.SettingsKept
	at := schema.Instant(time.Hour)
	k.Keep("one", "alice", "new", at)
	k.Keep("one", "alice", "older, and later here", at.Add(-time.Second))
	for _, c := range []struct {
		member, user string
		then         schema.Instant
		want         string
	}{
		{"one", "alice", at, "new"}, {"one", "alice", at.Add(1), ""}, {"two", "alice", at, ""}, {"one", "bob", at, ""},
	} {
		if got := k.Since(c.member, c.user, c.then); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	// However many names strangers ask for.
	for i := range 2000 {
		k.Keep("one", fmt.Sprint("stranger ", i), "x", at.Add(time.Second))
	}
	if got := k.Since("one", "stranger 1999", at); got != "" {
		t.Error("there is no bound")
	}
	k.Keep("one", "alice", "newest", at.Add(2*time.Second))
	later := at.Add(2*time.Second + router.SettingsFor)
	k.Keep("one", "bob", "known", later)
	if got := k.Since("one", "bob", later); got != "known" {
		t.Errorf("after the strangers' answers are of no use any more: %q", got)
	}
	if got := k.Since("one", "alice", at); got != "newest" {
		t.Errorf("what is of use was forgotten: %q", got)
	}
}
