// SPDX-License-Identifier: BSD-3-Clause

package nettest

import (
	"errors"

	"golang.org/x/sys/unix"
)

// WithDescriptors runs f while the process can have n descriptors more than it has. Tests that use it do not run in parallel.
func WithDescriptors(n int, f func() error) error {
	top, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest that is free
	if err != nil {
		return err
	}
	defer unix.Close(top)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: uint64(top + n), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	err = f()
	return errors.Join(err, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
}
