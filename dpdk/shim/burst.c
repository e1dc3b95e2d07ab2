/* SPDX-License-Identifier: BSD-3-Clause */
/* The data plane: each call goes on to Go. No packet is looked at here. */
#include <rte_errno.h>

#include "rtap.h"

static uint16_t rx_burst(void *rxq, struct rte_mbuf **pkts, uint16_t n)
{
	const struct rtap_queue *q = rxq;

	return RTAP_GO(0, rtapRx(q->port, q->queue, pkts, n));
}

static uint16_t tx_burst(void *txq, struct rte_mbuf **pkts, uint16_t n)
{
	const struct rtap_queue *q = txq;

	return RTAP_GO(0, rtapTx(q->port, q->queue, pkts, n));
}

static uint16_t tx_prepare(void *txq, struct rte_mbuf **pkts, uint16_t n)
{
	const struct rtap_queue *q = txq;
	uint32_t r = RTAP_GO(ENOTSUP << 16, rtapPrepare(q->port, q->queue, pkts, n));

	if (unlikely((uint16_t)r < n))
		rte_errno = r >> 16;
	return r;
}

/* How many the kernel has, it does not tell: one or none. */
static rtap_count_t rx_queue_count(void *rxq)
{
	const struct rtap_queue *q = rxq;

	return RTAP_GO(0, rtapWaiting(q->port, q->queue));
}

static int rx_descriptor_status(void *rxq, uint16_t offset)
{
	const struct rtap_queue *q = rxq;

	if (offset >= q->ring)
		return -EINVAL;
	return offset == 0 && rx_queue_count(rxq) != 0 ? RTE_ETH_RX_DESC_DONE : RTE_ETH_RX_DESC_AVAIL;
}

/* A burst keeps no packet. */
static int tx_descriptor_status(void *txq, uint16_t offset)
{
	const struct rtap_queue *q = txq;

	return offset >= q->ring ? -EINVAL : RTE_ETH_TX_DESC_DONE;
}

void rtap_set_bursts(struct rte_eth_dev *dev)
{
	dev->rx_pkt_burst = rx_burst;
	dev->tx_pkt_burst = tx_burst;
	dev->tx_pkt_prepare = tx_prepare;
	dev->rx_queue_count = rx_queue_count;
	dev->rx_descriptor_status = rx_descriptor_status;
	dev->tx_descriptor_status = tx_descriptor_status;
}
