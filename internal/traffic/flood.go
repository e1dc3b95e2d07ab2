// SPDX-License-Identifier: BSD-3-Clause

package traffic

// FloodConfig describes a flood.
type FloodConfig struct {
	Frames [][]byte // sent in turn, at least one
	Count  int      // how many in all; 0 goes on until the context ends
	// Stamp, if not 0, is the offset in every frame of a running 32-bit big-endian number, from 0.
	Stamp int
	Batch int // frames in one system call, default 64, at most 1024
}

// FloodResult counts the frames of a flood.
type FloodResult struct {
	Sent    int // taken by the interface
	Dropped int // refused by it: queue full
}
