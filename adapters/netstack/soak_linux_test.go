// SPDX-License-Identifier: BSD-3-Clause

//go:build soak

package netstack

import "testing"

// An hour's worth of connections for a server that gets 50 a second.
func TestSoakChurn(t *testing.T) { churn(t, 180_000) }
