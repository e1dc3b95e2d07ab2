// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// wait bounds whatever a test waits for.
const wait = 10 * time.Second

// eachEngine runs f with every engine that may work here. Where an
// administrator forbids io_uring, its run is skipped; anything else that keeps
// it from working is a failure.
func eachEngine(t *testing.T, f func(t *testing.T, e Engine)) {
	t.Helper()
	for _, e := range []Engine{EngineUring, EngineSyscall} {
		t.Run(string(e), func(t *testing.T) {
			if e == EngineUring {
				nettest.NeedUring(t)
			}
			f(t, e)
		})
	}
}

// eachEngineIfFast is eachEngine, for tests of many cases that do not depend on the engine. On a slow machine they run
// with one: with io_uring, where that is not forbidden.
func eachEngineIfFast(t *testing.T, f func(t *testing.T, e Engine)) {
	t.Helper()
	switch {
	case nettest.Scale(2) == 2:
		eachEngine(t, f)
	case nettest.UringForbidden():
		t.Run(string(EngineSyscall), func(t *testing.T) { f(t, EngineSyscall) })
	default:
		t.Run(string(EngineUring), func(t *testing.T) { f(t, EngineUring) })
	}
}

// newNS is a namespace in which the kernel sends nothing of its own accord.
func newNS(t testing.TB) *netns.NS {
	t.Helper()
	return nettest.QuietNS(t)
}

// nsPath is what Config.NetNS takes for ns.
func nsPath(ns *netns.NS) string { return fmt.Sprintf("/proc/self/fd/%d", ns.FD()) }

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

// newPool is a pool that is closed at the end of the test, which fails if mbufs
// of it are still in use then. Make it before the ports that use it.
func newPool(t testing.TB, cfg mbuf.Config) *mbuf.Pool {
	t.Helper()
	pool, err := mbuf.NewPool(cfg)
	must(t, err)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Errorf("mbufs were lost: %v", err)
		}
	})
	return pool
}

// port is a Device and the kernel's side of it.
type port struct {
	*Device
	t     testing.TB
	ns    *netns.NS
	conn  *rtnl.Conn // to ns
	index int
	pool  *mbuf.Pool // for frames to send

	inj *traffic.Injector
	cap *traffic.Capturer
}

// sendPool has the frames that tests send.
var sendPool = mbuf.Config{Name: "send", Count: 1024}

// startPort starts a port in a namespace of its own; see openPort.
func startPort(t testing.TB, cfg Config) *port {
	t.Helper()
	return startPortIn(t, newNS(t), cfg)
}

// startPortIn is startPort in ns.
func startPortIn(t testing.TB, ns *netns.NS, cfg Config) *port {
	t.Helper()
	pool := newPool(t, sendPool)
	cfg.NetNS = nsPath(ns)
	d, err := Start(cfg)
	must(t, err)
	return newPort(t, ns, d, pool)
}

// openPort opens a port in a namespace of its own. At the end of the test it is
// closed, which must succeed, and must leave no mbuf in use.
func openPort(t testing.TB, cfg Config) *port {
	t.Helper()
	return openPortIn(t, newNS(t), cfg)
}

// openPortIn is openPort in ns.
func openPortIn(t testing.TB, ns *netns.NS, cfg Config) *port {
	t.Helper()
	pool := newPool(t, sendPool)
	cfg.NetNS = nsPath(ns)
	d, err := Open(cfg)
	must(t, err)
	return newPort(t, ns, d, pool)
}

func newPort(t testing.TB, ns *netns.NS, d *Device, pool *mbuf.Pool) *port {
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return &port{Device: d, t: t, ns: ns, conn: nettest.Conn(t, ns), index: d.Info().IfIndex, pool: pool}
}

// setUp configures n queue pairs, sets each up with rx and the defaults for Tx,
// and starts the port.
func (p *port) setUp(n int, rx RxConfig) {
	p.t.Helper()
	must(p.t, p.Configure(PortConfig{RxQueues: n, TxQueues: n}))
	for i := range n {
		must(p.t, p.SetupRxQueue(i, rx))
		must(p.t, p.SetupTxQueue(i, TxConfig{}))
	}
	must(p.t, p.Device.Start())
}

// kernel is what the kernel says of the interface.
func (p *port) kernel() rtnl.Link {
	p.t.Helper()
	l, err := p.conn.Link(p.index)
	must(p.t, err)
	return l
}

// deafen has the port hear no more of what others do to its interface, so that what it does before it hears
// can be looked at.
func (p *port) deafen() { p.events.stop() }

// queues is how many queue pairs the port has.
func (p *port) queues() int { return p.Info().RxQueues }

// injector sends frames out of the interface, towards the port.
func (p *port) injector() *traffic.Injector {
	p.t.Helper()
	if p.inj == nil {
		inj, err := traffic.NewInjector(p.ns, p.index)
		must(p.t, err)
		p.inj = inj
		p.t.Cleanup(func() { inj.Close() })
	}
	return p.inj
}

// inject sends frames to the port.
func (p *port) inject(frames ...[]byte) {
	p.t.Helper()
	for _, f := range frames {
		must(p.t, p.injector().Inject(f))
	}
}

// capturer sees what the port sends, from its first use on.
func (p *port) capturer() *traffic.Capturer {
	p.t.Helper()
	if p.cap == nil {
		c, err := traffic.NewCapturer(p.ns, p.index)
		must(p.t, err)
		p.cap = c
		p.t.Cleanup(func() { c.Close() })
	}
	return p.cap
}

// captured returns the next n frames that the port sent.
func (p *port) captured(n int) [][]byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
	defer cancel()
	var frames [][]byte
	for len(frames) < n {
		f, err := p.capturer().Next(ctx, nil)
		if err != nil {
			p.t.Fatalf("captured %d frames of %d: %v", len(frames), n, err)
		}
		frames = append(frames, f)
	}
	return frames
}

// mbufOf is a frame in an mbuf of the port's own pool, or in a chain of them.
func (p *port) mbufOf(frame []byte) *mbuf.Mbuf {
	p.t.Helper()
	m := p.pool.Alloc()
	if m == nil {
		p.t.Fatal("the pool for sending is exhausted")
	}
	must(p.t, m.CopyIn(frame, p.pool))
	return m
}

// send sends frames on a queue, all in one burst, which must take them.
func (p *port) send(queue int, frames ...[]byte) {
	p.t.Helper()
	bufs := make([]*mbuf.Mbuf, len(frames))
	for i, f := range frames {
		bufs[i] = p.mbufOf(f)
	}
	if n := p.TxQueue(queue).Burst(bufs); n != len(bufs) {
		mbuf.FreeBulk(bufs[n:])
		p.t.Fatalf("queue %d sent %d packets of %d", queue, n, len(bufs))
	}
}

// received is a packet that a port received.
type received struct {
	queue int
	frame []byte
}

// receive polls all queues until n packets have come.
func (p *port) receive(n int) []received {
	p.t.Helper()
	var got []received
	nettest.Eventually(p.t, wait, fmt.Sprintf("%d packets to be received", n), func() bool {
		got = append(got, p.poll()...)
		return len(got) >= n
	})
	if len(got) > n {
		p.t.Fatalf("received %d packets, want %d", len(got), n)
	}
	return got
}

// poll takes everything that waits in any queue.
func (p *port) poll() (got []received) {
	for i := range p.queues() {
		got = append(got, p.drain(i)...)
	}
	return got
}

// drain takes everything that waits in queue i.
func (p *port) drain(i int) (got []received) {
	bufs := make([]*mbuf.Mbuf, 64)
	q := p.RxQueue(i)
	for n := q.Burst(bufs); n > 0; n = q.Burst(bufs) {
		for _, m := range bufs[:n] {
			if err := m.Check(); err != nil {
				p.t.Errorf("received a bad mbuf: %v", err)
			}
			got = append(got, received{i, m.AppendTo(nil)})
		}
		mbuf.FreeBulk(bufs[:n])
	}
	return got
}

// exchange sends a frame each way over every queue pair, and fails the test
// unless each arrives, whole and, towards the port, on its queue: the kernel
// directs a flow to the queue that last sent on it.
func (p *port) exchange() {
	p.t.Helper()
	p.capturer()
	for i := range p.queues() {
		f := p.flow(i, 64+i)
		p.send(i, f)
		if got := p.captured(1)[0]; !bytes.Equal(got, f) {
			p.t.Fatalf("queue %d sent % x, captured % x", i, f, got)
		}
		p.inject(f)
		got := p.receive(1)[0]
		if got.queue != i && p.queues() > 1 {
			p.t.Fatalf("a packet for queue %d came on queue %d", i, got.queue)
		}
		if !bytes.Equal(got.frame, f) {
			p.t.Fatalf("queue %d received % x, injected % x", i, got.frame, f)
		}
	}
}

// frame is an Ethernet frame of the local experimental type (IEEE 802) that the
// kernel delivers to packet sockets alone, with content that depends on seq.
func frame(size, seq int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seq*13)
	}
	copy(b, []byte{0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5})
	return b
}

// flow is frame(size, n) as an IPv4 UDP packet, size at least 42, of flow n.
func flow(n, size int) []byte {
	b := frame(size, n)
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	ip := b[14:]
	clear(ip[:20])
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(size-14))
	copy(ip[12:], []byte{192, 0, 2, 1, 198, 51, 100, 1})
	binary.BigEndian.PutUint16(ip[10:], checksum(ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp[0:], uint16(10000+n))
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(size-34))
	binary.BigEndian.PutUint16(udp[6:], 0)
	return b
}

// flow is flow as the port's packets are: on a TUN without the Ethernet header.
func (p *port) flow(n, size int) []byte {
	l2 := p.layer2().header
	return flow(n, size-l2+14)[14-l2:]
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// bufs is room for n mbufs, which begins with some.
func (p *port) bufs(n int, some ...*mbuf.Mbuf) []*mbuf.Mbuf {
	return append(some, make([]*mbuf.Mbuf, n-len(some))...)
}

func (p *port) stats() Stats {
	p.t.Helper()
	s, err := p.Stats()
	must(p.t, err)
	return s
}

// hammer sends and receives in bursts on every queue, a goroutine each, until
// the function that it returns is called, which says how many packets the Tx
// queues took and the Rx queues gave.
func (p *port) hammer() (stop func() (sent, got uint64)) {
	p.t.Helper()
	var done atomic.Bool
	var sent, got atomic.Uint64
	var wg sync.WaitGroup
	for i := range p.queues() {
		rx, tx := p.RxQueue(i), p.TxQueue(i)
		f := p.flow(i, 64)
		wg.Go(func() {
			bufs := p.bufs(32)
			for !done.Load() {
				if n := p.pool.AllocBulk(bufs[:8]); n > 0 {
					for _, m := range bufs[:n] {
						copy(m.Append(len(f)), f)
					}
					k := tx.Burst(bufs[:n])
					sent.Add(uint64(k))
					mbuf.FreeBulk(bufs[k:n])
				}
				n := rx.Burst(bufs)
				got.Add(uint64(n))
				mbuf.FreeBulk(bufs[:n])
				runtime.Gosched()
			}
		})
	}
	stop = sync.OnceValues(func() (uint64, uint64) {
		done.Store(true)
		wg.Wait()
		return sent.Load(), got.Load()
	})
	p.t.Cleanup(func() { stop() })
	return stop
}

// flood sends frames to the port, one after the other, until the function that it
// returns is called, which says how many the interface took or dropped. While the
// interface is down or gone, it tries again.
func (p *port) flood(frames ...[]byte) (stop func() int) {
	p.t.Helper()
	inj, err := traffic.NewInjector(p.ns, p.index)
	must(p.t, err)
	return p.floodBy(inj, frames...)
}

// floodToTheEnd is flood for an interface that is deleted meanwhile; what it counts is of no use.
func (p *port) floodToTheEnd(frames ...[]byte) (stop func() int) {
	p.t.Helper()
	inj, err := traffic.NewQueuedInjector(p.ns, p.index)
	must(p.t, err)
	return p.floodBy(inj, frames...)
}

func (p *port) floodBy(inj *traffic.Injector, frames ...[]byte) (stop func() int) {
	var done atomic.Bool
	total := make(chan int, 1)
	go func() {
		n := 0
		for i := 0; !done.Load(); i++ {
			switch err := inj.Inject(frames[i%len(frames)]); {
			case err == nil, errors.Is(err, syscall.ENOBUFS):
				n++
			default:
				time.Sleep(100 * time.Microsecond)
			}
		}
		inj.Close()
		total <- n
	}()
	stop = sync.OnceValue(func() int {
		done.Store(true)
		return <-total
	})
	p.t.Cleanup(func() { stop() })
	return stop
}

// poolOf is n mbufs of that data room.
func poolOf(dataRoom, n int) mbuf.Config { return mbuf.Config{DataRoom: dataRoom, Count: n} }
