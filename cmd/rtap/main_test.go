// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// asCommand makes the test binary be the command: there is no other where the
// tests run as one static binary.
const asCommand = "RTAP_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Setenv(asCommand, "1") // for what starts itself: the tests must not run in there
	nettest.Main(m)
}

// here runs a command line in this process, for what needs no other.
func here(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = command(args, streams{&o, &e})
	return code, o.String(), e.String()
}
