/* SPDX-License-Identifier: BSD-3-Clause */
/* hotplug ROUNDS DEVICE ARGS: adds a port, uses it, and removes it, again and again; says what the process holds. */
#include <dirent.h>

#include "common.h"

static unsigned int entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned int n = 0;

	CHECK(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

static unsigned long resident(void)
{
	char line[256];
	unsigned long kb = 0;
	FILE *f = fopen("/proc/self/status", "r");

	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL)
		sscanf(line, "VmRSS: %lu", &kb);
	fclose(f);
	return kb;
}

static void round_trip(const char *device, const char *args, struct rte_mempool *mp, unsigned int round)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_mbuf *m[4], *in[32];
	uint16_t port, i, n;

	MUST(rte_eal_hotplug_add("vdev", device, args));
	MUST(rte_eth_dev_get_port_by_name(device, &port));
	if (round % 4 != 3) { /* else it goes unused */
		start_port(port, 1 + round % 2, mp, &conf);
		MUST(rte_pktmbuf_alloc_bulk(mp, m, 4));
		for (i = 0; i < 4; i++)
			fill((uint8_t *)rte_pktmbuf_append(m[i], 100), 100, i);
		send_all(port, 0, m, 4);
		n = rte_eth_rx_burst(port, 0, in, 32);
		rte_pktmbuf_free_bulk(in, n);
		if (round % 4 != 2) /* else it is removed as it is */
			MUST(rte_eth_dev_stop(port));
		if (round % 4 == 0)
			MUST(rte_eth_dev_close(port));
	}
	MUST(rte_eal_hotplug_remove("vdev", device));
	CHECK(rte_eth_dev_get_port_by_name(device, &port) != 0);
	check_full(mp);
}

int main(int argc, char **argv)
{
	int used = MUST(rte_eal_init(argc, argv));
	unsigned int rounds, i;
	struct rte_mempool *mp;

	CHECK(argc - used == 4);
	argv += used;
	rounds = atoi(argv[1]);
	mp = make_pool("pool", 2048, 2048);
	for (i = 1; i <= rounds; i++) {
		round_trip(argv[2], argv[3], mp, i);
		if (i % 100 == 0)
			SAY("round: %u fds: %u threads: %u resident: %lu", i, entries("/proc/self/fd"),
			    entries("/proc/self/task"), resident());
	}
	MUST(rte_eal_cleanup());
	return 0;
}
