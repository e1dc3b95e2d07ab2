/* SPDX-License-Identifier: BSD-3-Clause */
/* ethdev's callbacks: each takes DPDK's structs apart and calls Go. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_malloc.h>
#include <rte_mempool.h>

#include "layout.h"
#include "rtap.h"

static int dev_infos_get(struct rte_eth_dev *dev, struct rte_eth_dev_info *info)
{
	struct rtap_info i = { 0 };
	int err = rtap_call(dev, RTAP_INFO, &i, sizeof(i));

	if (err != 0)
		return err;
	info->if_index = i.if_index;
	info->min_mtu = i.min_mtu;
	info->max_mtu = i.max_mtu;
	info->min_rx_bufsize = i.min_rx_buf;
	info->max_rx_pktlen = i.max_rx_pktlen;
	info->max_lro_pkt_size = i.max_lro;
	info->max_rx_queues = info->max_tx_queues = i.max_queues;
	info->max_mac_addrs = 1;
	info->rx_offload_capa = i.rx_capa;
	info->tx_offload_capa = i.tx_capa;
	info->rx_desc_lim = (struct rte_eth_desc_lim){ .nb_max = i.desc_max, .nb_min = i.desc_min, .nb_align = 1 };
	info->tx_desc_lim = info->rx_desc_lim;
	info->tx_desc_lim.nb_seg_max = info->tx_desc_lim.nb_mtu_seg_max = i.seg_max;
	info->speed_capa = RTE_ETH_LINK_SPEED_10G;
	info->default_rxportconf = (struct rte_eth_dev_portconf){
		.burst_size = i.burst, .ring_size = i.ring, .nb_queues = 1 };
	info->default_txportconf = info->default_rxportconf;
	return 0;
}

/* -1 if it is as it was. */
int rtap_link_update(struct rte_eth_dev *dev, int wait __rte_unused)
{
	struct rtap_link l = { 0 };
	int err = rtap_call(dev, RTAP_LINK, &l, sizeof(l));
	struct rte_eth_link link = {
		.link_speed = l.speed,
		.link_duplex = RTE_ETH_LINK_FULL_DUPLEX,
		.link_autoneg = RTE_ETH_LINK_FIXED,
		.link_status = l.up ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN,
	};

	return err != 0 ? err : rte_eth_linkstatus_set(dev, &link);
}

static int dev_configure(struct rte_eth_dev *dev)
{
	const struct rte_eth_conf *conf = &dev->data->dev_conf;
	struct rtap_conf c = {
		.rx_queues = dev->data->nb_rx_queues,
		.tx_queues = dev->data->nb_tx_queues,
		.mtu = dev->data->mtu,
		.rx_offloads = conf->rxmode.offloads,
		.tx_offloads = conf->txmode.offloads,
		.max_lro = conf->rxmode.max_lro_pkt_size,
		.rxq_intr = conf->intr_conf.rxq,
	};
	int err = rtap_call(dev, RTAP_CONFIGURE, &c, sizeof(c));

	if (err == 0)
		dev->data->mtu = c.mtu;
	return err;
}

static void set_queue_states(struct rte_eth_dev *dev, uint8_t state)
{
	memset(dev->data->rx_queue_state, state, dev->data->nb_rx_queues);
	memset(dev->data->tx_queue_state, state, dev->data->nb_tx_queues);
}

static int dev_stop(struct rte_eth_dev *dev)
{
	int err;

	rtap_mp_stopping(dev->data->port_id);
	err = rtap_call(dev, RTAP_STOP, NULL, 0);
	if (err != 0)
		return err;
	rtap_intr_stop(dev);
	set_queue_states(dev, RTE_ETH_QUEUE_STATE_STOPPED);
	return 0;
}

static int dev_start(struct rte_eth_dev *dev)
{
	struct rtap_started s = { 0 };
	int err;

	rtap_onstack();
	err = rtap_call(dev, RTAP_START, &s, sizeof(s));
	if (err != 0)
		return err;
	err = rtap_intr_start(dev, &s);
	if (err != 0) {
		RTAP_LOG(ERR, "port %u: no Rx interrupts: %s\n", dev->data->port_id, strerror(-err));
		dev_stop(dev);
		return err;
	}
	dev->data->scattered_rx = s.scattered;
	set_queue_states(dev, RTE_ETH_QUEUE_STATE_STARTED);
	rtap_link_update(dev, 0);
	rtap_mp_started(dev->data->port_id);
	return 0;
}

/* With LSC on, ethdev reads what was written last: the application sees at once what it has done itself. */
static int set_link(struct rte_eth_dev *dev, uint32_t up)
{
	int err = rtap_call_u32(dev, RTAP_LINK_SET, up);

	if (err == 0)
		rtap_link_update(dev, 0);
	return err;
}

static int set_link_up(struct rte_eth_dev *dev)
{
	return set_link(dev, 1);
}

static int set_link_down(struct rte_eth_dev *dev)
{
	return set_link(dev, 0);
}

/* Callbacks that are an operation of Go's, and no more. */
#define PLAIN(name, op) \
	static int name(struct rte_eth_dev *dev) { return rtap_call(dev, op, NULL, 0); }
#define SWITCH(name, op, on) \
	static int name(struct rte_eth_dev *dev) { return rtap_call_u32(dev, op, on); }
#define OF_QUEUE(name, op) \
	static int name(struct rte_eth_dev *dev, uint16_t queue) { return rtap_call_u32(dev, op, queue); }

SWITCH(promiscuous_enable, RTAP_PROMISC, 1)
SWITCH(promiscuous_disable, RTAP_PROMISC, 0)
SWITCH(allmulticast_enable, RTAP_ALLMULTI, 1)
SWITCH(allmulticast_disable, RTAP_ALLMULTI, 0)
PLAIN(stats_reset, RTAP_STATS_RESET)
PLAIN(xstats_reset, RTAP_XSTATS_RESET)
OF_QUEUE(rx_queue_intr_enable, RTAP_INTR_ON)
OF_QUEUE(rx_queue_intr_disable, RTAP_INTR_OFF)

static int mac_addr_set(struct rte_eth_dev *dev, struct rte_ether_addr *addr)
{
	struct rtap_mac mac;

	memcpy(mac.addr, addr, sizeof(mac.addr));
	return rtap_call(dev, RTAP_MAC, &mac, sizeof(mac));
}

/* A TAP hands over all that the kernel sends. */
static int set_mc_addr_list(struct rte_eth_dev *dev __rte_unused, struct rte_ether_addr *addrs __rte_unused,
	uint32_t n __rte_unused)
{
	return 0;
}

static int mtu_set(struct rte_eth_dev *dev, uint16_t mtu)
{
	int err;

	rtap_mp_stopping(dev->data->port_id);
	err = rtap_call_u32(dev, RTAP_MTU, mtu);
	rtap_mp_started(dev->data->port_id);
	return err;
}

static int is_removed(struct rte_eth_dev *dev)
{
	return rtap_call(dev, RTAP_IS_REMOVED, NULL, 0) > 0;
}

/* Queues */

static int refuse(const struct rte_eth_dev *dev, const char *direction, uint16_t queue, const char *what)
{
	RTAP_LOG(ERR, "port %u: %s queue %u: %s\n", dev->data->port_id, direction, queue, what);
	return -EINVAL;
}

static int queue_setup(struct rte_eth_dev *dev, enum rtap_op op, struct rtap_queue_conf *c, unsigned int socket,
	void **queues)
{
	struct rtap_queue *q = rte_zmalloc_socket("net_rtap", sizeof(*q), RTE_CACHE_LINE_SIZE, socket);
	int err;

	if (q == NULL)
		return -ENOMEM;
	err = rtap_call(dev, op, c, sizeof(*c));
	if (err != 0) {
		rte_free(q);
		return err;
	}
	q->port = dev->data->port_id;
	q->queue = c->queue;
	q->ring = c->ring;
	q->mp = (struct rte_mempool *)(uintptr_t)c->pool;
	queues[c->queue] = q;
	return 0;
}

static int rx_queue_setup(struct rte_eth_dev *dev, uint16_t queue, uint16_t ring, unsigned int socket,
	const struct rte_eth_rxconf *conf, struct rte_mempool *mp)
{
	struct rtap_queue_conf c = {
		.queue = queue,
		.ring = ring,
		.offloads = conf->offloads | dev->data->dev_conf.rxmode.offloads,
	};
	int err;

	if (conf->rx_deferred_start)
		return refuse(dev, "Rx", queue, "deferred start is not supported");
	if (mp == NULL)
		return refuse(dev, "Rx", queue, "one mempool is needed, buffer split is not supported");
	err = rtap_pool(mp, &c);
	return err != 0 ? err : queue_setup(dev, RTAP_RX_SETUP, &c, socket, dev->data->rx_queues);
}

static int tx_queue_setup(struct rte_eth_dev *dev, uint16_t queue, uint16_t ring, unsigned int socket,
	const struct rte_eth_txconf *conf)
{
	struct rtap_queue_conf c = {
		.queue = queue,
		.ring = ring,
		.offloads = conf->offloads | dev->data->dev_conf.txmode.offloads,
	};

	if (conf->tx_deferred_start)
		return refuse(dev, "Tx", queue, "deferred start is not supported");
	return queue_setup(dev, RTAP_TX_SETUP, &c, socket, dev->data->tx_queues);
}

static void queue_release(struct rte_eth_dev *dev, void **queues, uint16_t queue, enum rtap_op op)
{
	if (!rtap_is_primary() || queues == NULL || queues[queue] == NULL)
		return;
	rtap_call_u32(dev, op, queue);
	rte_free(queues[queue]);
	queues[queue] = NULL;
}

static void rx_queue_release(struct rte_eth_dev *dev, uint16_t queue)
{
	queue_release(dev, dev->data->rx_queues, queue, RTAP_RX_RELEASE);
}

static void tx_queue_release(struct rte_eth_dev *dev, uint16_t queue)
{
	queue_release(dev, dev->data->tx_queues, queue, RTAP_TX_RELEASE);
}

/* Applications, the bus and rte_eal_cleanup call it, in any order. A secondary gives up its own part only. */
int rtap_dev_close(struct rte_eth_dev *dev)
{
	uint16_t i;
	int err;

	rtap_mp_stopping(dev->data->port_id);
	rtap_intr_stop(dev);
	rtap_event_cancel(dev);
	err = RTAP_GO(-ENOTSUP, rtapRemove(dev->data->port_id));
	rtap_event_cancel(dev);
	for (i = 0; i < dev->data->nb_rx_queues; i++)
		rx_queue_release(dev, i);
	for (i = 0; i < dev->data->nb_tx_queues; i++)
		tx_queue_release(dev, i);
	return err;
}

static void rxq_info_get(struct rte_eth_dev *dev, uint16_t queue, struct rte_eth_rxq_info *info)
{
	const struct rtap_queue *q = dev->data->rx_queues[queue];

	info->mp = q->mp;
	info->nb_desc = q->ring;
	info->scattered_rx = dev->data->scattered_rx;
	info->conf.offloads = dev->data->dev_conf.rxmode.offloads;
	info->rx_buf_size = rte_pktmbuf_data_room_size(q->mp) - RTE_PKTMBUF_HEADROOM;
}

static void txq_info_get(struct rte_eth_dev *dev, uint16_t queue, struct rte_eth_txq_info *info)
{
	const struct rtap_queue *q = dev->data->tx_queues[queue];

	info->nb_desc = q->ring;
	info->conf.offloads = dev->data->dev_conf.txmode.offloads;
}

static int burst_mode_get(struct rte_eth_dev *dev, uint16_t queue __rte_unused, struct rte_eth_burst_mode *mode)
{
	struct rtap_text text = { 0 };
	int err = rtap_call(dev, RTAP_BURST_MODE, &text, sizeof(text));

	if (err == 0)
		snprintf(mode->info, sizeof(mode->info), "%s", text.s);
	return err;
}

static int fw_version_get(struct rte_eth_dev *dev, char *version, size_t size)
{
	struct rtap_text text = { 0 };
	int n, err = rtap_call(dev, RTAP_FW_VERSION, &text, sizeof(text));

	if (err != 0)
		return err;
	n = snprintf(version, size, "%s", text.s) + 1;
	return (size_t)n > size ? n : 0;
}

/* A burst keeps no packet. */
static int tx_done_cleanup(void *txq __rte_unused, uint32_t n __rte_unused)
{
	return 0;
}

static const uint32_t *supported_ptypes_get(RTAP_PTYPES_ARGS)
{
	static const uint32_t table[] = { RTAP_PTYPES(RTAP_NAME_) RTE_PTYPE_UNKNOWN };

	(void)dev;
	RTAP_PTYPES_END(n, table);
	return table;
}

/* Statistics */

_Static_assert(RTE_ETHDEV_QUEUE_STAT_CNTRS <= RTAP_QSTATS, "rtap_stats.q");

static int stats_get(struct rte_eth_dev *dev, RTAP_STATS_ARGS)
{
	struct rtap_stats s = { 0 };
	int i, err = rtap_call(dev, RTAP_STATS, &s, sizeof(s));

	if (err != 0)
		return err;
	stats->ipackets = s.ipackets;
	stats->opackets = s.opackets;
	stats->ibytes = s.ibytes;
	stats->obytes = s.obytes;
	stats->imissed = s.imissed;
	stats->ierrors = s.ierrors;
	stats->oerrors = s.oerrors;
	stats->rx_nombuf = s.rx_nombuf;
	for (i = 0; RTAP_STATS_QUEUES(stats, queues) != NULL && i < RTE_ETHDEV_QUEUE_STAT_CNTRS; i++) {
		RTAP_STATS_QUEUES(stats, queues)->q_ipackets[i] = s.q[i].ipackets;
		RTAP_STATS_QUEUES(stats, queues)->q_opackets[i] = s.q[i].opackets;
		RTAP_STATS_QUEUES(stats, queues)->q_ibytes[i] = s.q[i].ibytes;
		RTAP_STATS_QUEUES(stats, queues)->q_obytes[i] = s.q[i].obytes;
		RTAP_STATS_QUEUES(stats, queues)->q_errors[i] = s.q[i].errors;
	}
	return 0;
}

_Static_assert(RTAP_XSTAT_NAME == RTE_ETH_XSTATS_NAME_SIZE, "xstat names");

/*
 * Puts values or names, which are "each" bytes, where they are wanted: by ids, or all in order. Returns as ethdev's
 * callbacks do: how many; how many there are, if there is no room for all.
 */
static int xstats(struct rte_eth_dev *dev, enum rtap_op op, size_t each, const uint64_t *ids, unsigned int n,
	void (*put)(void *to, unsigned int i, unsigned int id, const void *from), void *to)
{
	struct rtap_xstats none = { 0 }, *all;
	int have = rtap_call(dev, op, &none, sizeof(none)), err;
	unsigned int i;

	if (have < 0 || (ids == NULL && (to == NULL || n < (unsigned int)have)))
		return have;
	all = calloc(1, sizeof(*all) + have * each);
	if (all == NULL)
		return -ENOMEM;
	all->n = have;
	err = rtap_call(dev, op, all, sizeof(*all) + have * each);
	if (ids == NULL)
		n = have;
	for (i = 0; i < n && err >= 0; i++) {
		uint64_t id = ids ? ids[i] : i;

		if (id < (uint64_t)have)
			put(to, i, id, (const char *)(all + 1) + id * each);
		else
			err = -EINVAL;
	}
	free(all);
	return err < 0 ? err : (int)n;
}

static void put_xstat(void *to, unsigned int i, unsigned int id, const void *from)
{
	((struct rte_eth_xstat *)to)[i] = (struct rte_eth_xstat){ .id = id, .value = *(const uint64_t *)from };
}

static void put_value(void *to, unsigned int i, unsigned int id __rte_unused, const void *from)
{
	((uint64_t *)to)[i] = *(const uint64_t *)from;
}

static void put_name(void *to, unsigned int i, unsigned int id __rte_unused, const void *from)
{
	memcpy(((struct rte_eth_xstat_name *)to)[i].name, from, RTAP_XSTAT_NAME);
}

static int xstats_get(struct rte_eth_dev *dev, struct rte_eth_xstat *to, unsigned int n)
{
	return xstats(dev, RTAP_XSTATS, sizeof(uint64_t), NULL, n, put_xstat, to);
}

static int xstats_get_names(struct rte_eth_dev *dev, struct rte_eth_xstat_name *to, unsigned int n)
{
	return xstats(dev, RTAP_XSTAT_NAMES, RTAP_XSTAT_NAME, NULL, n, put_name, to);
}

static int xstats_get_by_id(struct rte_eth_dev *dev, const uint64_t *ids, uint64_t *to, unsigned int n)
{
	return xstats(dev, RTAP_XSTATS, sizeof(uint64_t), ids, n, put_value, to);
}

static int xstats_get_names_by_id(struct rte_eth_dev *dev, const uint64_t *ids, struct rte_eth_xstat_name *to,
	unsigned int n)
{
	return xstats(dev, RTAP_XSTAT_NAMES, RTAP_XSTAT_NAME, ids, n, put_name, to);
}

const struct eth_dev_ops rtap_ops = {
	.dev_configure = dev_configure,
	.dev_start = dev_start,
	.dev_stop = dev_stop,
	.dev_close = rtap_dev_close,
	.dev_set_link_up = set_link_up,
	.dev_set_link_down = set_link_down,
	.is_removed = is_removed,
	.promiscuous_enable = promiscuous_enable,
	.promiscuous_disable = promiscuous_disable,
	.allmulticast_enable = allmulticast_enable,
	.allmulticast_disable = allmulticast_disable,
	.mac_addr_set = mac_addr_set,
	.set_mc_addr_list = set_mc_addr_list,
	.mtu_set = mtu_set,
	.link_update = rtap_link_update,
	.dev_infos_get = dev_infos_get,
	.fw_version_get = fw_version_get,
	.dev_supported_ptypes_get = supported_ptypes_get,
	.rx_queue_setup = rx_queue_setup,
	.rx_queue_release = rx_queue_release,
	.rx_queue_intr_enable = rx_queue_intr_enable,
	.rx_queue_intr_disable = rx_queue_intr_disable,
	.rxq_info_get = rxq_info_get,
	.rx_burst_mode_get = burst_mode_get,
	.tx_queue_setup = tx_queue_setup,
	.tx_queue_release = tx_queue_release,
	.tx_done_cleanup = tx_done_cleanup,
	.txq_info_get = txq_info_get,
	.tx_burst_mode_get = burst_mode_get,
	.stats_get = stats_get,
	.stats_reset = stats_reset,
	.xstats_get = xstats_get,
	.xstats_get_names = xstats_get_names,
	.xstats_reset = xstats_reset,
	.xstats_get_by_id = xstats_get_by_id,
	.xstats_get_names_by_id = xstats_get_names_by_id,
};
