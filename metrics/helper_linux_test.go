// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/telemetry"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is ports in a namespace of their own, with a forwarder between them.
type rig struct {
	t    testing.TB
	ns   *netns.NS
	pool *mbuf.Pool

	mu    sync.Mutex
	ports []telemetry.Port // shown
}

func newRig(t testing.TB, ports, queues int) *rig {
	t.Helper()
	r := &rig{t: t, ns: nettest.QuietNS(t)} // chromium ends requests when an address comes, as IPv6's does after a second
	var err error
	r.pool, err = mbuf.NewPool(mbuf.Config{Name: "rtap", Count: 4096 * ports})
	must(t, err)
	t.Cleanup(func() { must(t, r.pool.Close()) })
	for i := range ports {
		r.open(i, queues)
	}
	return r
}

// open opens, starts and shows a port.
func (r *rig) open(i, queues int) *rtap.Device {
	r.t.Helper()
	dev, err := rtap.Open(rtap.Config{Name: fmt.Sprintf("foo%d", i), NetNS: fmt.Sprintf("/proc/self/fd/%d", r.ns.FD())})
	must(r.t, err)
	r.t.Cleanup(func() { must(r.t, dev.Close()) })
	must(r.t, dev.Configure(rtap.PortConfig{RxQueues: queues, TxQueues: queues}))
	for q := range queues {
		must(r.t, dev.SetupRxQueue(q, rtap.RxConfig{Memory: r.pool}))
		must(r.t, dev.SetupTxQueue(q, rtap.TxConfig{}))
	}
	must(r.t, dev.Start())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ports = append(r.ports, telemetry.Port{ID: i, Name: fmt.Sprintf("net_rtap%d", i), Device: dev})
	return dev
}

// view is the rig's Source.
func (r *rig) view() View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return View{Ports: append([]telemetry.Port(nil), r.ports...), Pools: []*mbuf.Pool{r.pool}}
}

// hide takes a port out of the view.
func (r *rig) hide(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ports = append(r.ports[:i:i], r.ports[i+1:]...)
}

// forward passes on what the ports receive, and sends into each of them from the kernel's side, some hundred packets
// of several sizes every few milliseconds, until the test ends.
func (r *rig) forward() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	r.t.Cleanup(func() { cancel(); wg.Wait() })
	var ends []*forward.Port
	for _, p := range r.view().Ports {
		n := p.Device.Info().RxQueues
		rx, tx := make([]*rtap.RxQueue, n), make([]*rtap.TxQueue, n)
		for q := range n {
			rx[q], tx[q] = p.Device.RxQueue(q), p.Device.TxQueue(q)
		}
		ends = append(ends, forward.NewPort([6]byte{2}, rx, tx))
		wg.Go(func() { r.inject(ctx, p) })
	}
	f, err := forward.New(forward.Config{}, ends...)
	must(r.t, err)
	wg.Go(func() {
		if err := f.Run(ctx); err != nil && ctx.Err() == nil {
			r.t.Error(err)
		}
	})
}

func (r *rig) inject(ctx context.Context, p telemetry.Port) {
	in, err := traffic.NewInjector(r.ns, p.Device.Info().IfIndex)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer in.Close()
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	n := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range 40 + 30*p.ID + n%97 {
			n++
			err := in.Inject(flowFrame(n))
			if err != nil && !errors.Is(err, syscall.ENOBUFS) { // deleted, moved
				return
			}
		}
	}
}

// flowFrame is the n-th frame: of a few dozen UDP flows, so that all queues get some, and of several sizes.
func flowFrame(n int) []byte {
	size := []int{60, 60, 60, 120, 300, 590, 1200, 1514, 1514}[n%9]
	b := make([]byte, size)
	copy(b, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0})
	ipLen := size - 14
	b[16], b[17], b[22], b[23] = byte(ipLen>>8), byte(ipLen), 64, 17
	copy(b[26:], []byte{10, 0, 0, byte(n % 61), 10, 0, 1, 1})
	b[34], b[35], b[36], b[37] = 0x40, byte(n%61), 0, 9
	b[38], b[39] = byte((ipLen-20)>>8), byte(ipLen-20)
	return b
}
