/* SPDX-License-Identifier: BSD-3-Clause */
/* What differs between DPDK 22.11 and 26.07 of what the shim uses. */
#ifndef RTAP_COMPAT_H
#define RTAP_COMPAT_H

#include <rte_version.h>

#define RTAP_DPDK(y, m) (RTE_VERSION >= RTE_VERSION_NUM(y, m, 0, 0))

/*
 * Since 25.11, statistics of queues are an argument of stats_get of their own, which may be NULL, and
 * rx_queue_count returns an int.
 */
#if RTAP_DPDK(25, 11)
#define RTAP_STATS_ARGS struct rte_eth_stats *stats, struct eth_queue_stats *queues
#define RTAP_STATS_QUEUES(stats, queues) (queues)
typedef int rtap_count_t;
#else
#define RTAP_STATS_ARGS struct rte_eth_stats *stats
#define RTAP_STATS_QUEUES(stats, queues) (stats)
typedef uint32_t rtap_count_t;
#endif

/* Since 24.03 the table of packet types has a length; it ended with RTE_PTYPE_UNKNOWN before. */
#if RTAP_DPDK(24, 3)
#define RTAP_PTYPES_ARGS struct rte_eth_dev *dev, size_t *n
#define RTAP_PTYPES_END(n, table) ((void)(*(n) = RTE_DIM(table) - 1))
#else
#define RTAP_PTYPES_ARGS struct rte_eth_dev *dev
#define RTAP_PTYPES_END(n, table) ((void)0)
#endif

/* Since 23.03 a dictionary's numbers are called uint. */
#if RTAP_DPDK(23, 3)
#define rtap_tel_uint rte_tel_data_add_dict_uint
#else
#define rtap_tel_uint rte_tel_data_add_dict_u64
#endif

#endif
