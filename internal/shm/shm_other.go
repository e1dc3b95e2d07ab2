// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package shm

import (
	"errors"
	"fmt"
)

var errLinuxOnly = fmt.Errorf("Linux only: %w", errors.ErrUnsupported)

// New needs Linux.
func New(string, uint64, bool) (*Memory, error) { return nil, errLinuxOnly }

// Attach needs Linux.
func Attach(int, uintptr) (*Memory, error) { return nil, errLinuxOnly }

func unmap([]byte, int) error { return nil }

// Dup fails: Linux only.
func Dup(int) (int, error) { return -1, errLinuxOnly }
