package postgres

import (
	_ "embed"
	"strings"
	"testing"

	"howdah/consul/schema"
)

//go:embed testdata/controldata-15.txt
var control15 string

func TestParseControlData(t *testing.T) {
	c, err := parseControlData(control15)
	if err != nil {
		t.Fatal(err)
	}
	want := ControlData{
		Version: 1300, CatalogVersion: 202209061, SystemID: "7711421194634348183", State: ControlShutDown,
		CheckpointLSN: 0x17414F8, RedoLSN: 0x17414F8, Timeline: 1, PrevTimeline: 1, WALLevel: "replica",
		MaxConnections: 100, MaxWorkerProcesses: 8, MaxWalSenders: 10, MaxLocksPerXact: 64,
		WALSegmentBytes: 16 << 20, DataChecksums: 1,
	}
	if c != want {
		t.Fatalf("got %+v\nwant %+v", c, want)
	}
	// PostgreSQL 18 has another number, and one more line.
	newer := strings.Replace(control15, "            1300", "            1800", 1) + "Default char data signedness:         signed\n"
	if c, err := parseControlData(newer); err != nil || c.Version != 1800 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestParseControlDataIsStrict(t *testing.T) {
	change := func(from, to string) string {
		if !strings.Contains(control15, from) {
			t.Fatalf("the sample lacks %q", from)
		}
		return strings.Replace(control15, from, to, 1)
	}
	for name, out := range map[string]string{
		"empty":             "",
		"warning":           "WARNING: Calculated CRC checksum does not match value stored in file.\nEither the file is corrupt: x\n\n" + control15,
		"torn":              control15[:400],
		"twice":             control15 + "Database cluster state:               in production\n",
		"no label":          control15 + "something else\n",
		"unknown state":     change("shut down\n", "abgeschaltet\n"),
		"garbled LSN":       change("0/17414F8", "0/17414F8x"),
		"long LSN":          change("0/17414F8", "0/17414F8000"),
		"negative":          change("100\n", "-1\n"),
		"no checkpoint":     change("Latest checkpoint location:           0/17414F8", "Latest checkpoint location:           0/0"),
		"no timeline":       change("TimeLineID:       1", "TimeLineID:       0"),
		"timeline too big":  change("TimeLineID:       1", "TimeLineID:       4294967296"),
		"system id":         change("7711421194634348183", "771142119463434818399"),
		"system id zero":    change("7711421194634348183", "0"),
		"flag":              change("required:        no", "required:        maybe"),
		"tiny WAL segments": change("16777216", "16"),
	} {
		if c, err := parseControlData(out); err == nil {
			t.Errorf("%s: accepted as %+v", name, c)
		}
	}
}

func FuzzParseControlData(f *testing.F) {
	f.Add(control15)
	f.Add(control15[:900])
	f.Add("WARNING: x: y\n")
	f.Fuzz(func(t *testing.T, out string) {
		c, err := parseControlData(out)
		if err != nil {
			if c != (ControlData{}) {
				t.Fatalf("an error and half a result: %+v", c)
			}
			return
		}
		if !controlStates[c.State] || c.CheckpointLSN == 0 || c.Timeline == 0 || c.SystemID == "" {
			t.Fatalf("accepted %+v", c)
		}
		if end := c.ShutdownEnd(); end < c.CheckpointLSN && c.CheckpointLSN < 1<<63 {
			t.Fatalf("checkpoint at %s ends at %s", c.CheckpointLSN, end)
		}
	})
}

func TestShutdownEnd(t *testing.T) {
	const segment = 16 << 20
	for _, c := range []struct {
		name            string
		checkpoint, end schema.LSN
	}{
		{"unknown", 0, 0},
		{"inside a page", 0x3000028, 0x3000028 + 114},
		{"ends at the page's end", 0x3000000 + 8192 - 114, 0x3000000 + 8192},
		{"crosses into the next page", 0x3000000 + 8192 - 112, 0x3000000 + 8192 + 2 + 24},
		{"crosses into the next segment", 0x3000000 + segment - 56, 0x3000000 + segment + 58 + 40},
	} {
		got := ControlData{CheckpointLSN: c.checkpoint, WALSegmentBytes: segment}.ShutdownEnd()
		if got != c.end {
			t.Errorf("%s: %s, want %s", c.name, got, c.end)
		}
	}
	// The size of the WAL segments counts.
	c := ControlData{CheckpointLSN: 0x3000000 + 1<<20 - 56, WALSegmentBytes: 1 << 20}
	if got, want := c.ShutdownEnd(), c.CheckpointLSN+114+40; got != want {
		t.Errorf("1 MiB segments: %s, want %s", got, want)
	}
}

func TestRedoDistance(t *testing.T) {
	if RedoDistance(0x3000100, 0x3000000) != 0x100 || RedoDistance(0, 0x3000000) != 0 {
		t.Fatal("wrong distance")
	}
}
