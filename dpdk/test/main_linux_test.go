// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"os"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// plugin is the library under test, driver what it calls itself.
var (
	plugin = os.Getenv("RTAP_DPDK_PLUGIN")
	driver = "net_rtap"
)

func TestMain(m *testing.M) {
	switch plugin {
	case "":
		fmt.Println("RTAP_DPDK_PLUGIN is not set: nothing to test, see make test-dpdk")
		return
	case "net_tap":
		plugin, driver = "", "net_tap"
	}
	nettest.Main(m)
}

// needPlugin is for tests of the library itself, which are left out when the rival is tried.
func needPlugin(t testing.TB) {
	t.Helper()
	if plugin != "" {
		return
	}
	if nettest.CI() {
		t.Fatal("CI=true, and RTAP_DPDK_PLUGIN is not the plugin")
	}
	t.Skip("not about the rival")
}
