// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package main

import (
	"runtime"

	"github.com/rtap-project/rtap/internal/uring"
)

func kernelRelease() string { return runtime.GOOS }

func systemFeatures() []uring.Feature {
	return []uring.Feature{{Name: "/dev/net/tun", Outcome: uring.No, Detail: "Linux only", Cost: "there are no ports at all"}}
}
