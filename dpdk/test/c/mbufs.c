/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mbufs: sends frames that lie in mbufs of every kind, on the first port, in order; then receives frames and
 * compares them, chains included. The test has the interface's other side.
 */
#include <rte_malloc.h>

#include "common.h"

#define FRAMES 4000
#define BURST 32

static struct rte_mempool *pool, *other, *empty;
static unsigned int freed, attached;

static void free_external(void *addr, void *opaque)
{
	RTE_SET_USED(opaque);
	freed++;
	rte_free(addr);
}

/* Pieces of a frame, until it is used up: mbufs of the pools in turn, each with room bytes at most. */
static struct rte_mbuf *chain(const uint8_t *frame, uint32_t size, uint32_t room, struct rte_mempool *second)
{
	struct rte_mbuf *head = NULL, *m;
	uint32_t at = 0, n, k = 0;

	while (at < size) {
		m = rte_pktmbuf_alloc(k++ % 2 == 0 ? pool : second);
		CHECK(m != NULL);
		n = RTE_MIN(room, size - at);
		memcpy(rte_pktmbuf_append(m, n), frame + at, n);
		at += n;
		if (head == NULL)
			head = m;
		else
			MUST(rte_pktmbuf_chain(head, m));
	}
	return head;
}

static struct rte_mbuf *plain(const uint8_t *f, uint32_t size) { return chain(f, size, 2048, pool); }
static struct rte_mbuf *pieces(const uint8_t *f, uint32_t size) { return chain(f, size, 100, pool); }
static struct rte_mbuf *crumbs(const uint8_t *f, uint32_t size) { return chain(f, size, size > 60 ? 61 : 1, pool); }
static struct rte_mbuf *mixed(const uint8_t *f, uint32_t size) { return chain(f, size, 700, other); }

static struct rte_mbuf *foreign(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(other);

	CHECK(m != NULL);
	memcpy(rte_pktmbuf_append(m, size), f, size);
	return m;
}

/* No room in front, as after rte_pktmbuf_prepend. */
static struct rte_mbuf *headless(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);

	CHECK(m != NULL);
	m->data_off = 0;
	memcpy(rte_pktmbuf_append(m, size), f, size);
	return m;
}

static struct rte_mbuf *external(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf_ext_shared_info *info;
	struct rte_mbuf *m = rte_pktmbuf_alloc(empty);
	uint16_t len = 4096;
	uint8_t *b = rte_malloc(NULL, len, 0);

	CHECK(m != NULL && b != NULL);
	info = rte_pktmbuf_ext_shinfo_init_helper(b, &len, free_external, NULL);
	rte_pktmbuf_attach_extbuf(m, b, rte_malloc_virt2iova(b), len, info);
	memcpy(b + 64, f, size);
	m->data_off = 64;
	m->data_len = m->pkt_len = size;
	attached++;
	return m;
}

/* A clone: an indirect mbuf, whose data are another's. That one goes when the clone does. */
static struct rte_mbuf *indirect(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf *m = size % 2 ? plain(f, size) : pieces(f, size), *c = rte_pktmbuf_clone(m, empty);

	CHECK(c != NULL);
	rte_pktmbuf_free(m);
	return c;
}

/* A clone of external memory. */
static struct rte_mbuf *indirect_external(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf *m = external(f, size), *c = rte_pktmbuf_clone(m, empty);

	CHECK(c != NULL);
	rte_pktmbuf_free(m);
	return c;
}

/* A header of its own before the data of another, as for a multicast. */
static struct rte_mbuf *header(const uint8_t *f, uint32_t size)
{
	struct rte_mbuf *h = plain(f, 20);

	MUST(rte_pktmbuf_chain(h, indirect(f + 20, size - 20)));
	return h;
}

static struct rte_mbuf *(*const kinds[])(const uint8_t *f, uint32_t size) = {
	plain, pieces, crumbs, mixed, foreign, headless, external, indirect, indirect_external, header,
};

static uint32_t size_of(uint32_t n) { return 60 + n * 37 % 1400; }

/* Sends all. One in seven is held by somebody else as well, and is his afterwards, as it was. */
static void send_frames(uint16_t port)
{
	uint8_t frame[2048];
	struct rte_mbuf *burst[BURST], *held[BURST];
	uint32_t n, i, k, nheld;

	for (n = 0; n < FRAMES; n += BURST) {
		for (i = k = nheld = 0; i < BURST; i++) {
			fill(frame, size_of(n + i), n + i);
			burst[i] = kinds[(n + i) % RTE_DIM(kinds)](frame, size_of(n + i));
			if ((n + i) % 7 == 0) {
				rte_pktmbuf_refcnt_update(burst[i], 1);
				held[nheld++] = burst[i];
			}
		}
		send_all(port, 0, burst, BURST);
		for (i = 0; i < BURST; i++) {
			if ((n + i) % 7 != 0)
				continue;
			fill(frame, size_of(n + i), n + i);
			CHECK(rte_mbuf_refcnt_read(held[k]) == 1);
			CHECK(rte_pktmbuf_pkt_len(held[k]) == size_of(n + i));
			uint8_t copy[2048];
			const void *b = rte_pktmbuf_read(held[k], 0, size_of(n + i), copy);

			CHECK(b != NULL && memcmp(b, frame, size_of(n + i)) == 0);
			k++;
		}
		rte_pktmbuf_free_bulk(held, nheld);
	}
}

/* The same mbuf several times in one burst: as many references as there are packets. */
static void send_shared(uint16_t port)
{
	uint8_t frame[200];
	struct rte_mbuf *burst[BURST];
	uint32_t i;

	fill(frame, sizeof(frame), FRAMES);
	burst[0] = plain(frame, sizeof(frame));
	rte_pktmbuf_refcnt_update(burst[0], BURST);
	for (i = 1; i < BURST; i++)
		burst[i] = burst[0];
	send_all(port, 0, burst, BURST);
	CHECK(rte_mbuf_refcnt_read(burst[0]) == 1);
	rte_pktmbuf_free(burst[0]);
}

static void receive_frames(uint16_t port, uint32_t count)
{
	static uint8_t want[65536], copy[65536];
	struct rte_mbuf *in[BURST];
	uint32_t got = 0, chains = 0, i, n, len;
	uint64_t idle = 0;

	while (got < count) {
		n = rte_eth_rx_burst(port, 0, in, BURST);
		if (n == 0 && ++idle > 200000000)
			FAIL("%u of %u frames were received", got, count);
		for (i = 0; i < n; i++, got++) {
			len = rte_pktmbuf_pkt_len(in[i]);
			fill(want, len, got);
			const void *b = rte_pktmbuf_read(in[i], 0, len, copy);

			if (b == NULL || memcmp(b, want, len) != 0)
				FAIL("frame %u of %u bytes, %u mbufs, is not as it was sent", got, len, in[i]->nb_segs);
			rte_mbuf_sanity_check(in[i], 1);
			CHECK(in[i]->port == port);
			chains += in[i]->nb_segs > 1;
		}
		rte_pktmbuf_free_bulk(in, n);
	}
	SAY("received: %u chains: %u", got, chains);
}

int main(int argc, char **argv)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_eth_stats stats;
	int used = MUST(rte_eal_init(argc, argv));

	CHECK(argc - used == 2); /* how many frames to receive */
	pool = make_pool("pool", 4096, 2048);
	other = make_pool("other", 4096, 2048);
	empty = make_pool("empty", 4096, 0);
	conf.rxmode.mtu = 9000;
	conf.rxmode.offloads = RTE_ETH_RX_OFFLOAD_SCATTER;
	conf.txmode.offloads = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	start_port(0, 1, pool, &conf);
	SAY("started");
	await();
	send_frames(0);
	send_shared(0);
	CHECK(attached > 0 && freed == attached);
	MUST(rte_eth_stats_get(0, &stats));
	CHECK(stats.opackets == FRAMES + BURST && stats.oerrors == 0);
	check_full(other);
	check_full(empty);
	SAY("sent");
	receive_frames(0, atoi(argv[used + 1]));
	MUST(rte_eth_dev_stop(0));
	check_full(pool);
	MUST(rte_eth_dev_close(0));
	MUST(rte_eal_cleanup());
	return 0;
}
