// SPDX-License-Identifier: BSD-3-Clause

package runtimedir

import (
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// rivalEnv makes another process of the test binary, which runs no tests: rival, in that directory.
const rivalEnv = "RTAP_TEST_RUNTIME_RIVAL"

func TestMain(m *testing.M) {
	if base := os.Getenv(rivalEnv); base != "" {
		rival(base)
		return
	}
	nettest.Main(m)
}
