// SPDX-License-Identifier: BSD-3-Clause

//go:build !linux

// Command bench is for Linux.
package main

func main() {}
