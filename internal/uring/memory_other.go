// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package uring

import (
	"errors"
	"fmt"
)

var errLinuxOnly = fmt.Errorf("uring: Linux only: %w", errors.ErrUnsupported)

func mapMemory(int) ([]byte, error) { return nil, errLinuxOnly }

func unmapMemory([]byte) error { return nil }
