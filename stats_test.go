// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// TestStats: exact, per queue and in sum, from 0 again after a reset, and kept over
// Stop and Start, fewer queues and more.
func TestStats(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 4})
		want := make([]QueueStats, 4)
		p.traffic(want)
		p.checkStats(want)
		must(t, p.ResetStats())
		clear(want)
		p.checkStats(want)
		p.traffic(want)
		must(t, p.Stop())
		p.checkStats(want)
		must(t, p.Device.Start())
		p.traffic(want)
		must(t, p.Stop())
		must(t, p.Configure(PortConfig{RxQueues: 2, TxQueues: 2}))
		p.checkStats(want)
		must(t, p.Device.Start())
		p.traffic(want)
		p.checkStats(want)
		must(t, p.Stop())
		p.setUp(3, RxConfig{})
		p.traffic(want)
		p.checkStats(want)
		must(t, p.ResetStats())
		clear(want)
		p.checkStats(want)
	})
}

// traffic moves a few packets, more on higher queues, and adds them to want.
func (p *port) traffic(want []QueueStats) {
	p.t.Helper()
	for i := range p.queues() {
		for n := range i + 2 {
			f := p.flow(i, 100+10*n+i)
			p.send(i, f, f)
			p.inject(f)
			if got := p.receive(1)[0].queue; got != i && p.queues() > 1 {
				p.t.Fatalf("a packet for queue %d came on queue %d", i, got)
			}
			want[i].add(QueueStats{IPackets: 1, IBytes: uint64(len(f)), OPackets: 2, OBytes: 2 * uint64(len(f))})
		}
	}
}

func (p *port) checkStats(want []QueueStats) {
	p.t.Helper()
	var sum Stats
	for i, w := range want {
		got, err := p.QueueStats(i)
		must(p.t, err)
		if got != w {
			p.t.Fatalf("queue %d:\n got %+v\nwant %+v", i, got, w)
		}
		sum.add(w)
	}
	p.wantStats(sum)
}

// TestIMissed: what the kernel drops while the port is started, because the
// queue is full, to the last packet, whatever happens in between: reset, Stop and
// Start, drops while stopped, nobody looking for a long time.
func TestIMissed(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		const room = 64
		p := startPort(t, Config{Engine: e, TxQueueLen: room})
		drops := func() uint64 { return p.kernel().Stats.TxDropped }
		count := nettest.Scale(20000) + room
		missed, total := uint64(0), uint64(0)
		for round := range 4 {
			before := drops()
			r, err := p.injector().Flood(context.Background(), traffic.FloodConfig{Frames: [][]byte{frame(60, round)}, Count: count})
			must(t, err)
			if r.Sent != room || drops()-before != uint64(count-room) {
				t.Fatalf("the kernel took %+v of %d packets and dropped %d", r, count, drops()-before)
			}
			missed += drops() - before
			total += drops() - before
			if round == 1 {
				must(t, p.ResetStats())
				missed = 0
			}
			if s := p.stats(); s.IMissed != missed {
				t.Fatalf("round %d: imissed is %d, the kernel dropped %d", round, s.IMissed, missed)
			}
			p.receive(room)

			must(t, p.Stop())
			must(t, p.SetLinkUp())
			for range 10 { // nobody's queue: they are dropped, but were not missed
				p.injector().Inject(frame(60, 0))
			}
			if s := p.stats(); s.IMissed != missed {
				t.Fatalf("round %d, stopped: imissed is %d, want %d", round, s.IMissed, missed)
			}
			must(t, p.Device.Start())
		}
		if d := drops(); d != total+4*10 {
			t.Errorf("the kernel dropped %d, %d of them while started: the test does not test", d, total)
		}
		if s := p.stats(); s.IMissed != missed || s.IPackets != 3*room {
			t.Errorf("at last: %+v, want imissed %d", s, missed)
		}
	})
}

// TestIMissedUnderFlood: with bursts, floods, stops, starts and resets all going
// on, each packet that the kernel took was received or missed, or waited when the
// port was stopped.
func TestIMissedUnderFlood(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, TxQueueLen: 32, Queues: 2})
		before := p.kernel().Stats.TxDropped
		stopBursts := p.hammer()
		stop := p.flood(flow(0, 100), flow(1, 100), flow(2, 60), flow(3, 60))
		nettest.Eventually(t, wait, "drops and receptions", func() bool {
			s := p.stats()
			return s.IMissed > 100 && s.IPackets > 100
		})
		for range 20 { // read in between
			p.stats()
		}
		taken := uint64(stop())
		nettest.Eventually(t, wait, "all packets to be accounted for", func() bool {
			s := p.stats()
			return s.IPackets+s.IMissed == taken
		})
		_, got := stopBursts()
		s := p.stats()
		if dropped := p.kernel().Stats.TxDropped - before; s.IMissed != dropped || s.IPackets != got || s.IErrors != 0 {
			t.Errorf("the kernel dropped %d, %d were received: %+v", dropped, got, s)
		}
	})
}
