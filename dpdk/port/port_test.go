// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package port

import (
	"fmt"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// frame is a frame that the kernel does not answer.
func frame(n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5})
	return f
}

// receive polls until n packets are there, which it frees.
func (b *bench) receive(id, queue uint16, n int) {
	b.t.Helper()
	bufs := make([]*mbuf.Mbuf, 32)
	nettest.Eventually(b.t, wait, fmt.Sprintf("%d packets", n), func() bool {
		got := b.rx(id, queue, bufs)
		mbuf.FreeBulk(bufs[:got])
		n -= got
		return n <= 0
	})
}

// send sends n frames of 60 bytes, and returns how many were taken.
func (b *bench) send(id, queue uint16, n int) int {
	b.t.Helper()
	bufs := make([]*mbuf.Mbuf, n)
	if got := b.host.pool(b.pool).AllocBulk(bufs); got != n {
		b.t.Fatalf("%d mbufs of %d", got, n)
	}
	for _, m := range bufs {
		copy(m.Append(60), frame(60))
	}
	taken := b.tx(id, queue, bufs)
	mbuf.FreeBulk(bufs[taken:])
	return taken
}

// TestLife: a port goes through what testpmd does with it, and packets flow both ways.
func TestLife(t *testing.T) {
	b := newBench(t)
	s := b.run(0, 1)
	if s.Queues != 1 || s.LinkUp != 1 || s.Scattered != 0 || s.IntrFD[0] != -1 {
		t.Errorf("started: %+v", *s)
	}
	inj := b.injector(0)
	for range 5 {
		must(t, inj.Inject(frame(60)))
	}
	b.receive(0, 0, 5)
	if n := b.send(0, 0, 10); n != 10 {
		t.Errorf("%d packets of 10 were sent", n)
	}
	var stats Stats
	do(b, OpStats, 0, &stats)
	if stats.IPackets != 5 || stats.OPackets != 10 || stats.OBytes != 600 || stats.Q[0].OPackets != 10 {
		t.Errorf("stats: %+v", stats)
	}
	b.plain(OpStop, 0)
	if n := b.send(0, 0, 1); n != 0 {
		t.Error("a stopped port sends")
	}
	b.start(0)
	must(t, inj.Inject(frame(60)))
	b.receive(0, 0, 1)
	b.plain(OpStop, 0)
	b.plain(OpClose, 0)
}
