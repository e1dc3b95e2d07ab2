// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package pktio

import (
	"errors"
	"fmt"
)

func newUringEngine(int) (Engine, error) {
	return nil, fmt.Errorf("io_uring is Linux only: %w", errors.ErrUnsupported)
}

func newWaitingEngine(fd int) (Engine, error) { return newUringEngine(fd) }
