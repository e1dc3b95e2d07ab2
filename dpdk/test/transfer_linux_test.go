// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// address is that of a port's interface.
func address(n int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}) }

// addresses gives each port's interface one.
func (p *testpmd) addresses() {
	p.t.Helper()
	for n, i := range p.ports {
		must(p.t, i.conn.AddAddr(i.index, netip.PrefixFrom(address(n), 24)))
	}
}

// tcp sends a stream from the first port's namespace to the second's, and one back; what arrives is compared.
func (p *testpmd) tcp(bytes int64) {
	p.t.Helper()
	for _, d := range [][2]int{{0, 1}, {1, 0}} {
		_, err := traffic.TCP(within(p.t, time.Minute), traffic.TCPConfig{Client: p.ports[d[0]].ns, Server: p.ports[d[1]].ns,
			Addr: netip.AddrPortFrom(address(d[1]), 0), Bytes: bytes})
		must(p.t, err)
	}
}

// faultless looks at what both ports count: nothing lost, nothing refused, and each has sent what the other received.
func (p *testpmd) faultless() {
	p.t.Helper()
	a, b := p.stats(0), p.stats(1)
	zero := map[string]uint64{"RX-errors": 0, "TX-errors": 0, "RX-nombuf": 0}
	want(p.t, "port 0", a, zero)
	want(p.t, "port 1", b, zero)
	want(p.t, "sent by port 1", b, map[string]uint64{"TX-packets": a["RX-packets"], "TX-bytes": a["RX-bytes"]})
	want(p.t, "sent by port 0", a, map[string]uint64{"TX-packets": b["RX-packets"], "TX-bytes": b["RX-bytes"]})
}

// segments is how many packets of 1500 bytes a stream would be.
func segments(bytes int64) uint64 { return uint64(bytes / 1448) }

// TestTCP sends streams through testpmd as it is, and with Ethernet addresses rewritten, with one queue and with four.
func TestTCP(t *testing.T) {
	for _, mode := range []string{"io", "mac"} {
		for _, queues := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/queues=%d", mode, queues), func(t *testing.T) {
				p := startTestpmd(t, pmdConfig{ports: 2, args: []string{fmt.Sprintf("--rxq=%d", queues), fmt.Sprintf("--txq=%d", queues)}})
				for n, i := range p.ports {
					p.do(fmt.Sprintf("set eth-peer %d %s", n, i.link().MAC))
				}
				p.addresses()
				p.all("set fwd "+mode, "start")
				const bytes = 32 << 20
				p.tcp(bytes)
				p.do("stop")
				for n := range p.ports {
					if got := p.stats(n)["RX-packets"]; got < segments(bytes) {
						t.Errorf("port %d has received %d packets", n, got)
					}
				}
				p.faultless()
				if f := p.fwd(); f["RX-packets"] != f["TX-packets"] || f["RX-packets"] != p.stats(0)["RX-packets"]+p.stats(1)["RX-packets"] {
					t.Errorf("testpmd forwarded %v", f)
				}
				p.quit()
			})
		}
	}
}

// TestOffloads sends streams through testpmd's csum engine, which has the sender's kernel leave cutting and checksums
// to the receiving port, and that to the sending one: the packets are large, and fewer than segments.
func TestOffloads(t *testing.T) {
	for _, size := range []string{"2176", "9000"} {
		t.Run("mbuf-size="+size, func(t *testing.T) { offloads(t, size) })
	}
}

func offloads(t *testing.T, mbufSize string) {
	p := startTestpmd(t, pmdConfig{ports: 2, args: []string{"--enable-lro", "--max-lro-pkt-size=65536", "--enable-scatter",
		"--mbuf-size=" + mbufSize, "--tx-offloads=0x802f"}}) // VLAN, IPv4, UDP, TCP, TSO; chains
	p.addresses()
	p.do("port stop all")
	for n, i := range p.ports {
		p.all(fmt.Sprintf("set eth-peer %d %s", n, i.link().MAC), // it writes addresses, as mac does
			fmt.Sprintf("csum set ip hw %d", n), fmt.Sprintf("csum set udp hw %d", n), fmt.Sprintf("csum set tcp hw %d", n),
			fmt.Sprintf("port config %d rx_offload tcp_cksum on", n), fmt.Sprintf("tso set 1448 %d", n))
	}
	p.all("port start all", "set fwd csum", "start")
	const bytes = 64 << 20
	p.tcp(bytes)
	r, err := traffic.UDP(within(t, time.Minute), traffic.UDPConfig{Client: p.ports[0].ns, Server: p.ports[1].ns,
		Addr: netip.AddrPortFrom(address(1), 0), Count: 2000})
	must(t, err)
	if r.Received != r.Sent || r.Corrupt != 0 {
		t.Errorf("UDP: %+v", r)
	}
	p.do("stop")
	p.faultless()
	for n := range 2 {
		x := p.xstats(n)
		if x["rx_q0_lro_packets"] == 0 || x["tx_q0_tso_packets"] == 0 || x["tx_q0_checksum_offload"] == 0 {
			t.Errorf("port %d: no large packets: %v", n, x)
		}
	}
	if got := p.stats(0)["RX-packets"]; got > segments(bytes)*9/10 {
		t.Errorf("%d bytes were %d packets: not large ones", bytes, got)
	}
	for n, i := range p.ports {
		c, err := traffic.ReadCounters(i.ns)
		must(t, err)
		if c.TCPInCsumErrors != 0 || c.UDPInCsumErrors != 0 || c.IPInHdrErrors != 0 || c.IPInTruncatedPkts != 0 {
			t.Errorf("interface %d has received what is wrong: %+v", n, c)
		}
	}
	p.quit()
}

// TestTwoLcores has two threads poll, one for each direction, while all that Go may run on besides is one CPU that one
// of them has as well.
func TestTwoLcores(t *testing.T) {
	eal := alone()
	eal[0], eal[1] = "--lcores", "0@0,1@0,2@1"
	p := startTestpmd(t, pmdConfig{ports: 2, eal: eal, args: []string{"--nb-cores=2"}})
	p.addresses()
	p.do("set fwd io")
	if s := p.do("start"); !strings.Contains(s, "Logical Core 1") || !strings.Contains(s, "Logical Core 2") {
		t.Errorf("testpmd does not forward with two threads: %s", s)
	}
	p.tcp(16 << 20)
	p.do("stop")
	p.faultless()
	p.quit()
}

// TestMempools has testpmd take its mbufs from memory of other kinds: anonymous, and outside the pool (pinned external
// buffers). Streams go through.
func TestMempools(t *testing.T) {
	for _, kind := range []string{"anon", "xbuf"} {
		t.Run(kind, func(t *testing.T) {
			p := startTestpmd(t, pmdConfig{ports: 2, args: []string{"--mp-alloc=" + kind}})
			p.addresses()
			p.all("set fwd io", "start")
			p.tcp(8 << 20)
			p.do("stop")
			p.faultless()
			p.quit()
		})
	}
}

// TestEcho has testpmd answer pings: a port and the kernel behind it, nothing else.
func TestEcho(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	p.addresses()
	p.all("set fwd icmpecho", "start")
	r, err := traffic.Ping(within(t, time.Minute), traffic.PingConfig{NS: p.ports[0].ns, Dst: address(98), Count: 200, SizeBytes: 1400, Timeout: 5 * time.Second})
	must(t, err)
	if r.Lost() != 0 {
		t.Errorf("%d of %d pings were lost", r.Lost(), r.Sent)
	}
	p.do("stop")
	if s := p.stats(0); s["RX-packets"] < 200 || s["TX-packets"] < 200 {
		t.Errorf("%v", s)
	}
	p.quit()
}

// TestStopWhileTrafficFlows stops and starts ports while a stream is under way. The stream waits, and arrives whole.
func TestStopWhileTrafficFlows(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 2})
	p.addresses()
	p.all("set fwd io", "start")
	done := make(chan error, 1)
	ctx := within(t, time.Minute)
	go func() {
		_, err := traffic.TCP(ctx, traffic.TCPConfig{Client: p.ports[0].ns, Server: p.ports[1].ns, Addr: netip.AddrPortFrom(address(1), 0),
			Bytes: 200 << 20})
		done <- err
	}()
	for range 4 {
		before := p.stats(0)["RX-packets"]
		nettest.Eventually(t, patience, "traffic", func() bool { return p.stats(0)["RX-packets"] > before })
		p.stop()
		p.all("port start all", "start")
	}
	must(t, <-done)
	p.quit()
}
