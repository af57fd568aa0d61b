package detector

import (
	"log"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"howdah/consul/schema"
)

const (
	logQueue = 256
	// logEvery is how often lines that differ in numbers only may be logged as a warning.
	logEvery = 30 * time.Second
	logKinds = 256
)

// hushed are memberlist's lines that say what the detector says itself, or that come with every death.
var hushed = []string{
	"Suspect ", "Failed fallback TCP ping", "Conflicting address", "Refuting ", "Failed UDP ping",
	"Push/Pull with", "Failed to send UDP", "Failed to send gossip", "Failed to send indirect",
	"Stream connection", "Marking ", "Failed to resolve", "failed to resolve",
}

const badLabel = "with unacceptable label "

// logs passes memberlist's lines on to zap. memberlist writes them under its own lock, so they are
// queued, and dropped if the reader of the log is slower.
type logs struct {
	queue   chan string
	dropped atomic.Uint64
	foreign atomic.Uint64 // packets and streams that bear another cluster's label

	log     *zap.Logger
	now     func() schema.Instant
	last    map[string]schema.Instant
	skipped map[string]int
}

func newLogs(l *zap.Logger, now func() schema.Instant) *logs {
	return &logs{
		queue: make(chan string, logQueue), log: l, now: now,
		last: map[string]schema.Instant{}, skipped: map[string]int{},
	}
}

func (l *logs) logger() *log.Logger { return log.New(l, "", 0) }

// Write implements io.Writer for log.Logger, which calls it once a line.
func (l *logs) Write(p []byte) (int, error) {
	select {
	case l.queue <- string(p):
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// run passes lines on until done is closed.
func (l *logs) run(done <-chan struct{}) {
	for {
		select {
		case line := <-l.queue:
			l.pass(line)
		case <-done:
			return
		}
	}
}

func (l *logs) pass(line string) {
	level, text := splitLine(line)
	for _, h := range hushed {
		if strings.HasPrefix(text, h) {
			level = zapcore.DebugLevel
		}
	}
	if i := strings.Index(text, badLabel); i >= 0 {
		l.foreign.Add(1)
		label := text[i+len(badLabel):]
		if j := strings.LastIndexByte(label, '"'); j >= 0 {
			label = label[:j+1]
		}
		// The sender's label is all that is known; the first line about it is enough.
		if l.mayLog("label "+label, schema.Forever) {
			l.log.Warn("gossip of another cluster refused; give each cluster its own gossip addresses",
				zap.String("label", label), zap.String("detail", text))
		}
		return
	}
	if level == zapcore.DebugLevel {
		l.log.Debug("memberlist: " + text)
		return
	}
	key := kindOf(text)
	if !l.mayLog(key, l.now().Add(logEvery)) {
		return
	}
	l.log.Warn("memberlist: "+text, zap.Int("similar", l.skipped[key]))
	delete(l.skipped, key)
}

// mayLog reports whether a line of this kind may be logged now, and if so not again before next.
func (l *logs) mayLog(key string, next schema.Instant) bool {
	if until, ok := l.last[key]; ok && l.now() < until {
		l.skipped[key]++
		return false
	}
	if len(l.last) >= logKinds {
		clear(l.last)
		clear(l.skipped)
	}
	l.last[key] = next
	return true
}

// splitLine reads "[WARN] memberlist: text".
func splitLine(line string) (zapcore.Level, string) {
	line = strings.TrimSpace(line)
	level := zapcore.WarnLevel
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if tag, text, ok := strings.Cut(rest, "] "); ok {
			line = text
			if tag == "DEBUG" || tag == "INFO" {
				level = zapcore.DebugLevel
			}
		}
	}
	return level, strings.TrimPrefix(line, "memberlist: ")
}

// kindOf drops the digits of a line and all after 60 characters of it.
func kindOf(text string) string {
	text = strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, text)
	return text[:min(len(text), 60)]
}
