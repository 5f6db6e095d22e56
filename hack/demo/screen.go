package main

import (
	"fmt"
	"io"
	"strings"
)

// screen lays text out for a terminal of 80 to 100 columns. That a line cannot be written is
// no reason to stop: what runs has to be removed all the same.
type screen struct {
	out   io.Writer
	scene int
}

// The columns of rows: a label, and a cell for each pod.
const (
	labelWidth = 32
	cellWidth  = 26
)

// heading begins the next scene.
func (s *screen) heading(format string, args ...any) {
	s.scene++
	fmt.Fprintf(s.out, "\n%d. %s\n\n", s.scene, fmt.Sprintf(format, args...))
}

// row shows a label and cells.
func (s *screen) row(label string, cells ...string) {
	line := fmt.Sprintf("   %-*s", labelWidth, label)
	for _, cell := range cells {
		line += fmt.Sprintf("%-*s ", cellWidth-1, cell)
	}
	fmt.Fprintln(s.out, strings.TrimRight(line, " "))
}

// say shows a line of text.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintln(s.out, strings.TrimRight("   "+fmt.Sprintf(format, args...), " "))
}

// quote shows the output of a program.
func (s *screen) quote(output string) {
	for line := range strings.Lines(strings.TrimRight(output, "\n")) {
		s.say("%s", strings.TrimRight(line, "\n"))
	}
}
