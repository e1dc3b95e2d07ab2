// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// text is what an operation says.
func (b *bench) text(op Op, id uint16) string {
	b.t.Helper()
	var out Text
	do(b, op, id, &out)
	s, _, ends := strings.Cut(string(out.S[:]), "\x00")
	if !ends {
		b.t.Errorf("operation %d: text without an end", op)
	}
	return s
}

// shimSource is the C of the shim.
func shimSource(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("../shim/*.c")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("the shim has no source")
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		all.Write(b)
	}
	return all.String()
}

// TestInfo: what ethdev is told of the port.
func TestInfo(t *testing.T) {
	b := newBench(t)
	b.probe(0, "mac=02:00:00:00:00:07")
	l, err := b.conn.LinkByName("tap0")
	must(t, err)
	var i Info
	do(b, OpInfo, 0, &i)
	want := Info{MinRxBuf: 128, MaxRxPktLen: 65521 + 22, MinMTU: 68, MaxMTU: 65521, MaxQueues: 128, MaxLRO: 65539,
		IfIndex: uint32(l.Index), DescMin: 1, DescMax: rtap.MaxRingSize, SegMax: 1023, Ring: 256, Burst: 64,
		RxCapa: i.RxCapa, TxCapa: i.TxCapa, MTU: 1500, MAC: [6]byte{2, 0, 0, 0, 0, 7}}
	if i != want {
		t.Errorf("info %+v\n want %+v", i, want)
	}
	if always := uint64(rtap.RxOffloadChecksum | rtap.RxOffloadScatter | rtap.RxOffloadTCPLRO); i.RxCapa&always != always {
		t.Errorf("Rx offloads %#x", i.RxCapa)
	}
	if always := rtap.TxOffloadTCPTSO | rtap.TxOffloadMultiSegs; i.TxCapa&always != always {
		t.Errorf("Tx offloads %#x", i.TxCapa)
	}
	if (i.RxCapa|i.TxCapa)>>21 != 0 {
		t.Errorf("offloads that DPDK has no name for: %#x, %#x", i.RxCapa, i.TxCapa)
	}
	if got, want := b.text(OpFWVersion, 0), "rtap "+rtap.Version+", "; !strings.HasPrefix(got, want) || len(got) > 31 {
		t.Errorf("version %q, want %q", got, want)
	}
}

// TestTextIsCut: a text too long still ends with a zero.
func TestTextIsCut(t *testing.T) {
	var text Text
	text.set(strings.Repeat("x", 300))
	if text.S[254] != 'x' || text.S[255] != 0 {
		t.Errorf("%q", text.S[250:])
	}
	text.set("y")
	if text.S != [256]byte{'y'} {
		t.Errorf("%q", text.S[:])
	}
}

// TestLinkOps: what is set is what the kernel has, and what is read back, while the port is started and while it is not.
func TestLinkOps(t *testing.T) {
	b := newBench(t)
	b.run(0, 1)
	for _, started := range []bool{true, false} {
		t.Run(fmt.Sprintf("started %v", started), func(t *testing.T) {
			if !started {
				b.plain(OpStop, 0)
			}
			for _, c := range []struct {
				op   Op
				on   func() bool
				what string
			}{
				{OpLinkSet, func() bool { l, _ := b.conn.LinkByName("tap0"); return l.Up }, "up"},
				{OpPromisc, func() bool { l, _ := b.conn.LinkByName("tap0"); return l.Promisc }, "promiscuous"},
				{OpAllMulti, func() bool { l, _ := b.conn.LinkByName("tap0"); return l.AllMulti }, "allmulticast"},
			} {
				for _, v := range []uint32{1, 1, 0, 0, 7} {
					do(b, c.op, 0, &U32{v})
					if got := c.on(); got != (v != 0) {
						t.Errorf("%s %d: the kernel says %v", c.what, v, got)
					}
				}
			}
			var l Link
			do(b, OpLink, 0, &l)
			if started && l != (Link{1, 10000}) { // of a stopped port too, when it is set up
				t.Errorf("link %+v", l)
			}
			do(b, OpLinkSet, 0, &U32{0})
			if do(b, OpLink, 0, &l); l.Up != 0 {
				t.Errorf("link %+v", l)
			}
			do(b, OpLinkSet, 0, &U32{1})
			do(b, OpMAC, 0, &MAC{[6]byte{2, 0, 0, 0, 0, 9}})
			do(b, OpMTU, 0, &U32{5000})
			var i Info
			do(b, OpInfo, 0, &i)
			if i.MTU != 5000 || i.MAC != [6]byte{2, 0, 0, 0, 0, 9} {
				t.Errorf("info %+v", i)
			}
			b.refused(call(b, OpMAC, 0, &MAC{[6]byte{1}}), syscall.EINVAL, "net_rtap0", "unicast")
			b.refused(call(b, OpMAC, 0, &MAC{}), syscall.EINVAL, "not zero")
			b.refused(call(b, OpMTU, 0, &U32{67}), syscall.EINVAL, "68 to 65521")
			b.refused(call(b, OpMTU, 0, &U32{1<<32 - 1}), syscall.EINVAL, "68 to 65521")
		})
	}
}

// TestMTUWhileStarted: longer frames are received, scattered, as soon as the MTU allows them.
func TestMTUWhileStarted(t *testing.T) {
	b := newBench(t)
	if s := b.run(0, 1); s.Scattered != 0 {
		t.Error("scattered at an MTU of 1500")
	}
	inj := b.injector(0)
	do(b, OpMTU, 0, &U32{9000})
	must(t, inj.Inject(frame(9014)))
	bufs := make([]*mbuf.Mbuf, 4)
	nettest.Eventually(t, wait, "a packet", func() bool { return b.rx(0, 0, bufs[:1]) == 1 })
	if bufs[0].PktLen != 9014 || bufs[0].NbSegs != 5 {
		t.Errorf("%d bytes in %d mbufs", bufs[0].PktLen, bufs[0].NbSegs)
	}
	mbuf.FreeBulk(bufs[:1])
	b.plain(OpStop, 0)
	if s := b.start(0); s.Scattered != 1 {
		t.Error("not scattered at an MTU of 9000")
	}
}

// TestStats: counters of the port and its queues, and their reset.
func TestStats(t *testing.T) {
	b := newBench(t)
	b.run(0, 3)
	for q := range uint16(3) {
		b.send(0, q, int(q)+1)
	}
	mbufs := make([]*mbuf.Mbuf, 2048)
	pool := b.host.pool(b.pool)
	got := pool.AllocBulk(mbufs)
	b.rx(0, 0, mbufs[got:][:0:0])
	if n := b.rx(0, 0, make([]*mbuf.Mbuf, 1)); n != 0 {
		t.Errorf("%d packets without mbufs", n)
	}
	mbuf.FreeBulk(mbufs[:got])
	var s Stats
	do(b, OpStats, 0, &s)
	if s.OPackets != 6 || s.OBytes != 360 || s.RxNoMbuf == 0 {
		t.Errorf("%+v", s)
	}
	for q := range s.Q {
		want := QueueStats{}
		if q < 3 {
			want = QueueStats{OPackets: uint64(q) + 1, OBytes: 60 * (uint64(q) + 1)}
		}
		if s.Q[q] != want {
			t.Errorf("queue %d: %+v", q, s.Q[q])
		}
	}
	b.plain(OpStatsReset, 0)
	do(b, OpStats, 0, &s)
	if s != (Stats{}) {
		t.Errorf("after a reset: %+v", s)
	}
	b.plain(OpStop, 0)
	b.setUp(0, Conf{RxQueues: 20, TxQueues: 20})
	do(b, OpStats, 0, &s) // of which 16 have a place
}

// xstats reads all extended statistics.
func (b *bench) xstats(id uint16) (names []string, values []uint64) {
	b.t.Helper()
	n := int(call(b, OpXStats, id, &XStats{}))
	if m := call(b, OpXStatNames, id, &XStats{}); n <= 0 || int(m) != n {
		b.t.Fatalf("%d xstats, %d names: %s", n, m, b.host.log())
	}
	buf := make([]uint64, 1+n)
	(*XStats)(unsafe.Pointer(&buf[0])).N = uint32(n)
	if got := b.Call(OpXStats, id, unsafe.Pointer(&buf[0]), uint32(8*len(buf))); got != int32(n) {
		b.t.Fatalf("%d xstats of %d", got, n)
	}
	text := make([]byte, 8+n*XStatName)
	(*XStats)(unsafe.Pointer(&text[0])).N = uint32(n)
	if got := b.Call(OpXStatNames, id, unsafe.Pointer(&text[0]), uint32(len(text))); got != int32(n) {
		b.t.Fatalf("%d names of %d", got, n)
	}
	for i := range n {
		name, _, ends := strings.Cut(string(text[8+i*XStatName:][:XStatName]), "\x00")
		if !ends || name == "" {
			b.t.Fatalf("name %d: %q", i, name)
		}
		names = append(names, name)
	}
	return names, buf[1:]
}

// TestXStats: those that ethdev has itself are left out, names and values go together, and less room takes less.
func TestXStats(t *testing.T) {
	b := newBench(t)
	b.run(0, 2)
	b.send(0, 1, 3)
	names, values := b.xstats(0)
	if i := slices.Index(names, "tx_q1_packets"); i < 0 || values[i] != 3 {
		t.Errorf("tx_q1_packets is at %d of %v", i, values)
	}
	if slices.Contains(names, "rx_good_packets") || names[0] != "rx_q0_packets" {
		t.Errorf("the first is %q", names[0])
	}
	dev, err := b.port(0).dev.XStatNames()
	must(t, err)
	if !slices.Equal(names, dev[8:]) {
		t.Error("a name was cut")
	}
	room := []uint64{7, 7, 7, 7, 7}
	*(*XStats)(unsafe.Pointer(&room[0])) = XStats{N: 1000} // more than follow
	if n := b.Call(OpXStats, 0, unsafe.Pointer(&room[0]), 8*3); int(n) != len(names) {
		t.Errorf("%d xstats", n)
	}
	if room[3] != 7 || room[4] != 7 {
		t.Error("written beyond the argument")
	}
	*(*XStats)(unsafe.Pointer(&room[0])) = XStats{N: 1}
	room[2] = 7
	if b.Call(OpXStats, 0, unsafe.Pointer(&room[0]), 8*5); room[2] != 7 {
		t.Error("more were written than asked for")
	}
	b.plain(OpXStatsReset, 0)
	if _, values = b.xstats(0); values[slices.Index(names, "tx_q1_packets")] != 0 {
		t.Error("a reset changes nothing")
	}
}

// TestInterrupts: the descriptor is readable while packets wait and the interrupt is on.
func TestInterrupts(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	b.setUp(0, Conf{RxQueues: 2, TxQueues: 2, RxqIntr: 1})
	b.refused(call(b, OpIntrOn, 0, new(U32)), syscall.EIO, "stopped")
	s := b.start(0)
	if s.IntrFD[0] < 0 || s.IntrFD[1] < 0 || s.IntrFD[0] == s.IntrFD[1] || s.IntrFD[2] != -1 || s.IntrFD[127] != -1 {
		t.Fatalf("descriptors %v", s.IntrFD)
	}
	readable := func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: s.IntrFD[0], Events: unix.POLLIN}, {Fd: s.IntrFD[1], Events: unix.POLLIN}}, 0)
		must(t, err)
		return n > 0
	}
	inj := b.injector(0)
	must(t, inj.Inject(frame(60)))
	nettest.Eventually(t, wait, "a packet waits", func() bool { return b.Waiting(0, 0) || b.Waiting(0, 1) })
	if readable() {
		t.Error("readable without an interrupt")
	}
	do(b, OpIntrOn, 0, &U32{0})
	do(b, OpIntrOn, 0, &U32{1})
	if !readable() {
		t.Error("a packet waits, and no interrupt says so")
	}
	do(b, OpIntrOff, 0, &U32{0})
	do(b, OpIntrOff, 0, &U32{1})
	if readable() {
		t.Error("readable after the interrupts were disabled")
	}
	for _, q := range []uint32{2, 128, 1<<32 - 1} {
		b.refused(call(b, OpIntrOn, 0, &U32{q}), syscall.EIO)
		do(b, OpIntrOff, 0, &U32{q})
	}
}

// TestEvents: the application hears of the link and of the interface's end, and of nothing once it has closed the port.
func TestEvents(t *testing.T) {
	b := newBench(t)
	b.run(0, 1)
	hears := func(id uint16, want Events, up uint32) {
		t.Helper()
		nettest.Eventually(t, wait, fmt.Sprintf("event %d", want), func() bool { return b.host.heard(id)&want == want })
		var l Link
		if do(b, OpLink, id, &l); l.Up != up {
			t.Errorf("link %+v after event %d", l, want)
		}
	}
	hears(0, EventLink, 1) // of start
	l, err := b.conn.LinkByName("tap0")
	must(t, err)
	must(t, b.conn.SetDown(l.Index))
	hears(0, EventLink, 0)
	must(t, b.conn.SetUp(l.Index))
	hears(0, EventLink, 1)
	must(t, b.conn.SetMTU(l.Index, 1400))
	must(t, b.conn.Delete(l.Index))
	hears(0, EventRemoved, 0)

	b.run(1, 1)
	hears(1, EventLink, 1)
	e := b.port(1)
	b.plain(OpClose, 1)
	b.host.heard(1)
	e.tell(EventLink) // what a callback that had begun does
	if got := b.host.heard(1); got != 0 {
		t.Errorf("event %d of a closed port", got)
	}
}

// TestRemoved: of an interface that was deleted, all that only reads still works; what cannot says so.
func TestRemoved(t *testing.T) {
	b := newBench(t)
	b.run(0, 1)
	b.send(0, 0, 4)
	do(b, OpMTU, 0, &U32{1400})
	do(b, OpInfo, 0, new(Info))
	if b.Call(OpIsRemoved, 0, nil, 0) != 0 {
		t.Error("removed before it is")
	}
	l, err := b.conn.LinkByName("tap0")
	must(t, err)
	must(t, b.conn.Delete(l.Index))
	nettest.Eventually(t, wait, "is_removed", func() bool { return b.Call(OpIsRemoved, 0, nil, 0) == 1 })
	b.host.log()
	var info Info
	var link Link
	var stats Stats
	do(b, OpInfo, 0, &info)
	do(b, OpLink, 0, &link)
	do(b, OpStats, 0, &stats)
	b.xstats(0)
	if info.MaxMTU != 65521 || info.MTU != 1400 || info.MAC == [6]byte{} || link.Up != 0 || stats.OPackets != 4 {
		t.Errorf("%+v %+v %+v", info, link, stats)
	}
	b.refused(call(b, OpMTU, 0, &U32{1500}), syscall.EIO, "interface is gone")
	b.refused(call(b, OpPromisc, 0, &U32{1}), syscall.EIO, "interface is gone")
	if n := b.send(0, 0, 1); n != 0 {
		t.Errorf("%d packets sent", n)
	}
	b.plain(OpStop, 0)
	b.refused(call(b, OpStart, 0, new(Started)), syscall.EIO, "interface is gone")
	b.plain(OpClose, 0)
	b.run(0, 1) // its number is free
}

// TestLog: the driver's own lines reach rte_log, at its levels, and say of which port they are.
func TestLog(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	if log := b.host.log(); !strings.Contains(log, "7 net_rtap0: port opened interface=tap0 ifindex=") {
		t.Errorf("log: %s", log)
	}
	l := newLog(b.host, "p")
	l.With("a", 1).WithGroup("g").With("b", "x y").Warn("w", "c", "", slog.Group("h", "d", 2))
	l.Debug("d")
	l.Error("e", "error", fmt.Errorf("bad: %w", syscall.EINVAL))
	want := "5 p: w a=1 g.b=\"x y\" g.c=\"\" g.h.d=2\n8 p: d\n4 p: e error=\"bad: invalid argument\""
	if got := b.host.log(); got != want {
		t.Errorf("log:\n%s\nwant:\n%s", got, want)
	}
}
