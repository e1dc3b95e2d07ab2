// SPDX-License-Identifier: BSD-3-Clause

// Package plan is what the host's half of the kernel tests and the init program inside the virtual
// machine say to each other: a Plan goes in with the initramfs, Events come back as lines on a serial
// port, between the lines that the tests themselves print.
package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// File is where init finds the Plan, as JSON, in the initramfs.
const File = "/plan.json"

// Plan is the work of one virtual machine.
type Plan struct {
	// Modules are kernel modules, uncompressed, in the order to load them.
	Modules []Module
	// Sysctls are written before the first test: keys are paths below /proc/sys.
	Sysctls map[string]string
	// Env is the environment of the tests, as os/exec takes it.
	Env []string
	// Tests are run one after the other.
	Tests []Test
}

// Module is a kernel module and its parameters.
type Module struct {
	Path   string
	Params string `json:",omitempty"`
}

// Test is one package's test binary.
type Test struct {
	Package string        // import path
	Binary  string        // path in the machine
	Dir     string        // working directory: the package's own, as go test has it
	Args    []string      // flags for the binary
	Timeout time.Duration // after which init kills it
	Silence time.Duration // after which, when it prints nothing, init shows what it does and ends it
}

// Kind says what an Event is about.
type Kind string

// The kinds of event, in the order of a machine's life.
const (
	Booted Kind = "booted" // init runs and all is set up; Detail is the kernel's release
	Begin  Kind = "begin"  // a package's tests start; what they print follows
	End    Kind = "end"    // they have ended, OK says how; Detail says why when not by themselves
	Done   Kind = "done"   // all packages have run; the machine powers off
	Failed Kind = "failed" // init itself could not go on; Detail says why
)

// Event is one line from init.
type Event struct {
	Kind    Kind
	Package string  `json:",omitempty"`
	OK      bool    `json:",omitempty"`
	Detail  string  `json:",omitempty"`
	Seconds float64 `json:",omitempty"` // End: how long it ran; Booted and Done: since the kernel started
}

// prefix marks an event's line among the tests' own output.
const prefix = "@rtap-vm "

// Line returns the event as a line of output. It begins with a newline of its own, for a test that
// ended in the middle of a line.
func (e Event) Line() []byte {
	body, err := json.Marshal(e)
	if err != nil { // strings, a bool and a finite number always marshal
		body = fmt.Appendf(nil, `{"Kind":%q,"Detail":%q}`, Failed, err)
	}
	return append(append([]byte("\n"+prefix), body...), '\n')
}

// Parse reads an event from a line without its newline. ok is false for a line that is not an event.
func Parse(line []byte) (e Event, ok bool) {
	body, found := bytes.CutPrefix(line, []byte(prefix))
	if !found || json.Unmarshal(bytes.TrimSpace(body), &e) != nil {
		return Event{}, false
	}
	return e, e.Kind != ""
}
