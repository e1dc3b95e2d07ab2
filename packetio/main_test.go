// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }
