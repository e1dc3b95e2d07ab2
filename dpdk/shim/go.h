/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What Go exports (dpdk/plugin/export.go). Negative results are -errno. Nothing here may be called before
 * rtap_start_go (start.c) has started Go's runtime, nor in the child of a fork after that.
 */
#ifndef RTAP_GO_H
#define RTAP_GO_H

#include <stdint.h>
#include "../plugin/shim.h"

/* Once, first: CPUs of EAL's lcores, RTE_MAX_ETHPORTS, DPDK's version. */
extern int32_t rtapInit(uint32_t lcores, uint32_t max_ports, char *version);
/* args are what follows the name and a comma in --vdev; none: "". */
extern int32_t rtapProbe(uint16_t port, char *name, char *args, uint32_t secondary);
extern int32_t rtapRemove(uint16_t port);
extern int32_t rtapCall(uint32_t op, uint16_t port, void *arg, uint32_t len);

/* The data plane. */
extern uint16_t rtapRx(uint16_t port, uint16_t queue, void *bufs, uint16_t n);
extern uint16_t rtapTx(uint16_t port, uint16_t queue, void *bufs, uint16_t n);
extern int32_t rtapPrepare(uint16_t port, uint16_t queue, void *bufs, uint16_t n); /* how many | errno << 16 */
extern int32_t rtapWaiting(uint16_t port, uint16_t queue);	/* 1: a packet waits, 0: none does */

#endif
