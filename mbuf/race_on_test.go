// SPDX-License-Identifier: BSD-3-Clause

//go:build race

package mbuf

// raceDetector: sync.Pool then drops some of what it is given.
const raceDetector = true
