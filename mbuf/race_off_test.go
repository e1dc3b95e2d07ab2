// SPDX-License-Identifier: BSD-3-Clause

//go:build !race

package mbuf

const raceDetector = false
