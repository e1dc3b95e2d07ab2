// SPDX-License-Identifier: BSD-3-Clause

package plan

import (
	"bytes"
	"testing"
)

func TestEventRoundTrip(t *testing.T) {
	for _, want := range []Event{
		{Kind: Booted, Detail: "6.12.1", Seconds: 4.25},
		{Kind: End, Package: "a/b", OK: true, Seconds: 1e-3},
		{Kind: Failed, Detail: "two\nlines and \"quotes\""},
	} {
		line := want.Line()
		if line[0] != '\n' || bytes.Count(line, []byte("\n")) != 2 {
			t.Errorf("%+v: not one line after a newline: %q", want, line)
		}
		// A serial port may hand over CR LF.
		got, ok := Parse(append(bytes.Trim(line, "\n"), '\r'))
		if !ok || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", line, got, ok, want)
		}
	}
}

func TestParseRefusesOtherLines(t *testing.T) {
	for _, line := range []string{
		"", "PASS", prefix, prefix + "{}", prefix + "[]", prefix + `{"Kind":1}`, " " + prefix + `{"Kind":"end"}`,
	} {
		if e, ok := Parse([]byte(line)); ok {
			t.Errorf("Parse(%q) = %+v, want none", line, e)
		}
	}
}
