// SPDX-License-Identifier: BSD-3-Clause

// Package header says what the headers of an Ethernet frame are, and does the
// Internet checksum.
//
// # Start reading here
//
// layout.go has [Layout], what is known of a frame; parse.go goes through the
// headers, with ip.go for the layers 3 and 4 and tunnel.go for what is inside
// another packet; common.go is the short cut that nearly all frames take. sum.go
// adds up bytes, checksum.go makes and checks the checksums of packets.
//
// # Cost and safety
//
// Nothing here allocates, locks, returns errors or panics, whatever the bytes
// are: what is cut short or malformed is not recognised. The functions keep
// nothing and may be called by any number of goroutines at the same time, each
// with bytes and packets that are its own.
package header
