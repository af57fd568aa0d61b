package cmd

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	free chan struct{}
	mu   sync.Mutex
	b    bytes.Buffer
}

func (s *stuckWriter) Write(b []byte) (int, error) {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func TestLogNeverWaits(t *testing.T) {
	w := &stuckWriter{free: make(chan struct{})}
	log, err := LogOptions{Level: "info", Format: "console"}.logger(w)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 2 * queuedLines
	for i := range lines { // would never end if one of them waited
		log.Info(fmt.Sprintf("line %d.", i))
	}
	if err := log.Sync(); err == nil {
		t.Error("a log that takes nothing is flushed")
	}
	close(w.free)
	if err := log.Sync(); err != nil {
		t.Error(err)
	}
	log.Info("the last one")
	if err := log.Sync(); err != nil {
		t.Error(err)
	}
	got := w.b.String()
	for _, want := range []string{"line 0.", fmt.Sprintf("line %d.", queuedLines-1), "lines of this log were dropped", "the last one"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(got, fmt.Sprintf("line %d.", lines-1)) {
		t.Error("more lines were kept than the queue holds")
	}
}
