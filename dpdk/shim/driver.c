/* SPDX-License-Identifier: BSD-3-Clause */
/* The driver net_rtap of the vdev bus. */
#include <errno.h>

#include <bus_vdev_driver.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_telemetry.h>

#include "rtap.h"

#define PARAMS "iface=<name> persist[=<0|1>] mtu=<bytes> mac=<address> txqlen=<packets> netns=<path> " \
	"engine=<name> no-carrier[=<0|1>]"

/* What applications see before they configure the port. */
static int describe(struct rte_eth_dev *dev)
{
	struct rte_eth_dev_data *data = dev->data;
	struct rtap_info info = { 0 };
	int err;

	data->mac_addrs = rte_zmalloc("net_rtap", sizeof(*data->mac_addrs), 0);
	if (data->mac_addrs == NULL)
		return -ENOMEM;
	err = rtap_call(dev, RTAP_INFO, &info, sizeof(info));
	if (err != 0)
		return err;
	memcpy(data->mac_addrs, info.mac, sizeof(info.mac));
	data->mtu = info.mtu;
	data->dev_flags |= RTE_ETH_DEV_INTR_LSC | RTE_ETH_DEV_INTR_RMV;
	rtap_link_update(dev, 0);
	return 0;
}

static int rtap_probe(struct rte_vdev_device *vdev)
{
	const char *name = rte_vdev_device_name(vdev), *args = rte_vdev_device_args(vdev);
	struct rte_eth_dev *dev;
	uint16_t port;
	int err;

	err = rtap_start_go();
	if (err != 0)
		return err;
	dev = rtap_is_primary() ? rte_eth_vdev_allocate(vdev, 0) : rte_eth_dev_attach_secondary(name);
	if (dev == NULL) {
		RTAP_LOG(ERR, "%s: EAL has no port for it\n", name);
		return -ENODEV;
	}
	port = dev->data->port_id;
	dev->device = &vdev->device;
	dev->dev_ops = &rtap_ops;
	rtap_set_bursts(dev);
	err = RTAP_GO(-ENOTSUP, rtapProbe(port, (char *)(uintptr_t)name, (char *)(uintptr_t)(args ? args : ""),
					  !rtap_is_primary()));
	if (err == 0 && rtap_is_primary())
		err = describe(dev);
	if (err != 0) {
		RTAP_GO(0, rtapRemove(port));
		rte_eth_dev_release_port(dev);
		return err;
	}
	if (!rtap_is_primary())
		rtap_mp_attach(port);
	rte_eth_dev_probing_finish(dev);
	return 0;
}

static int rtap_remove(struct rte_vdev_device *vdev)
{
	struct rte_eth_dev *dev = rte_eth_dev_allocated(rte_vdev_device_name(vdev));

	if (dev == NULL)
		return 0; /* closed before */
	rtap_dev_close(dev);
	return rte_eth_dev_release_port(dev);
}

static struct rte_vdev_driver rtap_driver = {
	.probe = rtap_probe,
	.remove = rtap_remove,
};

RTE_PMD_REGISTER_VDEV(net_rtap, rtap_driver);
RTE_PMD_REGISTER_ALIAS(net_rtap, eth_rtap);
RTE_PMD_REGISTER_PARAM_STRING(net_rtap, PARAMS);
RTE_LOG_REGISTER_DEFAULT(rtap_logtype, NOTICE);

/* What DPDK's build makes by pmdinfogen, for dpdk-pmdinfo.py. */
static const char pmdinfo[] __attribute__((used)) =
	"PMD_INFO_STRING= {\"name\" : \"net_rtap\", \"params\" : \"" PARAMS "\", \"pci_ids\" : []}";

void rtap_log(int32_t level, uintptr_t text, uint32_t len)
{
	rte_log(level, rtap_logtype, "net_rtap: %.*s\n", (int)len, (const char *)text);
}

static int show_runtime(const char *cmd __rte_unused, const char *params __rte_unused, struct rte_tel_data *d)
{
	struct rtap_runtime r = { 0 };
	int err = RTAP_GO(-ENOTSUP, rtapCall(RTAP_RUNTIME, 0, &r, sizeof(r)));

	if (err != 0)
		return err;
	rte_tel_data_start_dict(d);
	rtap_tel_uint(d, "gcs", r.gcs);
	rtap_tel_uint(d, "pause_ns", r.pause_ns);
	rtap_tel_uint(d, "heap_bytes", r.heap_bytes);
	rtap_tel_uint(d, "goroutines", r.goroutines);
	rtap_tel_uint(d, "threads", r.threads);
	rtap_tel_uint(d, "procs", r.procs);
	rtap_tel_uint(d, "cgo_calls", r.cgo_calls);
	return 0;
}

RTE_INIT(rtap_telemetry)
{
	rte_telemetry_register_cmd("/net_rtap/runtime", show_runtime, "Go's runtime in net_rtap. No parameters");
}
