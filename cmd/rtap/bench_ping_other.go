// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

type plainPing struct {
	rig
	interval time.Duration
}

func openPlainPing(func(*plainPing, context.Context) error) (*plainPing, error) {
	return nil, errors.ErrUnsupported
}

func (*plainPing) echo(context.Context) error { return errors.ErrUnsupported }

func (*plainPing) echoAsleep(context.Context) error { return errors.ErrUnsupported }
