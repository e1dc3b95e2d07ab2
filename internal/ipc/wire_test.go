// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	for _, m := range []message{
		{ID: 1, Op: "x"},
		{ID: 1<<64 - 1, Op: "x", Body: json.RawMessage(`{"a":[1,null]}`)},
		{ID: 2, Body: json.RawMessage(`0`), FDs: maxFDs},
		{ID: 3, Code: "full", Error: "no"},
	} {
		b, err := m.encode(maxMessage)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(b); err != nil || !reflect.DeepEqual(*got, m) {
			t.Errorf("%s is %+v, %v, want %+v", b, got, err, m)
		}
		if _, err := m.encode(len(b) - 1); err == nil {
			t.Errorf("%s fits %d bytes", b, len(b)-1)
		}
	}
}

// TestLongError: an error's text fits a message, whatever is in it.
func TestLongError(t *testing.T) {
	m := (&message{ID: 1}).set(nil, errors.New(strings.Repeat("\x00", 1<<20)))
	if b, err := m.encode(maxMessage); err != nil || len(b) < 1024 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// TestRegister: a code is for one error.
func TestRegister(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a code is registered twice")
		}
	}()
	Register("full", errors.New("another"))
}

// FuzzDecode: what anybody may send is refused, or means the same after it was sent on.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"op":"ipc.hello","body":{"magic":"` + magic + `","build":"1","name":"a"}}`, `{"id":1,"fds":250}`,
		`{"id":1,"body":"<\u2028\ud800>","code":"full","error":"\u0000"}`, "null", "[]", "{", "\xff", `{"ID":1,"id":2,"body":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		once, err := m.encode(1 << 30)
		if err != nil {
			t.Fatalf("%q cannot be sent on: %v", b, err)
		}
		again, err := decode(once)
		if err != nil || again.ID != m.ID || again.Op != m.Op || again.Code != m.Code || again.Error != m.Error || again.FDs != m.FDs {
			t.Fatalf("%q is %+v, and sent on %+v, %v", b, m, again, err)
		}
		if twice, err := again.encode(1 << 30); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q is %q, and sent on %q, %v", b, once, twice, err)
		}
		var h hello
		if json.Unmarshal(m.Body, &h) == nil && len([]rune(printable(h.Name, maxName))) > maxName {
			t.Fatalf("a name of %q", h.Name)
		}
	})
}
