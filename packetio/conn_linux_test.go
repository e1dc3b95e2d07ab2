// SPDX-License-Identifier: BSD-3-Clause

package packetio

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// wait bounds whatever a test waits for.
const wait = 10 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// eachMode runs f with a TAP and a TUN, each with both engines.
func eachMode(t *testing.T, f func(t *testing.T, cfg rtap.Config)) {
	for _, cfg := range []rtap.Config{
		{Mode: rtap.ModeTAP, Engine: rtap.EngineUring},
		{Mode: rtap.ModeTAP, Engine: rtap.EngineSyscall},
		{Mode: rtap.ModeTUN, Engine: rtap.EngineUring},
		{Mode: rtap.ModeTUN, Engine: rtap.EngineSyscall},
	} {
		t.Run(fmt.Sprintf("%s/%s", cfg.Mode, cfg.Engine), func(t *testing.T) {
			if cfg.Engine == rtap.EngineUring {
				nettest.NeedUring(t)
			}
			f(t, cfg)
		})
	}
}

// end is a Conn and the kernel's side of it.
type end struct {
	*Conn
	t     testing.TB
	ns    *netns.NS
	link  *rtnl.Conn
	index int
	inj   *traffic.Injector
	cap   *traffic.Capturer
}

// open opens an interface in a namespace of its own, in which the kernel sends nothing of its own accord.
func open(t testing.TB, cfg rtap.Config) *end {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	cfg.NetNS = fmt.Sprintf("/proc/self/fd/%d", ns.FD())
	c, err := Open(cfg)
	must(t, err)
	return newEnd(t, ns, c)
}

func newEnd(t testing.TB, ns *netns.NS, c *Conn) *end {
	t.Helper()
	e := &end{Conn: c, t: t, ns: ns, link: nettest.Conn(t, ns), index: c.Device().Info().IfIndex}
	t.Cleanup(func() { must(t, c.Close()) })
	inj, err := traffic.NewQueuedInjector(ns, e.index)
	must(t, err)
	t.Cleanup(func() { must(t, inj.Close()) })
	capt, err := traffic.NewCapturer(ns, e.index)
	must(t, err)
	t.Cleanup(func() { must(t, capt.Close()) })
	e.inj, e.cap = inj, capt
	return e
}

// packet is one of size bytes for an interface of that mode, with a number in its last 4 bytes: an Ethernet frame, or an IPv4
// packet.
func packet(mode rtap.Mode, size int, seq uint32) []byte {
	p := make([]byte, size)
	if mode == rtap.ModeTUN {
		copy(p, []byte{0x45, 0, byte(size >> 8), byte(size), 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	} else {
		copy(p, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5})
	}
	for i := 20; i < size-4; i++ {
		p[i] = byte(i) ^ byte(seq)
	}
	binary.BigEndian.PutUint32(p[size-4:], seq)
	return p
}

func packets(mode rtap.Mode, size, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = packet(mode, size, uint32(i))
	}
	return all
}

// inject hands packets to the program.
func (e *end) inject(packets ...[]byte) {
	e.t.Helper()
	for _, p := range packets {
		must(e.t, e.inj.Inject(p))
	}
}

// captured compares what the program has sent.
func (e *end) captured(want ...[]byte) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
	defer cancel()
	for i, w := range want {
		got, err := e.cap.Next(ctx, nil)
		must(e.t, err)
		if !bytes.Equal(got, w) {
			e.t.Fatalf("packet %d: the kernel has % x, want % x", i, got, w)
		}
	}
}

// readAll reads as many packets as are wanted and compares them.
func (e *end) readAll(bufs [][]byte, want ...[]byte) (calls int) {
	e.t.Helper()
	for len(want) > 0 {
		n, err := e.ReadPackets(bufs[:min(len(bufs), len(want))])
		must(e.t, err)
		if n < 1 || n > len(want) {
			e.t.Fatalf("%d packets, want 1 to %d", n, len(want))
		}
		for i, p := range bufs[:n] {
			if !bytes.Equal(p, want[i]) {
				e.t.Fatalf("read % x, want % x", p, want[i])
			}
		}
		want, calls = want[n:], calls+1
	}
	return calls
}

// bounded fails the test if f does not return.
func bounded(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(nettest.Bound(wait)):
		t.Fatalf("%s takes for ever", what)
	}
}

// TestPackets: packets arrive as they were sent, both ways, in order, and many in one call.
func TestPackets(t *testing.T) {
	eachMode(t, func(t *testing.T, cfg rtap.Config) {
		e := open(t, cfg)
		for _, size := range []int{64, 333, 1500} {
			sent := packets(cfg.Mode, size, 150)
			e.inject(sent...)
			if calls := e.readAll(Buffers(64, 2048), sent...); calls > 16 {
				t.Errorf("%d calls for 150 packets", calls)
			}
			n, err := e.WritePackets(sent)
			if n != len(sent) || err != nil {
				t.Fatalf("%d packets of %d sent: %v", n, len(sent), err)
			}
			e.captured(sent...)
		}
		if s, err := e.Device().Stats(); err != nil || s.IPackets != 450 || s.OPackets != 450 || s.OErrors+s.IErrors+s.RxNoMbuf != 0 {
			t.Errorf("statistics %+v, %v", s, err)
		}
	})
}

// TestReadWrite: Read and Write are those of package io, a packet each; what Read has fetched ahead is not lost to ReadPackets.
func TestReadWrite(t *testing.T) {
	eachMode(t, func(t *testing.T, cfg rtap.Config) {
		e := open(t, cfg)
		sent := packets(cfg.Mode, 100, 40)
		e.inject(sent...)
		b := make([]byte, 1600)
		for _, want := range sent[:20] {
			n, err := e.Read(b)
			must(t, err)
			if !bytes.Equal(b[:n], want) {
				t.Fatalf("read % x, want % x", b[:n], want)
			}
		}
		e.readAll(Buffers(7, 100), sent[20:35]...)
		e.readAll(Buffers(5, 100), sent[35:]...)
		for _, p := range sent {
			if n, err := e.Write(p); n != len(p) || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		e.captured(sent...)
	})
}

// TestLargeMTU: packets that take several mbufs, because the MTU was raised after opening, or is one mbuf's at once.
func TestLargeMTU(t *testing.T) {
	for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
		for _, raised := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/raised=%t", mode, raised), func(t *testing.T) {
				const mtu = 65521
				cfg := rtap.Config{Mode: mode, MTU: mtu}
				if raised {
					cfg.MTU = 0
				}
				e := open(t, cfg)
				must(t, e.Device().SetMTU(mtu))
				bufs := Buffers(4, 65535)
				for _, size := range []int{2000, 9000, mtu} {
					sent := packets(mode, size, 70)
					for i := 0; i < len(sent); i += 5 {
						e.inject(sent[i : i+5]...)
						e.readAll(bufs, sent[i:i+5]...)
					}
					n, err := e.WritePackets(sent)
					if n != len(sent) || err != nil {
						t.Fatalf("%d of %d: %v", n, len(sent), err)
					}
					e.captured(sent...)
				}
			})
		}
	}
}

// TestSmallRing: also the smallest ring has mbufs for the longest packet, in either direction.
func TestSmallRing(t *testing.T) {
	for _, ring := range []int{1, 8} {
		e := open(t, rtap.Config{RxRing: ring, TxRing: 1})
		must(t, e.Device().SetMTU(65521))
		sent := packets(rtap.ModeTAP, 65535, 10)
		e.inject(sent[:3]...)
		bounded(t, "reading with a small ring", func() { e.readAll(Buffers(4, 65535), sent[:3]...) })
		if n, err := e.WritePackets(sent); n != len(sent) || err != nil {
			t.Errorf("%d of %d: %v", n, len(sent), err)
		}
		e.captured(sent...)
	}
}

// TestShortBuffer: a packet that does not fit is an error, whatever the slice's length is, and never cut; the packets before
// and after it are read.
func TestShortBuffer(t *testing.T) {
	e := open(t, rtap.Config{})
	small, large := packet(rtap.ModeTAP, 64, 1), packet(rtap.ModeTAP, 65, 2)
	exact := Buffers(8, 64)
	for _, b := range exact {
		copy(b, "untouched")
	}
	bufs := slices.Clone(exact)
	bufs[0] = bufs[0][:0] // room is what counts
	e.inject(small, large, large, small)
	e.readAll(bufs[:8], small)
	for range 2 {
		if n, err := e.ReadPackets(bufs); n != 0 || !errors.Is(err, io.ErrShortBuffer) {
			t.Fatalf("%d packets, error %v", n, err)
		}
	}
	e.readAll(bufs, small)

	b := make([]byte, 64, 100)
	e.inject(large, small)
	if n, err := e.Read(b); n != 0 || !errors.Is(err, io.ErrShortBuffer) {
		t.Fatalf("%d bytes, error %v", n, err)
	}
	if n, err := e.Read(b); n != 64 || err != nil || !bytes.Equal(b, small) {
		t.Fatalf("%d bytes, error %v", n, err)
	}
	if b[:100][64] != 0 {
		t.Error("Read has written behind its buffer's length")
	}
	e.inject(small)
	if n, err := e.ReadPackets(nil); n != 0 || err != nil {
		t.Errorf("no buffers: %d, %v", n, err)
	}
	if n, err := e.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty buffer: %d, %v", n, err)
	}
	e.readAll(exact, small) // it is still there
	if n, err := e.WritePackets(nil); n != 0 || err != nil {
		t.Errorf("no packets: %d, %v", n, err)
	}
}

// TestTooLong: packets before one that cannot be sent are sent, and it is an error; what the kernel refuses is counted.
func TestTooLong(t *testing.T) {
	e := open(t, rtap.Config{})
	p := packet(rtap.ModeTAP, 64, 1)
	n, err := e.WritePackets([][]byte{p, p, make([]byte, 70000), p})
	if n != 2 {
		t.Errorf("%d sent, want 2", n)
	}
	wantIs(t, err, syscall.EMSGSIZE)
	e.captured(p, p)
	if n, err := e.Write(make([]byte, 70000)); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := e.WritePackets([][]byte{nil, {1, 2}, p}); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	e.captured(p)
	if s, _ := e.Device().Stats(); s.OErrors != 2 || s.OPackets != 3 {
		t.Errorf("statistics are %+v", s)
	}
}

// TestClose: Close ends reads that wait, all of them, and what comes after it says so.
func TestClose(t *testing.T) {
	eachMode(t, func(t *testing.T, cfg rtap.Config) {
		e := open(t, cfg)
		p := packet(cfg.Mode, 64, 1)
		errs := make(chan error)
		go func() { _, err := e.ReadPackets(Buffers(4, 2048)); errs <- err }()
		go func() { _, err := e.Read(make([]byte, 2048)); errs <- err }()
		e.inject(p) // one of them gets it, and the other goes on waiting
		must(t, <-errs)
		go e.Close()
		bounded(t, "Close", func() {
			must(t, e.Close())
			wantIs(t, <-errs, os.ErrClosed)
		})
		_, err := e.ReadPackets(Buffers(1, 100))
		wantIs(t, err, os.ErrClosed)
		_, err = e.Read(make([]byte, 100))
		wantIs(t, err, os.ErrClosed)
		_, err = e.WritePackets([][]byte{p})
		wantIs(t, err, os.ErrClosed)
		_, err = e.Write(p)
		wantIs(t, err, os.ErrClosed)
		var pe *os.PathError
		if !errors.As(err, &pe) || pe.Op != "write" || pe.Path != e.Name() {
			t.Errorf("error is %#v", err)
		}
	})
}

// TestClosePending: packets that were fetched ahead, and not read, are not lost to their pool, which says so if it is.
func TestClosePending(t *testing.T) {
	e := open(t, rtap.Config{})
	e.inject(packets(rtap.ModeTAP, 64, 10)...)
	_, err := e.Read(make([]byte, 100))
	must(t, err)
	must(t, e.Close())
	_, err = e.Read(make([]byte, 100)) // not from the batch
	wantIs(t, err, os.ErrClosed)
}

// TestCloseStorm: Close while both directions are busy.
func TestCloseStorm(t *testing.T) {
	for range nettest.Scale(10) {
		e := open(t, rtap.Config{})
		var wg sync.WaitGroup
		burst := packets(rtap.ModeTAP, 64, 100)
		started := make(chan struct{}, 8)
		run := func(op func() error) {
			wg.Go(func() {
				for first := true; ; first = false {
					if err := op(); err != nil {
						wantIs(t, err, os.ErrClosed)
						return
					}
					if first {
						started <- struct{}{}
					}
				}
			})
		}
		for range 2 {
			bufs, b := Buffers(64, 2048), make([]byte, 2048)
			run(func() error { _, err := e.ReadPackets(bufs); return err })
			run(func() error { _, err := e.Read(b); return err })
			run(func() error { _, err := e.WritePackets(burst); return err })
			run(func() error { _, err := e.Write(burst[0]); return err })
		}
		e.inject(burst...)
		for range 4 {
			<-started
		}
		bounded(t, "Close", func() { must(t, e.Close()); wg.Wait() })
	}
}

// TestDeleted: an interface that is deleted ends reads and writes, and leaves what was read before.
func TestDeleted(t *testing.T) {
	eachMode(t, func(t *testing.T, cfg rtap.Config) {
		e := open(t, cfg)
		errs := make(chan error, 1)
		go func() {
			bufs := Buffers(4, 2048)
			for {
				if _, err := e.ReadPackets(bufs); err != nil {
					errs <- err
					return
				}
			}
		}()
		must(t, e.link.Delete(e.index))
		bounded(t, "reading from an interface that is gone", func() { wantIs(t, <-errs, rtap.ErrGone) })
		p := packet(cfg.Mode, 64, 0)
		_, err := e.Write(p)
		wantIs(t, err, rtap.ErrGone)
		n, err := e.WritePackets([][]byte{p, p})
		wantIs(t, err, rtap.ErrGone)
		if n != 0 {
			t.Errorf("%d packets were sent", n)
		}
		_, err = e.Read(p)
		wantIs(t, err, rtap.ErrGone)
		must(t, e.Close())
	})
}

// TestStopped: a device that is stopped is an error, and works again when it is started.
func TestStopped(t *testing.T) {
	e := open(t, rtap.Config{})
	p := packet(rtap.ModeTAP, 64, 7)
	must(t, e.Device().Stop())
	n, err := e.WritePackets([][]byte{p})
	wantIs(t, err, rtap.ErrStopped)
	if n != 0 {
		t.Errorf("%d packets were sent", n)
	}
	_, err = e.Read(make([]byte, 100))
	wantIs(t, err, rtap.ErrStopped)
	must(t, e.Device().Start())
	e.inject(p)
	e.readAll(Buffers(1, 100), p)
	_, err = e.Write(p)
	must(t, err)
	e.captured(p)
}

// TestSleeps: while nothing arrives, a read that waits polls no queue, and what arrives wakes it.
func TestSleeps(t *testing.T) {
	e := open(t, rtap.Config{})
	got := make(chan error, 1)
	go func() { _, err := e.Read(make([]byte, 100)); got <- err }()
	polls := func() uint64 {
		all, err := e.Device().XStats()
		must(t, err)
		i := slices.IndexFunc(all, func(x rtap.XStat) bool { return x.Name == "rx_q0_bursts_0" })
		return all[i].Value
	}
	nettest.Eventually(t, wait, "the first look at the queue", func() bool { return polls() > 0 })
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
		if n := polls(); n > 50 {
			t.Fatalf("%d bursts found nothing", n)
		}
	}
	e.inject(packet(rtap.ModeTAP, 64, 1))
	must(t, <-got)
}

// TestAllocFree: nothing is allocated, for any number of packets.
func TestAllocFree(t *testing.T) {
	for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
		e := open(t, rtap.Config{Mode: mode})
		sent, bufs, b := packets(mode, 64, 32), Buffers(32, 128), make([]byte, 128)
		round := func() {
			for _, p := range sent {
				if e.inj.Inject(p) != nil {
					t.Error("inject failed")
				}
			}
			for got := 0; got < 16; {
				n, err := e.ReadPackets(bufs[:16-got])
				if err != nil {
					t.Error(err)
				}
				got += n
			}
			for range 16 {
				if _, err := e.Read(b); err != nil {
					t.Error(err)
				}
			}
			if n, err := e.WritePackets(sent); n != 32 || err != nil {
				t.Error(n, err)
			}
			if _, err := e.Write(sent[0]); err != nil {
				t.Error(err)
			}
		}
		round()
		if n := nettest.Allocs(50, round); n != 0 {
			t.Errorf("%s: %v allocations a round", mode, n)
		}
	}
}

// TestQueues: each queue pair is a Conn; together they get all, and closing one closes all.
func TestQueues(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	conns, err := OpenQueues(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Mode: rtap.ModeTUN, Queues: 4})
	must(t, err)
	e := newEnd(t, ns, conns[0])
	got, errs := make(chan int), make(chan error, 4)
	for _, c := range conns {
		go func() {
			bufs := Buffers(16, 2048)
			for {
				n, err := c.ReadPackets(bufs)
				if err != nil {
					errs <- err
					return
				}
				got <- n
			}
		}()
	}
	const count = 200
	for i := range count {
		e.inject(packet(rtap.ModeTUN, 64, uint32(i)))
	}
	bounded(t, "reading from four queues", func() {
		for sum := 0; sum < count; sum += <-got {
		}
	})
	for i, c := range conns {
		p := packet(rtap.ModeTUN, 64, uint32(i))
		_, err := c.Write(p)
		must(t, err)
		e.captured(p)
	}
	must(t, conns[2].Close())
	bounded(t, "closing", func() {
		for range conns {
			wantIs(t, <-errs, os.ErrClosed)
		}
	})
}

// TestLease: other processes can look, but take no queue away.
func TestLease(t *testing.T) {
	prefix := rtap.AttachConfig{FilePrefix: "packetio", RuntimeDir: t.TempDir()}
	e := open(t, rtap.Config{FilePrefix: prefix.FilePrefix, RuntimeDir: prefix.RuntimeDir})
	other, err := rtap.AttachWith(prefix)
	must(t, err)
	defer func() { must(t, other.Close()) }()
	_, err = other.Stats()
	must(t, err)
	wantIs(t, other.Lease(0), rtap.ErrLeaseDenied)
	p := packet(rtap.ModeTAP, 64, 1)
	e.inject(p)
	e.readAll(Buffers(1, 64), p)
}

// TestConfig: what cannot work is refused, by name, and leaves nothing behind.
func TestConfig(t *testing.T) {
	nettest.NeedTun(t)
	pool, err := mbuf.NewPool(mbuf.Config{Count: 8})
	must(t, err)
	defer pool.Close()
	for field, cfg := range map[string]rtap.Config{
		"Config.Memory":        {Memory: pool},
		"Config.RxOffloads":    {RxOffloads: rtap.RxOffloadTCPLRO},
		"Config.TxOffloads":    {TxOffloads: rtap.TxOffloadTCPTSO},
		"Config.MaxLROPktSize": {MaxLROPktSize: 9000},
		"Config.Queues":        {Queues: 2},
		"Config.MTU":           {MTU: 1},
		"Config.RxRing":        {RxRing: -1},
	} {
		_, err := Open(cfg)
		var ce *rtap.ConfigError
		if !errors.As(err, &ce) || ce.Field != field {
			t.Errorf("%s: error is %v", field, err)
		}
	}
}

// TestKernel: the kernel answers pings that the program writes: IPv4 and IPv6, over a TUN.
func TestKernel(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	must(t, traffic.SetSysctl(ns, "ipv6/conf/default/accept_dad", "0"))
	c, err := Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Mode: rtap.ModeTUN})
	must(t, err)
	e := newEnd(t, ns, c)
	for _, a := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		must(t, e.link.AddAddr(e.index, netip.MustParsePrefix(a)))
	}
	answers := make(chan []byte, 1000)
	go func() {
		defer close(answers)
		for b := make([]byte, 1500); ; {
			n, err := e.Read(b)
			if err != nil {
				return
			}
			answers <- bytes.Clone(b[:n])
		}
	}()
	for _, p := range [][]byte{echo4(), echo6()} {
		nettest.Eventually(t, wait, "the kernel's answer", func() bool { // an address may take a moment
			_, err := e.Write(p)
			must(t, err)
			for len(answers) > 0 { // the kernel has things to say of its own
				a := <-answers
				if len(a) == len(p) && a[0] == p[0] && bytes.Equal(a[len(a)-8:], p[len(p)-8:]) {
					return true
				}
			}
			return false
		})
	}
	must(t, e.Close())
	for range answers {
	}
}

// echo4 and echo6 are pings from a neighbour of the kernel's.
func echo4() []byte {
	p := slices.Concat([]byte{0x45, 0, 0, 36, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1},
		[]byte{8, 0, 0, 0, 0, 1, 0, 1}, []byte("to and fro"[:8]))
	binary.BigEndian.PutUint16(p[10:], header.IPv4Checksum(p[:20]))
	binary.BigEndian.PutUint16(p[22:], ^header.Sum(p[20:]))
	return p
}

func echo6() []byte {
	from, to := netip.MustParseAddr("2001:db8::2").As16(), netip.MustParseAddr("2001:db8::1").As16()
	p := slices.Concat([]byte{0x60, 0, 0, 0, 0, 16, 58, 64}, from[:], to[:],
		[]byte{128, 0, 0, 0, 0, 1, 0, 1}, []byte("to and fro"[:8]))
	binary.BigEndian.PutUint16(p[42:], ^header.Add(header.PseudoSum(p, 58, 16), header.Sum(p[40:])))
	return p
}
