// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// display writes lines, and, on a terminal, a block below them that is redrawn
// in place. One goroutine at a time uses it.
type display struct {
	w        io.Writer
	terminal *os.File // nil: it is none
	colour   bool
	drawn    int // lines of the block that are on the screen
}

func newDisplay(w io.Writer) *display {
	d := &display{w: w}
	if f, ok := w.(*os.File); ok && columns(f) > 0 && os.Getenv("TERM") != "dumb" {
		d.terminal = f
		d.colour = os.Getenv("NO_COLOR") == ""
	}
	return d
}

// printf writes a line above the block.
func (d *display) printf(format string, args ...any) {
	d.clear()
	fmt.Fprintf(d.w, format+"\n", args...)
}

// block draws text, of whole lines, instead of the block that was there. Where
// there is no terminal it is just written.
func (d *display) block(text string) {
	if d.terminal == nil {
		fmt.Fprint(d.w, text)
		return
	}
	d.clear()
	width := columns(d.terminal)
	for _, line := range top(slices.Collect(strings.Lines(text)), rows(d.terminal)-1) {
		fmt.Fprintln(d.w, cut(strings.TrimSuffix(line, "\n"), width-1))
		d.drawn++
	}
}

// top leaves out the last of more than n lines, and says so: what has left the
// terminal at its top is out of clear's reach.
func top(lines []string, n int) []string {
	if len(lines) <= n {
		return lines
	}
	n = max(n-1, 0)
	return append(slices.Clip(lines[:n]), fmt.Sprintf("... and %d lines more than fit here", len(lines)-n))
}

// cut shortens a line to n columns: one that the terminal wraps would not be
// where clear looks for it.
func cut(line string, n int) string {
	r := []rune(line)
	return string(r[:min(len(r), max(n, 1))])
}

// status is block for what only a terminal is to show.
func (d *display) status(text string) {
	if d.terminal != nil {
		d.block(text)
	}
}

// clear removes the block (ECMA-48: CUU, ED).
func (d *display) clear() {
	if d.drawn > 0 {
		fmt.Fprintf(d.w, "\x1b[%dA\x1b[J", d.drawn)
		d.drawn = 0
	}
}

// keep leaves the block where it is; what comes next is below it.
func (d *display) keep() { d.drawn = 0 }

// Colours (ECMA-48: SGR).
const (
	bold  = "1"
	green = "32"
	red   = "31"
	grey  = "90"
)

func (d *display) paint(colour, text string) string {
	if !d.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
