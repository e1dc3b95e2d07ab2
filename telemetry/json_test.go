// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		command string
		value   any
		want    string
	}{
		{"/a", nil, `{"/a":null}`},
		{"/a", "text", `{"/a":"text"}`},
		{"/a", 7, `{"/a":7}`},
		{"/a", dict{}, `{"/a":{}}`},
		{"/a", dict{{"z", 1}, {"a", array{1, "x"}}, {"m", dict{{"n", -1}}}, {"s", []string{"t"}}}, `{"/a":{"z":1,"a":[1,"x"],"m":{"n":-1},"s":["t"]}}`},
		{"/a", array{uint64(1<<64 - 1), dict{{"b", nil}}}, `{"/a":[18446744073709551615,{"b":null}]}`},
		{"\"\n\xff", nil, `{"\"\n\ufffd":null}`},
		{"/a", func() {}, `{"/a":null}`},
	} {
		if got := string(encode(c.command, c.value, maxOutput)); got != c.want {
			t.Errorf("%q %v is %s, want %s", c.command, c.value, got, c.want)
		}
	}
}

// TestEncodeCuts: a reply of any limit is valid, no longer, has the first elements whole, and as many of them as
// fit.
func TestEncodeCuts(t *testing.T) {
	d, a := dict{}, array{}
	for i := range 50 {
		d = append(d, entry{fmt.Sprint("name", i), i * i})
		a = append(a, strings.Repeat("x", i))
	}
	const least = len(`{"/c":null}`)
	for limit := least; limit < 3000; limit++ {
		var reply struct {
			D map[string]int `json:"/c"`
		}
		b := encode("/c", d, limit)
		if err := json.Unmarshal(b, &reply); err != nil || len(b) > limit {
			t.Fatalf("limit %d: %d bytes, %v: %s", limit, len(b), err, b)
		}
		for i := range len(reply.D) {
			if reply.D[d[i].name] != i*i {
				t.Fatalf("limit %d: %s", limit, b)
			}
		}
		if n := len(reply.D); n < len(d) && len(encode("/c", d[:n+1], maxOutput)) <= limit {
			t.Fatalf("limit %d: there is room for more than %s", limit, b)
		}
		var list struct {
			A []string `json:"/c"`
		}
		b = encode("/c", a, limit)
		if err := json.Unmarshal(b, &list); err != nil || len(b) > limit {
			t.Fatalf("limit %d: %d bytes, %v: %s", limit, len(b), err, b)
		}
		for i, s := range list.A {
			if s != a[i] {
				t.Fatalf("limit %d: %s", limit, b)
			}
		}
		if n := len(list.A); n < len(a) && len(encode("/c", a[:n+1], maxOutput)) <= limit {
			t.Fatalf("limit %d: there is room for more than %s", limit, b)
		}
	}
	if got := string(encode("/c", strings.Repeat("x", 100), 50)); got != `{"/c":null}` {
		t.Errorf("a text that does not fit: %s", got)
	}
}
