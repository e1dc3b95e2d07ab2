/* SPDX-License-Identifier: BSD-3-Clause */
/* What the shim's files have in common. */
#ifndef RTAP_H
#define RTAP_H

#include <signal.h>
#include <stdbool.h>

#include <ethdev_driver.h>
#include <ethdev_vdev.h>
#include <rte_log.h>

#include "compat.h"
#include "go.h"

extern int rtap_logtype;
#define RTAP_LOG(level, ...) rte_log(RTE_LOG_ ## level, rtap_logtype, "net_rtap: " __VA_ARGS__)

/* An element of dev->data->rx_queues or tx_queues, in memory that all processes see. */
struct rtap_queue {
	uint16_t port, queue;
	uint16_t ring;
	struct rte_mempool *mp;		/* Rx only */
};

/* start.c: Go's runtime */

/* Starts it, unless it runs. 0 or -errno. */
int rtap_start_go(void);
/* Has signal handlers run on the stack that is meant for them: goroutines have small ones. */
void rtap_onstack(void);

/* Whether this thread has been in Go. */
extern __thread bool rtap_known __attribute__((tls_model("initial-exec")));
bool rtap_enter(sigset_t *mask);
void rtap_leave(const sigset_t *mask);

/*
 * What an exported function returns, or "otherwise" where Go does not run. Go opens signals on a thread that
 * calls it for the first time; its mask is restored then.
 */
#define RTAP_GO(otherwise, call) __extension__ ({ \
	__typeof__(call) rtap_result_ = (otherwise); \
	sigset_t rtap_mask_; \
	if (likely(rtap_known)) { \
		rtap_result_ = (call); \
	} else if (rtap_enter(&rtap_mask_)) { \
		rtap_result_ = (call); \
		rtap_leave(&rtap_mask_); \
	} \
	rtap_result_; \
})

/* ops.c */
extern const struct eth_dev_ops rtap_ops;
int rtap_link_update(struct rte_eth_dev *dev, int wait);
int rtap_dev_close(struct rte_eth_dev *dev);

/* burst.c: the callbacks that are not in eth_dev_ops */
void rtap_set_bursts(struct rte_eth_dev *dev);

/* mem.c: fills in what Go is told of a mempool. 0 or -errno. */
int rtap_pool(struct rte_mempool *mp, struct rtap_queue_conf *conf);

/* intr.c */
int rtap_intr_start(struct rte_eth_dev *dev, const struct rtap_started *started);
void rtap_intr_stop(struct rte_eth_dev *dev);
void rtap_event_cancel(struct rte_eth_dev *dev);

/* mp.c: several processes */
bool rtap_is_primary(void);
void rtap_mp_init(void);
void rtap_mp_attach(uint16_t port);		/* a secondary gets the queues */
void rtap_mp_started(uint16_t port);		/* the primary tells secondaries */
void rtap_mp_stopping(uint16_t port);
/* rtapCall, here or, of a secondary, in the primary if it must be there. */
int32_t rtap_call(const struct rte_eth_dev *dev, enum rtap_op op, void *arg, uint32_t len);
int32_t rtap_call_u32(const struct rte_eth_dev *dev, enum rtap_op op, uint32_t v);

#endif
