// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap"
)

// BenchmarkWrite is what sending a packet of 64 bytes costs, one by one and many in one call.
func BenchmarkWrite(b *testing.B) {
	for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/packets=%d", mode, n), func(b *testing.B) {
				e := open(b, rtap.Config{Mode: mode})
				must(b, e.cap.Close())
				sent := packets(mode, 64, n)
				for i := 0; b.Loop(); i++ {
					var err error
					if n == 1 {
						_, err = e.Write(sent[0])
					} else {
						_, err = e.WritePackets(sent)
					}
					must(b, err)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/packet")
			})
		}
	}
}
