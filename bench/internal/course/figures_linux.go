// SPDX-License-Identifier: BSD-3-Clause

package course

import "golang.org/x/sys/unix"

// KernelRelease is the running kernel, as uname -sr prints it.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// Median of sorted values. Of an even number it is the mean of the two in the middle.
func Median[T ~int | ~int64 | ~float64](sorted []T) T {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
