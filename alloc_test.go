// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"cmp"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
)

// TestBurstsAllocateNothing: received, sent, both in several segments, refused,
// and nothing there.
func TestBurstsAllocateNothing(t *testing.T) {
	const burst = 32
	eachWay(t, func(t *testing.T, w way) {
		for _, c := range []struct {
			name           string
			room, headroom int
			size           int
		}{
			{"one segment", 2048, 128, 60},
			{"no headroom", 2048, -1, 60},
			{"three segments", 500, 128, 1200},
			{"refused", 2048, 128, 13},
		} {
			pool := newPool(t, mbuf.Config{Name: "alloc", Count: 1024, DataRoom: c.room, Headroom: c.headroom})
			p := w.start(t, Config{}, 1, RxConfig{Memory: pool})
			rx, tx := p.RxQueue(0), p.TxQueue(0)
			bufs := make([]*mbuf.Mbuf, burst)
			runs := nettest.Scale(50)
			wantNoAllocs(t, c.name+": empty poll", runs, func() {
				if n := rx.Burst(bufs); n != 0 {
					t.Fatalf("received %d packets of nothing", n)
				}
			})
			wantNoAllocs(t, c.name+": tx", runs, func() {
				fill(t, pool, bufs, c.size)
				if n := tx.Burst(bufs); n != burst {
					t.Fatalf("sent %d packets of %d", n, burst)
				}
			})
			if c.size < 14 {
				continue // cannot be injected
			}
			f := frame(c.size, 0)
			inj := p.injector()
			wantNoAllocs(t, c.name+": rx", runs, func() {
				for range burst {
					if err := inj.Inject(f); err != nil {
						t.Fatal(err)
					}
				}
				n := 0
				for polls := 0; n < burst && polls < 1000*burst; polls++ {
					k := rx.Burst(bufs)
					mbuf.FreeBulk(bufs[:k])
					n += k
				}
				if n != burst {
					t.Fatalf("received %d packets of %d", n, burst)
				}
			})
		}
	})
}

// TestOffloadsAllocateNothing: what is said of packets and what they ask for, the
// refused ones too.
func TestOffloadsAllocateNothing(t *testing.T) {
	const burst = 8
	pool := newPool(t, mbuf.Config{Name: "alloc", Count: 256, DataRoom: 9200})
	bufs := make([]*mbuf.Mbuf, burst)
	cases, layer := rxCases(), map[string]*layer2{}
	for _, c := range cases {
		if c, ok := c.bare(); ok {
			c.name = "TUN " + c.name
			cases, layer[c.name] = append(cases, c), noLayer2
		}
	}
	for _, c := range cases {
		var q *RxQueue
		e := &fakeEngine{read: func(descs []pktio.Desc, done []pktio.Completion) int {
			for i := range descs {
				done[i] = deliver(q, i, &c.hdr, c.frame)
			}
			return len(descs)
		}}
		q = fakeRx(t, e, RxConfig{Memory: pool, Ring: burst}, 9000)
		q.offloads, q.layer2 = c.offloads, cmp.Or(layer[c.name], ethernet)
		wantNoAllocs(t, "rx "+c.name, 20, func() {
			n := q.Burst(bufs)
			mbuf.PassThrough(bufs[:n])
			pool.FreeBulk(bufs[:n])
		})
		must(t, q.close())
	}
	for _, c := range allTxCases() {
		e := &fakeEngine{write: func(descs []pktio.Desc, _ []pktio.Completion) (int, int) { return len(descs), 0 }}
		q := fakeTx(t, e, TxConfig{Ring: burst})
		q.layer2 = c.layer2()
		q.fit(&PortConfig{TxOffloads: everyTx})
		m := c.mbuf(t, pool)
		wantNoAllocs(t, "tx "+c.name, 20, func() {
			m.RefUpdate(1)
			bufs[0] = m
			q.Prepare(bufs[:1])
			q.Burst(bufs[:1])
		})
		m.Free()
	}
}

func wantNoAllocs(t *testing.T, what string, runs int, f func()) {
	t.Helper()
	if n := nettest.Allocs(runs, f); n != 0 {
		t.Errorf("%s: %v allocations for each burst", what, n)
	}
}

// fill makes packets of size bytes in as many segments as that takes.
func fill(t testing.TB, pool *mbuf.Pool, packets []*mbuf.Mbuf, size int) {
	if n := pool.AllocBulk(packets); n != len(packets) {
		t.Fatalf("pool %s gave %d mbufs of %d", pool.Name(), n, len(packets))
	}
	for _, m := range packets {
		for left := size; left > 0; {
			s := m
			if left < size {
				s = pool.Alloc()
			}
			n := min(left, s.Tailroom())
			s.Append(n)
			if s != m {
				if err := mbuf.Chain(m, s); err != nil {
					t.Fatal(err)
				}
			}
			left -= n
		}
	}
}
