package cmd

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen prints lines that stay, and on a terminal beneath them a block that is drawn anew in place.
type screen struct {
	w io.Writer
	// size returns columns and rows; nil where there is no terminal.
	size  func() (columns, rows int, err error)
	block []string
	drawn int // lines of the block that are on the terminal
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.size = func() (int, int, error) { return term.GetSize(int(f.Fd())) }
	}
	return s
}

func (s *screen) terminal() bool { return s.size != nil }

// say prints lines that stay, above the block.
func (s *screen) say(format string, args ...any) {
	s.erase()
	text := strings.TrimSuffix(fmt.Sprintf(format, args...), "\n")
	fmt.Fprintln(s.w, text)
	s.draw()
}

// set replaces the block; without a terminal it does nothing.
func (s *screen) set(text string) {
	if !s.terminal() {
		return
	}
	s.erase()
	s.block = nil
	if text = strings.TrimSuffix(text, "\n"); text != "" {
		s.block = strings.Split(text, "\n")
	}
	s.draw()
}

// erase takes the block off the terminal: up to its first line, and clear to the end (ECMA-48 CPL and ED).
func (s *screen) erase() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\x1b[%dF\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) draw() {
	if !s.terminal() || len(s.block) == 0 {
		return
	}
	columns, rows, err := s.size()
	if err != nil || columns <= 0 || rows <= 1 {
		columns, rows = 80, 24
	}
	// A line that wraps, or a block that scrolls, could not be taken off again.
	lines := s.block[:min(len(s.block), rows-1)]
	var b strings.Builder
	for _, line := range lines {
		if r := []rune(line); len(r) >= columns {
			line = string(r[:columns-1])
		}
		b.WriteString(line + "\n")
	}
	_, _ = io.WriteString(s.w, b.String())
	s.drawn = len(lines)
}
