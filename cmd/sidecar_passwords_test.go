package cmd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"howdah/sidecar/postgres"
)

// holder takes what a sidecar would.
type holder struct {
	refuse  error
	set     []postgres.Secrets
	trouble error
}

func (h *holder) SetSecrets(s postgres.Secrets) error {
	if h.refuse == nil {
		h.set = append(h.set, s)
	}
	return h.refuse
}

func (h *holder) SecretsFiles(err error) { h.trouble = err }

func writeSecret(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A change is taken over at a signal, or once it stands still; whatever is wrong keeps the passwords and is said once.
func TestPasswordWatch(t *testing.T) {
	dir := t.TempDir()
	for _, name := range passwordFiles {
		writeSecret(t, dir, name, "old "+name+"\n")
	}
	var now Secrets
	if err := now.readPasswords(dir); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	h := &holder{}
	w := passwordWatch{now: now, seen: now, holder: h, log: zap.New(core), read: func() (s Secrets, err error) { err = s.readPasswords(dir); return s, err }}
	for i, step := range []struct {
		file, text string // written before the look
		signal     bool
		refuse     error
		superuser  string // taken over by the look; empty: nothing
		former     []string
		trouble    string
	}{
		{},
		{signal: true},
		{file: "superuser", text: "one"}, // perhaps not whole
		{file: "superuser", text: "one two\n"},
		{superuser: "one two"},
		{},
		{file: "superuser", text: "three\none two\n", signal: true, superuser: "three", former: []string{"one two"}},
		{file: "superuser", text: "three\n", signal: true, superuser: "three"},
		{file: "superuser", text: ""}, // perhaps just being written
		{trouble: "is empty"},
		{trouble: "is empty"},
		{file: "superuser", text: "hush\r\nhush\n", signal: true, trouble: "carriage return"},
		{file: "superuser", text: "four\n", signal: true, refuse: errors.New("not yet"), trouble: "not yet"},
		{superuser: "four"},
		{file: "router", text: "hush\x00", signal: true, trouble: "zero byte"},
		{file: "router", text: "old router\n"},
	} {
		if step.file != "" {
			writeSecret(t, dir, step.file, step.text)
		}
		h.set, h.refuse = nil, step.refuse
		w.look(step.signal)
		switch {
		case step.superuser == "" && len(h.set) > 0:
			t.Fatalf("step %d: taken over", i)
		case step.superuser == "":
		case len(h.set) != 1 || h.set[0].Superuser != step.superuser || !slices.Equal(h.set[0].Former["superuser"], step.former) || h.set[0].Router != "old router":
			t.Fatalf("step %d: %d times", i, len(h.set))
		}
		if got := h.trouble; (step.trouble == "") != (got == nil) || got != nil && !strings.Contains(got.Error(), step.trouble) {
			t.Fatalf("step %d: the status has %v, want %q", i, got, step.trouble)
		}
	}
	if n := logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 4 {
		t.Errorf("%d errors were logged, want 4", n)
	}
	if err := os.Remove(filepath.Join(dir, "rewind")); err != nil {
		t.Fatal(err)
	}
	w.look(true)
	if h.trouble == nil || !errors.Is(h.trouble, os.ErrNotExist) {
		t.Errorf("a missing file: %v", h.trouble)
	}
	if _, err := os.Stat(filepath.Join(dir, "rewind")); err == nil {
		t.Error("a missing password was generated while the sidecar runs")
	}
	for _, e := range logs.All() {
		for _, v := range e.ContextMap() {
			if s, _ := v.(string); strings.Contains(s, "hush") || strings.Contains(s, "three") {
				t.Errorf("the log holds a password: %s", s)
			}
		}
	}
}

// The watch itself: a signal is enough.
func TestPasswordsAreReadAgainOnASignal(t *testing.T) {
	dir := t.TempDir()
	for _, name := range passwordFiles {
		writeSecret(t, dir, name, "old "+name)
	}
	c := NewSidecar(Stdio{})
	c.SecretsDir = dir
	m := member{log: zap.NewNop()}
	if err := m.secrets.readPasswords(dir); err != nil {
		t.Fatal(err)
	}
	writeSecret(t, dir, "replication", "new")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	signals := make(chan os.Signal, 1)
	signals <- os.Interrupt
	got := make(chan postgres.Secrets, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.watchPasswords(ctx, signals, m, telling(got))
	}()
	select {
	case s := <-got:
		if s.Replication != "new" || s.Superuser != "old superuser" {
			t.Error("other passwords were read")
		}
	case <-ctx.Done():
		t.Error("nothing happened")
	}
	cancel()
	<-done
}

// telling tells of what is set.
type telling chan postgres.Secrets

func (c telling) SetSecrets(s postgres.Secrets) error { c <- s; return nil }

func (c telling) SecretsFiles(error) {}
