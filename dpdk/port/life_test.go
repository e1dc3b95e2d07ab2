// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// TestProbeRefused: what cannot be opened leaves nothing behind, and says what is wrong.
func TestProbeRefused(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		args  string
		want  syscall.Errno
		parts []string
	}{
		{"queues=2", syscall.EINVAL, []string{"net_rtap0", "queues is 2", "the application configures queues", "--rxq"}},
		{"iface=a,queues=2", syscall.EINVAL, []string{"the application configures queues"}},
		{"iface=", syscall.EINVAL, []string{"iface is empty"}},
		{"iface=1234567890123456", syscall.EINVAL, []string{"at most 15 bytes"}},
		{"mtu=67", syscall.EINVAL, []string{"mtu", "67", "68 to 65521"}},
		{"mtu=x", syscall.EINVAL, []string{"a number"}},
		{"mac=01:00:00:00:00:01", syscall.EINVAL, []string{"mac", "unicast"}},
		{"engine=fast", syscall.EINVAL, []string{"engine", "auto, uring or syscall"}},
		{"speed=10", syscall.EINVAL, []string{`"speed"`,
			"one of iface, persist, mtu, mac, txqlen, netns, engine, no-carrier\n"}},
		{"iface=a,iface=b", syscall.EINVAL, []string{"twice"}},
		{"netns=/nonexistent", syscall.ENOENT, []string{"/nonexistent"}},
	} {
		b.refused(b.Probe(0, "net_rtap0", c.args, false), c.want, c.parts...)
	}
	b.refused(b.Probe(0, "net_tap0", "", false), syscall.EINVAL, "net_rtap")
	b.probe(0, "")
	b.refused(b.Probe(0, "net_rtap9", "", false), syscall.EEXIST, "port 0", "net_rtap9")
}

// TestDevargs: what the arguments ask for is there.
func TestDevargs(t *testing.T) {
	b := newBench(t)
	b.probe(0, "mtu=9000,mac=02:00:00:00:00:42,txqlen=77,engine=syscall,no-carrier")
	l, err := b.conn.LinkByName("tap0")
	must(t, err)
	if l.MTU != 9000 || l.MAC.String() != "02:00:00:00:00:42" || l.TxQueueLen != 77 || l.Carrier {
		t.Errorf("link: %+v", l)
	}
	if got := b.text(OpBurstMode, 0); !strings.HasPrefix(got, "syscall") {
		t.Errorf("burst mode %q", got)
	}
	b.setUp(0, Conf{RxQueues: 1, TxQueues: 1})
	if s := b.start(0); s.LinkUp != 0 {
		t.Error("link is up without carrier")
	}
}

// TestParamString: what dpdk-pmdinfo shows names the keys that there are.
func TestParamString(t *testing.T) {
	shim := shimSource(t)
	for _, key := range []string{"iface", "persist", "mtu", "mac", "txqlen", "netns", "engine", "no-carrier"} {
		if _, err := parseArgs("net_rtap0", key); err == nil == (key != "persist" && key != "no-carrier") {
			t.Errorf("%s: %v", key, err)
		}
		if !strings.Contains(shim, key+"=") && !strings.Contains(shim, key+"[=") {
			t.Errorf("the shim's PARAM_STRING lacks %s", key)
		}
	}
	if strings.Contains(shim, "queues=<") || strings.Contains(shim, "mode=<") {
		t.Error("the shim's PARAM_STRING has queues, or mode")
	}
	if _, err := parseArgs("net_rtap0", "mode=tun"); err == nil || !strings.Contains(err.Error(), "want tap") {
		t.Errorf("mode=tun: %v", err)
	}
}

// TestConfigureRefused: configurations that cannot be.
func TestConfigureRefused(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	for _, c := range []struct {
		conf  Conf
		parts []string
	}{
		{Conf{RxQueues: 2, TxQueues: 1}, []string{"net_rtap0", "2 Rx and 1 Tx queues", "as many"}},
		{Conf{RxQueues: 0, TxQueues: 1}, []string{"0 Rx and 1 Tx"}},
		{Conf{}, []string{"RxQueues is 0"}},
		{Conf{RxQueues: 129, TxQueues: 129}, []string{"129", "1 to 128"}},
		{Conf{RxQueues: 1, TxQueues: 1, RxOffloads: 1 << 62}, []string{"DPDK has no such"}},
		{Conf{RxQueues: 1, TxQueues: 1, TxOffloads: 1 << 21}, []string{"DPDK has no such"}},
		{Conf{RxQueues: 1, TxQueues: 1, TxOffloads: 1 << 4}, []string{"sctp"}},
		{Conf{RxQueues: 1, TxQueues: 1, RxOffloads: rtap.RxOffloadTCPLRO, MaxLRO: 100}, []string{"MaxLROPktSize is 100"}},
		{Conf{RxQueues: 1, TxQueues: 1, MTU: 60}, []string{"mtu is 60", "68 to 65521"}},
	} {
		b.refused(call(b, OpConfigure, 0, &c.conf), syscall.EINVAL, c.parts...)
	}
	b.setUp(0, Conf{RxQueues: 1, TxQueues: 1})
	b.start(0)
	b.refused(call(b, OpConfigure, 0, &Conf{RxQueues: 1, TxQueues: 1}), syscall.EBUSY, "stop it first")
}

// TestConfigureMTU: ethdev asks for 1500 when the application asks for nothing; the device arguments come first then.
func TestConfigureMTU(t *testing.T) {
	b := newBench(t)
	b.probe(0, "mtu=9000")
	configure := func(mtu, want uint32) {
		t.Helper()
		conf := Conf{RxQueues: 1, TxQueues: 1, MTU: mtu}
		do(b, OpConfigure, 0, &conf)
		l, err := b.conn.LinkByName("tap0")
		must(t, err)
		if l.MTU != int(want) || conf.MTU != want {
			t.Errorf("MTU %d asked for: is %d, and said to be %d; want %d", mtu, l.MTU, conf.MTU, want)
		}
	}
	configure(0, 9000)
	configure(1500, 9000)
	do(b, OpMTU, 0, &U32{1400})
	configure(0, 1400)
	configure(1500, 1500) // the application has had its say

	b.probe(1, "mtu=9000")
	conf := Conf{RxQueues: 1, TxQueues: 1, MTU: 2000}
	do(b, OpConfigure, 1, &conf)
	conf.MTU = 1500
	do(b, OpConfigure, 1, &conf)
	if conf.MTU != 1500 {
		t.Errorf("MTU %d after 2000, then 1500", conf.MTU)
	}
}

// TestConfigureLRO: ethdev fills in a frame of the MTU where the application asks for no size.
func TestConfigureLRO(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	for _, c := range []struct {
		offloads    uint64
		mtu, lro    uint32
		wantConfMax uint32
	}{
		{rtap.RxOffloadTCPLRO, 1500, 1522, 0},
		{rtap.RxOffloadTCPLRO, 9000, 9022, 0},
		{rtap.RxOffloadTCPLRO, 0, 1522, 0},
		{rtap.RxOffloadTCPLRO, 1500, 0, 0},
		{rtap.RxOffloadTCPLRO, 1500, 9022, 9022},
		{rtap.RxOffloadTCPLRO, 1500, rtap.MaxLROPktSize, rtap.MaxLROPktSize},
		{0, 1500, 7, 0},
	} {
		conf := Conf{RxQueues: 1, TxQueues: 1, RxOffloads: c.offloads, MTU: c.mtu, MaxLRO: c.lro}
		do(b, OpConfigure, 0, &conf)
		if got := b.port(0).conf.MaxLRO; got != c.wantConfMax {
			t.Errorf("%+v: bounded to %d", c, got)
		}
	}
}

// TestQueuesRefused: queues that cannot be set up, and those that are released without having been.
func TestQueuesRefused(t *testing.T) {
	b := newBench(t)
	b.probe(0, "")
	b.refused(call(b, OpTxSetup, 0, &QueueConf{}), syscall.EINVAL, "not configured")
	b.refused(call(b, OpRxSetup, 0, b.queueConf(0, b.pool)), syscall.EINVAL, "not configured")
	do(b, OpConfigure, 0, &Conf{RxQueues: 1, TxQueues: 1,
		RxOffloads: rtap.RxOffloadTCPCksum, TxOffloads: rtap.TxOffloadTCPCksum})
	for _, q := range []uint32{1, 127, 128, 1 << 16, 1 << 31, 1<<32 - 1} {
		rx := b.queueConf(0, b.pool)
		rx.Queue = q
		b.refused(call(b, OpRxSetup, 0, rx), syscall.EINVAL, "not configured")
		b.refused(call(b, OpTxSetup, 0, &QueueConf{Queue: q}), syscall.EINVAL, "not configured")
		do(b, OpRxRelease, 0, &U32{q})
		do(b, OpTxRelease, 0, &U32{q})
	}
	rx := b.queueConf(0, b.pool)
	rx.Ring = rtap.MaxRingSize + 1
	b.refused(call(b, OpRxSetup, 0, rx), syscall.EINVAL, "net_rtap0", "queue 0", "Ring is")
	b.refused(call(b, OpTxSetup, 0, &QueueConf{Ring: rtap.MaxRingSize + 1}), syscall.EINVAL,
		"queue 0", "descriptors is", "1 to")
	rx = b.queueConf(0, b.pool)
	rx.DataRoom = 64
	b.refused(call(b, OpRxSetup, 0, rx), syscall.EINVAL, "DataRoom is 64", "at least 128")
	rx = b.queueConf(0, b.pool)
	rx.Offloads = rtap.RxOffloadTCPLRO
	b.refused(call(b, OpRxSetup, 0, rx), syscall.EINVAL, "beyond those of the port")
	b.refused(call(b, OpTxSetup, 0, &QueueConf{Offloads: rtap.TxOffloadTCPTSO}), syscall.EINVAL,
		"beyond those of the port")
	rx.Offloads, rx.NRegions = rtap.RxOffloadTCPCksum, 1<<32-1
	do(b, OpRxSetup, 0, rx) // more regions than there are places are not looked for
	b.refused(call(b, OpStart, 0, new(Started)), syscall.EINVAL, "queue is not set up")
	do(b, OpTxSetup, 0, &QueueConf{Offloads: rtap.TxOffloadTCPCksum})
	b.start(0)
	b.refused(call(b, OpStart, 0, new(Started)), syscall.EBUSY, "stop it first")
	if n := b.send(0, 0, 3); n != 3 {
		t.Errorf("after a second start, %d packets of 3 were sent", n)
	}
	b.refused(call(b, OpRxSetup, 0, b.queueConf(0, b.pool)), syscall.EBUSY, "stop it first")
	b.refused(call(b, OpRxRelease, 0, new(U32)), syscall.EBUSY)
	b.refused(call(b, OpTxRelease, 0, new(U32)), syscall.EBUSY)
	b.plain(OpStop, 0)
	do(b, OpRxRelease, 0, new(U32))
	do(b, OpRxRelease, 0, new(U32))
	do(b, OpTxRelease, 0, new(U32))
	b.refused(call(b, OpStart, 0, new(Started)), syscall.EINVAL, "queue is not set up")
}

// TestFullAgain: a stopped port has none of the mempool's mbufs, nor has one whose queues were changed.
func TestFullAgain(t *testing.T) {
	b := newBench(t)
	b.run(0, 2)
	inj := b.injector(0)
	for range 3 {
		must(t, inj.Inject(frame(60)))
	}
	bufs := make([]*mbuf.Mbuf, 1)
	nettest.Eventually(t, wait, "a packet", func() bool { return b.rx(0, 0, bufs)+b.rx(0, 1, bufs) > 0 })
	mbuf.FreeBulk(bufs)
	b.plain(OpStop, 0)
	if n := b.host.pool(b.pool).InUseCount(); n != 0 {
		t.Errorf("a stopped port has %d mbufs", n)
	}
	b.setUp(0, Conf{RxQueues: 4, TxQueues: 4})
	b.start(0)
	for q := range uint16(4) {
		b.rx(0, q, make([]*mbuf.Mbuf, 1))
		b.send(0, q, 5)
	}
	do(b, OpMTU, 0, &U32{9000})
	b.plain(OpStop, 0)
	b.setUp(0, Conf{RxQueues: 1, TxQueues: 1})
	if n := b.host.pool(b.pool).InUseCount(); n != 0 {
		t.Errorf("after the queues were changed, %d mbufs are missing", n)
	}
}

// TestRounds: probe to close, over and over, with and without what comes in between.
func TestRounds(t *testing.T) {
	b := newBench(t)
	round := func(i int) {
		b.probe(0, "")
		if i%3 > 0 {
			b.setUp(0, Conf{RxQueues: 2, TxQueues: 2, RxqIntr: 1})
		}
		if i%3 > 1 {
			b.start(0)
			b.send(0, 1, 8)
		}
		if i%2 == 0 {
			b.plain(OpClose, 0)
		}
		if r := b.Remove(0); r != 0 {
			t.Fatalf("remove: %d: %s", r, b.host.log())
		}
		if _, err := b.conn.LinkByName("tap0"); err == nil {
			t.Fatal("the interface is left")
		}
	}
	round(2)
	before := nettest.Leaks()
	for i := range nettest.Scale(50) {
		round(i)
	}
	before.Check(t)
}

// registered is the memory that the Tx queues of a port have registered.
func (b *bench) registered(id uint16) []mbuf.Region {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.port(id).regions
}

// TestMemoryRegistered: both directions use the mempool's memory as the kernel has it registered, whatever was set up
// first, and that of other ports, whichever was started first, for as long as they have it.
func TestMemoryRegistered(t *testing.T) {
	nettest.NeedUring(t)
	b := newBench(t)
	b.run(0, 2)
	b.pool = b.host.mempool(mbuf.Config{Name: "mp2", Count: 512})
	b.run(1, 1)
	for id := range uint16(2) {
		got := b.text(OpBurstMode, id)
		if !strings.HasPrefix(got, "uring") || strings.Contains(got, "without registered buffers") {
			t.Errorf("burst mode %q", got)
		}
		if got := b.registered(id); len(got) != 2 {
			t.Errorf("port %d has registered %v, want two pools", id, got)
		}
	}
	b.plain(OpStop, 1)
	if got := b.registered(1); got != nil {
		t.Errorf("a stopped port has registered %v", got)
	}
	do(b, OpRxRelease, 1, &U32{0})
	if got := b.registered(0); len(got) != 1 {
		t.Errorf("port 0 has registered %v, of which one pool is left", got)
	}
	do(b, OpRxSetup, 1, b.queueConf(0, b.pool))
	if got := b.registered(0); len(got) != 2 {
		t.Errorf("port 0 has registered %v, want two pools", got)
	}
	do(b, OpConfigure, 1, &Conf{RxQueues: 2, TxQueues: 2})
	do(b, OpRxSetup, 1, b.queueConf(1, b.host.mempool(mbuf.Config{Name: "mp3", Count: 512})))
	if got := b.registered(0); len(got) != 3 {
		t.Errorf("port 0 has registered %v, want three pools", got)
	}
	b.refused(call(b, OpStart, 0, new(Started)), syscall.EBUSY)
	do(b, OpConfigure, 1, &Conf{RxQueues: 1, TxQueues: 1})
	if got := b.registered(0); len(got) != 2 {
		t.Errorf("port 0 has registered %v, want two pools, as one queue is gone", got)
	}
	b.plain(OpClose, 1)
	if got := b.registered(0); len(got) != 1 {
		t.Errorf("after port 1 was closed, port 0 has registered %v", got)
	}
	if n := b.send(0, 1, 8); n != 8 {
		t.Errorf("%d packets of 8 were sent", n)
	}
}

// TestMemoryReplaced: an application may free a mempool when no queue receives into it any more, and make another in
// its place. What a port that was started all the time sends from there is what is there now.
func TestMemoryReplaced(t *testing.T) {
	nettest.NeedUring(t)
	b := newBench(t)
	const size = 1 << 16
	at, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	must(t, err)
	b.probe(1, "")
	do(b, OpConfigure, 1, &Conf{RxQueues: 1, TxQueues: 1})
	conf := b.queueConf(0, b.pool)
	conf.Regions[0] = Region{uint64(uintptr(at)), size}
	do(b, OpRxSetup, 1, conf)
	b.run(0, 1)

	l, err := b.conn.LinkByName("tap0")
	must(t, err)
	capture, err := traffic.NewCapturer(b.ns, l.Index)
	must(t, err)
	defer func() { must(t, capture.Close()) }()

	var m mbuf.Mbuf // in the mempool's memory
	send := func(last byte) {
		t.Helper()
		m = *sample(b.host.pool(b.pool))
		*(*unsafe.Pointer)(unsafe.Pointer(&m)) = at // buf_addr
		copy(m.Append(60), frame(60))
		m.Bytes()[59] = last
		b.host.free = func([]*mbuf.Mbuf) {}
		defer func() { b.host.free = mbuf.FreeBulk }()
		if n := b.tx(0, 0, []*mbuf.Mbuf{&m, &m, &m, &m, &m, &m, &m, &m}); n != 8 { // as many as go through the ring
			t.Fatalf("%d packets of 8 were sent", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(wait))
		defer cancel()
		for range 8 {
			got, err := capture.Next(ctx, func(f []byte) bool { return len(f) == 60 && f[12] == 0x88 })
			must(t, err)
			if got[59] != last {
				t.Fatalf("the packet has %#x, want %#x: what was there before", got[59], last)
			}
		}
	}

	send(0x11)
	do(b, OpRxRelease, 1, &U32{0})
	must(t, unix.MunmapPtr(at, size))
	at, err = unix.MmapPtr(-1, 0, at, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_FIXED_NOREPLACE)
	must(t, err)
	send(0x22)
	must(t, unix.MunmapPtr(at, size))
}

// sample is what an empty mbuf of a pool looks like.
func sample(pool *mbuf.Pool) *mbuf.Mbuf {
	m := pool.Alloc()
	defer m.Free()
	like := *m
	return &like
}

// TestPortsTogether: ports come, start, stop and go in threads of their own, with mempools of their own, while the others
// have to follow which memory there is.
func TestPortsTogether(t *testing.T) {
	b := newBench(t)
	pools := []uintptr{b.pool, b.host.mempool(mbuf.Config{Name: "mp1", Count: 512}),
		b.host.mempool(mbuf.Config{Name: "mp2", Count: 512})}
	var wg sync.WaitGroup
	for id := range uint16(3) {
		own := *b
		own.pool = pools[id]
		confs := []*QueueConf{own.queueConf(0, own.pool), own.queueConf(1, own.pool)}
		args := fmt.Sprintf("iface=tap%d,netns=/proc/self/fd/%d", id, b.ns.FD())
		wg.Go(func() {
			for range nettest.Scale(10) {
				ok := own.Probe(id, fmt.Sprint("net_rtap", id), args, false) == 0
				for n := uint16(2); n > 0 && ok; n-- {
					ok = call(&own, OpConfigure, id, &Conf{RxQueues: n, TxQueues: n}) == 0
					for i := range int(n) {
						ok = ok && call(&own, OpTxSetup, id, &QueueConf{Queue: uint32(i)}) == 0 &&
							call(&own, OpRxSetup, id, confs[i]) == 0
					}
					ok = ok && call(&own, OpStart, id, new(Started)) == 0
					own.rx(id, 0, make([]*mbuf.Mbuf, 8))
					ok = ok && call(&own, OpStats, id, new(Stats)) == 0 && own.Call(OpStop, id, nil, 0) == 0
				}
				if !ok || own.Call(OpClose, id, nil, 0) != 0 {
					t.Error(b.host.log())
					return
				}
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(b.host.log()) {
		if strings.HasPrefix(line, "4 ") {
			t.Error(line)
		}
	}
}
