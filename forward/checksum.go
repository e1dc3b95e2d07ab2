// SPDX-License-Identifier: BSD-3-Clause

package forward

// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

// sum adds the 16-bit words of b to acc. b is of even length and no longer than a packet.
func sum(acc uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		acc += uint32(be.Uint16(b))
	}
	return acc
}

// fold brings a sum to 16 bits. It is not complemented.
func fold(acc uint32) uint16 {
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// updateSum changes the checksum at field for data that was old and becomes new, both of even length
// (RFC 1624, equation 3).
func updateSum(field, old, new []byte) {
	acc := uint32(^be.Uint16(field))
	for i := 0; i+1 < len(old); i += 2 {
		acc += uint32(^be.Uint16(old[i:]))
	}
	be.PutUint16(field, ^fold(sum(acc, new)))
}

// pseudoSum is the sum of the pseudo-header of IPv6 header h for an upper layer of n bytes (RFC 8200, 8.1).
func pseudoSum(h []byte, proto byte, n int) uint32 {
	return sum(uint32(n)>>16+uint32(n)&0xffff+uint32(proto), h[8:40])
}
