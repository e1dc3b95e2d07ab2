// SPDX-License-Identifier: BSD-3-Clause

package shm

import "golang.org/x/sys/unix"

// Dup is another descriptor of the same file, close-on-exec. The caller closes it.
func Dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
