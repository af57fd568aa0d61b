package decide

import (
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

// A request that was carried out is dropped by the new primary, and nothing is called refused.
func TestARequestThatWasCarriedOutIsNotRefused(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		refused        bool
	}{
		{"we were named", "pg9", "pg1", false},
		{"whoever was the best, and we are", "pg9", "", false},
		{"somebody else was named", "pg9", "pg2", true},
		{"we are asked to hand over to ourselves", "pg1", "pg1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o.State.Request = schema.Doc[schema.Request]{Exists: true, Index: 5, Value: schema.Request{
				ID: "1", Kind: schema.RequestSwitchover, From: strings.Replace(c.from, "pg1", o.Name, 1), To: strings.Replace(c.to, "pg1", o.Name, 1),
			}}
			plan, after := Decide(o, m)
			refused := false
			for _, e := range plan.Events {
				refused = refused || strings.Contains(e.Detail, "refused")
			}
			dropped := false
			for _, a := range plan.Actions {
				dropped = dropped || a.Kind == DropRequest
			}
			if !dropped || refused != c.refused || after.Switch.To != "" {
				t.Errorf("dropped %v, refused %v, switch %+v", dropped, refused, after.Switch)
			}
		})
	}
}

// Whoever asks for a switchover learns of each member why it may not follow.
func TestARefusedSwitchoverSaysWhatBarsEveryMember(t *testing.T) {
	for _, c := range []struct {
		name, to string
		spoil    func(peers []schema.Peer) []schema.Peer
		want     string
	}{
		{"all are fit", "", func(p []schema.Peer) []schema.Peer { return p }, ""},
		{"one is fit", "", func(p []schema.Peer) []schema.Peer { p[0].Liveness = schema.LivenessDead; return p }, ""},
		{"each for a reason of its own", "", func(p []schema.Peer) []schema.Peer {
			p[0].Liveness, p[1].Status.Tags.NoFailover = schema.LivenessDead, true
			return p
		}, "no member may be promoted at the moment: pg2: it is not heard of (dead); pg3: its nofailover tag is set"},
		{"one was never heard of", "", func(p []schema.Peer) []schema.Peer { p[0].Status.Timeline = 1; return p[:1] },
			"no member may be promoted at the moment: pg2: it is on timeline 1, the last primary was on 2; pg3: nothing was heard of it"},
		{"the one that was named", "pg2", func(p []schema.Peer) []schema.Peer { p[0].Status.Timeline = 1; return p },
			"member pg2 may not be promoted: it is on timeline 1, the last primary was on 2"},
		{"another than the one that was named", "pg3", func(p []schema.Peer) []schema.Peer { p[0].Status.Timeline = 1; return p }, ""},
		{"a silent disk of the one that was named", "pg2", func(p []schema.Peer) []schema.Peer { p[0].Status.DiskSilent = schema.Duration(time.Hour); return p },
			"member pg2 may not be promoted: its disk has taken no write for 1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, m := holder()
			o.Peers = []schema.Peer{peer("pg2", 0x5000), peer("pg3", 0x5000)}
			for i := range o.Peers {
				o.Peers[i].Status.State = schema.StateStreaming
			}
			o.Peers = c.spoil(o.Peers)
			if got := Unready(&o, m, c.to); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}
