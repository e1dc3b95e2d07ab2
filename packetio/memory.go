// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"fmt"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// memory is the mbufs of one direction of a queue. Nobody else's can run out for them.
type memory struct {
	pool  *mbuf.Pool
	cache *mbuf.Cache
}

// overhead is what a frame may have in front of the MTU's bytes, with two VLAN tags, and a byte by which the driver sees
// that it was cut.
const overhead = 14 + 2*4 + 1

// minMbufs are enough for a batch to be sent, and for the longest packet in mbufs of the smallest size, which takes 33 of
// them.
const minMbufs = 256

// newMemory makes count mbufs, each of which takes a packet of the MTU that cfg asks for, if it is not too large:
// then, and when the MTU is raised later, packets are chains.
func newMemory(name string, count, cached int, cfg *rtap.Config) (memory, error) {
	room := min(max(mbuf.DefaultDataRoom, cfg.MTU+overhead), mbuf.MaxBufLen-mbuf.DefaultHeadroom)
	pool, err := mbuf.NewPool(mbuf.Config{Name: name, Count: count, DataRoom: room})
	if err != nil {
		return memory{}, fmt.Errorf("open: memory of %d packets: %w", count, err)
	}
	return memory{pool, pool.NewCache(cached)}, nil
}

func (m *memory) close() error {
	if m.pool == nil {
		return nil
	}
	m.cache.Close()
	return m.pool.Close()
}

// Buffers makes n buffers of size bytes each, which ReadPackets may fill. None of them reaches into its neighbour.
func Buffers(n, size int) [][]byte {
	all, bufs := make([]byte, n*size), make([][]byte, n)
	for i := range bufs {
		bufs[i] = all[i*size : (i+1)*size : (i+1)*size]
	}
	return bufs
}
