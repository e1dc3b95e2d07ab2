// SPDX-License-Identifier: BSD-3-Clause

//go:build linux && (ppc64 || s390x || mips || mips64)

package uring

// pollEvents lays events out as poll32_events: "word-reversed for BE"
// (include/uapi/linux/io_uring.h).
func pollEvents(events uint32) uint32 { return events<<16 | events>>16 }
