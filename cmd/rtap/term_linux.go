// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// columns is how wide the terminal f is, or 0 if it is none.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // nobody told it, as on a serial line
		return 80
	}
	return int(size.Col)
}

// rows is how many lines the terminal f has.
func rows(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row < 3 {
		return 24
	}
	return int(size.Row)
}
