// SPDX-License-Identifier: BSD-3-Clause

package traffic_test

import (
	"bytes"
	"context"
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
	"github.com/rtap-project/rtap/internal/tuntap"
)

var loopback4, loopback6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()

const ethHdr = tuntap.VnetHdrSize + 14

// ipv4 returns the IP protocol of a frame on the wire and what follows the header, if it is IPv4.
func ipv4(f []byte) (proto byte, payload []byte) {
	if len(f) < ethHdr+20 || f[ethHdr-2] != 8 || f[ethHdr-1] != 0 {
		return 0, nil
	}
	ip := f[ethHdr:]
	return ip[9], ip[int(ip[0]&15)*4:]
}

func TestPing(t *testing.T) {
	a, b := wire(t, nil)
	for _, dst := range []netip.Addr{b.v4, b.v6, a.v4, loopback4, loopback6} {
		for _, size := range []int{-1, 0, 1000, 4001} {
			r, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: dst, Count: 5, SizeBytes: size, Spin: size == 1000, Timeout: nettest.Bound(10 * time.Second)})
			if err != nil || r.Sent != 5 || r.Lost() != 0 || len(r.RTTs) != 5 || r.Unreachable != nil {
				t.Errorf("%v with %d bytes: %+v, %v", dst, size, r, err)
			}
			if q := r.Quantile(0); q <= 0 || r.Quantile(0.5) < q || r.Quantile(1) < r.Quantile(0.5) {
				t.Errorf("%v: quantiles of %v", dst, r.RTTs)
			}
		}
	}
}

func TestPingLinkLocal(t *testing.T) {
	a, b := wire(t, nil)
	l, err := b.conn.Link(b.index)
	if err != nil {
		t.Fatal(err)
	}
	ll := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: l.MAC[0] ^ 2, 9: l.MAC[1], 10: l.MAC[2], 11: 0xff, 12: 0xfe, 13: l.MAC[3], 14: l.MAC[4], 15: l.MAC[5]})
	for _, zone := range []string{"wire", fmt.Sprint(a.index)} {
		// The address is tentative at first, so the first request may well go unanswered.
		nettest.Eventually(t, 20*time.Second, "a reply from "+ll.String(), func() bool {
			r, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: ll.WithZone(zone)})
			return err == nil && len(r.RTTs) == 1
		})
	}
	if _, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: ll.WithZone("nothere")}); err == nil {
		t.Error("pinged through an interface that does not exist")
	}
}

func TestPingCountsLostAndSpoiltReplies(t *testing.T) {
	nettest.NeedFast(t)
	var n atomic.Int32
	a, b := wire(t, func(f []byte) [][]byte {
		proto, icmp := ipv4(f)
		if proto != 1 || icmp[0] != 0 {
			return [][]byte{f}
		}
		switch n.Add(1) {
		case 1:
			return nil
		case 2: // another number, and the checksum to match
			icmp[7] ^= 0x80
			icmp[3] ^= 0x80
		case 3:
			return [][]byte{f, f}
		}
		return [][]byte{f}
	})
	start := time.Now()
	r, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: b.v4, Count: 5, Timeout: nettest.Bound(300 * time.Millisecond), Interval: 10 * time.Millisecond})
	if err != nil || r.Sent != 5 || r.Lost() != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if d := time.Since(start); d < 2*300*time.Millisecond {
		t.Errorf("two timeouts took %v", d)
	}
}

func TestPingNowhere(t *testing.T) {
	a, _ := wire(t, nil)
	r, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: netip.MustParseAddr("192.0.2.77"), Timeout: 100 * time.Millisecond})
	if err != nil || r.Lost() != 1 {
		t.Errorf("nobody there: %+v, %v", r, err)
	}
	if _, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: netip.MustParseAddr("198.51.100.1")}); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("no route: %v", err)
	}
	if _, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns}); err == nil {
		t.Error("no address, no error")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = traffic.Ping(ctx, traffic.PingConfig{NS: a.ns, Dst: netip.MustParseAddr("192.0.2.77"), Timeout: time.Hour})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("context: %v", err)
	}
}

func TestTCP(t *testing.T) {
	a, b := wire(t, nil)
	for _, dst := range []netip.Addr{b.v4, b.v6} {
		want := int64(nettest.Scale(8<<20) + 12345)
		r, err := traffic.TCP(within(t), traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(dst, 0), Bytes: want})
		if err != nil || r.Bytes != want || r.Elapsed <= 0 || r.BitsPerSecond() <= 0 {
			t.Errorf("%v: %+v, %v", dst, r, err)
		}
	}
	r, err := traffic.TCP(within(t), traffic.TCPConfig{Server: a.ns, Client: a.ns, Addr: netip.AddrPortFrom(a.v4, 4242), Duration: nettest.Bound(50 * time.Millisecond)})
	if err != nil || r.Bytes == 0 || r.Elapsed < 50*time.Millisecond {
		t.Errorf("by duration: %+v, %v", r, err)
	}
}

// The wire changes a byte far into the stream, and the checksum so that TCP does not notice.
func TestTCPFindsChangedContent(t *testing.T) {
	var done atomic.Bool
	var seen atomic.Int64
	a, b := wire(t, func(f []byte) [][]byte {
		proto, tcp := ipv4(f)
		if proto != 6 || len(tcp) < 300 || seen.Add(int64(len(tcp))) < 200000 || !done.CompareAndSwap(false, true) {
			return [][]byte{f}
		}
		// Two 16-bit words exchanged leave the sum as it is.
		at := len(tcp) - 100&^1
		tcp[at], tcp[at+1], tcp[at+2], tcp[at+3] = tcp[at+2], tcp[at+3], tcp[at], tcp[at+1]
		return [][]byte{f}
	})
	cfg := traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Bytes: 1 << 20}
	_, err := traffic.TCP(within(t), cfg)
	if err == nil || !strings.Contains(err.Error(), "content differs at byte ") {
		t.Errorf("%v", err)
	}
	done.Store(false)
	cfg.NoVerify = true
	if _, err := traffic.TCP(within(t), cfg); err != nil {
		t.Errorf("not verified: %v", err)
	}
}

func TestTCPEnds(t *testing.T) {
	a, b := wire(t, nil)
	before := nettest.Leaks()
	cfg := traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Duration: time.Hour}
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(200*time.Millisecond))
	defer cancel()
	if _, err := traffic.TCP(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("context: %v", err)
	}
	cfg.Client = nettest.NS(t) // from where there is no route
	if _, err := traffic.TCP(within(t), cfg); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("no route: %v", err)
	}
	cfg.Server = a.ns
	if _, err := traffic.TCP(within(t), cfg); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("not the server's address: %v", err)
	}
	cfg.Client.Close()
	before.Check(t)
}

// acquaint lets a learn the address of b, so that no datagram waits for it and is overtaken.
func acquaint(t testing.TB, a *end, dst netip.Addr) {
	t.Helper()
	r, err := traffic.Ping(within(t), traffic.PingConfig{NS: a.ns, Dst: dst, Timeout: nettest.Bound(10 * time.Second)})
	if err != nil || r.Lost() != 0 {
		t.Fatalf("ping %v: %+v, %v", dst, r, err)
	}
}

func TestUDP(t *testing.T) {
	a, b := wire(t, nil)
	for _, dst := range []netip.Addr{b.v4, b.v6} {
		acquaint(t, a, dst)
		for _, size := range []int{8, 0, 1472, 20000} {
			r, err := traffic.UDP(within(t), traffic.UDPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(dst, 0),
				Count: 200, SizeBytes: size, Linger: nettest.Bound(5 * time.Second)})
			if size == 0 {
				size = 1024
			}
			if err != nil || r.Sent != 200 || r.Received != 200 || r.Lost() != 0 || r.Duplicates+r.Reordered+r.Corrupt != 0 ||
				r.Bytes != int64(200*size) || r.Elapsed <= 0 {
				t.Errorf("%v, %d bytes: %+v, %v", dst, size, r, err)
			}
		}
	}
}

func TestUDPCountsWhatGoesWrong(t *testing.T) {
	nettest.NeedFast(t)
	const seqAt = 8 // in UDP, after its header
	var late []byte
	a, b := wire(t, func(f []byte) [][]byte {
		proto, udp := ipv4(f)
		if proto != 17 || len(udp) < seqAt+8+100 {
			return [][]byte{f}
		}
		switch binary.BigEndian.Uint64(udp[seqAt:]) {
		case 10:
			return nil
		case 20:
			return [][]byte{f, f, f}
		case 30: // words exchanged leave the checksum as it is
			udp[50], udp[51], udp[52], udp[53] = udp[52], udp[53], udp[50], udp[51]
		case 40: // overtaken by 41
			late = bytes.Clone(f)
			return nil
		case 41:
			return [][]byte{f, late}
		}
		return [][]byte{f}
	})
	acquaint(t, a, b.v4)
	cfg := traffic.UDPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(b.v4, 0), Count: 100, Linger: nettest.Bound(300 * time.Millisecond), Window: -1}
	r, err := traffic.UDP(within(t), cfg)
	if err != nil || r.Sent != 100 || r.Lost() != 2 || r.Duplicates != 2 || r.Corrupt != 1 || r.Reordered != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	// A window that is smaller than what gets lost does not stop the transfer.
	cfg.Window = 1
	r, err = traffic.UDP(within(t), cfg)
	if err != nil || r.Sent != 100 || r.Lost() != 2 || r.Duplicates != 2 || r.Corrupt != 1 {
		t.Errorf("window of 1: %+v, %v", r, err)
	}
}

func TestUDPEnds(t *testing.T) {
	e := newEnd(t, "192.0.2.1/24", "2001:db8::1/64")
	before := nettest.Leaks()
	r, err := traffic.UDP(within(t), traffic.UDPConfig{Server: e.ns, Client: e.ns, Addr: netip.AddrPortFrom(e.v4, 0), Count: 50})
	if err != nil || r.Received != 50 || r.Reordered != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, size := range []int{7, 65508} {
		if _, err := traffic.UDP(within(t), traffic.UDPConfig{Server: e.ns, Client: e.ns, Addr: netip.AddrPortFrom(e.v4, 0), SizeBytes: size}); err == nil || !strings.Contains(err.Error(), "SizeBytes") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := traffic.UDP(ctx, traffic.UDPConfig{Server: e.ns, Client: e.ns, Addr: netip.AddrPortFrom(e.v4, 0)}); !errors.Is(err, context.Canceled) {
		t.Errorf("context: %v", err)
	}
	before.Check(t)
}
