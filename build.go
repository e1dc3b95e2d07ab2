// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"fmt"
	"hash/fnv"
	"runtime"

	"github.com/rtap-project/rtap/internal/shm"
	"github.com/rtap-project/rtap/mbuf"
)

// Version of rtap.
const Version = "0.1.0-dev"

var version = Version // a test changes it

// protocol is what processes on one port say to each other. It changes whenever that does, or the meaning of what they
// share, but for the layout, which build tells apart by itself.
const protocol = 1

// build is what must be the same in processes that share ports: they share memory, and so its layout.
func build() string {
	h := fnv.New32a()
	fmt.Fprint(h, mbuf.Layout(), shm.SizeOf[areaLayout](), counterCount, sizes, burstSizes, rxErrnos, txErrnos)
	return fmt.Sprintf("rtap %s (protocol %d, layout %08x, %s)", version, protocol, h.Sum32(), runtime.GOARCH)
}
