// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/packetio"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var shared = netip.MustParseAddr("203.0.113.9")

// TestNAT: a host inside reaches one outside by ping, TCP and UDP. The one outside has no way to its address, and knows the
// shared one only.
func TestNAT(t *testing.T) {
	nettest.NeedTun(t)
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(30*time.Second))
	defer cancel()
	var conns [2]*packetio.Conn
	var spaces [2]*netns.NS
	for i, prefix := range []string{"10.1.0.2/24", "203.0.113.1/24"} {
		ns := nettest.QuietNS(t)
		c, err := packetio.Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Mode: rtap.ModeTUN})
		must(t, err)
		t.Cleanup(func() { must(t, c.Close()) })
		must(t, nettest.Conn(t, ns).AddAddr(c.Device().Info().IfIndex, netip.MustParsePrefix(prefix)))
		conns[i], spaces[i] = c, ns
	}
	must(t, traffic.SetRoute(spaces[0], netip.MustParsePrefix("203.0.113.0/24"), netip.Addr{}, conns[0].Device().Info().IfIndex, 0))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, conns[0], conns[1], shared.As4()) }()

	server := netip.MustParseAddrPort("203.0.113.1:0")
	ping, err := traffic.Ping(ctx, traffic.PingConfig{NS: spaces[0], Dst: server.Addr(), Count: 3,
		Timeout: nettest.Bound(5 * time.Second)})
	must(t, err)
	if ping.Lost() != 0 {
		t.Errorf("%d pings of 3 were lost", ping.Lost())
	}
	_, err = traffic.TCP(ctx, traffic.TCPConfig{Server: spaces[1], Client: spaces[0], Addr: server, Bytes: 4 << 20, Hash: true})
	must(t, err)
	udp, err := traffic.UDP(ctx, traffic.UDPConfig{Server: spaces[1], Client: spaces[0], Addr: server})
	must(t, err)
	if udp.Lost() != 0 {
		t.Errorf("%d datagrams were lost", udp.Lost())
	}
	for i, ns := range spaces {
		c, err := traffic.ReadCounters(ns)
		must(t, err)
		if c.TCPInCsumErrors+c.UDPInCsumErrors+c.ICMPInCsumErrors+c.IPInHdrErrors+c.TCPInErrs != 0 {
			t.Errorf("kernel %d has counted %+v", i, c)
		}
	}
	must(t, nettest.Conn(t, spaces[1]).Delete(conns[1].Device().Info().IfIndex))
	select {
	case err := <-ended:
		if err == nil {
			t.Error("no error when an interface was deleted")
		}
	case <-ctx.Done():
		t.Error("run goes on without an interface")
	}
}

// datagram is a packet of 40 bytes and some, with right checksums.
func datagram(proto byte, from, to netip.AddrPort) []byte {
	p := make([]byte, 47)
	copy(p, []byte{0x45, 0, 0, 47, 1, 2, 0, 0, 64, proto})
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[10:], header.IPv4Checksum(p[:20]))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	sum, base := 36, header.PseudoSum(p, proto, 27)
	switch proto {
	case 17:
		sum = 26
		binary.BigEndian.PutUint16(p[24:], 27)
	case 6:
		p[32] = 0x50
	case 1:
		sum, base = 22, 0
		binary.BigEndian.PutUint16(p[20:], 0x0800)
		binary.BigEndian.PutUint16(p[22:], 0)
		binary.BigEndian.PutUint16(p[24:], from.Port())
	}
	copy(p[40:], "payload")
	binary.BigEndian.PutUint16(p[sum:], ^header.Add(base, header.Sum(p[20:])))
	return p
}

// sound reports whether all checksums are right.
func sound(t testing.TB, p []byte) bool {
	if header.Sum(p[:int(p[0]&15)*4]) != 0xffff {
		return false
	}
	if p[9] == 1 {
		return header.Sum(p[20:]) == 0xffff
	}
	pool, err := mbuf.NewPool(mbuf.Config{Count: 1})
	must(t, err)
	m := pool.Alloc()
	defer func() { m.Free(); must(t, pool.Close()) }()
	must(t, m.CopyIn(p, nil))
	return header.VerifyL4(m, header.ParseIP(p))
}

// TestTable: there and back, each protocol; what is not to pass does not, unchanged.
func TestTable(t *testing.T) {
	inside, outside := netip.MustParseAddrPort("10.1.0.2:7"), netip.MustParseAddrPort("192.0.2.1:99")
	for _, proto := range []byte{1, 6, 17} {
		n := newTable(shared.As4())
		p := datagram(proto, inside, outside)
		if !n.out(p) || !sound(t, p) || p[8] != 63 || [4]byte(p[12:16]) != shared.As4() {
			t.Fatalf("protocol %d: goes out as % x", proto, p)
		}
		back := datagram(proto, outside, netip.AddrPortFrom(shared, firstPort))
		if proto == 1 {
			back = datagram(proto, netip.AddrPortFrom(outside.Addr(), firstPort), netip.AddrPortFrom(shared, 0))
			back[20], back[22] = 0, back[22]+8 // the answer
		}
		if !n.in(back) || !sound(t, back) || [4]byte(back[16:20]) != inside.Addr().As4() {
			t.Fatalf("protocol %d: comes in as % x", proto, back)
		}
		stranger := datagram(proto, outside, netip.AddrPortFrom(shared, firstPort+1))
		before := bytes.Clone(stranger)
		if n.in(stranger) || !bytes.Equal(before, stranger) {
			t.Errorf("protocol %d: somebody nobody asked came in", proto)
		}
	}
	n := newTable(shared.As4())
	for name, spoil := range map[string]func(p []byte){
		"at its last hop": func(p []byte) { p[8] = 1 },
		"a fragment":      func(p []byte) { p[6] = 0x20 },
		"IPv6":            func(p []byte) { p[0] = 0x65 },
		"a short header":  func(p []byte) { p[0] = 0x44 },
		"cut":             func(p []byte) { p[3] = 48 },
		"another layer 4": func(p []byte) { p[9] = 132 },
		"an ICMP error":   func(p []byte) { p[9], p[20] = 1, 3 },
	} {
		p := datagram(17, inside, outside)
		spoil(p)
		if n.out(p) {
			t.Errorf("a packet that is %s went out", name)
		}
	}
	if p := datagram(17, inside, outside); true {
		p[26], p[27] = 0, 0
		if !n.out(p) || p[26]|p[27] != 0 {
			t.Error("a datagram without checksum has one")
		}
	}
}

// TestPorts: a host keeps its port, others get others, and one that was idle is lent again when there is no other.
func TestPorts(t *testing.T) {
	n := newTable(shared.As4())
	now := time.Unix(1000, 0)
	n.now = func() time.Time { return now }
	var taken []uint16
	for i := range ports {
		h := host{17, [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, 7}
		port, ok := n.lend(h)
		if again, _ := n.lend(h); !ok || again != port {
			t.Fatalf("host %d has port %d, then %d", i, port, again)
		}
		taken = append(taken, port)
	}
	slices.Sort(taken)
	if len(slices.Compact(taken)) != ports {
		t.Error("two hosts have the same port")
	}
	late := host{17, [4]byte{10, 9, 9, 9}, 7}
	if port, ok := n.lend(late); ok {
		t.Errorf("port %d was lent twice", port)
	}
	now = now.Add(idle)
	if _, ok := n.lend(late); !ok {
		t.Error("no port though all are idle")
	}
	n = newTable(shared.As4())
	n.now = func() time.Time { return now }
	n.lend(late)
	now = now.Add(idle)
	if !n.in(datagram(17, netip.MustParseAddrPort("192.0.2.1:9"), netip.AddrPortFrom(shared, firstPort))) ||
		n.hosts[public{17, firstPort}].seen != now {
		t.Error("what comes in does not keep a port")
	}
}

// TestBounded: hosts that went leave nothing behind.
func TestBounded(t *testing.T) {
	n := newTable(shared.As4())
	now := time.Unix(1000, 0)
	n.now = func() time.Time { return now }
	for i := range 3 * ports {
		n.lend(host{17, [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, 7})
		if i%ports == 0 {
			now = now.Add(idle)
		}
	}
	if len(n.ports) != ports || len(n.hosts) != ports {
		t.Errorf("%d hosts, %d ports are known, want %d", len(n.ports), len(n.hosts), ports)
	}
}

// FuzzTranslate: whatever comes, nothing panics, and what leaves is as long as it was and comes from, or goes to, whom it should.
func FuzzTranslate(f *testing.F) {
	f.Add(datagram(6, netip.MustParseAddrPort("10.1.0.2:7"), netip.MustParseAddrPort("203.0.113.9:20000")), true)
	f.Add(datagram(1, netip.MustParseAddrPort("10.1.0.2:7"), netip.MustParseAddrPort("203.0.113.9:20000")), false)
	f.Fuzz(func(t *testing.T, p []byte, out bool) {
		n := newTable(shared.As4())
		for _, proto := range []byte{1, 6, 17} {
			n.lend(host{proto, [4]byte{10, 1, 0, 9}, 9})
			n.next = 0
		}
		before := bytes.Clone(p)
		good := len(p) >= 20 && p[0]&15 >= 5 && int(p[0]&15)*4 <= len(p) && header.Sum(p[:int(p[0]&15)*4]) == 0xffff
		ok, at, want := false, 12, shared.As4()
		if out {
			ok = n.out(p)
		} else if ok, at = n.in(p), 16; ok {
			want = [4]byte{10, 1, 0, 9}
		}
		switch {
		case !ok && !bytes.Equal(p, before):
			t.Error("a packet that does not pass was changed")
		case ok && ([4]byte(p[at:at+4]) != want || p[8] != before[8]-1):
			t.Errorf("% x became % x", before, p)
		case ok && good && header.Sum(p[:int(p[0]&15)*4]) != 0xffff:
			t.Errorf("the header's checksum is wrong: % x became % x", before, p)
		}
	})
}
