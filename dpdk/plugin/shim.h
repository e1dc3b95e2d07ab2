/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the C shim and Go have in common. No type of DPDK's appears here, so Go is compiled without DPDK's
 * headers. A struct may lie in memory that several processes share: sizes are fixed, and there are no
 * pointers but into such memory. Go's side of each struct is in package port, file abi.go.
 */
#ifndef RTAP_SHIM_H
#define RTAP_SHIM_H

#include <stdint.h>

/* What rtapCall is asked to do. "any": a secondary may ask it of the primary. "own": it asks itself. */
enum rtap_op {
	RTAP_CONFIGURE = 1,	/* struct rtap_conf */
	RTAP_RX_SETUP,		/* struct rtap_queue_conf */
	RTAP_TX_SETUP,		/* struct rtap_queue_conf: noted, done by RTAP_START */
	RTAP_RX_RELEASE,	/* struct rtap_u32: queue */
	RTAP_TX_RELEASE,	/* struct rtap_u32: queue */
	RTAP_START,		/* struct rtap_started */
	RTAP_STOP,
	RTAP_CLOSE,
	RTAP_INFO,		/* struct rtap_info; any */
	RTAP_LINK,		/* struct rtap_link; any */
	RTAP_LINK_SET,		/* struct rtap_u32: up; any */
	RTAP_PROMISC,		/* struct rtap_u32: on; any */
	RTAP_ALLMULTI,		/* struct rtap_u32: on; any */
	RTAP_MAC,		/* struct rtap_mac; any */
	RTAP_MTU,		/* struct rtap_u32: bytes */
	RTAP_STATS,		/* struct rtap_stats; any */
	RTAP_STATS_RESET,	/* any */
	RTAP_XSTATS,		/* struct rtap_xstats, then n uint64_t; returns how many there are; any */
	RTAP_XSTAT_NAMES,	/* struct rtap_xstats, then n names of 64 bytes; likewise; any */
	RTAP_XSTATS_RESET,	/* any */
	RTAP_INTR_ON,		/* struct rtap_u32: queue; own */
	RTAP_INTR_OFF,		/* struct rtap_u32: queue; own */
	RTAP_FW_VERSION,	/* struct rtap_text; any */
	RTAP_BURST_MODE,	/* struct rtap_text, how queues do their bursts; any */
	RTAP_IS_REMOVED,	/* returns 0 or 1; any */
	RTAP_SHARE,		/* struct rtap_share: the primary's queues, from descriptor "from" on; any */
	RTAP_JOIN,		/* struct rtap_share: a secondary gets them, and can send and receive; own */
	RTAP_LEAVE,		/* a secondary gives them up, as the primary stops; own */
	RTAP_RUNTIME,		/* struct rtap_runtime: Go's; port is ignored; own */
};

struct rtap_u32 {
	uint32_t v;
};

struct rtap_conf {
	uint16_t rx_queues, tx_queues;
	uint32_t mtu;			/* bytes; 0: as it is. Out: as it is now */
	uint64_t rx_offloads, tx_offloads;
	uint32_t max_lro;		/* bytes; 0: the default */
	uint32_t rxq_intr;		/* the application wants Rx interrupts */
};

struct rtap_region {
	uint64_t base, size;
};

#define RTAP_REGIONS 16

struct rtap_queue_conf {
	uint32_t queue, ring;		/* ring in descriptors; 0: the default */
	uint64_t pool;			/* struct rte_mempool *; 0 for Tx */
	uint64_t offloads;		/* of this queue */
	uint32_t data_room, headroom;	/* bytes of an mbuf: for data, without the headroom; before it */
	uint32_t nregions, pad;		/* the memory of all the pool's mbufs, sorted, neighbours merged */
	struct rtap_region regions[RTAP_REGIONS];
};

#define RTAP_MAX_QUEUES 128		/* rtap.MaxQueues, at least */

struct rtap_started {			/* out */
	uint32_t queues, scattered, link_up, pad;
	int32_t intr_fd[RTAP_MAX_QUEUES]; /* if rxq_intr was asked for, else -1 */
};

struct rtap_link {			/* out */
	uint32_t up, speed;		/* Mb/s */
};

struct rtap_mac {
	uint8_t addr[6];
};

struct rtap_info {			/* out */
	uint32_t min_rx_buf, max_rx_pktlen, min_mtu, max_mtu, max_queues, max_lro, if_index;
	uint32_t desc_min, desc_max, seg_max, ring, burst;
	uint64_t rx_capa, tx_capa;	/* DPDK's offload bits */
	uint32_t mtu;			/* as it is now */
	uint8_t mac[6], pad[2];
};

#define RTAP_QSTATS 16

struct rtap_stats {			/* out */
	uint64_t ipackets, opackets, ibytes, obytes, imissed, ierrors, oerrors, rx_nombuf;
	struct {
		uint64_t ipackets, opackets, ibytes, obytes, errors;
	} q[RTAP_QSTATS];
};

struct rtap_xstats {
	uint32_t n, pad;		/* how many fit behind this */
};

#define RTAP_XSTAT_NAME 64		/* bytes, the terminating zero included */

struct rtap_text {			/* out, ends with a zero */
	char s[256];
};

/*
 * A port's queues for another process, eight descriptors at a time, as an rte_mp message takes them. RTAP_SHARE
 * is asked for one part after another; each is handed to RTAP_JOIN. The descriptors are duplicates, the
 * receiver's: C closes what RTAP_SHARE gave it when they are sent, RTAP_JOIN keeps or closes what it gets. A
 * port that is stopped has no part (nfds 0). Part 0 begins anew; one that is not the next is refused (-EINVAL).
 * RTAP_LEAVE comes before the next part 0, but for a secondary that has just joined and is told again.
 */
#define RTAP_SHARE_FDS 8

struct rtap_share {
	uint32_t from, nfds, total;	/* these descriptors are from ... from + nfds - 1 of total */
	uint32_t len;			/* of json, which is the same in all parts */
	int32_t fds[RTAP_SHARE_FDS];
	char json[16384];
};

struct rtap_runtime {			/* out */
	uint64_t gcs, pause_ns, heap_bytes, goroutines, threads, procs, cgo_calls;
};

/* Severities of rtap_log, as DPDK's. */
enum rtap_level { RTAP_ERR = 4, RTAP_WARNING = 5, RTAP_NOTICE = 6, RTAP_INFO_ = 7, RTAP_DEBUG = 8 };

/* Bits of rtap_event. */
enum rtap_event { RTAP_EVENT_LINK = 1, RTAP_EVENT_REMOVED = 2 };

/* C, called by Go. Thread-safe. */
uint32_t rtap_alloc(uintptr_t pool, uintptr_t bufs, uint32_t n);	/* how many; fewer when the pool is empty */
void rtap_free(uintptr_t bufs, uint32_t n);				/* chains, of any pool */
void rtap_log(int32_t level, uintptr_t text, uint32_t len);
int32_t rtap_event(uint16_t port, uint32_t what);			/* calls the application from EAL's interrupt thread */

#endif
