package main

import (
	"context"
	"os"
	"testing"
	"time"

	"howdah/consul/schema"
	"howdah/sidecar/local/localtest"
)

// smokeTimeout is for a machine on which other tests run; alone it takes less than a minute.
const smokeTimeout = 5 * time.Minute

// testCampaign returns the options of a small campaign, where one may be run: otherwise it says so and returns false.
func testCampaign(t *testing.T, mode string) (campaignOptions, bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Log("not root: network namespaces cannot be made, so nothing is tested here; go run ./bench campaign as root does it")
		return campaignOptions{}, false
	}
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return campaignOptions{faults: 2, members: 3, seed: 1, mode: mode, lease: schema.DefaultClusterConfig().Lease.D(),
		howdah: localtest.Binary(t), root: root, out: t.TempDir()}, true
}

// TestCampaign is a short campaign on hosts of their own.
func TestCampaign(t *testing.T) {
	o, ok := testCampaign(t, "async")
	if !ok {
		return
	}
	o.kinds = []string{"cut-all", "switchover"}
	ctx, cancel := context.WithTimeout(t.Context(), smokeTimeout)
	defer cancel()
	f, err := o.campaign(ctx, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.violations(); n > 0 || len(f.Outcomes) != o.faults {
		t.Errorf("%d faults, %d violations:\n%s", len(f.Outcomes), n, f.markdown("none"))
	}
	if f.Acked < 100 || f.Direct < 10 || f.Reads["rw"] < 10 || f.Reads["ro"] < 10 || f.OnStandbys["strict"] < 10 || f.Own[1] < 10 {
		t.Errorf("the clients did too little to prove anything: %d rows, %d past the routers, reads %v, on standbys %v, of own writes %v", f.Acked, f.Direct, f.Reads, f.OnStandbys, f.Own)
	}
	if len(f.Reigns) < 3 {
		t.Errorf("a cut and a switchover end two reigns: %+v", f.Reigns)
	}
}
