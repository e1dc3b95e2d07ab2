// SPDX-License-Identifier: BSD-3-Clause

//go:build !race

package netstack

// slow divides how much is transferred: the race detector makes it some twenty times slower.
const slow = 1
