/* SPDX-License-Identifier: BSD-3-Clause */
/* Several processes: what a secondary may ask of the primary. */
#include <errno.h>

#include "rtap.h"

int32_t rtap_call(const struct rte_eth_dev *dev, enum rtap_op op, void *arg, uint32_t len)
{
	return RTAP_GO(-ENOTSUP, rtapCall(op, dev->data->port_id, arg, len));
}

int32_t rtap_call_u32(const struct rte_eth_dev *dev, enum rtap_op op, uint32_t v)
{
	struct rtap_u32 arg = { v };

	return rtap_call(dev, op, &arg, sizeof(arg));
}
