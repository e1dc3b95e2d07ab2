// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package nettest

import "testing"

// Unprivileged skips the test: there are no capabilities here.
func Unprivileged(t *testing.T, f func(t *testing.T)) { t.Helper(); skip(t, "Linux only") }
