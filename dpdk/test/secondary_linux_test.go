// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"golang.org/x/sys/unix"
)

const hugePages = "/proc/sys/vm/nr_hugepages"

// pages of 2 MB that a test with several processes takes.
const pages = 160

func readPages(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile(hugePages)
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	return n
}

// hugepages takes huge pages from the machine until the end of the test, because DPDK's processes share no other
// memory, and returns EAL's options for a primary that has them.
func hugepages(t testing.TB) []string {
	t.Helper()
	nettest.NeedTun(t)
	before := readPages(t)
	set := func(n int) { must(t, os.WriteFile(hugePages, []byte(strconv.Itoa(n)), 0)) }
	t.Cleanup(func() { set(max(readPages(t)-pages, 0)) }) // somebody else may have taken some meanwhile
	set(before + pages)
	if got := readPages(t); got < before+pages {
		if nettest.CI() {
			t.Fatalf("CI=true: %d more huge pages of 2 MB are to be had, want %d", got-before, pages)
		}
		t.Skipf("%d more huge pages of 2 MB are to be had, want %d", got-before, pages)
	}
	dir := newRuntime(t)
	must(t, unix.Mount("nodev", dir, "hugetlbfs", 0, "pagesize=2M"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return []string{"--lcores", "0@0,1@1", "--no-pci", "--huge-dir", dir, "-m", "256", "--proc-type=primary"}
}

// others are lcores that a primary has not, on the same CPUs: what mempools keep for an lcore is its process's alone.
const others = "2@0,3@1"

// secondary starts a program beside a primary.
func (p *testpmd) secondary(name string, args ...string) *process {
	p.t.Helper()
	eal := []string{"--no-pci"}
	if name != "dpdk-proc-info" { // has its own
		eal = append(eal, "--lcores", others, "--proc-type=secondary")
	}
	return start(p.t, program{path: nettest.NeedProgram(p.t, name), ns: p.ns, runtime: p.runtime, eal: eal, args: args})
}

// streams is how many packets the program itself has forwarded. Its other forward statistics are the ports'.
func (p *testpmd) streams() (sum uint64) {
	p.t.Helper()
	for _, f := range regexp.MustCompile(`Forward Stats for RX[^\n]*\n *RX-packets: *(\d+)`).FindAllStringSubmatch(p.do("show fwd stats all"), -1) {
		n, _ := strconv.ParseUint(f[1], 10, 64)
		sum += n
	}
	return sum
}

// TestTwoProcesses has a primary and a secondary testpmd forward, each with queues of its own. Streams go through
// both; then the secondary leaves, and the primary goes on.
func TestTwoProcesses(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2, eal: hugepages(t), limit: 2 * time.Minute,
		args: []string{"--rxq=4", "--txq=4", "--num-procs=2", "--proc-id=0"}})
	p.addresses()
	for _, round := range []string{"first", "second"} {
		s := &testpmd{process: p.secondary("dpdk-testpmd", "-i", "--rxq=4", "--txq=4", "--num-procs=2", "--proc-id=1"), ports: p.ports}
		s.awaitPrompt(0)
		for _, q := range []*testpmd{p, s} {
			q.all("set fwd io", "start")
		}
		s.registered(2 * 2 * 2) // two of each port's four queues, both ways
		// Many streams: the kernel takes a queue for each.
		var wg sync.WaitGroup
		for n := range 16 {
			wg.Go(func() {
				_, err := traffic.TCP(within(t, time.Minute), traffic.TCPConfig{Client: p.ports[n%2].ns, Server: p.ports[1-n%2].ns,
					Addr: netip.AddrPortFrom(address(1-n%2), 0), Bytes: 1 << 20})
				if err != nil {
					t.Errorf("%s: %v", round, err)
				}
			})
		}
		wg.Wait()
		p.do("stop")
		s.do("stop")
		// What each has done itself, by its streams; and both see what both have done.
		a, b := p.streams(), s.streams()
		if a < 500 || b < 500 {
			t.Errorf("%s: the primary forwarded %d packets, the secondary %d", round, a, b)
		}
		got := p.stats(0)
		want(t, round+", seen by the secondary", s.stats(0), map[string]uint64{"RX-packets": got["RX-packets"], "TX-packets": got["TX-packets"]})
		if sum := got["RX-packets"] + p.stats(1)["RX-packets"]; sum != a+b {
			t.Errorf("%s: the ports received %d, testpmds %d and %d", round, sum, a, b)
		}
		p.faultless()
		p.all("clear port stats all", "clear fwd stats all")
		s.write("quit")
		s.wait(0)
	}
	p.quit()
}

// TestPrimaryRestartsPorts stops and starts ports, with another MTU and then another number of queues, while a secondary
// polls; it attaches one more, which the secondary gets too.
func TestPrimaryRestartsPorts(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2, eal: hugepages(t), limit: 2 * time.Minute,
		args: []string{"--rxq=4", "--txq=4", "--num-procs=2", "--proc-id=0"}})
	p.addresses()
	s := &testpmd{process: p.secondary("dpdk-testpmd", "-i", "--rxq=4", "--txq=4", "--num-procs=2", "--proc-id=1"), ports: p.ports}
	s.awaitPrompt(0)
	s.all("set fwd io", "start")
	p.do("set fwd io")
	for round, mtu := range []int{1500, 2000, 1400} {
		p.do("start")
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				_, err := traffic.TCP(within(t, time.Minute), traffic.TCPConfig{Client: p.ports[0].ns, Server: p.ports[1].ns,
					Addr: netip.AddrPortFrom(address(1), 0), Bytes: 1 << 19})
				if err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		p.do("stop")
		x := p.xstats(0)
		if x["rx_q0_packets"]+x["rx_q1_packets"] == 0 || x["rx_q2_packets"]+x["rx_q3_packets"] == 0 {
			t.Errorf("round %d: a process has received nothing: %v", round, x)
		}
		p.all("port stop all", "clear port stats all", "clear port xstats all")
		p.full()
		for n := range p.ports {
			p.do(fmt.Sprintf("port config mtu %d %d", n, mtu))
		}
		p.do("port start all")
	}
	fresh := newIface(t, p.ns, 2)
	if said := p.do("port attach " + fresh.vdev(2, "")); !strings.Contains(said, "Port 2 is attached") {
		t.Errorf("attach: %s", said)
	}
	if said := s.do("show port info 2"); !strings.Contains(said, "Driver name: "+driver) {
		t.Errorf("the secondary's port 2: %s", said)
	}
	if said := p.do("port detach 2"); !strings.Contains(said, "is detached") {
		t.Errorf("detach: %s", said)
	}
	if !fresh.gone() {
		t.Error("the detached port's interface is there")
	}
	s.all("stop")
	s.write("quit")
	s.wait(0)
	p.quit()
}

// TestSecondaryKilled kills a secondary amid traffic. The primary's queues go on, and so do its control calls.
func TestSecondaryKilled(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1, eal: hugepages(t), limit: 2 * time.Minute,
		args: []string{"--rxq=2", "--txq=2", "--num-procs=2", "--proc-id=0"}})
	s := &testpmd{process: p.secondary("dpdk-testpmd", "-i", "--rxq=2", "--txq=2", "--num-procs=2", "--proc-id=1"), ports: p.ports}
	s.awaitPrompt(0)
	s.all("set fwd txonly", "start")
	k := p.ports[0]
	nettest.Eventually(t, patience, "the secondary to send", func() bool { return k.link().Stats.RxPackets > 1000 })
	must(t, s.cmd.Process.Signal(syscall.SIGKILL))
	<-s.done
	p.all("set fwd txonly", "start")
	before := k.link().Stats.RxPackets
	nettest.Eventually(t, patience, "the primary to send", func() bool { return k.link().Stats.RxPackets > before+1000 })
	p.all("stop", "port stop all", "port start all", "start")
	before = k.link().Stats.RxPackets
	nettest.Eventually(t, patience, "the primary to send again", func() bool { return k.link().Stats.RxPackets > before+1000 })
	p.all("stop", "port stop all")
	p.write("quit") // not stop: what the secondary had is lost, as with any driver
	p.wait(0)
}

// TestProcInfo compares what dpdk-proc-info says with what testpmd does.
func TestProcInfo(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1, eal: hugepages(t), args: []string{"--rxq=2", "--txq=2"}})
	p.all("set fwd rxonly", "start")
	p.receives(0, 2000, 200)
	p.do("stop")
	info := func(args ...string) string {
		t.Helper()
		s := p.secondary("dpdk-proc-info", args...)
		s.wait(0)
		return s.out.String()
	}
	mine := p.stats(0)
	all := info("-p", "0x1", "--stats")
	port, _, _ := strings.Cut(all, "Stats reg") // queues follow
	got := counters(port)
	var sum uint64
	for _, q := range regexp.MustCompile(`Stats reg +\d+ RX-packets: (\d+)`).FindAllStringSubmatch(all, -1) {
		n, _ := strconv.ParseUint(q[1], 10, 64)
		sum += n
	}
	if sum != mine["RX-packets"] {
		t.Errorf("proc-info: queues have %d packets, want %d: %s", sum, mine["RX-packets"], all)
	}
	want(t, "proc-info", got, map[string]uint64{"RX-packets": mine["RX-packets"], "RX-bytes": mine["RX-bytes"], "RX-errors": 0, "TX-packets": 0})
	x := counters(info("-p", "0x1", "--xstats"))
	for k, v := range p.xstats(0) {
		if x[k] != v && !strings.HasSuffix(k, "_window") { // which is no counter
			t.Errorf("proc-info: %s is %d, want %d", k, x[k], v)
		}
	}
	if n := x["rx_q0_packets"] + x["rx_q1_packets"]; n != mine["RX-packets"] {
		t.Errorf("proc-info: queues have %d packets, want %d", n, mine["RX-packets"])
	}
	id := regexp.MustCompile(`(?m)^rx_q1_packets: (\d+)`).FindStringSubmatch(info("-p", "0x1", "--xstats-name", "rx_q1_packets"))
	if id == nil || !strings.Contains(info("-p", "0x1", "--xstats-ids", id[1]), fmt.Sprintf("rx_q1_packets: %d\n", x["rx_q1_packets"])) {
		t.Errorf("proc-info finds rx_q1_packets neither by name nor by id: %v", id)
	}
	if s := info("-p", "0x1", "--show-port"); !strings.Contains(s, driver) || !regexp.MustCompile(`link.*(10000|10 Gbps|10G)`).MatchString(strings.ToLower(s)) && !strings.Contains(s, "10 Gbps") {
		t.Errorf("proc-info --show-port: %s", s)
	}
	p.do("port stop 0") // and the memory pool is full, as proc-info has it too
	s := info("--show-mempool=mb_pool_0")
	m := regexp.MustCompile(`(?s)Size (\d+) .*Count: avail \((\d+)\), in use \((\d+)\)`).FindStringSubmatch(s)
	if m == nil || m[1] != mbufs || m[2] != mbufs || m[3] != "0" {
		t.Errorf("proc-info --show-mempool: %q in %s", m, s)
	}
	info("-p", "0x1", "--stats-reset")
	want(t, "reset by proc-info", p.stats(0), map[string]uint64{"RX-packets": 0, "RX-bytes": 0})
	p.do("port start 0")
	p.quit()
}

// readPcapng reads the packets of a file (draft-ietf-opsawg-pcapng): enhanced packet blocks, in this machine's byte order.
func readPcapng(t testing.TB, path string) (all [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	u32 := binary.NativeEndian.Uint32
	if len(b) < 28 || u32(b) != 0x0a0d0d0a || u32(b[8:]) != 0x1a2b3c4d {
		t.Fatalf("no pcapng file: %d bytes, % x", len(b), b[:min(len(b), 28)])
	}
	for len(b) >= 12 {
		typ, n := u32(b), int(u32(b[4:]))
		if n < 12 || n > len(b) || n%4 != 0 || int(u32(b[n-4:])) != n {
			t.Fatalf("block of type %d, %d bytes of %d", typ, n, len(b))
		}
		if typ == 6 {
			caplen, length := u32(b[20:]), u32(b[24:])
			if caplen != length || int(caplen) > n-32 {
				t.Fatalf("packet of %d bytes, %d captured", length, caplen)
			}
			all = append(all, b[28:][:caplen])
		}
		b = b[n:]
	}
	return all
}

// TestDumpcap sends frames through two ports. What dpdk-dumpcap has in its file is what was sent, packet by packet:
// received by one port, sent by the other.
func TestDumpcap(t *testing.T) {
	const frames = 500
	p := startTestpmd(t, pmdConfig{ports: 2, eal: hugepages(t)})
	p.all("set fwd io", "start")
	// dpdk-dumpcap has no -d. A driver is loaded as well when it is in the usual directory, or like this. And memory pools
	// know their drivers by numbers, in the order of loading: Debian's testpmd is linked with one, dpdk-dumpcap is not.
	preload := "librte_mempool_dpaa.so.23 " + plugin
	var caps []*process
	var files []string
	for n := range p.ports {
		files = append(files, filepath.Join(newRuntime(t), "capture.pcapng"))
		caps = append(caps, start(t, program{path: nettest.NeedProgram(t, "dpdk-dumpcap"), ns: p.ns, runtime: p.runtime, bare: true,
			preload: preload, eal: []string{"-i", strconv.Itoa(n), "-c", strconv.Itoa(frames), "-w", files[n]}}))
		caps[n].read(0, "Packets captured: ", patience)
	}
	sent := make([][]byte, frames)
	in, out := p.ports[0].injector(), p.ports[1].capturer()
	for n := range sent {
		sent[n] = flow(n, 60+n*31%1454)
		nettest.Eventually(t, patience, "the port to take a frame", func() bool { return in.Inject(sent[n]) == nil })
		f, err := out.Next(within(t, patience), nil)
		must(t, err)
		if !bytes.Equal(f, sent[n]) {
			t.Fatalf("frame %d was not forwarded as it is", n)
		}
	}
	for n, c := range caps {
		c.wait(0)
		same(t, files[n], readPcapng(t, files[n]), sent)
	}
	p.quit()
}

// TestPdump is TestDumpcap with dpdk-pdump, which writes what a port receives and what it sends into two files.
func TestPdump(t *testing.T) {
	const frames = 300
	p := startTestpmd(t, pmdConfig{ports: 1, eal: hugepages(t)})
	p.all("set fwd io", "start") // back where it came from
	dir := newRuntime(t)
	files := []string{filepath.Join(dir, "rx.pcap"), filepath.Join(dir, "tx.pcap")}
	d := start(t, program{path: nettest.NeedProgram(t, "dpdk-pdump"), ns: p.ns, runtime: p.runtime, eal: []string{"--no-pci", "--lcores", "4@0"},
		preload: "librte_mempool_dpaa.so.23", args: []string{"--pdump", "port=0,queue=*,rx-dev=" + files[0] + ",tx-dev=" + files[1]}})
	d.read(0, "capture for", patience)
	in, out := p.ports[0].injector(), p.ports[0].capturer()
	sent := make([][]byte, frames)
	for n := range sent {
		sent[n] = flow(n, 60+n*31%1454)
		nettest.Eventually(t, patience, "the port to take a frame", func() bool { return in.Inject(sent[n]) == nil })
		f, err := out.Next(within(t, patience), nil)
		must(t, err)
		if !bytes.Equal(f, sent[n]) {
			t.Fatalf("frame %d was not sent back as it is", n)
		}
	}
	must(t, d.cmd.Process.Signal(syscall.SIGINT))
	d.wait(0)
	for _, file := range files {
		same(t, file, readPcap(t, file), sent)
	}
	p.quit()
}

// readPcap reads the packets of a file of libpcap's (pcap-savefile(5)), in this machine's byte order.
func readPcap(t testing.TB, path string) (all [][]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	u32 := binary.NativeEndian.Uint32
	if len(b) < 24 || u32(b) != 0xa1b2c3d4 && u32(b) != 0xa1b23c4d {
		t.Fatalf("no pcap file: %d bytes, % x", len(b), b[:min(len(b), 24)])
	}
	for b = b[24:]; len(b) >= 16; {
		n := u32(b[8:])
		if n != u32(b[12:]) || int(n) > len(b)-16 {
			t.Fatalf("packet of %d bytes, %d captured, %d there", u32(b[12:]), n, len(b)-16)
		}
		all = append(all, b[16:][:n])
		b = b[16+n:]
	}
	return all
}

// same compares what a file has with what was sent.
func same(t testing.TB, file string, got, sent [][]byte) {
	t.Helper()
	if len(got) != len(sent) {
		t.Fatalf("%s has %d packets, want %d", file, len(got), len(sent))
	}
	for i, f := range got {
		if !bytes.Equal(f, sent[i]) {
			t.Fatalf("%s, packet %d: %d bytes, %d were sent: % x", file, i, len(f), len(sent[i]), f[:min(len(f), 60)])
		}
	}
}
