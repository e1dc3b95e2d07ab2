/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several processes. The primary has the ports. A secondary asks it for what it may not do itself, by messages
 * that EAL's mp thread answers, and gets the queues' descriptors to do its own bursts on them:
 *
 *	it asks for them part by part when it probes the port		RTAP_SHARE, then its own RTAP_JOIN
 *	the primary has them given up before it stops the port, or
 *	changes its MTU							RTAP_LEAVE to all
 *	and hands them round after that, or when it starts		RTAP_JOIN to all
 *
 * What a message speaks of is in memory of EAL's, at the same address everywhere. No message is sent while
 * one is answered: the thread that would receive the reply is the one that answers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>

#include "rtap.h"

#define NAME "net_rtap"
#define BIT(op) (UINT32_C(1) << (op))

/* What a secondary asks of the primary, and what it does by itself. */
#define ANY (BIT(RTAP_INFO) | BIT(RTAP_LINK) | BIT(RTAP_LINK_SET) | BIT(RTAP_PROMISC) | BIT(RTAP_ALLMULTI) | \
	BIT(RTAP_MAC) | BIT(RTAP_STATS) | BIT(RTAP_STATS_RESET) | BIT(RTAP_XSTATS) | BIT(RTAP_XSTAT_NAMES) | \
	BIT(RTAP_XSTATS_RESET) | BIT(RTAP_FW_VERSION) | BIT(RTAP_BURST_MODE) | BIT(RTAP_IS_REMOVED) | BIT(RTAP_SHARE))
#define OWN (BIT(RTAP_INTR_ON) | BIT(RTAP_INTR_OFF) | BIT(RTAP_JOIN) | BIT(RTAP_LEAVE))

_Static_assert(RTAP_RUNTIME < 32, "BIT");
_Static_assert(RTAP_SHARE_FDS <= RTE_MP_MAX_FD_NUM, "descriptors of a message");

struct message {
	uint32_t op;
	uint16_t port;
	int32_t result;		/* in the reply */
	uint64_t arg;
	uint32_t len;
};

_Static_assert(sizeof(struct message) <= RTE_MP_MAX_PARAM_LEN, "parameters of a message");

/* Nobody who is alive takes longer. */
static const struct timespec patience = { .tv_sec = 5 };

static bool shared[RTE_MAX_ETHPORTS];	/* in the primary: a secondary has asked for the queues */

bool rtap_is_primary(void)
{
	return rte_eal_process_type() == RTE_PROC_PRIMARY;
}

static int32_t call(enum rtap_op op, uint16_t port, void *arg, uint32_t len)
{
	return RTAP_GO(-ENOTSUP, rtapCall(op, port, arg, len));
}

static void *put_message(struct rte_mp_msg *msg, const struct message *m)
{
	memset(msg, 0, sizeof(*msg));
	snprintf(msg->name, sizeof(msg->name), NAME);
	msg->len_param = sizeof(*m);
	return memcpy(msg->param, m, sizeof(*m));
}

static void put_fds(struct rte_mp_msg *msg, const struct rtap_share *s)
{
	msg->num_fds = s->nfds;
	memcpy(msg->fds, s->fds, s->nfds * sizeof(s->fds[0]));
}

static void close_fds(const int *fds, uint32_t n)
{
	while (n-- > 0)
		close(fds[n]);
}

/* In the primary: a secondary asks. */
static int asked(struct message *m, const void *peer)
{
	struct rtap_share *share = m->op == RTAP_SHARE ? (void *)(uintptr_t)m->arg : NULL;
	struct rte_mp_msg reply;
	int err;

	m->result = BIT(m->op & 31) & ANY ? call(m->op, m->port, (void *)(uintptr_t)m->arg, m->len) : -ENOTSUP;
	put_message(&reply, m);
	if (share == NULL || m->result != 0)
		return rte_mp_reply(&reply, peer);
	shared[m->port] = true;
	put_fds(&reply, share);
	err = rte_mp_reply(&reply, peer);
	close_fds(reply.fds, reply.num_fds); /* share may be freed by now */
	return err;
}

/* In a secondary: the primary tells it. */
static int told(const struct rte_mp_msg *msg, struct message *m, const void *peer)
{
	struct rte_mp_msg reply;
	struct rtap_share share;

	m->result = -ENOTSUP;
	if (m->op == RTAP_LEAVE) {
		m->result = call(RTAP_LEAVE, m->port, NULL, 0);
	} else if (m->op == RTAP_JOIN) {
		share = *(const struct rtap_share *)(uintptr_t)m->arg;
		memcpy(share.fds, msg->fds, sizeof(share.fds));
		share.nfds = msg->num_fds;
		m->result = call(RTAP_JOIN, m->port, &share, sizeof(share));
	}
	put_message(&reply, m);
	return rte_mp_reply(&reply, peer);
}

static int answer(const struct rte_mp_msg *msg, const void *peer)
{
	struct message m;

	if (msg->len_param != sizeof(m))
		return -1;
	memcpy(&m, msg->param, sizeof(m));
	return rtap_is_primary() ? asked(&m, peer) : told(msg, &m, peer);
}

/* Without hugepages or shared configuration there are no secondaries, and no messages either. */
void rtap_mp_init(void)
{
	if (rte_mp_action_register(NAME, answer) < 0 && rte_errno != ENOTSUP)
		RTAP_LOG(WARNING, "no messages between processes: %s\n", rte_strerror(rte_errno));
}

/* In a secondary: asks the primary. */
static int32_t ask(enum rtap_op op, uint16_t port, void *arg, uint32_t len)
{
	struct message m = { .op = op, .port = port, .len = len, .result = -ETIMEDOUT };
	struct rte_mp_reply reply = { 0 };
	struct rte_mp_msg msg;
	void *copy = NULL;

	if (len != 0) {
		copy = rte_malloc(NAME, len, 0);
		if (copy == NULL)
			return -ENOMEM;
		memcpy(copy, arg, len);
		m.arg = (uintptr_t)copy;
	}
	put_message(&msg, &m);
	if (rte_mp_request_sync(&msg, &reply, &patience) < 0)
		m.result = -rte_errno;
	else if (reply.nb_received == 1)
		memcpy(&m, reply.msgs[0].param, sizeof(m));
	if (m.result >= 0 && len != 0)
		memcpy(arg, copy, len);
	if (m.result == 0 && op == RTAP_SHARE) {
		struct rtap_share *s = arg;

		s->nfds = reply.msgs[0].num_fds;
		memcpy(s->fds, reply.msgs[0].fds, sizeof(s->fds));
	}
	free(reply.msgs);
	/* One that answers late may write there still. */
	if (m.result != -ETIMEDOUT)
		rte_free(copy);
	return m.result;
}

/* In the primary: tells all secondaries. That one does not answer changes nothing. */
static int32_t tell(enum rtap_op op, uint16_t port, const struct rtap_share *share)
{
	struct message m = { .op = op, .port = port };
	struct rte_mp_reply reply = { 0 };
	struct rte_mp_msg msg;
	struct rtap_share *copy = NULL;

	if (share != NULL) {
		copy = rte_malloc(NAME, sizeof(*copy), 0);
		if (copy == NULL)
			return -ENOMEM;
		*copy = *share;
		m.arg = (uintptr_t)copy;
		m.len = sizeof(*copy);
	}
	put_message(&msg, &m);
	if (share != NULL)
		put_fds(&msg, share);
	if (rte_mp_request_sync(&msg, &reply, &patience) < 0) {
		RTAP_LOG(WARNING, "port %u: a secondary process does not answer: %s\n", port, rte_strerror(rte_errno));
		copy = NULL; /* it may yet look there */
	}
	free(reply.msgs);
	rte_free(copy);
	return 0;
}

/* Where parts come from and go to. */
typedef int32_t part_t(uint16_t port, struct rtap_share *s);

static int32_t own_part(uint16_t port, struct rtap_share *s)
{
	return call(RTAP_SHARE, port, s, sizeof(*s));
}

static int32_t primarys_part(uint16_t port, struct rtap_share *s)
{
	return ask(RTAP_SHARE, port, s, sizeof(*s));
}

static int32_t tell_part(uint16_t port, struct rtap_share *s)
{
	int32_t err = tell(RTAP_JOIN, port, s);

	close_fds(s->fds, s->nfds);
	return err;
}

static int32_t take_part(uint16_t port, struct rtap_share *s)
{
	return call(RTAP_JOIN, port, s, sizeof(*s));
}

/* Hands on all parts. There are none while the port is stopped. */
static int32_t hand_on(uint16_t port, part_t *get, part_t *put)
{
	struct rtap_share s = { 0 };
	uint32_t from = 0;
	int32_t err;

	do {
		s.from = from;
		err = get(port, &s);
		if (err != 0 || s.nfds == 0)
			return err;
		from += s.nfds;
		err = put(port, &s);
	} while (err == 0 && from < s.total);
	return err;
}

void rtap_mp_attach(uint16_t port)
{
	int32_t err = hand_on(port, primarys_part, take_part);

	if (err != 0)
		RTAP_LOG(WARNING, "port %u: no bursts in this process: %s\n", port, strerror(-err));
}

void rtap_mp_started(uint16_t port)
{
	int32_t err = shared[port] ? hand_on(port, own_part, tell_part) : 0;

	if (err != 0)
		RTAP_LOG(WARNING, "port %u: no bursts in secondary processes: %s\n", port, strerror(-err));
}

void rtap_mp_stopping(uint16_t port)
{
	if (shared[port])
		tell(RTAP_LEAVE, port, NULL);
}

int32_t rtap_call(const struct rte_eth_dev *dev, enum rtap_op op, void *arg, uint32_t len)
{
	uint16_t port = dev->data->port_id;

	if (rtap_is_primary() || (BIT(op) & OWN))
		return call(op, port, arg, len);
	return BIT(op) & ANY ? ask(op, port, arg, len) : -ENOTSUP;
}

int32_t rtap_call_u32(const struct rte_eth_dev *dev, enum rtap_op op, uint32_t v)
{
	struct rtap_u32 arg = { v };

	return rtap_call(dev, op, &arg, sizeof(arg));
}
