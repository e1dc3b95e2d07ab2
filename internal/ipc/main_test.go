// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// roleEnv makes another process of the test binary: it plays that role, and runs no tests.
const roleEnv = "RTAP_IPC_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		play(role)
		return
	}
	nettest.Main(m)
}
