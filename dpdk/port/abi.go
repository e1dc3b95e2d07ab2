// SPDX-License-Identifier: BSD-3-Clause

package port

// The structs of plugin/shim.h, which says what they mean. Package plugin checks that sizes agree.

// Op is what Call is asked to do: enum rtap_op.
type Op uint32

const (
	OpConfigure Op = iota + 1
	OpRxSetup
	OpTxSetup
	OpRxRelease
	OpTxRelease
	OpStart
	OpStop
	OpClose
	OpInfo
	OpLink
	OpLinkSet
	OpPromisc
	OpAllMulti
	OpMAC
	OpMTU
	OpStats
	OpStatsReset
	OpXStats
	OpXStatNames
	OpXStatsReset
	OpIntrOn
	OpIntrOff
	OpFWVersion
	OpBurstMode
	OpIsRemoved
	OpShare
	OpJoin
	OpLeave
	OpRuntime
)

// U32 is struct rtap_u32.
type U32 struct{ V uint32 }

// Conf is struct rtap_conf.
type Conf struct {
	RxQueues, TxQueues     uint16
	MTU                    uint32
	RxOffloads, TxOffloads uint64
	MaxLRO                 uint32
	RxqIntr                uint32
}

// Region is struct rtap_region.
type Region struct{ Base, Size uint64 }

// MaxRegions is RTAP_REGIONS.
const MaxRegions = 16

// QueueConf is struct rtap_queue_conf.
type QueueConf struct {
	Queue, Ring        uint32
	Pool               uint64
	Offloads           uint64
	DataRoom, Headroom uint32
	NRegions, _        uint32
	Regions            [MaxRegions]Region
}

// MaxQueues is RTAP_MAX_QUEUES.
const MaxQueues = 128

// Started is struct rtap_started.
type Started struct {
	Queues, Scattered, LinkUp, _ uint32
	IntrFD                       [MaxQueues]int32
}

// Link is struct rtap_link.
type Link struct{ Up, Speed uint32 }

// MAC is struct rtap_mac.
type MAC struct{ Addr [6]byte }

// Info is struct rtap_info.
type Info struct {
	MinRxBuf, MaxRxPktLen, MinMTU, MaxMTU, MaxQueues, MaxLRO, IfIndex uint32
	DescMin, DescMax, SegMax, Ring, Burst                             uint32
	RxCapa, TxCapa                                                    uint64
	MTU                                                               uint32
	MAC                                                               [6]byte
	_                                                                 [2]byte
}

// QStats is how many queues Stats has: RTAP_QSTATS.
const QStats = 16

// Stats is struct rtap_stats.
type Stats struct {
	IPackets, OPackets, IBytes, OBytes, IMissed, IErrors, OErrors, RxNoMbuf uint64
	Q                                                                       [QStats]QueueStats
}

// QueueStats is its member q.
type QueueStats struct{ IPackets, OPackets, IBytes, OBytes, Errors uint64 }

// XStats is struct rtap_xstats: what follows has room for N.
type XStats struct{ N, _ uint32 }

// XStatName is RTAP_XSTAT_NAME.
const XStatName = 64

// Text is struct rtap_text.
type Text struct{ S [256]byte }

// ShareFDs is RTAP_SHARE_FDS.
const ShareFDs = 8

// Share is struct rtap_share.
type Share struct {
	From, NFDs, Total uint32
	Len               uint32
	FDs               [ShareFDs]int32
	JSON              [16384]byte
}

// Runtime is struct rtap_runtime.
type Runtime struct{ GCs, PauseNs, HeapBytes, Goroutines, Threads, Procs, CgoCalls uint64 }
