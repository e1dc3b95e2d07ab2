// SPDX-License-Identifier: BSD-3-Clause

package port

import "github.com/rtap-project/rtap/mbuf"

// Host is what the C side does for a port. Its methods may be called from any thread.
type Host interface {
	// Alloc fills bufs with mbufs of a struct rte_mempool, as rte_pktmbuf_alloc_bulk does, and returns how
	// many; fewer when the pool has no more.
	Alloc(pool uintptr, bufs []*mbuf.Mbuf) int
	// Free gives back packets of any pool, as rte_pktmbuf_free_bulk does.
	Free(bufs []*mbuf.Mbuf)
	// Log hands a line to rte_log.
	Log(level Level, text string)
	// Event has the application called back from EAL's interrupt thread.
	Event(port uint16, what Events)
}

// Level is enum rtap_level.
type Level int32

const (
	LevelErr     Level = 4
	LevelWarning Level = 5
	LevelNotice  Level = 6
	LevelInfo    Level = 7
	LevelDebug   Level = 8
)

// Events is enum rtap_event.
type Events uint32

const (
	EventLink    Events = 1
	EventRemoved Events = 2
)
