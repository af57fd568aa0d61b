package explain

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"howdah/consul/schema"
)

var update = flag.Bool("update", false, "write what is said now into the scripts")

// script is a question told in lines; see testdata. Below its line `---` stands what is to be said.
type script struct {
	t *testing.T
	q Question
}

// TestScripts asks what each script asks.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			told, want, _ := strings.Cut(string(b), "---\n")
			s := script{t: t, q: Question{Cluster: "shop"}}
			for _, line := range strings.Split(told, "\n") {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.line(line)
				}
			}
			got := Explain(s.q).String()
			if *update {
				if err := os.WriteFile(path, []byte(told+"---\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("says\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// line takes in one line: its first word says what it is, and what stands after a colon is words.
func (s *script) line(line string) {
	head, words, _ := strings.Cut(line, ": ")
	f := strings.Fields(head)
	switch f[0] {
	case "reign": // reign EPOCH MEMBER TIMELINE LSN TIME: WHY
		s.q.History = append(s.q.History, schema.Reign{Epoch: s.epoch(f[1]), Member: f[2], Timeline: schema.Timeline(s.number(f[3])), LSN: s.lsn(f[4]), At: s.wall(f[5]), Why: words})
	case "leader": // leader EPOCH MEMBER PHASE
		s.q.Leader = &schema.Leader{Epoch: s.epoch(f[1]), Member: f[2], Phase: schema.Phase(f[3])}
	case "member": // member NAME STATE [EPOCH that it holds]: REASON; what follows is its
		a := schema.Account{Cluster: "shop", Member: f[1], State: schema.State(f[2]), Reason: words}
		if len(f) > 3 {
			a.Holds, a.Epoch = true, s.epoch(f[3])
		}
		s.q.Accounts = append(s.q.Accounts, a)
	case "now": // now NAME LSN TIMELINE PRIORITY: BAR
		a := s.account()
		a.Candidates = append(a.Candidates, s.candidate(f[1:], words))
	case "at": // at TIME EPOCH KIND...: DETAIL
		a := s.account()
		wall := s.wall(f[1])
		a.Events = append(a.Events, schema.Event{Kind: schema.EventKind(strings.Join(f[3:], " ")), At: schema.Instant(wall.Sub(s.wall("00:00:00"))), Wall: wall,
			By: a.Member, Epoch: s.epoch(f[2]), Detail: words})
	case "lease": // lease HOLDER LEASE UNRENEWED READ-AGO HEARD-AGO LIVENESS INDEX
		s.evidence().Judgement = &schema.Judgement{Holder: f[1], Lease: s.took(f[2]), Unrenewed: s.took(f[3]), ReadAgo: s.took(f[4]), HeardAgo: s.took(f[5]),
			Liveness: schema.Liveness(f[6]), Index: uint64(s.number(f[7]))}
	case "candidate": // candidate NAME LSN TIMELINE PRIORITY: BAR
		e := s.evidence()
		e.Candidates = append(e.Candidates, s.candidate(f[1:], words))
	case "silent":
		s.q.Silent = append(s.q.Silent, strings.TrimPrefix(line, "silent "))
	case "why": // why, why member NAME, why epoch N
		if len(f) > 2 && f[1] == "member" {
			s.q.Member = f[2]
		} else if len(f) > 2 {
			s.q.Epoch = s.epoch(f[2])
		}
	default:
		s.t.Fatalf("no such line: %s", line)
	}
}

func (s *script) account() *schema.Account { return &s.q.Accounts[len(s.q.Accounts)-1] }

func (s *script) evidence() *schema.Evidence {
	events := s.account().Events
	e := &events[len(events)-1]
	if e.Evidence == nil {
		e.Evidence = &schema.Evidence{}
	}
	return e.Evidence
}

func (s *script) candidate(f []string, bar string) schema.Candidate {
	return schema.Candidate{Member: f[0], LSN: s.lsn(f[1]), Timeline: schema.Timeline(s.number(f[2])), Priority: s.number(f[3]), Bar: bar}
}

func (s *script) number(text string) (n int) {
	if _, err := fmt.Sscan(text, &n); err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	return n
}

func (s *script) epoch(text string) schema.Epoch { return schema.Epoch(s.number(text)) }

func (s *script) lsn(text string) schema.LSN {
	l, err := schema.ParseLSN(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *script) wall(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.999", "2026-11-27 "+text)
	if err != nil {
		s.t.Fatal(err)
	}
	return t
}

func (s *script) took(text string) schema.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return schema.Duration(d)
}
