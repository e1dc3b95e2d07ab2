// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
)

// numberAt is where the tests of order put a packet's number.
const numberAt = 14

// TestRxOrder: packets of a queue come in the order in which the kernel got them,
// none twice and none left out, whatever the bursts.
func TestRxOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		packets := nettest.Scale(50000)
		// Slots of several mbufs for the odd ones out.
		pool := newPool(t, mbuf.Config{Name: "order", Count: 2048, DataRoom: 1000})
		p := w.start(t, Config{TxQueueLen: packets}, 1, RxConfig{Memory: pool, Ring: 100})
		flood := startFlood(p, traffic.FloodConfig{
			Frames: [][]byte{frame(60, 0), frame(1514, 0), frame(61, 0)}, Count: packets, Stamp: numberAt})
		r := rand.New(rand.NewPCG(1, 1))
		bufs := make([]*mbuf.Mbuf, 150)
		next, q := 0, p.RxQueue(0)
		nettest.Eventually(t, wait, "all packets", func() bool {
			for {
				n := q.Burst(bufs[:1+r.IntN(len(bufs))])
				for _, m := range bufs[:n] {
					if got := binary.BigEndian.Uint32(m.Bytes()[numberAt:]); got != uint32(next) {
						t.Fatalf("packet %d came when %d was due", got, next)
					}
					next++
				}
				mbuf.FreeBulk(bufs[:n])
				if n == 0 || next >= packets {
					return next >= packets
				}
			}
		})
		if sent := flood(); sent != packets {
			t.Fatalf("received %d packets, the kernel took %d", next, sent)
		}
	})
}

// startFlood floods the port. The function returned waits for the end and gives
// the number of packets that the kernel took.
func startFlood(p *port, cfg traffic.FloodConfig) func() int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(wait))
	inj, err := traffic.NewInjector(p.ns, p.index)
	must(p.t, err)
	done := make(chan traffic.FloodResult, 1)
	go func() {
		r, err := inj.Flood(ctx, cfg)
		if err != nil {
			p.t.Error(err)
		}
		done <- r
	}()
	p.t.Cleanup(func() { cancel(); inj.Close() })
	return func() int { return (<-done).Sent }
}

// TestTxOrder: packets reach the kernel in the order of the bursts: single ones,
// chains, clones, and some that it refuses.
func TestTxOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		packets := nettest.Scale(20000)
		p := w.open(t, Config{})
		must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
		must(t, p.SetupRxQueue(0, RxConfig{}))
		must(t, p.SetupTxQueue(0, TxConfig{Ring: 32}))
		must(t, p.Device.Start())
		p.capturer()
		r := rand.New(rand.NewPCG(2, 2))
		for at, due := 0, 0; at < packets; {
			bufs := make([]*mbuf.Mbuf, 1+r.IntN(80))
			for i := range bufs {
				bufs[i] = p.numbered(at+i, r)
			}
			if n := p.TxQueue(0).Burst(bufs); n != len(bufs) {
				t.Fatalf("Burst took %d packets of %d", n, len(bufs))
			}
			at += len(bufs)
			for ; due < at; due++ {
				if due%refusedEach == 0 {
					continue
				}
				if got := binary.BigEndian.Uint32(p.captured(1)[0][numberAt:]); got != uint32(due) {
					t.Fatalf("packet %d was sent when %d was due", got, due)
				}
			}
		}
		wantInUse(t, p.pool, 0)
	})
}

// refusedEach: of so many packets, one is refused.
const refusedEach = 13

// numbered is packet n, of one of several kinds.
func (p *port) numbered(n int, r *rand.Rand) *mbuf.Mbuf {
	p.t.Helper()
	f := frame(60+r.IntN(1000), n)
	binary.BigEndian.PutUint32(f[numberAt:], uint32(n))
	switch {
	case n%refusedEach == 0:
		return p.mbufOf(f[:1+r.IntN(13)]) // no whole Ethernet header
	case n%5 == 0:
		cut := 1 + r.IntN(len(f)-1)
		return chain(p.t, p.pool, f, cut, len(f)-cut)
	case n%7 == 0:
		m := p.mbufOf(f)
		defer m.Free()
		return mbuf.Clone(m, p.pool)
	}
	return p.mbufOf(f)
}
