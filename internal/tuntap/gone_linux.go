// SPDX-License-Identifier: BSD-3-Clause

package tuntap

import "syscall"

// Gone is what reads, writes and most other operations on a queue fail with once
// its interface was deleted: EBADFD.
const Gone = syscall.EBADFD
