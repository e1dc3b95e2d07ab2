// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

// Command server is for Linux.
package main

func main() {}
