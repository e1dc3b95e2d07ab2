// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/refs"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// Each reference of gVisor's is watched, from before the first is made.
func TestMain(m *testing.M) {
	refs.SetLeakMode(refs.LeaksPanic)
	nettest.Main(m)
}

// wait bounds whatever a test waits for.
const wait = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nsPath(ns *netns.NS) string { return fmt.Sprintf("/proc/self/fd/%d", ns.FD()) }

// modes are what an endpoint is tried with.
var modes = []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN}

func eachMode(t *testing.T, f func(t *testing.T, mode rtap.Mode)) {
	t.Helper()
	for _, m := range modes {
		t.Run(string(m), func(t *testing.T) { f(t, m) })
	}
}

// pair is a stack and a namespace with an endpoint in between.
type pair struct {
	t  testing.TB
	ns *netns.NS
	ep *Endpoint
	s  *stack.Stack
}

// context is done before the test binary's time is.
func (p *pair) context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(d))
	p.t.Cleanup(cancel)
	return ctx
}

// newPair connects a new stack with a new namespace. At the end of the test everything is taken down, and whatever is left of
// it is an error: mbufs, and references of gVisor's.
func newPair(t testing.TB, cfg Config) *pair {
	t.Helper()
	nettest.NeedTun(t)
	return newPairIn(t, nettest.NS(t), cfg)
}

func newPairIn(t testing.TB, ns *netns.NS, cfg Config) *pair {
	t.Helper()
	p := &pair{t: t, ns: ns}
	if cfg.Device == nil {
		cfg.Port.NetNS = nsPath(ns)
	}
	var err error
	p.ep, err = New(cfg)
	must(t, err)
	p.s, err = rig.NewStack(p.ep, true)
	if err != nil {
		p.ep.Close()
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	must(t, rig.RaiseKernel(ns, p.ep.Device().Name(), true))
	// The kernel's route to an IPv6 address of its own is made by a worker, later (addrconf_dad_work in net/ipv6/addrconf.c).
	nettest.Eventually(t, wait, "an answer by IPv6", func() bool {
		res, err := traffic.Ping(p.context(wait), traffic.PingConfig{NS: ns, Dst: rig.Stack[6], Timeout: 50 * time.Millisecond})
		must(t, err)
		return res.Lost() == 0
	})
	return p
}

func (p *pair) close() {
	p.s.Destroy()
	p.ep.Wait()
	p.ep.mu.Lock()
	closed, left := p.ep.closed, p.ep.left
	p.ep.mu.Unlock()
	if !closed || left != nil {
		p.t.Errorf("after the stack was destroyed: endpoint closed %t, left behind: %v", closed, left)
	}
	noRefs(p.t)
}

// noRefs fails the test if packets or chunks of gVisor's are still referred to. Goroutines of the stack's may be about to
// give some up.
func noRefs(t testing.TB) {
	t.Helper()
	var leak any
	nettest.Eventually(t, wait, "references of gVisor's to be given up", func() bool {
		leak = leaked()
		return leak == nil
	})
}

// leaked is what refs has to complain about.
func leaked() (what any) {
	defer func() { what = recover() }()
	refs.DoRepeatedLeakCheck()
	return nil
}
