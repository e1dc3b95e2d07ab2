/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Go's runtime. The build has taken its start out of the library's constructors: it starts with the first
 * port, on a control thread of EAL's, whose CPUs and signal mask all threads that Go makes inherit.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <rte_lcore.h>
#include <rte_thread.h>

#include "rtap.h"

typedef void go_init_t(int argc, char **argv, char **envp);
extern go_init_t *const __start_rtap_go_init[] __attribute__((visibility("hidden")));
extern go_init_t *const __stop_rtap_go_init[] __attribute__((visibility("hidden")));

__thread bool rtap_known __attribute__((tls_model("initial-exec")));

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int start_error;
static bool running, forked;
static cpu_set_t process_cpus;

/* EAL pins the main thread later. */
RTE_INIT(rtap_note_cpus)
{
	if (sched_getaffinity(0, sizeof(process_cpus), &process_cpus) < 0)
		CPU_ZERO(&process_cpus);
}

/* Only the thread that forks lives on in the child, so Go does not. */
static void in_child(void)
{
	rtap_known = false;
	running = false;
	forked = true;
}

/*
 * Handlers run on the thread's stack for signals once Go is there (rtap_onstack). A thread that has none would get
 * one of 32 KB from Go, with heap below it; handlers of the application's may want more, and one may interrupt
 * another. Go takes the one that is there.
 */
#define STACK (256 << 10)
#define GUARD (64 << 10)	/* at least a page, everywhere */

static pthread_key_t stack_key;
static pthread_once_t stack_once = PTHREAD_ONCE_INIT;

static void free_stack(void *mem)
{
	const stack_t off = { .ss_flags = SS_DISABLE };

	if (sigaltstack(&off, NULL) == 0)
		munmap(mem, GUARD + STACK);
}

static void make_stack_key(void)
{
	pthread_key_create(&stack_key, free_stack);
}

/* NULL if the thread has a stack, or there is no memory. */
static void *give_stack(void)
{
	stack_t own;
	char *mem;

	if (sigaltstack(NULL, &own) < 0 || !(own.ss_flags & SS_DISABLE))
		return NULL;
	mem = mmap(NULL, GUARD + STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	own = (stack_t){ .ss_sp = mem + GUARD, .ss_size = STACK };
	if (mprotect(mem + GUARD, STACK, PROT_READ | PROT_WRITE) < 0 || sigaltstack(&own, NULL) < 0) {
		munmap(mem, GUARD + STACK);
		return NULL;
	}
	return mem;
}

static __thread void *given __attribute__((tls_model("initial-exec")));

bool rtap_enter(sigset_t *mask)
{
	static bool told;

	if (unlikely(!running)) {
		if (forked && !told) {
			told = true;
			RTAP_LOG(ERR, "a process cannot use the ports of the one that it was forked from\n");
		}
		return false;
	}
	pthread_sigmask(SIG_SETMASK, NULL, mask);
	given = give_stack();
	return true;
}

/* The key is younger than Go's, so that a thread that ends leaves Go before its stack goes. */
void rtap_leave(const sigset_t *mask)
{
	pthread_once(&stack_once, make_stack_key);
	if (given != NULL)
		pthread_setspecific(stack_key, given);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
	rtap_known = true;
}

void rtap_onstack(void)
{
	struct sigaction sa;
	int sig;

	for (sig = 1; sig < NSIG; sig++) {
		if (sigaction(sig, NULL, &sa) < 0 || sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN ||
		    (sa.sa_flags & SA_ONSTACK))
			continue;
		sa.sa_flags |= SA_ONSTACK;
		sigaction(sig, &sa, NULL);
	}
}

/*
 * A control thread has the CPUs that no lcore has. If there are none, EAL gives it the main lcore's; then all
 * that the process may use are better than this one.
 */
static void widen(void)
{
	cpu_set_t own, both;
	unsigned int lcore;

	if (CPU_COUNT(&process_cpus) == 0 || sched_getaffinity(0, sizeof(own), &own) < 0)
		return;
	RTE_LCORE_FOREACH(lcore) {
		rte_cpuset_t cpus = rte_lcore_cpuset(lcore);

		CPU_AND(&both, &own, &cpus);
		if (CPU_COUNT(&both) != 0) {
			sched_setaffinity(0, sizeof(process_cpus), &process_cpus);
			return;
		}
	}
}

/*
 * argv and behind it the environment, as a program's start has them; Go looks no further than the zeros at
 * the end. Go reads the first GODEBUG. Without preemption by signals, lcores get none of Go's.
 */
static char **arguments(void)
{
	static const char off[] = "asyncpreemptoff=1";
	const char *old = getenv("GODEBUG");
	size_t n, len = sizeof("GODEBUG=,") + sizeof(off) + (old ? strlen(old) : 0);
	char **v, *debug = malloc(len);

	for (n = 0; environ[n] != NULL; n++)
		;
	v = calloc(n + 8, sizeof(*v));
	if (debug == NULL || v == NULL)
		return NULL;
	snprintf(debug, len, "GODEBUG=%s%s%s", old ? old : "", old ? "," : "", off);
	v[0] = strdup("net_rtap");
	v[2] = debug;
	memcpy(v + 3, environ, n * sizeof(*v));
	return v;
}

static void starter(void)
{
	char **v = arguments();
	go_init_t *const *init;
	sigset_t all;

	if (v == NULL) {
		start_error = -ENOMEM;
		return;
	}
	pthread_setname_np(pthread_self(), "rtap-go");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	widen();
	for (init = __start_rtap_go_init; init < __stop_rtap_go_init; init++)
		(*init)(1, v, v + 2);
}

/* rte_thread_create_control is there since 23.03, rte_ctrl_thread_create until 23.11. */
#if RTAP_DPDK(23, 11)
static uint32_t start_thread(void *arg __rte_unused)
{
	starter();
	return 0;
}

static int run_starter(void)
{
	rte_thread_t id;
	int err = rte_thread_create_control(&id, "rtap-go", start_thread, NULL);

	return err ? err : rte_thread_join(id, NULL);
}
#else
static void *start_thread(void *arg)
{
	starter();
	return arg;
}

static int run_starter(void)
{
	pthread_t id;
	int err = rte_ctrl_thread_create(&id, "rtap-go", NULL, start_thread, NULL);

	return err ? err : pthread_join(id, NULL);
}
#endif

static void start(void)
{
	struct sigaction pipe, urg;
	int err;

	sigaction(SIGPIPE, NULL, &pipe);
	sigaction(SIGURG, NULL, &urg);
	err = run_starter();
	if (err != 0)
		start_error = -abs(err);
	if (start_error != 0) {
		RTAP_LOG(ERR, "Go's runtime does not start: %s\n", strerror(-start_error));
		return;
	}
	running = true;
	pthread_atfork(NULL, NULL, in_child);
	start_error = RTAP_GO(-EIO, rtapInit(rte_lcore_count(), RTE_MAX_ETHPORTS, (char *)(uintptr_t)rte_version()));
	/* Go handles both, and needs neither. */
	sigaction(SIGPIPE, &pipe, NULL);
	sigaction(SIGURG, &urg, NULL);
	rtap_onstack();
	rtap_mp_init();
}

int rtap_start_go(void)
{
	pthread_once(&once, start);
	return forked ? -ENOTSUP : start_error;
}
