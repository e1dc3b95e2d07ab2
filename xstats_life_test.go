// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
)

// TestXStatsByID: by index, by name and all at once give the same; what is not there is
// refused by what it is called.
func TestXStatsByID(t *testing.T) {
	p := startPort(t, Config{Queues: 2})
	p.exchange()
	all := p.xstats()
	names, err := p.XStatNames()
	must(t, err)
	ids, seen := make([]int, len(all)), map[string]bool{}
	for i, x := range all {
		id, err := p.XStatID(x.Name)
		if err != nil || id != i || names[i] != x.Name || seen[x.Name] {
			t.Fatalf("%q is number %d: by name %d (%v), in the names %q", x.Name, i, id, err, names[i])
		}
		seen[x.Name] = true
		ids[i] = len(all) - 1 - i
	}
	values, err := p.XStatsByID(ids)
	must(t, err)
	for i, v := range values {
		if v != all[ids[i]].Value {
			t.Errorf("%s is %d by id, %d", all[ids[i]].Name, v, all[ids[i]].Value)
		}
	}
	if v, err := p.XStatsByID(nil); len(v) != 0 || err != nil {
		t.Errorf("of no ids: %v, %v", v, err)
	}
	for _, id := range []int{-1, len(all), 1 << 30} {
		_, err := p.XStatsByID([]int{0, id})
		wantIs(t, err, ErrNoXStat)
		if !strings.Contains(err.Error(), p.Name()) || !strings.Contains(err.Error(), "want 0 to") {
			t.Errorf("the error says %v", err)
		}
	}
	for _, name := range []string{"", "rx_q2_packets", "rx_q0_Packets"} {
		if id, err := p.XStatID(name); id != -1 || !errors.Is(err, ErrNoXStat) || !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%q: %d, %v", name, id, err)
		}
	}
}

// TestXStatsStates: a port without queues has its own statistics; one that is stopped keeps
// all, one whose interface was deleted the last ones; a closed one has none.
func TestXStatsStates(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Engine: e, TxQueueLen: 4})
		if all := p.xstats(); len(all) != len(portXStats) {
			t.Errorf("before Configure there are %+v", all)
		}
		p.setUp(2, RxConfig{})
		p.exchange()
		for range 10 {
			p.injector().Inject(frame(60, 0))
		}
		before := p.xstats()
		if p.xstat("rx_missed_errors") == 0 {
			t.Error("no packet was missed: the test does not test")
		}
		must(t, p.Stop())
		if got := p.xstats(); !slices.Equal(got, before) {
			t.Errorf("stopped, they are\n%+v, were\n%+v", got, before)
		}
		must(t, p.Device.Start())
		must(t, p.conn.Delete(p.index))
		if got := p.xstats(); !slices.Equal(got, before) {
			t.Errorf("of a deleted interface, they are\n%+v, were\n%+v", got, before)
		}
		must(t, p.Close())
		_, all := p.XStats()
		_, names := p.XStatNames()
		_, values := p.XStatsByID([]int{0})
		_, id := p.XStatID("rx_good_packets")
		for _, err := range []error{all, names, values, id} {
			wantIs(t, err, ErrClosed)
		}
	})
}

// TestXStatsReconfigure: a queue's counters outlive the queue: gone with the second queue
// from the list, but not from the port's totals, they are there again when it is.
func TestXStatsReconfigure(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		pool := newPool(t, mbuf.Config{Name: "xstats", Count: 1024})
		p := openPort(t, Config{Engine: e})
		l := newLedger(t)
		move := func() {
			t.Helper()
			for i := range p.queues() {
				l.send(p, i, []*mbuf.Mbuf{p.mbufOf(flow(i, 100+100*i)), p.mbufOf(flow(i, 60))})
				p.inject(flow(i, 200))
				for tries := 0; l.receive(p, i, 8) == 0; tries++ {
					if tries > 1000 {
						t.Fatalf("nothing came on queue %d", i)
					}
				}
			}
		}
		p.setUp(2, RxConfig{Memory: pool})
		move()
		l.check(p.xstats())

		must(t, p.Stop())
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		must(t, p.Device.Start())
		move()
		second := map[string]uint64{}
		for name, n := range l.want {
			if strings.Contains(name, "_q1_") {
				second[name] = n
				delete(l.want, name)
			}
		}
		l.check(p.xstats())
		if p.xstat("rx_good_packets") != p.xstat("rx_q0_packets")+1 {
			t.Error("the totals lack the second queue's packets")
		}

		must(t, p.Stop())
		must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
		if n := p.xstat("rx_q1_window"); n != 0 {
			t.Errorf("the window of a queue that is not set up is %d", n)
		}
		p.setUp(2, RxConfig{Memory: pool})
		if n := p.xstat("rx_q1_window"); n != 1 {
			t.Errorf("the window of a new queue is %d", n)
		}
		for name, n := range second {
			l.want[name] = n
		}
		l.check(p.xstats())
		move()
		l.check(p.xstats())
	})
}

// TestXStatsNoMbufs: each mbuf that a burst wanted and did not get, and the burst that
// found nothing for that.
func TestXStatsNoMbufs(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		pool := newPool(t, mbuf.Config{Name: "few", Count: 8})
		p := startPort(t, Config{Engine: e, Memory: pool})
		l := newLedger(t)
		ours := make([]*mbuf.Mbuf, 8)
		if n := pool.AllocBulk(ours); n != 8 {
			t.Fatalf("the driver holds %d mbufs before the first burst", 8-n)
		}
		for range 3 {
			if n := p.RxQueue(0).Burst(make([]*mbuf.Mbuf, 4)); n != 0 {
				t.Fatalf("received %d packets", n)
			}
			l.burst("rx", 0, 0)
			l.add("rx", 0, "mbuf_alloc_failed", 1) // the window is 1
		}
		l.check(p.xstats())
		mbuf.FreeBulk(ours)
		l.receive(p, 0, 4)
		l.check(p.xstats())
	})
}

// TestXStatsConcurrent: whoever reads while bursts run, and others reset, finds the packets
// of a queue in as many sizes, kinds of address and states of the checksum; in the end none is missing.
func TestXStatsConcurrent(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 2})
		var frames [][]byte
		for i := range 30 {
			f := flow(i, 60+40*i)
			if i%4 < 2 { // flows 0 and 1 among them, which hammer directs to the queues
				copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
			} else {
				f[0] = byte(i % 4)
			}
			frames = append(frames, f)
		}
		stopBursts := p.hammer()
		stopFlood := p.flood(frames...)
		var ws workers
		defer ws.stop()
		ws.loop(func() { wantSums(t, p) })
		for range nettest.Scale(200) {
			wantSums(t, p)
		}
		nettest.Eventually(t, wait, "broadcasts on both queues", func() bool {
			return p.xstat("rx_q0_broadcast_packets") > 100 && p.xstat("rx_q1_broadcast_packets") > 100
		})
		before := p.xstats()
		for i, x := range p.xstats() {
			if x.Value < before[i].Value && !strings.HasSuffix(x.Name, "_window") {
				t.Errorf("%s went from %d to %d", x.Name, before[i].Value, x.Value)
			}
		}
		total := uint64(stopFlood())
		nettest.Eventually(t, wait, "all packets to be accounted for", func() bool {
			s := p.stats()
			return s.IPackets+s.IMissed == total
		})
		sent, got := stopBursts()
		if s := p.stats(); s.IPackets != got || s.OPackets != sent {
			t.Errorf("sent %d, received %d: %+v", sent, got, s)
		}

		stopBursts = p.hammer()
		p.flood(frames...)
		ws.loop(func() {
			if err := p.ResetStats(); err != nil {
				t.Error(err)
			}
		})
		for range nettest.Scale(200) {
			wantSums(t, p)
		}
		ws.stop()
		stopBursts()
		wantSums(t, p)
	})
}

// wantSums fails the test unless what is counted of packets adds up.
func wantSums(t *testing.T, p *port) {
	t.Helper()
	all, err := p.XStats()
	if err != nil {
		t.Error(err)
		return
	}
	sums := map[string]uint64{}
	for _, x := range all {
		queue, name, _ := strings.Cut(x.Name, "_q")
		i, name, ok := strings.Cut(name, "_")
		queue += i + " "
		switch {
		case !ok:
			sums["total "+x.Name] = x.Value
		case name == "packets":
			sums["total "+queue[:2]+"_good_packets"] -= x.Value
			for _, by := range []string{"size", "cast", "checksum"} {
				sums[queue+by] -= x.Value
			}
			if queue[0] == 't' {
				delete(sums, queue+"checksum")
			}
		case strings.HasPrefix(name, "size_"):
			sums[queue+"size"] += x.Value
		case strings.HasSuffix(name, "cast_packets"):
			sums[queue+"cast"] += x.Value
		case strings.HasPrefix(name, "checksum_") && queue[0] == 'r':
			sums[queue+"checksum"] += x.Value
		}
	}
	for name, n := range sums {
		counted := strings.HasPrefix(name, "total ") && !strings.HasSuffix(name, "good_packets")
		if n != 0 && !counted {
			t.Errorf("%s: %d too many", name, int64(n))
		}
	}
}

// TestXStatsMoment: counters are read and reset between bursts, never within one: where all packets
// go to the broadcast address, there is never one that does not.
func TestXStatsMoment(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "moment", Count: 8})
	bufs := make([]*mbuf.Mbuf, 8)
	pool.AllocBulk(bufs)
	defer mbuf.FreeBulk(bufs)
	for _, m := range bufs {
		m.CopyIn(frame(60, 0), pool)
		copy(m.Bytes(), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	c := newCounters(&pairCounters{})
	var ws workers
	p := pending{group: ethernet.group}
	var bursts atomic.Int64
	defer ws.stop()
	ws.loop(func() {
		bursts.Add(1)
		p.received(bufs)
		p.add(cntBytes, 8*60)
		c.rx.burst(&p, 8)
		for range 1000 { // the system call
			c.rx.window.Load()
		}
	})
	last := uint64(0)
	for round := 0; bursts.Load() < int64(nettest.Scale(5000)); round++ {
		now := c.load()
		if n := now.rx.packets(); now.rx.unicast() != 0 || now.rx[cntBytes] != 60*n || n%8 != 0 || n < last {
			t.Fatalf("%d packets after %d, %d bytes, %d broadcast, %d others", n, last, now.rx[cntBytes], now.rx[cntBroadcast], int64(now.rx.unicast()))
		}
		last = now.rx.packets()
		if round%5 == 0 {
			c.reset()
			last = 0
		}
	}
}

// TestXStatsWhileConfigured: whoever reads while queues come and go gets those of some of them, whole.
func TestXStatsWhileConfigured(t *testing.T) {
	p := openPort(t, Config{})
	var ws workers
	defer ws.stop()
	ws.loop(func() {
		all, err := p.XStats()
		if n := len(all) - len(portXStats); err != nil || n != 0 && n != len(rxBasicXStats)+len(txBasicXStats)+len(rxXStats)+len(txXStats) &&
			n != 2*(len(rxBasicXStats)+len(txBasicXStats)+len(rxXStats)+len(txXStats)) {
			t.Errorf("%d statistics, %v", len(all), err)
		}
	})
	for round := range nettest.Scale(50) {
		p.setUp(1+round%2, RxConfig{})
		must(t, p.Stop())
	}
}

// TestCountsAllocateNothing: neither counting, whatever is said of packets, nor publishing.
func TestCountsAllocateNothing(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "count", Count: 64})
	bufs, lengths := make([]*mbuf.Mbuf, 32), make([]uint32, 32)
	pool.AllocBulk(bufs)
	defer mbuf.FreeBulk(bufs)
	for i, m := range bufs {
		m.CopyIn(frame(64, 0), pool)
		mixed(m, i)
		lengths[i] = m.PktLen
	}
	bufs[3].Trim(60) // an address that is not all there
	var p pending
	var c tally
	wantNoAllocs(t, "counting", 100, func() {
		p.received(bufs)
		p.sent(bufs, lengths)
		p.io = pktio.Counts{Enters: 1, Syscalls: 1, Empty: 1, Full: 1}
		c.burst(&p, len(bufs))
	})
}
