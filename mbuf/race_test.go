// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

// memories are the kinds of pools: a real one, and one in Go memory, where the
// race detector looks on; on Linux also those of another process.
var memories = map[string]func(testing.TB, Config) *Pool{"memfd": newPool, "heap": newHeapPool}

func eachMemory(t *testing.T, cfg Config, test func(t *testing.T, p *Pool)) {
	for name, make := range memories {
		t.Run(name, func(t *testing.T) { test(t, make(t, cfg)) })
	}
}

// Goroutines allocate, own, hand over and free, some through caches. While
// one owns an mbuf nobody else may: its mark must still be there.
func TestConcurrentAllocFree(t *testing.T) {
	eachMemory(t, Config{Count: 300, DataRoom: 8, PrivSize: 8}, func(t *testing.T, p *Pool) {
		const workers = 8
		handover := make(chan *Mbuf, 64)
		var wg sync.WaitGroup
		for id := range uint64(workers) {
			wg.Go(func() {
				var a Allocator = p
				if id%2 == 0 {
					c := p.NewCache(int(id)*4 + 1)
					defer c.Close()
					a = c
				}
				churn(t, a, id+1, handover)
			})
		}
		counted := make(chan struct{})
		go func() {
			defer close(counted)
			for range nettest.Scale(1000) {
				if n := p.AvailCount(); n < 0 || n > p.Count() {
					t.Errorf("%d available", n)
				}
			}
		}()
		wg.Wait()
		<-counted
		close(handover)
		for m := range handover {
			m.Free()
		}
		checkFree(t, p)
	})
}

func churn(t *testing.T, a Allocator, id uint64, handover chan *Mbuf) {
	rng := rand.New(rand.NewPCG(id, 0))
	bufs := make([]*Mbuf, 40)
	for round := range nettest.Scale(4000) {
		n := a.AllocBulk(bufs[:1+rng.IntN(40)])
		mark := id<<32 | uint64(round)
		for _, m := range bufs[:n] {
			binary.LittleEndian.PutUint64(m.Priv(), mark)
			m.TxOffload, m.Port = mark, uint16(id)
		}
		if n > 1 {
			select {
			case handover <- bufs[0]:
				bufs[0] = <-handover // perhaps another's
				bufs[0].Port = 1
				bufs[0].TxOffload = binary.LittleEndian.Uint64(bufs[0].Priv())
			default:
			}
		}
		for i, m := range bufs[:n] {
			got := binary.LittleEndian.Uint64(m.Priv())
			if got != m.TxOffload || i > 0 && got != mark {
				t.Errorf("worker %d round %d: mbuf has mark %x and %x", id, round, got, m.TxOffload)
				return
			}
		}
		if rng.IntN(2) == 0 && n > 3 {
			if Chain(bufs[1], bufs[2]) == nil {
				bufs[2] = nil
			}
		}
		a.FreeBulk(bufs[:n])
	}
}

// Clones of one packet are read and freed by several goroutines at once, the
// original among them, in no order.
func TestConcurrentCloneFree(t *testing.T) {
	eachMemory(t, Config{Count: 64, DataRoom: 16}, func(t *testing.T, p *Pool) {
		data := pattern(40, 1)
		var work [4]chan *Mbuf
		var wg sync.WaitGroup
		done := make(chan struct{}, 64)
		for i := range work {
			work[i] = make(chan *Mbuf, 16)
			wg.Go(func() {
				c := p.NewCache(2)
				defer c.Close()
				for m := range work[i] {
					// The detector knows no words of which one half is plain
					// and the other atomic: DataOff and RefCnt of an original.
					if heap := p.FD() < 0; !heap || !m.IsDirect() {
						if got := m.AppendTo(nil); string(got) != string(data) {
							t.Errorf("packet holds %x", got)
						}
					}
					if i%2 == 0 {
						m.Free()
					} else {
						c.FreeBulk([]*Mbuf{m})
					}
					done <- struct{}{}
				}
			})
		}
		for round := range nettest.Scale(3000) {
			m := packet(t, p, data)
			all := []*Mbuf{m}
			for range 1 + round%7 {
				if c := Clone(all[len(all)-1], p); c != nil {
					all = append(all, c)
				}
			}
			rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for i, m := range all {
				work[(i+round)%len(work)] <- m
			}
			for range all {
				<-done
			}
		}
		for _, c := range work {
			close(c)
		}
		wg.Wait()
	})
}

// References are counted right while the owner moves DataOff, which shares
// their word.
func TestRefCountBesideDataOff(t *testing.T) {
	p := newPool(t, Config{Count: 1, Headroom: 1000})
	m := p.Alloc()
	m.Append(100)
	each := nettest.Scale(100000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range each {
				m.RefUpdate(1)
				m.RefUpdate(-1)
			}
		})
	}
	for range 4 * each {
		m.Prepend(7)
		m.Adj(7)
	}
	wg.Wait()
	if m.RefCount() != 1 || m.DataOff != 1000 {
		t.Errorf("references %d, DataOff %d", m.RefCount(), m.DataOff)
	}
	m.Free()
}
