// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package mbuf

import (
	"errors"
	"fmt"
)

func mapMemory(string, uint64, bool) ([]byte, int, error) {
	return nil, -1, fmt.Errorf("Linux only: %w", errors.ErrUnsupported)
}

func unmapMemory([]byte, int) error { return nil }
