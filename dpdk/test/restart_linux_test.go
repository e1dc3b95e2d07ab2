// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestPrimaryRestarts has the primary stop, reconfigure and start a port that a secondary sends on all the time. It has
// more queues than a message has room for descriptors.
func TestPrimaryRestarts(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1, eal: hugepages(t), limit: 2 * time.Minute,
		args: []string{"--rxq=16", "--txq=16", "--num-procs=2", "--proc-id=0"}})
	fds := p.descriptors()
	s := &testpmd{process: p.secondary("dpdk-testpmd", "-i", "--rxq=16", "--txq=16", "--num-procs=2", "--proc-id=1"), ports: p.ports}
	s.awaitPrompt(0)
	s.all("set fwd txonly", "start")
	k := p.ports[0]
	sends := func(when string) {
		t.Helper()
		before := k.link().Stats.RxPackets
		nettest.Eventually(t, patience, "the secondary to send "+when, func() bool { return k.link().Stats.RxPackets > before+1000 })
	}
	sends("at first")
	p.all("port stop 0", "port start 0")
	sends("after a restart")
	p.do("port config mtu 0 9000")
	sends("with another MTU")
	p.all("port stop 0", "port config mtu 0 1400", "port start 0")
	sends("with a third MTU")
	for what, n := range p.descriptors() {
		if n > fds[what] {
			t.Errorf("the primary has %d of %s, and had %d", n, what, fds[what])
		}
	}

	// The secondary polls on, and holds no mbufs.
	s.all("stop", "set fwd rxonly", "start")
	nettest.Eventually(t, patience, "the secondary to poll", func() bool { return p.xstats(0)["rx_q15_window"] != 0 })
	p.do("port stop 0")
	p.full()
	s.do("stop")
	s.write("quit")
	s.wait(0)
	p.quit()
}
