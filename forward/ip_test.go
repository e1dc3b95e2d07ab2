// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// newIPRig is newRig for a port without Ethernet.
func newIPRig(t testing.TB, pool *mbuf.Pool, c Config) *rig {
	t.Helper()
	r := &rig{t: t, pool: pool, rx: &fakeRx{}, tx: &fakeTx{limit: -1}}
	r.port = NewIPPort([]*fakeRx{r.rx}, []*fakeTx{r.tx})
	f, err := New(c, r.port)
	if err != nil {
		t.Fatal(err)
	}
	r.s = f.Streams()[0]
	return r
}

// TestIPPort: what each mode makes of packets without an Ethernet header, in one piece and in every cut.
func TestIPPort(t *testing.T) {
	tcp6 := tcp(33, "").ip6(6, 6, "")
	udp4 := udp(32, 9, true).ip4(17, "")
	in4vxlan := vxlan(tcp(30, "").ip4(6, "").ether("0800"), true).ip4(17, "")
	for _, c := range []struct {
		name     string
		mode     string
		in, want []byte
	}{
		{"io", "io", ping4[14:], ping4[14:]},
		{"ping4", "icmpecho", ping4[14:], pong4[14:]},
		{"ping6", "icmpecho", ping6[14:], pong6[14:]},
		{"solicit", "icmpecho", solicit6[14:], nil},
		{"arp", "icmpecho", arpWho, nil},
		{"udp", "icmpecho", udp4.b, nil},
		{"csum tcp6", "csum", tcp6.damaged(), tcp6.b},
		{"csum udp4", "csum", udp4.damaged(), udp4.b},
		{"csum vxlan", "csum", in4vxlan.damaged(), in4vxlan.b},
		{"csum something else", "csum", arpWho, arpWho},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newIPRig(t, newPool(t, mbuf.Config{Count: 512}), Config{Mode: c.mode, Csum: CsumConfig{ParseTunnel: true}})
			wantBytes(t, "one segment", r.pass(c.in), c.want)
			for cut := range len(c.in) {
				wantBytes(t, "two segments", r.pass(c.in, cut), c.want)
			}
			wantBytes(t, "single bytes", r.pass(c.in, ones(len(c.in))...), c.want)
		})
	}
}

// TestIPPortByDriver: the lengths that the driver is given have no layer 2.
func TestIPPortByDriver(t *testing.T) {
	f := tcp(33, "").ip4(6, "")
	r := newIPRig(t, newPool(t, mbuf.Config{}), Config{Mode: "csum", Csum: allHardware})
	m := r.passMbuf(r.received(f.damaged(), 0, 0))
	if want := (mbuf.Lengths{L3: 20, L4: 20}); m.Lengths() != want || m.OlFlags != mbuf.TxIPv4|mbuf.TxIPCksum|mbuf.TxTCPCksum {
		t.Errorf("%+v, flags %#x", m.Lengths(), m.OlFlags)
	}
	wantBytes(t, "sent", transmit(t, m), f.b)
	m.Free()
}

// TestIPPortEmpty: a packet of no bytes is malformed.
func TestIPPortEmpty(t *testing.T) {
	for _, mode := range []string{"icmpecho", "csum"} {
		r := newIPRig(t, newPool(t, mbuf.Config{}), Config{Mode: mode})
		if got := r.pass(nil); got != nil {
			t.Errorf("%s: %x", mode, got)
		}
		wantStats(t, r.s, Stats{RxPackets: 1, Malformed: 1})
	}
}

// TestIPPortTxOnly: the same packet as on an Ethernet port, as long as it is asked for, without the header.
func TestIPPortTxOnly(t *testing.T) {
	for _, segs := range [][]int{{64}, {1, 63}, {20, 8, 36}, ones(64)} {
		p := newPool(t, mbuf.Config{})
		dirty(t, p)
		r := newIPRig(t, p, Config{Mode: "txonly", Burst: 1, TxPkts: segs, Alloc: shared(p)})
		if n := r.s.burst(); n != 1 {
			t.Fatalf("burst returned %d, want 1", n)
		}
		want := unhex("4500 0040 0000 0000 4011 0000 c612 0001 c612 0002 0009 0009 002c 0000")
		put16(want[10:], inetSum(want[:20]))
		wantBytes(t, "packet", r.take(), append(want, make([]byte, 36)...))
	}
}

// TestIPPortMerged: mode mtu merges packets of a stream.
func TestIPPortMerged(t *testing.T) {
	pool := newPool(t, mbuf.Config{})
	r := newIPRig(t, pool, Config{Mode: "mtu", Alloc: shared(pool), Csum: CsumConfig{TCPSeg: true}})
	first := tcp(100, "").ip4(6, "")
	first.b[33] &^= 8 // PSH ends a frame
	reseal(first.b)
	next := edit(first.b, func(b []byte) {
		put16(b[4:], 0x1235) // the next ID
		put16(b[10:], 0)
		put16(b[10:], inetSum(b[:20]))
		b[27] += 100 // the sequence number
		reseal(b)
	})
	r.rx.waiting = []*mbuf.Mbuf{packet(t, pool, first.b), packet(t, pool, next)}
	r.s.burst()
	if len(r.tx.got) != 1 {
		t.Fatalf("%d packets were sent", len(r.tx.got))
	}
	m := r.tx.got[0]
	if want := (mbuf.Lengths{L3: 20, L4: 20, TSOSegSize: 100}); m.Lengths() != want || m.OlFlags&mbuf.TxTCPSeg == 0 || m.PktLen != 240 {
		t.Errorf("%d bytes, %+v, flags %#x", m.PktLen, m.Lengths(), m.OlFlags)
	}
	m.Free()
}

// reseal makes the TCP checksum of a packet with an IPv4 header right.
func reseal(b []byte) {
	n := len(b) - 20
	put16(b[36:], 0)
	put16(b[36:], inetSum(b[12:20], []byte{0, 6, byte(n >> 8), byte(n)}, b[20:]))
}

// TestIPPortRefused: modes that need MAC addresses, and pairs of different kinds, by name.
func TestIPPortRefused(t *testing.T) {
	pool := newPool(t, mbuf.Config{})
	queues := func() ([]*fakeRx, []*fakeTx) { return []*fakeRx{{}}, []*fakeTx{{limit: -1}} }
	ip := func() *Port { rx, tx := queues(); return NewIPPort(rx, tx) }
	ether := func() *Port { rx, tx := queues(); return NewPort(portMAC, rx, tx) }
	for _, c := range []struct {
		mode  string
		ports []*Port
		says  string // empty: it works
	}{
		{"mac", []*Port{ip(), ip()}, "needs MAC addresses"},
		{"macswap", []*Port{ip()}, "needs MAC addresses"},
		{"macswap", []*Port{ether(), ip()}, "needs MAC addresses"},
		{"io", []*Port{ether(), ip()}, "pair ports of the same kind"},
		{"csum", []*Port{ip(), ether()}, "pair ports of the same kind"},
		{"mtu", []*Port{ether(), ip()}, "pair ports of the same kind"},
		{"io", []*Port{ether(), ether(), ip(), ip()}, ""},
		{"rxonly", []*Port{ether(), ip()}, ""},
		{"txonly", []*Port{ether(), ip()}, ""},
		{"icmpecho", []*Port{ether(), ip()}, ""},
	} {
		_, err := New(Config{Mode: c.mode, Alloc: shared(pool)}, c.ports...)
		var ce *ConfigError
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", c.mode, err)
		case c.says != "" && (!errors.As(err, &ce) || ce.Field != "Mode" || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, which should say %q", c.mode, err, c.says)
		}
	}
}
