/* SPDX-License-Identifier: BSD-3-Clause */
/* Interrupts of Rx queues, and events, which applications expect on EAL's interrupt thread. */
#include <errno.h>

#include <rte_alarm.h>
#include <rte_interrupts.h>

#include "rtap.h"

/* Each queue's descriptor is an epoll(7) instance of rtap's: there is nothing to read from it. */
int rtap_intr_start(struct rte_eth_dev *dev, const struct rtap_started *started)
{
	struct rte_intr_handle *handle;
	uint32_t i, n = dev->data->nb_rx_queues;

	if (!dev->data->dev_conf.intr_conf.rxq || n == 0)
		return 0;
	handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
	if (handle == NULL)
		return -ENOMEM;
	dev->intr_handle = handle;
	if (rte_intr_vec_list_alloc(handle, "net_rtap", n) != 0 ||
	    rte_intr_type_set(handle, RTE_INTR_HANDLE_VDEV) != 0 ||
	    rte_intr_fd_set(handle, -1) != 0 ||
	    rte_intr_efd_counter_size_set(handle, 0) != 0 ||
	    rte_intr_max_intr_set(handle, n + 1) != 0 ||
	    rte_intr_nb_efd_set(handle, n) != 0)
		return -EINVAL;
	for (i = 0; i < n; i++) {
		if (rte_intr_vec_list_index_set(handle, i, RTE_INTR_VEC_RXTX_OFFSET + i) != 0 ||
		    rte_intr_efds_index_set(handle, i, started->intr_fd[i]) != 0)
			return -EINVAL;
	}
	return 0;
}

void rtap_intr_stop(struct rte_eth_dev *dev)
{
	if (dev->intr_handle == NULL)
		return;
	rte_intr_free_epoll_fd(dev->intr_handle);
	rte_intr_vec_list_free(dev->intr_handle);
	rte_intr_instance_free(dev->intr_handle);
	dev->intr_handle = NULL;
}

static void link_changed(void *arg)
{
	struct rte_eth_dev *dev = arg;

	rtap_link_update(dev, 0);
	if (dev->data->dev_conf.intr_conf.lsc)
		rte_eth_dev_callback_process(dev, RTE_ETH_EVENT_INTR_LSC, NULL);
}

static void removed(void *arg)
{
	struct rte_eth_dev *dev = arg;

	rtap_link_update(dev, 0);
	if (dev->data->dev_conf.intr_conf.rmv)
		rte_eth_dev_callback_process(dev, RTE_ETH_EVENT_INTR_RMV, NULL);
}

int32_t rtap_event(uint16_t port, uint32_t what)
{
	struct rte_eth_dev *dev = &rte_eth_devices[port];
	int err = 0;

	if (what & RTAP_EVENT_LINK)
		err = rte_eal_alarm_set(1, link_changed, dev);
	if (err == 0 && (what & RTAP_EVENT_REMOVED))
		err = rte_eal_alarm_set(1, removed, dev);
	return err;
}

void rtap_event_cancel(struct rte_eth_dev *dev)
{
	rte_eal_alarm_cancel(link_changed, dev);
	rte_eal_alarm_cancel(removed, dev);
}
