package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"howdah/consul/schema"
)

const (
	// keptEvents is how many events a member serves.
	keptEvents = 1000
	// journalBytes is how long the file grows before another is begun; the one before it is kept as .1.
	journalBytes = 1 << 20
	// unwritten bounds the events that wait for the disk. More are served from memory and never reach it.
	unwritten = 1000
)

// journal keeps the last events: in memory, and in a file beside the data directory, one JSON object on a line, so that
// they outlive the sidecar. It is written behind the loop's back and never synced: a disk that hangs costs the file some
// events and holds nobody up.
type journal struct {
	path string
	boot string // of this run of the machine: At of another one means nothing
	log  *zap.Logger

	mu     sync.Mutex
	last   uint64 // Seq of the newest
	events []schema.Event

	queue chan schema.Event
}

// journalLine is one line of the file.
type journalLine struct {
	schema.Event
	Boot string `json:"boot,omitempty"`
}

// openJournal reads what an earlier sidecar has left. A file that cannot be read is a pity and no reason not to start.
func openJournal(path string, log *zap.Logger) *journal {
	j := &journal{path: path, log: log, queue: make(chan schema.Event, unwritten)}
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		j.boot = strings.TrimSpace(string(b))
	}
	for _, name := range []string{path + ".1", path} {
		b, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("earlier events cannot be read", zap.Error(err))
		}
		j.load(b)
	}
	return j
}

// load takes in lines; one that was cut short is passed over.
func (j *journal) load(b []byte) {
	for line := range bytes.Lines(b) {
		var e journalLine
		if json.Unmarshal(line, &e) != nil || e.Seq <= j.last {
			continue
		}
		if e.Boot != j.boot {
			e.At = schema.Never
		}
		j.keep(e.Event)
	}
}

// keep appends e, and drops old ones now and then.
func (j *journal) keep(e schema.Event) {
	j.last = e.Seq
	if len(j.events) >= 2*keptEvents {
		j.events = slices.Delete(j.events, 0, len(j.events)-keptEvents+1)
	}
	j.events = append(j.events, e)
}

// add numbers e, keeps it and has it written.
func (j *journal) add(e schema.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Seq = j.last + 1
	j.keep(e)
	select {
	case j.queue <- e:
	default: // the disk hangs
	}
}

// since returns the oldest limit events after that Seq. A Seq that has not been reached is of a journal that is no
// more: then all are new.
func (j *journal) since(after uint64, limit int) []schema.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events[max(0, len(j.events)-keptEvents):]
	if after <= j.last {
		i, _ := slices.BinarySearchFunc(events, after+1, func(e schema.Event, seq uint64) int {
			if e.Seq < seq {
				return -1
			}
			return 1
		})
		events = events[i:]
	}
	return slices.Clone(events[:min(max(limit, 0), len(events))])
}

// write appends to the file what is queued, until ctx ends; then what is queued still.
func (j *journal) write(ctx context.Context) {
	said := ""
	put := func(e schema.Event) {
		err := j.append(e)
		if err != nil && err.Error() != said {
			said = err.Error()
			j.log.Warn("events cannot be written to the journal; they are served from memory", zap.Error(err))
		}
	}
	for {
		select {
		case e := <-j.queue:
			put(e)
		case <-ctx.Done():
			for {
				select {
				case e := <-j.queue:
					put(e)
				default:
					return
				}
			}
		}
	}
}

func (j *journal) append(e schema.Event) error {
	line, err := json.Marshal(journalLine{Event: e, Boot: j.boot})
	if err != nil {
		return err
	}
	if info, err := os.Stat(j.path); err == nil && info.Size() > journalBytes {
		if err := os.Rename(j.path, j.path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
