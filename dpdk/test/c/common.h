/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the test programs share. They use DPDK's public API only, as any application does. Whatever is not
 * as it must be ends the program with a line that begins with FAIL.
 */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		printf("FAIL: " __VA_ARGS__);                                                      \
		printf("\n");                                                                      \
		fflush(NULL);                                                                      \
		_Exit(1);                                                                          \
	} while (0)

/* MUST ends the program unless a call returns 0 or more. */
#define MUST(call)                                                                                 \
	({                                                                                         \
		int r_ = (call);                                                                   \
		if (r_ < 0)                                                                        \
			FAIL("%s:%d: %s: %d (%s)", __FILE__, __LINE__, #call, r_, rte_strerror(-r_)); \
		r_;                                                                                \
	})

#define CHECK(cond)                                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			FAIL("%s:%d: not so: %s", __FILE__, __LINE__, #cond);                       \
	} while (0)

static inline struct rte_mempool *make_pool(const char *name, unsigned int n, uint16_t room)
{
	struct rte_mempool *mp = rte_pktmbuf_pool_create(name, n, 32, 0, room + RTE_PKTMBUF_HEADROOM, SOCKET_ID_ANY);

	if (mp == NULL)
		FAIL("no mempool %s: %s", name, rte_strerror(rte_errno));
	return mp;
}

static inline void check_full(struct rte_mempool *mp)
{
	if (rte_mempool_avail_count(mp) != mp->size)
		FAIL("mempool %s has %u of %u mbufs", mp->name, rte_mempool_avail_count(mp), mp->size);
}

static inline void start_port(uint16_t port, uint16_t queues, struct rte_mempool *mp, const struct rte_eth_conf *conf)
{
	uint16_t q;

	MUST(rte_eth_dev_configure(port, queues, queues, conf));
	for (q = 0; q < queues; q++) {
		MUST(rte_eth_tx_queue_setup(port, q, 0, SOCKET_ID_ANY, NULL));
		MUST(rte_eth_rx_queue_setup(port, q, 0, SOCKET_ID_ANY, NULL, mp));
	}
	MUST(rte_eth_dev_start(port));
}

/* fill makes frame n: the bytes that the tests in Go expect. 0x88b5 is for experiments. */
static inline void fill(uint8_t *b, uint32_t size, uint32_t n)
{
	static const uint8_t head[14] = { 2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa, 0x88, 0xb5 };
	uint32_t i;

	for (i = 0; i < size; i++)
		b[i] = (uint8_t)(i * 7 + (i >> 8) + n * 13);
	memcpy(b, head, sizeof(head));
	b[14] = n >> 24, b[15] = n >> 16, b[16] = n >> 8, b[17] = n;
}

/* send hands over packets until all are taken. */
static inline void send_all(uint16_t port, uint16_t queue, struct rte_mbuf **m, uint16_t n)
{
	uint16_t done = 0;
	unsigned int tries = 0;

	while (done < n) {
		done += rte_eth_tx_burst(port, queue, m + done, n - done);
		if (++tries > 1000000)
			FAIL("the port takes %u of %u packets", done, n);
	}
}

/* say writes a line that the test waits for. */
#define SAY(...)                                                                                   \
	do {                                                                                       \
		printf(__VA_ARGS__);                                                               \
		printf("\n");                                                                      \
		fflush(stdout);                                                                    \
	} while (0)

/* ask waits for the test to write a line. */
static inline void await(void)
{
	int c;

	while ((c = getchar()) != '\n' && c != EOF)
		;
}

#endif
