// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSplit(t *testing.T) {
	long := strings.Repeat("c", maxCommand)
	for _, c := range []struct {
		request, name, params string
		ok                    bool
	}{
		{"/info", "/info", "", true},
		{"/a,1", "/a", "1", true},
		{"/a,1,b=2,", "/a", "1,b=2,", true},
		{"/a,1\x00junk", "/a", "1", true},
		{"/a\x00,1", "/a", "", true},
		{"", "none", "", true},
		{",1", "none", "1", true},
		{"\x00", "none", "", true},
		{long, long, "", true},
		{long + "c", long, "", false},
		{long + "c,1", long, "1", false},
		{"/a," + strings.Repeat("x", maxRequest-3), "/a", strings.Repeat("x", maxRequest-3), true},
		{"/a," + strings.Repeat("x", maxRequest-2), "/a", strings.Repeat("x", maxRequest-2), false},
	} {
		name, params, ok := split([]byte(c.request))
		if name != c.name || params != c.params || ok != c.ok {
			t.Errorf("%.40q: %q, %q, %v", c.request, name, params, ok)
		}
	}
}

// TestCommandTable: what C clients rely on.
func TestCommandTable(t *testing.T) {
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
		if len(c.name) > maxCommand || c.help == "" || !strings.HasPrefix(c.name, "/") {
			t.Errorf("command %+v", c)
		}
	}
	if !slices.IsSorted(names) || len(slices.Compact(names)) != len(commands()) {
		t.Errorf("commands are not in order: %q", names)
	}
}

// FuzzReply: whatever is asked, one JSON object answers, within the limit, with the command as its name.
func FuzzReply(f *testing.F) {
	for _, c := range commands() {
		f.Add([]byte(c.name), 500)
		f.Add([]byte(c.name+",0,hide_zero=true,first=1"), 16384)
	}
	f.Add([]byte("/help,/help"), 100)
	f.Add([]byte("/ethdev/xstats,0,first=99999999999999999999"), 100)
	f.Add([]byte("\xff\x00\"\\,"), maxOutput)
	s := &Server{ports: map[int]*Port{}}
	f.Fuzz(func(t *testing.T, request []byte, limit int) {
		limit = max(limit, 6*maxCommand+len(`{"":null}`)) // each byte of a name may become \u00xx
		b := s.reply(request, limit)
		if len(b) > limit {
			t.Errorf("%d bytes, limit %d: %s", len(b), limit, b)
		}
		var reply map[string]any
		if err := json.Unmarshal(b, &reply); err != nil || len(reply) != 1 {
			t.Fatalf("%v: %s", err, b)
		}
		name, _, _ := split(request)
		if _, ok := reply[name]; !ok && utf8.ValidString(name) {
			t.Errorf("no %q in %s", name, b)
		}
	})
}
