// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// built are the programs in C that are compiled already, by name.
var built struct {
	sync.Mutex
	path map[string]string
}

// build compiles one of the programs in c/, with what any application has: libdpdk's public headers.
func build(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if path := built.path[name]; path != "" {
		return path
	}
	flags, err := exec.Command(nettest.NeedProgram(t, "pkg-config"), "--cflags", "--libs", "libdpdk").Output()
	must(t, err)
	path, err := filepath.Abs("../../.cache/dpdk/test/" + name)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	args := append([]string{"-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-o", path, "c/" + name + ".c"}, strings.Fields(string(flags))...)
	if out, err := exec.Command(nettest.NeedProgram(t, "gcc"), args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if built.path == nil {
		built.path = map[string]string{}
	}
	built.path[name] = path
	return path
}

// capp starts a program of ours with one port.
func capp(t testing.TB, name string, eal []string, limit time.Duration, args ...string) (*process, *iface) {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	i := newIface(t, ns, 0)
	return start(t, program{path: build(t, name), ns: ns, eal: append(eal, "--vdev="+i.vdev(0, "")), args: args, limit: limit}), i
}

// TestHotplug adds and removes a port 1000 times. The program holds no more at the end than after 100 rounds, and no
// interface is left.
func TestHotplug(t *testing.T) {
	nettest.NeedTun(t)
	t.Parallel() // with TestTxOnlyForAMinute: mostly it waits for the kernel
	ns := nettest.QuietNS(t)
	rounds := nettest.Scale(1000)
	out := run(t, program{path: build(t, "hotplug"), ns: ns, eal: alone(), limit: 5 * time.Minute,
		args: []string{strconv.Itoa(rounds), driver + "7", "iface=hp0"}})
	var first, last map[string]uint64
	for line := range strings.Lines(out) {
		if m := counters(line); m["round"] != 0 {
			if first == nil {
				first = m
			}
			last = m
		}
	}
	if last["round"] != uint64(rounds) {
		t.Fatalf("%d rounds were done:\n%s", last["round"], out)
	}
	if last["fds"] > first["fds"] || last["threads"] > first["threads"]+4 || last["resident"] > first["resident"]+8<<10 {
		t.Errorf("after 100 rounds %v, at the end %v", first, last)
	}
	t.Logf("after 100 rounds %v, at the end %v", first, last)
	// The namespace's end looks for interfaces.
}

// TestMbufs sends what lies in mbufs of every kind, and looks at what the kernel gets; then it sends frames of up to
// 9000 bytes, which the program receives in chains.
func TestMbufs(t *testing.T) {
	const sent, shared, back = 4000, 32, 3000
	p, i := capp(t, "mbufs", alone(), time.Minute, strconv.Itoa(back))
	p.read(0, "started", patience)
	i.find()
	capture := i.capturer()
	p.write("")
	for n := range sent + shared {
		f, err := capture.Next(within(t, patience), nil)
		must(t, err)
		size, id := 60+n*37%1400, n
		if n >= sent {
			size, id = 200, sent
		}
		if want := experiment(id, size); string(f) != string(want) {
			t.Fatalf("frame %d: %d bytes arrived, %d were sent\n% x\n% x", n, len(f), size, f[:60], want[:60])
		}
	}
	p.read(0, "sent", patience)
	in := i.injector()
	for n := range back {
		nettest.Eventually(t, patience, "the port to take a frame", func() bool {
			return in.Inject(experiment(n, 60+n*1237%8950)) == nil
		})
	}
	p.wait(0)
	if m := counters(p.out.String()); m["received"] != back || m["chains"] < back/2 {
		t.Errorf("received %d, chains %d", m["received"], m["chains"])
	}
}

// experiment is frame n of the programs in C: fill in common.h.
func experiment(n, size int) []byte {
	b := flow(n, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n*13)
	}
	copy(b, []byte{0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5})
	binary.BigEndian.PutUint32(b[14:], uint32(n))
	return b
}

// TestInterrupts has a program wait for packets, one at a time and many, while the link changes. It is woken for all,
// and not without a reason.
func TestInterrupts(t *testing.T) {
	const single, many = 1500, 4000
	p, i := capp(t, "intr", alone(), time.Minute, "2", strconv.Itoa(single+many))
	p.read(0, "started", patience)
	i.find()
	in := i.injector()
	frames := flows(16, 100)
	for n := range single {
		if n%500 == 250 { // both kinds of interrupt at once
			at := p.mark()
			must(t, i.conn.SetDown(i.index))
			p.read(at, "link down", patience)
			must(t, i.conn.SetUp(i.index))
			p.read(at, "link up", patience)
		}
		at := p.mark()
		must(t, in.Inject(frames[n%len(frames)]))
		p.read(at, "got "+strconv.Itoa(n+1)+"\n", patience)
	}
	for n := range many {
		nettest.Eventually(t, patience, "the port to take a frame", func() bool { return in.Inject(frames[n%len(frames)]) == nil })
	}
	p.read(0, "packets: ", patience)
	p.write("")
	p.read(0, "again", patience)
	must(t, in.Inject(frames[0]))
	p.wait(0)
	m := counters(p.out.String())
	if m["idle"] > m["wakeups"]/10 {
		t.Errorf("of %d wake-ups %d were for nothing", m["wakeups"], m["idle"])
	}
	t.Log(m)
}

// TestThreads: Go's threads may run where the process could before EAL pinned its own, or on the CPUs that EAL has no
// thread on, and take no signals but those that Go cannot be without. The program looks at its own.
func TestThreads(t *testing.T) {
	for lcores, cpus := range map[string]string{"0-1": "0-1", "1": "0"} {
		t.Run("lcores="+lcores, func(t *testing.T) {
			eal := alone()
			eal[1] = lcores
			p, _ := capp(t, "citizen", eal, time.Minute, "threads")
			p.read(0, "look", patience)
			all := p.threads("rtap-go")
			if driver == "net_rtap" && len(all) < 3 {
				t.Errorf("Go has %d threads", len(all))
			}
			for _, th := range all {
				if th.cpus != cpus {
					t.Errorf("a thread of Go's runs on CPUs %s, want %s", th.cpus, cpus)
				}
				open := ^th.blocked
				for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, 37, 38, 39, 40} {
					if open>>(sig-1)&1 != 0 {
						t.Errorf("a thread of Go's takes signal %d of the application", sig)
					}
				}
			}
			p.write("")
			p.wait(0)
		})
	}
}

// TestHandlers storms a thread that does bursts with signals. All handlers are called, however they were installed.
func TestHandlers(t *testing.T) {
	p, _ := capp(t, "citizen", alone(), time.Minute, "signals")
	p.wait(0)
	if s := p.out.String(); !strings.Contains(s, "handled: 2000 2000 2000 2000") || !strings.Contains(s, "done") {
		t.Errorf("signals: %s", s)
	}
}

// TestForkAfterUse: the child's calls fail at once, the parent's go on.
func TestForkAfterUse(t *testing.T) {
	p, i := capp(t, "citizen", alone(), time.Minute, "fork")
	p.wait(0)
	if s := p.out.String(); !strings.Contains(s, "child: ") || !strings.Contains(s, "parent goes on") || !strings.Contains(s, "done") {
		t.Errorf("fork: %s", s)
	}
	if !i.gone() {
		t.Error("the interface is left")
	}
}

// TestForkBeforeUse loads the plugin, forks, and uses it in both processes.
func TestForkBeforeUse(t *testing.T) {
	needPlugin(t)
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	i := newIface(t, ns, 0)
	args := append([]string{"early", plugin}, alone(i.vdev(0, ""))...)
	p := start(t, program{path: build(t, "citizen"), ns: ns, eal: append(args, ealPlugin()...), bare: true})
	p.wait(0)
	if s := p.out.String(); !strings.Contains(s, "child has used it") || !strings.Contains(s, "parent has used it") {
		t.Errorf("fork: %s", s)
	}
}

// TestExit: a program that just ends leaves nothing.
func TestExit(t *testing.T) {
	p, i := capp(t, "citizen", alone(), time.Minute, "exit")
	p.wait(0)
	if !strings.Contains(p.out.String(), "exit") {
		t.Errorf("exit: %s", p.out.String())
	}
	nettest.Eventually(t, patience, "the interface to go", i.gone)
}
