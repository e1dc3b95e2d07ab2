/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * intr QUEUES PACKETS: waits for packets as l3fwd-power does, with rte_epoll_wait, and is called back when the link
 * changes, both at once. A packet that waits while nobody is woken is a failure.
 */
#include <rte_interrupts.h>

#include "common.h"

static int on_link(uint16_t port, enum rte_eth_event_type type, void *arg, void *ret)
{
	struct rte_eth_link link;

	RTE_SET_USED(type);
	RTE_SET_USED(arg);
	RTE_SET_USED(ret);
	CHECK(rte_thread_is_intr());
	MUST(rte_eth_link_get_nowait(port, &link));
	SAY("link %s", link.link_status ? "up" : "down");
	return 0;
}

int main(int argc, char **argv)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_epoll_event ev[8];
	struct rte_mempool *mp;
	struct rte_mbuf *in[32];
	uint32_t got = 0, want, wakeups = 0, idle = 0;
	uint16_t queues, q, k;
	int used = MUST(rte_eal_init(argc, argv)), n, i;

	CHECK(argc - used == 3);
	queues = atoi(argv[used + 1]);
	want = atoi(argv[used + 2]);
	mp = make_pool("pool", 4096, 2048);
	conf.intr_conf.rxq = 1;
	conf.intr_conf.lsc = 1;
	MUST(rte_eth_dev_callback_register(0, RTE_ETH_EVENT_INTR_LSC, on_link, NULL));
	start_port(0, queues, mp, &conf);
	for (q = 0; q < queues; q++)
		MUST(rte_eth_dev_rx_intr_ctl_q(0, q, RTE_EPOLL_PER_THREAD, RTE_INTR_EVENT_ADD, (void *)(uintptr_t)q));
	SAY("started");
	while (got < want) {
		for (q = 0; q < queues; q++)
			MUST(rte_eth_dev_rx_intr_enable(0, q));
		n = MUST(rte_epoll_wait(RTE_EPOLL_PER_THREAD, ev, 8, 10000));
		if (n == 0) {
			for (q = 0, k = 0; q < queues; q++)
				k += rte_eth_rx_burst(0, q, in, 32);
			FAIL("nobody was woken for 10 s after %u of %u packets; %u wait", got, want, k);
		}
		wakeups++;
		for (q = 0; q < queues; q++)
			MUST(rte_eth_dev_rx_intr_disable(0, q));
		for (i = 0, k = 0; i < n; i++) {
			uint16_t m;

			q = (uintptr_t)ev[i].epdata.data;
			CHECK(q < queues);
			while ((m = rte_eth_rx_burst(0, q, in, 32)) > 0) {
				rte_pktmbuf_free_bulk(in, m);
				k += m;
			}
		}
		idle += k == 0;
		got += k;
		if (k > 0)
			SAY("got %u", got);
	}
	SAY("packets: %u wakeups: %u idle: %u", got, wakeups, idle);
	await();
	MUST(rte_eth_dev_stop(0));
	check_full(mp);
	/* And again, after a new start: descriptors may be others. */
	MUST(rte_eth_dev_start(0));
	for (q = 0; q < queues; q++) {
		MUST(rte_eth_dev_rx_intr_ctl_q(0, q, RTE_EPOLL_PER_THREAD, RTE_INTR_EVENT_ADD, (void *)(uintptr_t)q));
		MUST(rte_eth_dev_rx_intr_enable(0, q));
	}
	SAY("again");
	n = MUST(rte_epoll_wait(RTE_EPOLL_PER_THREAD, ev, 8, 10000));
	CHECK(n > 0);
	MUST(rte_eth_dev_stop(0));
	MUST(rte_eth_dev_close(0));
	check_full(mp);
	MUST(rte_eal_cleanup());
	SAY("done");
	return 0;
}
