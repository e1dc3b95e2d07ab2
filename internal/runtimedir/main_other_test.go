// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

package runtimedir

func rival(string) {}
