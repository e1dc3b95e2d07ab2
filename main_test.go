// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// otherProcess is what the test program does when a test has started it once more, nil if it knows no such thing.
var otherProcess func() (code int, is bool)

func TestMain(m *testing.M) {
	if otherProcess != nil {
		if code, is := otherProcess(); is {
			os.Exit(code)
		}
	}
	nettest.Main(m)
}
