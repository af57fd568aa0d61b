package decide

import (
	"slices"
	"testing"
	"time"

	"howdah/consul/schema"
)

// A primary without Consul whose lease had run out may be promised another one, and acknowledges commits again. The record has
// the index that it had, and what the standbys told before is not all that they have (F2).
func TestReportsFromBeforeAPromiseDoNotCount(t *testing.T) {
	const dead = lease + margin0
	for _, c := range []struct {
		name  string
		late  bool // the answer comes after the promise, and was asked for before
		again bool // they have told again since
		want  Kind
	}{
		{"told before it", false, false, AskReports},
		{"asked before it, told after it", true, false, AskReports},
		{"asked after it", false, true, Seize},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := standby()
			// It needs the answer of pg3, and pg2 alone says nothing of a commit that pg3 has acknowledged.
			o.Lock.Leader.Sync = schema.SyncSet{Need: 1, Standbys: []string{"pg2", "pg3"}}
			told := func(at time.Duration) Outcome {
				return Outcome{Action: Action{Kind: AskReports, At: o.Lock}, Result: OK, StartedAt: t0.Add(at),
					Promises: []schema.PromiseReply{{Member: "pg3", LSN: 0x5000, Timeline: 2}}}
			}
			o = o.at(dead+1, 0)
			if !c.late {
				o.Done = []Outcome{told(dead)}
			}
			p, m := Decide(o, m) // the lock is to be read before it may stand
			if slices.Contains(planned(p), Seize) {
				t.Fatalf("planned %v", planned(p))
			}
			o.Done = nil
			reply, m := Promise(o, m, schema.PromiseRequest{From: "pg1", Epoch: 4, Lease: schema.Duration(lease), Mark: o.Now})
			if !reply.Given {
				t.Fatalf("no promise: %s", reply.Why)
			}
			if c.late {
				o.Done = []Outcome{told(dead)}
				_, m = Decide(o, m)
				o.Done = nil
			}
			o = o.at(3*dead, 3*dead-1)
			if c.again {
				o.Done = []Outcome{told(3*dead - 2)}
			}
			p, _ = Decide(o, m)
			if got := planned(p); !slices.Equal(got, []Kind{c.want}) {
				t.Errorf("planned %v, want %s (%s)", got, c.want, p.Reason)
			}
		})
	}
}

// margin0 is margin, as a constant.
const margin0 = lease/10 + 200*time.Millisecond

// Nor does what was told before a newer epoch was heard of: its primary may have acknowledged commits since, and the old record says nothing of it.
func TestReportsFromBeforeANewerEpochDoNotCount(t *testing.T) {
	o, m := standby()
	o.Peers = []schema.Peer{peer("pg1", 0x3000), peer("pg3", 0x4000)}
	m.Reports = Reports{Index: o.Lock.Index, Got: []Report{{"pg1", 0x3000, 2}, {"pg3", 0x4000, 2}}}
	o.Peers[1].Status.Epoch = 9
	o = o.at(time.Minute, time.Minute-1)
	_, m = Decide(o, m)
	o.Done = []Outcome{{Action: Action{Kind: AskReports, At: o.Lock}, Result: OK, StartedAt: t0.Add(time.Minute - 1),
		Promises: []schema.PromiseReply{{Member: "pg1", LSN: 0x3000, Timeline: 2}, {Member: "pg3", LSN: 0x4000, Timeline: 2}}}}
	o = o.at(2*time.Minute, 2*time.Minute-1)
	p, _ := Decide(o, m)
	if got := planned(p); !slices.Equal(got, []Kind{AskReports}) {
		t.Errorf("planned %v (%s)", got, p.Reason)
	}
}
