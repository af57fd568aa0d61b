package statustable

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"howdah/consul/schema"
)

func seconds(n float64) schema.Duration { return schema.Duration(n * float64(time.Second)) }

func primary() schema.Status {
	return schema.Status{Name: "a", Cluster: "main", Instance: "a1", Seq: 9, Role: schema.RolePrimary, State: schema.StateRunning,
		Timeline: 2, Epoch: 3, LSN: 0x5000000, LeaseLeft: seconds(2.71)}
}

func standby(name string, seq uint64, at schema.LSN) schema.Status {
	return schema.Status{Name: name, Cluster: "main", Instance: name + "1", Seq: seq, Role: schema.RoleStandby, State: schema.StateStreaming,
		Timeline: 2, Epoch: 3, LSN: at, ReplayLSN: at, Upstream: "a"}
}

func view(s schema.Status, ago float64) schema.MemberView {
	return schema.MemberView{Status: s, Liveness: schema.LivenessAlive, HeardAgo: seconds(ago)}
}

func answer(self schema.Status, others ...schema.MemberView) Answer {
	return Answer{Member: self.Name, Status: &schema.ClusterStatus{Cluster: "main", Member: self.Name, Self: self,
		Members: append(others, view(self, 0)), ConsulAge: seconds(0.3)}}
}

func table(t *testing.T, p Picture) string {
	t.Helper()
	var b strings.Builder
	if err := p.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAHealthyCluster(t *testing.T) {
	b := standby("b", 4, 0x5000000)
	c := standby("c", 4, 0x4000000)
	c.ReplayLSN = 0x3000000
	state := schema.ClusterState{Leader: schema.LockView{Known: true, Exists: true, Leader: schema.Leader{Member: "a", Epoch: 3, Phase: schema.PhaseServing}}}
	got := table(t, Merge("main", Consul{Asked: true, State: state}, []Answer{answer(primary()), answer(b), answer(c)}))
	want := `cluster main   epoch 3   primary a   consul answers

MEMBER   ROLE      STATE       TIMELINE   LSN         LAG                       EPOCH   LEASE
a        primary   running     2          0/5000000   -                         3       2.7s
b        standby   streaming   2          0/5000000   0 B                       3       -
c        standby   streaming   2          0/4000000   16.0 MB, replay 32.0 MB   3       -
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestASilentMemberIsUnreachableAndNotDead(t *testing.T) {
	b := standby("b", 4, 0x5000000)
	c := standby("c", 7, 0x4000000)
	older := c
	older.Seq, older.LSN = 6, 0x1000000
	got := table(t, Merge("main", Consul{}, []Answer{
		answer(primary(), view(older, 0.1), view(b, 0.2)), // b answers for itself below
		answer(b, schema.MemberView{Status: c, Liveness: schema.LivenessSuspect, HeardAgo: seconds(4)}),
		{Member: "c", Err: "no answer within 1s"},
		{Member: "d", Err: "connection refused"},
	}))
	for _, want := range []string{
		"consul answered a member 300ms ago",
		"c        standby   unreachable (streaming 4s ago)   2          0/4000000   16.0 MB   3       -",
		"d        -         unreachable                      -          -           -         -       -",
		"c: does not answer us: no answer within 1s; the others call it suspect and heard of it 4s ago",
		"d: does not answer us: connection refused; no other member has heard of it",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "dead") {
		t.Errorf("a silent member is called dead:\n%s", got)
	}
}

func TestANewInstanceReplacesAnOldOneThoughItsSeqIsLower(t *testing.T) {
	old, restarted := standby("c", 900, 0x1000000), standby("c", 2, 0x5000000)
	restarted.Instance = "c2"
	for _, answers := range [][]Answer{
		{answer(primary(), view(old, 8)), answer(standby("b", 1, 1), view(restarted, 0.2))},
		{answer(primary(), view(restarted, 0.2)), answer(standby("b", 1, 1), view(old, 8))},
	} {
		p := Merge("main", Consul{}, answers)
		if got := p.Members[2]; got.Instance != "c2" || got.LSN != 0x5000000 {
			t.Errorf("want the newer instance, got %+v", got)
		}
	}
}

func TestAnOldPrimaryIsNotThePrimary(t *testing.T) {
	newer := primary()
	newer.Name, newer.Instance, newer.Epoch, newer.Timeline = "b", "b1", 4, 3
	p := Merge("main", Consul{}, []Answer{answer(primary()), answer(newer)})
	if p.Primary != "b" || p.Epoch != 4 {
		t.Errorf("want b in epoch 4, got %s in %d", p.Primary, p.Epoch)
	}
}

func TestNoPrimarySaysHowFarTheReignIs(t *testing.T) {
	state := schema.ClusterState{Leader: schema.LockView{Exists: true, Leader: schema.Leader{Member: "b", Epoch: 4, Phase: schema.PhasePromoting}},
		Members: []schema.Doc[schema.Member]{{Exists: true, Value: schema.Member{Name: "b"}}}}
	got := table(t, Merge("main", Consul{Asked: true, State: state}, []Answer{{Member: "b", Err: "no answer within 1s"}}))
	if !strings.Contains(got, "epoch 4   primary none (b: promoting)   consul answers") {
		t.Error(got)
	}
	if got := table(t, Merge("main", Consul{Asked: true, Err: "connection refused"}, nil)); !strings.Contains(got, "primary none   consul does not answer here: connection refused") || !strings.Contains(got, "no member is known") {
		t.Error(got)
	}
}

func TestReasonsStandBeneathAndCannotMoveTheCursor(t *testing.T) {
	b := standby("b", 4, 0x5000000)
	b.State, b.Reason = schema.StateWaiting, "waits for\x1b[2J the lock\nof a"
	got := table(t, Merge("main", Consul{}, []Answer{answer(primary()), answer(b)}))
	if !strings.HasSuffix(got, "\nb: waits for [2J the lock of a\n") {
		t.Errorf("%q", got)
	}
}

func TestJSONHasTheMembersAsAList(t *testing.T) {
	var b strings.Builder
	if err := Merge("main", Consul{}, []Answer{answer(primary())}).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Primary string
		Members []struct {
			Name     string
			Answered bool
			Epoch    int
			LagBytes int `json:"lag_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Members) != 1 || got.Primary != "a" || got.Members[0].Name != "a" || !got.Members[0].Answered || got.Members[0].LagBytes != -1 {
		t.Errorf("%s", b.String())
	}
}

func TestSettingsThatWaitForARestartAreMarkedAndNamed(t *testing.T) {
	a, b, c := primary(), standby("b", 4, 0x5000000), standby("c", 4, 0x5000000)
	b.PendingRestart, c.PendingRestart = []string{"max_connections", "shared_buffers"}, []string{"max_connections", "shared_buffers"}
	got := table(t, Merge("main", Consul{}, []Answer{answer(a), answer(b), answer(c)}))
	for _, want := range []string{
		"a        primary   running ",
		"b        standby   streaming *",
		"\n* b, c: waiting for a restart of PostgreSQL: max_connections, shared_buffers\n  run: howdah restart --pending --cluster main --api-token-file FILE\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "running *") {
		t.Errorf("a member that waits for nothing is marked:\n%s", got)
	}
}

func TestPromisesAreShown(t *testing.T) {
	a := answer(primary())
	a.Status.Promises = []schema.PromiseView{
		{Member: "b", Given: true, AskedAgo: seconds(0.2), GivenAgo: seconds(0.2)},
		{Member: "c", Why: "no answer: timeout", AskedAgo: seconds(0.2), GivenAgo: seconds(4)},
		{Member: "d", Why: "epoch 3 is over", AskedAgo: seconds(0.2), GivenAgo: -1},
	}
	got := table(t, Merge("main", Consul{}, []Answer{answer(standby("b", 4, 0x5000000)), a}))
	for _, want := range []string{
		"\na cannot renew its lease in consul and needs a promise of each of these:\n  b: promised 200ms ago\n",
		"  c: asked 200ms ago: no answer: timeout; it promised last 4s ago\n",
		"  d: asked 200ms ago: epoch 3 is over; it has never promised\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
}
