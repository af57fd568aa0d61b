package launch

import (
	"strings"
	"testing"
	"time"
)

// A primary whose lease nobody extends is stopped in order before its deadline, so that standbys get everything; one
// whose lease is extended in time is not touched.
func TestFarewell(t *testing.T) {
	r := idleRig(t)
	r.options.Farewell = time.Second
	r.launch()
	deadline := r.primary(1, 5*time.Second)
	r.must(r.Arm(r.ctx(), Lease{Epoch: 1, Deadline: deadline.Add(2 * time.Second)}))
	s := r.wait(ProcessStopped, ProcessFenced, ProcessCrashed)
	if s.Process != ProcessStopped {
		t.Fatalf("%s: %s", s.Process, s.ExitDetail)
	}
	if end := deadline.Add(2 * time.Second); s.Now >= end || s.Now < deadline.Add(time.Second) {
		t.Errorf("stopped %s before the deadline; want at most 1s, and not before the first one's farewell", end.Sub(s.Now))
	}
	if !strings.Contains(r.log.String(), "the lease was not extended") {
		t.Error("the log does not say why")
	}
}

// Where commits wait for standbys there is no farewell, which would end the waits: the fence kills.
func TestNoFarewellWhereCommitsWait(t *testing.T) {
	r := idleRig(t)
	r.options.Farewell = time.Second
	r.launch()
	deadline := r.primary(1, 3*time.Second)
	r.must(r.Arm(r.ctx(), Lease{Epoch: 1, Deadline: deadline, Synchronous: true}))
	s := r.wait(ProcessStopped, ProcessFenced, ProcessCrashed)
	if s.Process != ProcessFenced || s.Now < deadline {
		t.Fatalf("%s %s before the deadline: %s", s.Process, deadline.Sub(s.Now), s.ExitDetail)
	}
}
