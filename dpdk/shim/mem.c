/* SPDX-License-Identifier: BSD-3-Clause */
/* Mbufs and mempools, for Go. */
#include <stdlib.h>

#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "layout.h"
#include "rtap.h"

/* rte_pktmbuf_alloc_bulk gives all or nothing. */
uint32_t rtap_alloc(uintptr_t pool, uintptr_t bufs, uint32_t n)
{
	struct rte_mbuf **m = (struct rte_mbuf **)bufs;
	uint32_t got = 0, step = n;

	while (got < n && step > 0) {
		step = RTE_MIN(step, n - got);
		if (rte_pktmbuf_alloc_bulk((struct rte_mempool *)pool, m + got, step) == 0)
			got += step;
		else
			step /= 2;
	}
	return got;
}

void rtap_free(uintptr_t bufs, uint32_t n)
{
	rte_pktmbuf_free_bulk((struct rte_mbuf **)bufs, n);
}

struct regions {
	struct rtap_region *r;
	unsigned int n, max;
};

static void add_region(struct rte_mempool *mp __rte_unused, void *arg, struct rte_mempool_memhdr *mem,
	unsigned int i __rte_unused)
{
	struct regions *all = arg;

	if (all->n < all->max)
		all->r[all->n++] = (struct rtap_region){ (uintptr_t)mem->addr, mem->len };
}

static int by_base(const void *a, const void *b)
{
	const struct rtap_region *x = a, *y = b;

	return (x->base > y->base) - (x->base < y->base);
}

static int by_size(const void *a, const void *b)
{
	const struct rtap_region *x = a, *y = b;

	return (x->size < y->size) - (x->size > y->size);
}

/* A pool's memory is in pieces, which often are neighbours: the largest that they make together. */
static int regions(struct rte_mempool *mp, struct rtap_queue_conf *conf)
{
	struct regions all = { .max = mp->nb_mem_chunks };
	struct rtap_region *last;
	unsigned int i;

	all.r = calloc(all.max + 1, sizeof(*all.r));
	if (all.r == NULL)
		return -ENOMEM;
	rte_mempool_mem_iter(mp, add_region, &all);
	qsort(all.r, all.n, sizeof(*all.r), by_base);
	for (last = all.r, i = 1; i < all.n; i++) {
		if (all.r[i].base == last->base + last->size)
			last->size += all.r[i].size;
		else
			*++last = all.r[i];
	}
	if (all.n != 0)
		all.n = last + 1 - all.r;
	qsort(all.r, all.n, sizeof(*all.r), by_size);
	conf->nregions = RTE_MIN(all.n, (unsigned int)RTAP_REGIONS);
	qsort(all.r, conf->nregions, sizeof(*all.r), by_base);
	memcpy(conf->regions, all.r, conf->nregions * sizeof(*all.r));
	free(all.r);
	return 0;
}

int rtap_pool(struct rte_mempool *mp, struct rtap_queue_conf *conf)
{
	uint32_t room = rte_pktmbuf_data_room_size(mp);

	if (room <= RTE_PKTMBUF_HEADROOM) {
		RTAP_LOG(ERR, "Rx queue %u: mempool %s has no room for data in its mbufs (%u bytes, headroom %u)\n",
			 conf->queue, mp->name, room, RTE_PKTMBUF_HEADROOM);
		return -EINVAL;
	}
	conf->pool = (uintptr_t)mp;
	conf->headroom = RTE_PKTMBUF_HEADROOM;
	conf->data_room = room - RTE_PKTMBUF_HEADROOM;
	return regions(mp, conf);
}
