// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package tuntap

import "syscall"

// Gone is an errno that nothing here returns.
const Gone = syscall.Errno(0xffff)
