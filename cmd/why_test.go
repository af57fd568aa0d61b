package cmd

import (
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"

	"howdah/cmd/explain"
	"howdah/consul/schema"
)

func TestWhy(t *testing.T) {
	c := newCluster(t, "pg1", "pg2")
	c.events = []schema.Event{{Kind: schema.EventElected, Epoch: 3, By: "pg1", Wall: time.Date(2026, 11, 27, 4, 0, 0, 0, time.UTC), Detail: "the first\x1b[2J"}}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addresses["pg3"] = gone.Addr().String()
	gone.Close()
	for _, k := range []struct {
		member string
		epoch  int
		want   []string
	}{
		{"", 0, []string{"pg1 is the primary of main in epoch 3", "It took the lock: the first", "pg2 could: it has WAL up to 0/3000000",
			"Consul, because of --api", "pg3: "}},
		{"pg2", 0, []string{"pg2 is streaming.", "pg2 could", "What it has recorded:"}},
		{"pg9", 0, []string{"no member pg9"}},
		{"", 9, []string{"Nothing is known of epoch 9"}},
		{"pg2", 2, []string{"not about both"}},
	} {
		stdio, out, _ := testStdio()
		why := NewWhy(stdio)
		why.API, why.Member, why.Epoch = []string{c.addresses["pg1"], c.addresses["pg2"]}, k.member, k.epoch
		said := ""
		if err := why.Run(testContext(t)); err != nil {
			said = err.Error()
		}
		said += out.String()
		for _, want := range k.want {
			if !strings.Contains(said, want) || strings.Contains(said, "\x1b") {
				t.Errorf("why %s %d lacks %q:\n%s", k.member, k.epoch, want, said)
			}
		}
	}
	stdio, out, _ := testStdio()
	why := NewWhy(stdio)
	why.API, why.Output = []string{c.addresses["pg1"]}, "json"
	var a explain.Answer
	if err := why.Run(testContext(t)); err != nil || json.Unmarshal([]byte(out.String()), &a) != nil || a.Primary != "pg1" || len(a.Members) != 1 {
		t.Errorf("%v: %s", err, out)
	}
}
