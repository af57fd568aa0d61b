package launch

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
)

const (
	logLines    = 50
	logLineSize = 1 << 10
	outputSize  = 64 << 10
	statusTail  = 4 << 10
)

// lines keeps the last lines of a log and passes all of it through to a writer.
type lines struct {
	through io.Writer
	mu      sync.Mutex
	last    []string
}

// copy reads r to its end.
func (l *lines) copy(r io.Reader) {
	b := bufio.NewReaderSize(r, 8<<10)
	for {
		line, err := b.ReadSlice('\n') // ErrBufferFull gives a long line in pieces, which is well
		if len(line) > 0 {
			l.add(line)
			_, _ = l.through.Write(line) // nobody is left to be told that the log is gone
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (l *lines) add(line []byte) {
	line = bytes.TrimRight(line, "\r\n")
	text := strings.ToValidUTF8(string(line[:min(len(line), logLineSize)]), "?")
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == logLines {
		l.last = slices.Delete(l.last, 0, 1)
	}
	l.last = append(l.last, text)
}

func (l *lines) snapshot() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.last)
}

// fatal returns the last line that tells why a postmaster gave up; empty if none does.
func (l *lines) fatal() string {
	all := l.snapshot()
	for at, line := range slices.Backward(all) {
		if strings.Contains(line, "FATAL:  the database system is ") {
			continue // said to a client
		}
		for _, word := range []string{"FATAL: ", "PANIC: ", "postgres: "} {
			if i := strings.Index(line, word); i >= 0 {
				return strings.TrimSpace(line[i:]) + unbound(all[:at])
			}
		}
	}
	return ""
}

// unbound returns which address the postmaster could not have, and PostgreSQL's hint, where that is what came before its
// end (src/backend/libpq/pqcomm.c, StreamServerPort, which logs it at LOG).
func unbound(before []string) string {
	why := ""
	for _, line := range before {
		for _, word := range []string{"could not bind ", "Is another postmaster already running on port "} {
			if i := strings.Index(line, word); i >= 0 {
				why += "; " + strings.TrimSpace(line[i:])
			} else if strings.Contains(line, "LOG:  starting PostgreSQL ") {
				why = "" // of an earlier start
			}
		}
	}
	return why
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - outputSize; over > 0 {
		t.buf = slices.Delete(t.buf, 0, over)
	}
	return len(b), nil
}

func (t *tail) last(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.buf[max(0, len(t.buf)-n):]), "?")
}
