// SPDX-License-Identifier: BSD-3-Clause

package traffic_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// ipSum makes the header checksum of an IPv4 frame on the wire right.
func ipSum(f []byte) {
	ip := f[ethHdr:][:20]
	ip[10], ip[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
}

// count is the namespace's counters.
func count(t testing.TB, e *end) traffic.Counters {
	t.Helper()
	c, err := traffic.ReadCounters(e.ns)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// onceFar does change to one segment, far into an IPv4 TCP stream.
func onceFar(change func(f, tcp []byte) [][]byte) meddle {
	var done atomic.Bool
	var seen atomic.Int64
	return func(f []byte) [][]byte {
		proto, tcp := ipv4(f)
		if proto != 6 || len(tcp) < 300 || seen.Add(int64(len(tcp))) < 200000 || !done.CompareAndSwap(false, true) {
			return [][]byte{f}
		}
		return change(f, tcp)
	}
}

func TestTCPHash(t *testing.T) {
	a, b := wire(t, nil)
	cfg := traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Bytes: 1<<20 + 3, Hash: true}
	if r, err := traffic.TCP(within(t), cfg); err != nil || r.Bytes != cfg.Bytes {
		t.Errorf("%+v, %v", r, err)
	}
	a, b = wire(t, onceFar(func(f, tcp []byte) [][]byte {
		at := len(tcp) - 100&^1
		tcp[at], tcp[at+1], tcp[at+2], tcp[at+3] = tcp[at+2], tcp[at+3], tcp[at], tcp[at+1] // the sum stays
		return [][]byte{f}
	}))
	cfg.Server, cfg.Client = b.ns, a.ns
	if _, err := traffic.TCP(within(t), cfg); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("content changed: %v", err)
	}
}

func TestTCPSender(t *testing.T) {
	a, b := wire(t, onceFar(func(_, _ []byte) [][]byte { return nil }))
	var got traffic.TCPInfo
	cfg := traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Bytes: 1 << 20, Sender: &got}
	before := count(t, a)
	if _, err := traffic.TCP(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	if got.Retransmits < 1 || got.BytesRetrans < 200 || got.Delivered < 700 || got.ECN || got.DeliveredCE != 0 ||
		got.MSS != 1448 || got.PathMTU != 1500 {
		t.Errorf("a segment was lost: %+v", got)
	}
	if n := count(t, a).Since(before).TCPRetransSegs; n != uint64(got.Retransmits) {
		t.Errorf("the namespace counts %d retransmissions, the socket %d", n, got.Retransmits)
	}
	cfg.MSS, cfg.Congestion, cfg.Addr = 512, "reno", netip.AddrPortFrom(b.v6, 0)
	if _, err := traffic.TCP(within(t), cfg); err != nil || got.MSS > 512 || got.MSS < 400 {
		t.Errorf("MSS 512: %+v, %v", got, err)
	}
	cfg.MSS, cfg.PacingBytes, cfg.Bytes = 0, 1<<20, 256<<10
	if r, err := traffic.TCP(within(t), cfg); err != nil || r.Elapsed < 100*time.Millisecond {
		t.Errorf("256 KiB at 1 MiB/s: %+v, %v", r, err)
	}
	cfg.Congestion = "telepathy"
	if _, err := traffic.TCP(within(t), cfg); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no such congestion control: %v", err)
	}
}

func TestTCPCongestionMarks(t *testing.T) {
	var n atomic.Int64
	mark := func(f []byte) [][]byte { // every tenth that may be marked
		if proto, tcp := ipv4(f); proto == 6 && len(tcp) > 100 && f[ethHdr+1]&3 == 2 && n.Add(1)%10 == 0 {
			f[ethHdr+1] |= 3
			ipSum(f)
		}
		return [][]byte{f}
	}
	a, b := wire(t, mark)
	for _, e := range []*end{a, b} {
		if err := traffic.SetSysctl(e.ns, "ipv4/tcp_ecn", "1"); err != nil {
			t.Fatal(err)
		}
		if v, err := traffic.Sysctl(e.ns, "ipv4/tcp_ecn"); v != "1" || err != nil {
			t.Fatalf("%q, %v", v, err)
		}
	}
	var got traffic.TCPInfo
	before := count(t, b)
	_, err := traffic.TCP(within(t), traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Bytes: 1 << 20, Sender: &got})
	c := count(t, b).Since(before)
	if err != nil || !got.ECN || got.DeliveredCE == 0 || c.InCEPkts == 0 || c.InECT0Pkts == 0 || c.TCPInErrs+c.IPInHdrErrors != 0 {
		t.Errorf("%+v, %+v, %v", got, c, err)
	}
	if _, err := traffic.Sysctl(a.ns, "ipv4/no_such"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no such setting: %v", err)
	}
}

// What the wire spoils the receiver sees, and counts by protocol and version.
func TestCountersOfWrongChecksums(t *testing.T) {
	spoil := func(f []byte) [][]byte {
		if n := len(f); n > ethHdr+200 {
			f[n-1] ^= 1
		}
		return [][]byte{f}
	}
	a, b := wire(t, spoil)
	for _, dst := range []netip.Addr{b.v4, b.v6} {
		before := count(t, b)
		r, err := traffic.UDP(within(t), traffic.UDPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(dst, 0), Count: 3,
			Window: -1, Linger: nettest.Bound(50 * time.Millisecond)})
		c := count(t, b).Since(before)
		if err != nil || r.Received != 0 || c.UDPInCsumErrors != 3 || c.UDPInErrors != 3 {
			t.Errorf("udp %v: %+v, %+v, %v", dst, r, c, err)
		}
		before = count(t, b)
		if _, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: dst, SizeBytes: 300, Timeout: 50 * time.Millisecond}); err != nil {
			t.Error(err)
		}
		if c := count(t, b).Since(before); c.ICMPInCsumErrors != 1 {
			t.Errorf("icmp %v: %+v", dst, c)
		}
	}
	a, b = wire(t, onceFar(func(f, tcp []byte) [][]byte { tcp[len(tcp)-1] ^= 1; return [][]byte{f} }))
	before := count(t, b)
	if _, err := traffic.TCP(within(t), traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0)}); err != nil {
		t.Error(err)
	}
	if c := count(t, b).Since(before); c.TCPInCsumErrors != 1 || c.TCPInErrs != 1 {
		t.Errorf("tcp: %+v", c)
	}
}

func TestUDPSegments(t *testing.T) {
	a, b := wire(t, nil)
	for _, dst := range []netip.Addr{b.v4, b.v6} {
		acquaint(t, a, dst)
	}
	for _, c := range []struct{ size, segments, tail, count int }{
		{1000, 10, 0, 100}, {1000, 10, 8, 95}, {1452, 45, 1451, 90}, {100, 64, 0, 65}, {8, 3, 8, 10},
	} {
		for _, gro := range []bool{false, true} {
			for _, dst := range []netip.Addr{b.v4, b.v6, loopback4, loopback6} {
				cfg := traffic.UDPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(dst, 0), Count: c.count, SizeBytes: c.size,
					Segments: c.segments, Tail: c.tail, GRO: gro, Linger: nettest.Bound(5 * time.Second)}
				local := dst.IsLoopback()
				if local {
					cfg.Client = b.ns
				}
				name := fmt.Sprintf("%v %+v gro=%t", dst, c, gro)
				r, err := traffic.UDP(within(t), cfg)
				if !local && cutsNoUDP(err) {
					continue
				}
				if err != nil || r.Received != c.count || r.Sent != c.count || r.Corrupt+r.Duplicates+r.Reordered != 0 {
					t.Errorf("%s: %+v, %v", name, r, err)
				}
				sends, tail := (c.count+c.segments-1)/c.segments, c.tail
				if tail == 0 {
					tail = c.size
				}
				if want := int64((c.count-sends)*c.size + sends*tail); r.Bytes != want {
					t.Errorf("%s: %d bytes arrived, want %d", name, r.Bytes, want)
				}
				if want := gro && local; (r.Merged > 0) != want {
					t.Errorf("%s: %d calls received several datagrams at once", name, r.Merged)
				}
			}
		}
	}
}

// cutsNoUDP is true of what Linux 6.1 says to UDP_SEGMENT on an interface without
// checksum offload (udp_send_skb in net/ipv4/udp.c).
func cutsNoUDP(err error) bool { return nettest.IsLinux61() && errors.Is(err, syscall.EIO) }

// A datagram that is cut elsewhere than it was sent is corrupt.
func TestUDPSegmentsFindsOtherBoundaries(t *testing.T) {
	a, b := wire(t, func(f []byte) [][]byte {
		if proto, udp := ipv4(f); proto == 17 && len(udp) > 100 && binary.BigEndian.Uint64(udp[8:]) == 7 {
			f = f[:len(f)-1]
			n := len(f) - ethHdr
			binary.BigEndian.PutUint16(f[ethHdr+2:], uint16(n))
			binary.BigEndian.PutUint16(f[ethHdr+24:], uint16(n-20))
			f[ethHdr+26], f[ethHdr+27] = 0, 0
			ipSum(f)
		}
		return [][]byte{f}
	})
	acquaint(t, a, b.v4)
	r, err := traffic.UDP(within(t), traffic.UDPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Count: 20, Segments: 5,
		Linger: nettest.Bound(200 * time.Millisecond)})
	if cutsNoUDP(err) {
		nettest.NeedSince(t, 6, 2, "UDP_SEGMENT on interfaces without checksum offload")
	}
	if err != nil || r.Corrupt != 1 || r.Received != 19 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, cfg := range []traffic.UDPConfig{{Segments: 65}, {Segments: -1}, {Segments: 10, SizeBytes: 6551}, {Tail: 7}, {Tail: 1025}} {
		cfg.Server, cfg.Client, cfg.Addr = b.ns, a.ns, netip.AddrPortFrom(b.v4, 0)
		if _, err := traffic.UDP(within(t), cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}
