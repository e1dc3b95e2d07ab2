// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"unicode"
)

// message is what crosses the socket: a request, which has an Op, or the answer of the same ID to one that went
// the other way.
type message struct {
	ID    uint64          `json:"id"`
	Op    string          `json:"op,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
	Code  string          `json:"code,omitempty"`  // of an answer that is an error
	Error string          `json:"error,omitempty"` // likewise, its text
	FDs   int             `json:"fds,omitempty"`   // descriptors that come with an answer
}

// The requests that this package makes itself. A handler sees none that begins so.
const (
	reserved  = "ipc."
	opHello   = reserved + "hello"
	opGoodbye = reserved + "goodbye"
)

// helloID is the ID of opHello: it is the first request.
const helloID = 1

// magic tells a process that speaks this protocol from whatever else connects.
const magic = "rtap control socket 1"

// hello is the body of opHello, welcome that of its answer.
type hello struct {
	Magic string `json:"magic"`
	Build string `json:"build"`
	Name  string `json:"name"`
}

type welcome struct {
	ID  int `json:"id"`
	PID int `json:"pid"`
}

// printable is what may be shown of what a process calls itself, at most n characters.
func printable(s string, n int) string {
	runes := []rune(s)
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = unicode.ReplacementChar
		}
	}
	return string(runes[:min(len(runes), n)])
}

// encode marshals m, which must not be longer than limit.
func (m *message) encode(limit int) ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > limit {
		err = fmt.Errorf("a message of %d bytes: at most %d can be sent", len(b), limit)
	}
	return b, err
}

// decode is encode's reverse, for what anybody may have sent.
func decode(b []byte) (*message, error) {
	m := new(message)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("a message that is no request and no answer: %w", err)
	}
	if m.FDs < 0 || m.FDs > maxFDs {
		return nil, fmt.Errorf("a message with %d descriptors: want 0 to %d", m.FDs, maxFDs)
	}
	return m, nil
}

// set makes m say v, or the error.
func (m *message) set(v any, err error) *message {
	if err == nil && v != nil {
		m.Body, err = json.Marshal(v)
	}
	if err != nil {
		m.Body, m.FDs, m.Code, m.Error = nil, 0, codeOf(err), clip(err.Error())
		if m.Error == "" { // which would be none
			m.Error = "error without a text"
		}
	}
	return m
}

// clip keeps a text short enough that it fits a message whatever is in it: JSON makes up to six bytes of one.
func clip(s string) string { return s[:min(len(s), 1024)] }

// RemoteError is an error that the other side has answered a request with. errors.Is finds the error that Code is
// registered for.
type RemoteError struct {
	Code string // "" if the error is not registered
	Text string
}

func (e *RemoteError) Error() string { return e.Text }

func (e *RemoteError) Unwrap() error {
	codes.Lock()
	defer codes.Unlock()
	for _, c := range codes.table {
		if c.code == e.Code {
			return c.err
		}
	}
	return nil
}

// codes are the errors that cross the socket, the first of several that an error wraps.
var codes struct {
	sync.Mutex
	table []coded
}

type coded struct {
	code string
	err  error
}

// Register gives an error a code, so that errors.Is knows it on the other side as well. Call it at the start of the
// program, in both processes: each code is for one error.
func Register(code string, err error) {
	codes.Lock()
	defer codes.Unlock()
	for _, c := range codes.table {
		if c.code == code {
			panic(fmt.Sprintf("ipc: code %q registered for %q: it is that of %q", code, err, c.err))
		}
	}
	codes.table = append(codes.table, coded{code, err})
}

func codeOf(err error) string {
	codes.Lock()
	defer codes.Unlock()
	for _, c := range codes.table {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return ""
}
