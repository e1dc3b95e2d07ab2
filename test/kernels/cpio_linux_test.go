// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
)

// TestCPIO reads an archive back by the format's description.
func TestCPIO(t *testing.T) {
	var buf bytes.Buffer
	c := newCPIOWriter(&buf)
	for _, f := range []struct{ name, body string }{
		{"/init", "123"}, {"/a/b/c", ""}, {"/a/b/d/", "12345678"}, {"a/x", "1"},
	} {
		if err := c.file(f.name, 0o755, []byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	const want = "[init 100755 123] [a 40755 ] [a/b 40755 ] [a/b/c 100755 ] [a/b/d 100755 12345678] [a/x 100755 1] [TRAILER!!! 0 ] "
	if got := readCPIO(t, buf.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// readCPIO lists an archive as [name mode content].
func readCPIO(t *testing.T, archive []byte) (list string) {
	t.Helper()
	const header = 110
	for off := 0; off < len(archive); {
		if off%4 != 0 || !bytes.HasPrefix(archive[off:], []byte("070701")) || len(archive)-off < header {
			t.Fatalf("no header at %d: %q", off, archive[off:min(off+header, len(archive))])
		}
		field := func(i int) int {
			v, err := strconv.ParseUint(string(archive[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := archive[off+header : off+header+nameSize-1]
		body := (off + header + nameSize + 3) &^ 3
		list += fmt.Sprintf("[%s %o %s] ", name, mode, archive[body:body+size])
		off = (body + size + 3) &^ 3
	}
	return list
}
