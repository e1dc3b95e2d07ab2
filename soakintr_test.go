// SPDX-License-Identifier: BSD-3-Clause

//go:build linux && soak

package rtap

import "testing"

// TestSoakInterruptRaces: ten million times with each engine.
func TestSoakInterruptRaces(t *testing.T) { interruptRaces(t, 10_000_000) }

// TestSoakWaitRaces: a million times with each engine, as each takes ten times as long.
func TestSoakWaitRaces(t *testing.T) { waitRaces(t, 1_000_000) }
