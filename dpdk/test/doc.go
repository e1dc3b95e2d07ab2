// SPDX-License-Identifier: BSD-3-Clause

// Package test has Debian's own DPDK programs, and small ones in C, load the plugin and use it. Run it with
//
//	make test-dpdk
//
// which sets RTAP_DPDK_PLUGIN to the library's path. Without that there is nothing to test, and no test is run.
// RTAP_DPDK_PLUGIN=net_tap tries the tests themselves on DPDK's own driver, which fails many.
package test
