// SPDX-License-Identifier: BSD-3-Clause

//go:build !mbufdebug

package mbuf

// debug is constant so that the compiler drops the checks.
const debug = false

func debugAlloc(*header, *Mbuf)    {}
func debugFree(*Mbuf)              {}
func debugHome(*header, *Mbuf)     {}
func debugReclaim(*header, uint32) {}
func debugHolder(*header, uint32)  {}
