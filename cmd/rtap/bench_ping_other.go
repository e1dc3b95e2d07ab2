// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package main

import "errors"

func openPlainPing() (rig, error) { return nil, errors.ErrUnsupported }
