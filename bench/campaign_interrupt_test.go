package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"howdah/sidecar/local"
)

// A campaign that is interrupted in the middle of a fault, here with a frozen host, leaves nothing behind.
func TestInterruptedCampaignLeavesNothing(t *testing.T) {
	o, ok := testCampaign(t, "async")
	if !ok {
		return
	}
	o.faults, o.kinds = 1, []string{"freeze"}
	ctx, cancel := context.WithTimeout(t.Context(), smokeTimeout)
	defer cancel()
	s, err := o.build(ctx, t.Logf)
	if err == nil {
		ended := make(chan error, 1)
		go func() {
			_, err := s.run(ctx, held(schedule(o.seed, o.faults, o.kinds), time.Hour))
			ended <- err
		}()
		frozen := func() bool {
			groups, _ := filepath.Glob("/sys/fs/cgroup/*/howdah-" + s.c.ID + "/*/cgroup.freeze")
			more, _ := filepath.Glob("/sys/fs/cgroup/howdah-" + s.c.ID + "/*/cgroup.freeze")
			for _, g := range append(groups, more...) {
				if b, err := os.ReadFile(g); err == nil && strings.TrimSpace(string(b)) == "1" {
					return true
				}
			}
			return false
		}
		if err := local.Poll(ctx, 10*time.Millisecond, func() bool { return frozen() || len(ended) > 0 }); err != nil || len(ended) > 0 {
			t.Errorf("no host was frozen: %v", err)
		}
		cancel()
		err = <-ended
	}
	if closed := s.c.Close(); closed != nil {
		t.Error(closed)
	}
	if err != nil {
		t.Error(err)
	}
	for _, pattern := range []string{"/run/netns/howdah-" + s.c.ID + "*", s.c.Dir, "/sys/fs/cgroup/howdah-" + s.c.ID, "/sys/fs/cgroup/*/howdah-" + s.c.ID} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), s.c.Dir) {
		t.Errorf("a disk of %s is left mounted (%v)", s.c.Dir, err)
	}
}
