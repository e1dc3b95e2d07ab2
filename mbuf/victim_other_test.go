// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package mbuf

const victimEnv = "RTAP_MBUF_VICTIM"

func victim() {}
