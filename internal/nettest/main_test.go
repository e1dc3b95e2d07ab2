// SPDX-License-Identifier: BSD-3-Clause

package nettest

import "testing"

func TestMain(m *testing.M) { Main(m) }
