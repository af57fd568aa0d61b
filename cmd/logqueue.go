package cmd

import (
	"bytes"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

const (
	// queuedLines is how many lines wait for a reader that is slow; more are dropped, and counted.
	queuedLines = 4096
	// flushTimeout bounds how long the end of a process waits for its last lines to be written.
	flushTimeout = time.Second
)

// logQueue writes lines in a goroutine of its own. A log that cannot be written, because its disk hangs or nobody reads the
// pipe, must stop neither the loop that keeps the lease nor the launcher that keeps the deadline.
type logQueue struct {
	w       io.Writer
	lines   chan []byte
	flushed chan chan struct{}
	dropped atomic.Int64
}

func newLogQueue(w io.Writer) *logQueue {
	q := &logQueue{w: w, lines: make(chan []byte, queuedLines), flushed: make(chan chan struct{})}
	go q.run()
	return q
}

func (q *logQueue) run() {
	for {
		select {
		case line := <-q.lines:
			q.write(line)
		case done := <-q.flushed:
			for len(q.lines) > 0 {
				q.write(<-q.lines)
			}
			close(done)
		}
	}
}

func (q *logQueue) write(line []byte) {
	if n := q.dropped.Swap(0); n > 0 {
		_, _ = fmt.Fprintf(q.w, "howdah: %d lines of this log were dropped because it could not be written fast enough\n", n)
	}
	_, _ = q.w.Write(line) // nobody is left to be told that the log is gone
}

// Write takes one line. It never waits and never fails.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line): // zap uses its buffer again
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

// Sync waits until all lines are written, for flushTimeout at most.
func (q *logQueue) Sync() error {
	late := time.After(flushTimeout)
	done := make(chan struct{})
	select {
	case q.flushed <- done:
	case <-late:
		return fmt.Errorf("the log could not be written within %s", flushTimeout)
	}
	select {
	case <-done:
		return nil
	case <-late:
		return fmt.Errorf("the log could not be written within %s", flushTimeout)
	}
}
