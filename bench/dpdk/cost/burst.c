/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a packet costs in bursts of 32: sent, or received from a queue that is full. Prints nanoseconds for each packet.
 * Package dpdk's native.go does the same without DPDK.
 *
 *	burst EAL-ARGUMENTS -- tx|rx INTERFACE SECONDS of CPU time
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#define BURST 32
#define SIZE 64		/* bytes of a frame */
#define QUEUE 960	/* packets that wait when a drain begins: what a TAP takes is 1000 */

/* Of the local experimental type: the kernel throws it away once it has seen that. */
static const unsigned char frame[SIZE] = { 2, 0, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0, 0xaa, 0x88, 0xb5 };

/* Time that this thread has had a CPU, in ns: what else the machine does costs others. */
static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "burst: %s\n", what);
	exit(1);
}

static struct rte_mempool *setup(void)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_mempool *pool = rte_pktmbuf_pool_create("bench", 2047, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);

	if (pool == NULL || rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, 256, SOCKET_ID_ANY, NULL, pool) != 0 ||
	    rte_eth_tx_queue_setup(0, 0, 256, SOCKET_ID_ANY, NULL) != 0 || rte_eth_dev_start(0) != 0)
		die("port 0 does not start");
	return pool;
}

static double send_all(struct rte_mempool *pool, double seconds)
{
	struct rte_mbuf *m[BURST];
	double begin = now(), end = begin + seconds * 1e9, t = begin;
	unsigned long packets = 0;

	while (t < end) {
		for (int round = 0; round < 64; round++) {
			if (rte_pktmbuf_alloc_bulk(pool, m, BURST) != 0)
				die("the pool is empty");
			for (int i = 0; i < BURST; i++)
				memcpy(rte_pktmbuf_append(m[i], SIZE), frame, 14);
			if (rte_eth_tx_burst(0, 0, m, BURST) != BURST)
				die("not all packets were sent");
			packets += BURST;
		}
		t = now();
	}
	return (t - begin) / (double)packets;
}

static int open_packet(const char *name)
{
	int one = 1, fd = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name) };

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) != 0 ||
	    bind(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		die("no packet socket");
	return fd;
}

static double drain_all(const char *name, double seconds)
{
	struct rte_mbuf *m[BURST];
	double spent = 0, begin, end = now() + seconds * 1e9;
	unsigned long packets = 0;
	int fd = open_packet(name);

	while (now() < end) {
		for (int i = 0; i < QUEUE; i++)
			if (send(fd, frame, SIZE, 0) != SIZE)
				die("the queue is full too soon");
		begin = now();
		for (unsigned int got = 0, n; got < QUEUE; got += n) {
			n = rte_eth_rx_burst(0, 0, m, BURST);
			rte_pktmbuf_free_bulk(m, n);
		}
		spent += now() - begin;
		packets += QUEUE;
	}
	close(fd);
	return spent / (double)packets;
}

int main(int argc, char **argv)
{
	int skip = rte_eal_init(argc, argv);
	struct rte_mempool *pool;
	double ns, seconds;

	if (skip < 0 || argc - skip != 4)
		die("usage: burst EAL-ARGUMENTS -- tx|rx INTERFACE SECONDS");
	argv += skip;
	seconds = atof(argv[3]);
	pool = setup();
	ns = strcmp(argv[1], "tx") == 0 ? send_all(pool, seconds) : drain_all(argv[2], seconds);
	if (rte_eth_dev_stop(0) != 0 || rte_eth_dev_close(0) != 0 || rte_eal_cleanup() != 0)
		die("port 0 does not stop");
	printf("ns/packet %.2f\n", ns);
	return 0;
}
