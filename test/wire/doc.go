// SPDX-License-Identifier: BSD-3-Clause

// Package wire holds the tests of what the driver's packets are on the wire, in the eyes of another
// implementation: frames that were sent with offloads go through interfaces without any, so that the kernel has
// to cut and complete them, are captured raw behind these, and taken apart by gopacket, which verifies every
// checksum.
//
// It is a module of its own because of that dependency.
package wire
