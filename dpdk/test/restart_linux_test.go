// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// TestPrimaryRestarts has the primary stop, reconfigure and start a port that a secondary sends on all the time.
func TestPrimaryRestarts(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1, eal: hugepages(t), limit: 2 * time.Minute,
		args: []string{"--rxq=2", "--txq=2", "--num-procs=2", "--proc-id=0"}})
	s := &testpmd{process: p.secondary("dpdk-testpmd", "-i", "--rxq=2", "--txq=2", "--num-procs=2", "--proc-id=1"), ports: p.ports}
	s.awaitPrompt(0)
	s.all("set fwd txonly", "start")
	k := p.ports[0]
	sends := func(when string) {
		t.Helper()
		before := k.link().Stats.RxPackets
		nettest.Eventually(t, patience, "the secondary to send "+when, func() bool { return k.link().Stats.RxPackets > before+1000 })
	}
	sends("at first")
	p.do("port stop 0")
	before := k.link().Stats.RxPackets
	for range 20 {
		if now := k.link().Stats.RxPackets; now != before {
			t.Fatalf("the secondary sent %d packets by a port that is stopped", now-before)
		}
	}
	p.do("port start 0")
	sends("after a restart")
	p.do("port config mtu 0 9000")
	sends("with another MTU")
	p.all("port stop 0", "port config mtu 0 1400", "port start 0")
	sends("with a third MTU")
	s.do("stop")
	s.write("quit")
	s.wait(0)
	p.do("port stop 0")
	p.quit()
}
