// SPDX-License-Identifier: BSD-3-Clause

package forward

import "github.com/rtap-project/rtap/header"

// updateSum changes the Internet checksum at field for data that was old and becomes new, both of even length
// (RFC 1624, equation 3).
func updateSum(field, old, new []byte) {
	without := header.Add(^be.Uint16(field), ^header.Sum(old))
	be.PutUint16(field, ^header.Add(without, header.Sum(new)))
}
