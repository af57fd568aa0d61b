package sidecar

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

// written ends the writer of a journal once it has written everything.
func written(t *testing.T, j *journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j.write(ctx)
}

func seqs(events []schema.Event) string {
	var text []string
	for _, e := range events {
		text = append(text, fmt.Sprint(e.Seq))
	}
	return strings.Join(text, " ")
}

func TestJournalOutlivesTheSidecar(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.events.jsonl")
	j := openJournal(path, zap.NewNop())
	for i := range 3 {
		j.add(schema.Event{Kind: schema.EventJudged, At: 7, Epoch: schema.Epoch(i), Evidence: &schema.Evidence{Judgement: &schema.Judgement{Holder: "pg1"}}})
	}
	written(t, j)
	// What a crash cut short is passed over, and so is what the machine's clock said before it booted.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	lines[0] = strings.Replace(lines[0], j.boot, "another", 1)
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")+`{"seq":4,"ki`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	j = openJournal(path, zap.NewNop())
	j.add(schema.Event{Kind: schema.EventElected})
	got := j.since(0, 10)
	if seqs(got) != "1 2 3 4" || got[0].At != schema.Never || got[1].At != 7 || got[2].Evidence.Judgement.Holder != "pg1" || got[3].Kind != schema.EventElected {
		t.Fatalf("%+v", got)
	}
}

func TestJournalMissesNone(t *testing.T) {
	j := openJournal(filepath.Join(t.TempDir(), "e"), zap.NewNop())
	for range 5 {
		j.add(schema.Event{})
	}
	for _, c := range []struct {
		after uint64
		limit int
		want  string
	}{
		{0, 10, "1 2 3 4 5"}, {0, 2, "1 2"}, {2, 2, "3 4"}, {4, 2, "5"}, {5, 2, ""}, {3, 0, ""},
		{99, 10, "1 2 3 4 5"}, // of a journal that is no more
	} {
		if got := seqs(j.since(c.after, c.limit)); got != c.want {
			t.Errorf("after %d, at most %d: %q, want %q", c.after, c.limit, got, c.want)
		}
	}
	for range 3 * keptEvents {
		j.add(schema.Event{})
	}
	if got := j.since(1, keptEvents); len(got) != keptEvents || got[keptEvents-1].Seq != 5+3*keptEvents {
		t.Errorf("%d events kept, up to %d", len(got), got[len(got)-1].Seq)
	}
}

func TestJournalIsBoundedAndHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "e")
	j := openJournal(path, zap.NewNop())
	long := strings.Repeat("x", 2000)
	for range 3 {
		for range unwritten + 10 { // nobody writes: the last ten never reach the disk
			j.add(schema.Event{Detail: long})
		}
		written(t, j)
	}
	for _, name := range []string{path, path + ".1"} {
		if info, err := os.Stat(name); err != nil || info.Size() > journalBytes+4000 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if got := openJournal(path, zap.NewNop()).since(0, keptEvents); len(got) < 500 || got[len(got)-1].Seq != 3*(unwritten+10)-10 {
		t.Errorf("%d events read again", len(got))
	}
	// A directory in its place: a disk that refuses.
	broken := openJournal(t.TempDir(), zap.NewNop())
	broken.add(schema.Event{})
	written(t, broken)
	if got := broken.since(0, 1); len(got) != 1 {
		t.Error("an event that cannot be written is lost")
	}
}
