/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * citizen MODE: what a library must leave alone in somebody else's process. The first port is the plugin's. Modes:
 *
 *	threads   the application's threads keep their CPUs and their signal masks; waits, for the test to look at all
 *	signals   handlers are as they were, and are called, while bursts run
 *	fork      a child of a process that has used the port fails cleanly; its parent goes on
 *	exit      ends by exit() with the port started
 *	early PLUGIN ARGS...  loads the plugin, forks, and uses it in the child and then in the parent; before EAL starts
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_launch.h>
#include <rte_lcore.h>

#include "common.h"

/* Real-time signals: SIGRTMIN is no constant. */
#define SIG_EARLY 37		/* handlers from before EAL starts, with and without SA_ONSTACK */
#define SIG_EARLY_STACK 38
#define SIG_LATE 39		/* from after the port is there, before it starts */
#define SIG_LATE_STACK 40
#define STORM 8000

static struct rte_mempool *pool;
static atomic_uint handled[4];
static atomic_uint astray; /* how often a handler ran on the stack of what it interrupted */
static atomic_int worker_tid, stop;
static sigset_t main_mask, worker_mask;

static const int signals[4] = { SIG_EARLY, SIG_EARLY_STACK, SIG_LATE, SIG_LATE_STACK };

/* A handler as applications have them: it uses some stack, and another one may interrupt it. */
static void handler(int sig)
{
	volatile char big[65536];
	stack_t stack;
	unsigned int i;

	for (i = 0; i < sizeof(big); i += 64)
		big[i] = (char)sig;
	if (sigaltstack(NULL, &stack) != 0 || !(stack.ss_flags & SS_ONSTACK))
		atomic_fetch_add(&astray, 1);
	for (i = 0; i < 4; i++)
		if (sig == signals[i])
			atomic_fetch_add(&handled[i], 1);
}

static void install(int sig, int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags | SA_RESTART };

	CHECK(sigaction(sig, &sa, NULL) == 0);
}

static void exchange(uint16_t port, unsigned int rounds)
{
	struct rte_mbuf *m[32];
	uint16_t i;

	while (rounds-- > 0) {
		MUST(rte_pktmbuf_alloc_bulk(pool, m, 32));
		for (i = 0; i < 32; i++)
			fill((uint8_t *)rte_pktmbuf_append(m[i], 80), 80, i);
		send_all(port, 0, m, 32);
		rte_pktmbuf_free_bulk(m, rte_eth_rx_burst(port, 0, m, 32));
	}
}

/* Whatever an application asks of a port, 1000 calls in all. */
static void control(uint16_t port)
{
	struct rte_eth_xstat x[1024];
	struct rte_eth_stats stats;
	struct rte_eth_link link;
	struct rte_eth_dev_info info;
	unsigned int i;

	for (i = 0; i < 125; i++) {
		MUST(rte_eth_stats_get(port, &stats));
		MUST(rte_eth_xstats_get(port, x, RTE_DIM(x)));
		MUST(rte_eth_link_get_nowait(port, &link));
		MUST(rte_eth_dev_info_get(port, &info));
		MUST(rte_eth_promiscuous_enable(port));
		MUST(rte_eth_promiscuous_disable(port));
		MUST(rte_eth_dev_set_mtu(port, 1400 + i % 100));
		MUST(rte_eth_stats_reset(port));
	}
}

static void same_mask(const sigset_t *before, const char *what)
{
	sigset_t now;
	int sig;

	CHECK(pthread_sigmask(SIG_SETMASK, NULL, &now) == 0);
	for (sig = 1; sig < 65; sig++)
		if (sigismember(before, sig) != sigismember(&now, sig))
			FAIL("%s: signal %d is %s now", what, sig, sigismember(&now, sig) == 1 ? "blocked" : "open");
}

/* Blocks some signals that Go's runtime would like to have open. */
static void block(sigset_t *mask)
{
	sigemptyset(mask);
	sigaddset(mask, SIGCHLD);
	sigaddset(mask, SIGPROF);
	sigaddset(mask, SIGUSR2);
	CHECK(pthread_sigmask(SIG_BLOCK, mask, NULL) == 0);
	CHECK(pthread_sigmask(SIG_SETMASK, NULL, mask) == 0);
}

static int worker(void *arg)
{
	cpu_set_t before, now;

	block(&worker_mask);
	CHECK(pthread_getaffinity_np(pthread_self(), sizeof(before), &before) == 0);
	exchange(0, 10);
	same_mask(&worker_mask, "the worker, after bursts");
	control(0);
	same_mask(&worker_mask, "the worker, after control calls");
	CHECK(pthread_getaffinity_np(pthread_self(), sizeof(now), &now) == 0);
	CHECK(CPU_EQUAL(&before, &now));
	RTE_SET_USED(arg);
	return 0;
}

static void threads(void)
{
	cpu_set_t before, now;
	unsigned int lcore;

	CHECK(pthread_getaffinity_np(pthread_self(), sizeof(before), &before) == 0);
	RTE_LCORE_FOREACH_WORKER(lcore) {
		MUST(rte_eal_remote_launch(worker, NULL, lcore));
		MUST(rte_eal_wait_lcore(lcore));
	}
	control(0);
	exchange(0, 10);
	same_mask(&main_mask, "the main thread");
	CHECK(pthread_getaffinity_np(pthread_self(), sizeof(now), &now) == 0);
	CHECK(CPU_EQUAL(&before, &now));
	SAY("look");
	await();
}

static int poller(void *arg)
{
	RTE_SET_USED(arg);
	exchange(0, 1);
	atomic_store(&worker_tid, (int)syscall(SYS_gettid));
	while (!atomic_load(&stop))
		exchange(0, 1);
	return 0;
}

static sigjmp_buf after_fault;

static void on_fault(int sig)
{
	RTE_SET_USED(sig);
	siglongjmp(after_fault, 1);
}

/* The application may have a use for SIGSEGV. */
static void fault(void)
{
	volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	if (sigsetjmp(after_fault, 1) == 0) {
		page[0] = 1;
		FAIL("no SIGSEGV");
	}
}

static void storm(void)
{
	unsigned int i, lcore = rte_get_next_lcore(-1, 1, 0);
	uint64_t spin;

	MUST(rte_eal_remote_launch(poller, NULL, lcore));
	while (atomic_load(&worker_tid) == 0)
		rte_pause();
	for (i = 0; i < STORM; i++) {
		unsigned int k = i % 4, had = atomic_load(&handled[k]);

		CHECK(syscall(SYS_tgkill, getpid(), atomic_load(&worker_tid), signals[k]) == 0);
		for (spin = 0; atomic_load(&handled[k]) == had; spin++)
			if (spin > 4000000000)
				FAIL("signal %d is not handled", signals[k]);
	}
	atomic_store(&stop, 1);
	MUST(rte_eal_wait_lcore(lcore));
	/* What is interrupted may be a goroutine, with a stack of some KB. */
	if (atomic_load(&astray) != 0)
		FAIL("%u of %u signals were not handled on the stack for signals", atomic_load(&astray), STORM);
	SAY("handled: %u %u %u %u", handled[0], handled[1], handled[2], handled[3]);
}

#define SA_RESTORER_ 0x04000000 /* libc's own */

static struct sigaction dispositions[65];

static void note_dispositions(void)
{
	int sig;

	for (sig = 1; sig < 65; sig++)
		sigaction(sig, NULL, &dispositions[sig]);
}

/* Go wants those that say that memory is not there. All others are as they were, but for their stack. */
static void compare_dispositions(void)
{
	struct sigaction now;
	int sig;

	for (sig = 1; sig < 65; sig++) {
		sigaction(sig, NULL, &now);
		if (sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIG_LATE || sig == SIG_LATE_STACK)
			continue;
		if (now.sa_handler != dispositions[sig].sa_handler ||
		    ((now.sa_flags ^ dispositions[sig].sa_flags) & ~(SA_ONSTACK | SA_RESTORER_)) != 0)
			FAIL("signal %d has another handler, %p instead of %p, flags %#x instead of %#x", sig, now.sa_handler,
			     dispositions[sig].sa_handler, now.sa_flags, dispositions[sig].sa_flags);
	}
}

/* In the child nothing may hang, and nothing may be sent. */
static void child(void)
{
	struct rte_eth_stats stats;
	struct rte_mbuf *m;
	uint16_t i;
	int r[3];

	alarm(20);
	for (i = 0; i < 100; i++) {
		m = rte_pktmbuf_alloc(pool);
		CHECK(m != NULL && rte_pktmbuf_append(m, 80) != NULL);
		CHECK(rte_eth_tx_burst(0, 0, &m, 1) == 0);
		rte_pktmbuf_free(m);
		CHECK(rte_eth_rx_burst(0, 0, &m, 1) == 0);
	}
	r[0] = rte_eth_stats_get(0, &stats);
	r[1] = rte_eth_dev_set_mtu(0, 1300);
	r[2] = rte_eth_dev_set_link_down(0);
	if (r[0] >= 0 || r[1] >= 0 || r[2] >= 0)
		FAIL("in the child of a fork, calls returned %d %d %d", r[0], r[1], r[2]);
	SAY("child: %s", rte_strerror(-r[1]));
	_exit(0);
}

static void wait_for(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		FAIL("the child ended with status %#x", status);
}

static void forks(void)
{
	pid_t pid;

	exchange(0, 10);
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		child();
	wait_for(pid);
	exchange(0, 10);
	control(0);
	SAY("parent goes on");
}

static void use(int argc, char **argv)
{
	struct rte_eth_conf conf = { 0 };

	MUST(rte_eal_init(argc, argv));
	CHECK(rte_eth_dev_count_avail() == 1);
	pool = make_pool("pool", 2048, 2048);
	start_port(0, 1, pool, &conf);
	exchange(0, 100);
	control(0);
	MUST(rte_eth_dev_stop(0));
	check_full(pool);
	MUST(rte_eal_cleanup());
}

/* Here argv[0] is the library, and what follows is EAL's. */
static int early(int argc, char **argv)
{
	pid_t pid;

	CHECK(dlopen(argv[0], RTLD_NOW) != NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		alarm(60);
		use(argc, argv);
		_exit(0);
	}
	wait_for(pid);
	SAY("child has used it");
	use(argc, argv);
	SAY("parent has used it");
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	struct rte_eth_conf conf = { 0 };
	const char *mode;
	int used;

	if (argc > 2 && strcmp(argv[1], "early") == 0)
		return early(argc - 2, argv + 2);
	block(&main_mask);
	install(SIG_EARLY, 0);
	install(SIG_EARLY_STACK, SA_ONSTACK);
	signal(SIGPIPE, SIG_IGN);
	CHECK(sigaction(SIGSEGV, &sa, NULL) == 0);
	note_dispositions();
	used = MUST(rte_eal_init(argc, argv));
	CHECK(argc - used == 2 && rte_eth_dev_count_avail() == 1);
	mode = argv[used + 1];
	install(SIG_LATE, 0);
	install(SIG_LATE_STACK, SA_ONSTACK);
	pool = make_pool("pool", 2048, 2048);
	start_port(0, 1, pool, &conf);
	if (strcmp(mode, "threads") == 0)
		threads();
	else if (strcmp(mode, "fork") == 0)
		forks();
	else if (strcmp(mode, "exit") == 0) {
		exchange(0, 10);
		SAY("exit");
		exit(0);
	} else if (strcmp(mode, "signals") == 0) {
		exchange(0, 1);
		compare_dispositions();
		storm();
		fault();
		exchange(0, 10);
		compare_dispositions();
	} else {
		FAIL("no mode %s", mode);
	}
	MUST(rte_eth_dev_stop(0));
	check_full(pool);
	MUST(rte_eal_cleanup());
	SAY("done");
	return 0;
}
