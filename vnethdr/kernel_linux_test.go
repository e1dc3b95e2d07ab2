// SPDX-License-Identifier: BSD-3-Clause

package vnethdr_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/vnethdr"
	"golang.org/x/sys/unix"
)

// port is a TAP that is up, with the address 192.0.2.2, the station 02:00:00:00:00:02, no offloads and a
// header of the size.
func port(t *testing.T, size int) (*netns.NS, *tuntap.Queue) {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	var q *tuntap.Queue
	err := ns.Do(func() (err error) {
		q, err = tuntap.Attach("port", tuntap.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	index, err := q.IfIndex()
	if err != nil {
		t.Fatal(err)
	}
	c := nettest.Conn(t, ns)
	err = errors.Join(q.SetVnetHdrSize(size), c.SetMAC(index, net.HardwareAddr{2, 0, 0, 0, 0, 2}), c.SetUp(index),
		c.AddAddr(index, netip.MustParsePrefix("192.0.2.2/24")))
	if err != nil {
		t.Fatal(err)
	}
	return ns, q
}

func write(q *tuntap.Queue, size int, h vnethdr.Header, frame []byte) error {
	b := make([]byte, size, size+len(frame))
	h.Encode(b)
	_, err := unix.Write(q.FD(), append(b, frame...))
	return err
}

// The frames below are as the kernel's check sees them: it does not look into them.
const (
	needs  = vnethdr.FlagNeedsCsum
	in4    = vnethdr.GSOUDPTunnelIPv4
	in6    = vnethdr.GSOUDPTunnelIPv6
	segs10 = 42 + 10*vnethdr.SegmentsMax // a frame of that many bytes holds as many datagrams of 10
)

// written are headers, and the lengths of the frames that go with them.
var written = []struct {
	n int
	h vnethdr.Header
}{
	{60, vnethdr.Header{}},
	{60, vnethdr.Header{Flags: 0xf2}},
	{9000, vnethdr.Header{HdrLen: 9000}},
	{60, vnethdr.Header{HdrLen: 61}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 34, CsumOffset: 6}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 19, CsumOffset: 6}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 20, CsumOffset: 6}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 58}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 59}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 65535, CsumOffset: 1}},
	{60, vnethdr.Header{Flags: needs, CsumStart: 65535, CsumOffset: 65535}},

	{65535, vnethdr.Header{Flags: needs, GSOType: 1, HdrLen: 54, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 0x81, GSOSize: 1000, CsumStart: 42, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 4, GSOSize: 1000, CsumStart: 54, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 4, GSOSize: 1000, CsumStart: 39, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1, GSOSize: 65535, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1, GSOSize: 65534, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1, GSOSize: 1000, CsumStart: 34, CsumOffset: 6}},
	{54, vnethdr.Header{Flags: needs, GSOType: 1, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{53, vnethdr.Header{Flags: needs, GSOType: 1, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 2, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 0x80, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 3, GSOSize: 1000, CsumStart: 34, CsumOffset: 6}},

	{9000, vnethdr.Header{Flags: needs, GSOType: 5, GSOSize: 1000, CsumStart: 34, CsumOffset: 6}},
	{9000, vnethdr.Header{GSOType: 5, GSOSize: 1000}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 0x85, GSOSize: 1000, CsumStart: 34, CsumOffset: 6}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 5, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}},
	{segs10, vnethdr.Header{Flags: needs, GSOType: 5, GSOSize: 10, CsumStart: 34, CsumOffset: 6}},
	{segs10 + 1, vnethdr.Header{Flags: needs, GSOType: 5, GSOSize: 10, CsumStart: 34, CsumOffset: 6}},

	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: 9, GSOType: 0x81 | in4, GSOSize: 1000, CsumStart: 62, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 42}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 4 | in6, GSOSize: 1000, CsumStart: 124, CsumOffset: 16, OuterTransport: 54, InnerNetwork: 84}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 5 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 6, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in4 | in6, GSOSize: 1000, CsumStart: 124, CsumOffset: 16, OuterTransport: 54, InnerNetwork: 84}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 3 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 6, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: needs, GSOType: in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{GSOType: 1 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 33, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 41}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in4, GSOSize: 1000, CsumStart: 83, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 1 | in6, GSOSize: 1000, CsumStart: 104, CsumOffset: 16, OuterTransport: 53, InnerNetwork: 84}},
	{9000, vnethdr.Header{Flags: needs, GSOType: 4 | in6, GSOSize: 1000, CsumStart: 123, CsumOffset: 16, OuterTransport: 54, InnerNetwork: 84}},
}

// What Check lets pass the kernel takes, if it has that kind of segmentation at all, and nothing else. No
// offload need be on for that (the TAP has none here): TUNSETOFFLOAD is about the other direction.
func TestCheckIsTheKernels(t *testing.T) {
	_, q := port(t, vnethdr.SizeTunnel)
	has := map[bool]bool{}
	for _, w := range written {
		if w.h.GSOType&^vnethdr.GSOECN == vnethdr.GSOUDPL4 || w.h.GSOType&(in4|in6) != 0 {
			tunnel := w.h.GSOType&(in4|in6) != 0
			if _, known := has[tunnel]; !known { // the first of its kind passes
				has[tunnel] = write(q, vnethdr.SizeTunnel, w.h, station(w.n)) == nil
			}
			if !has[tunnel] {
				continue
			}
		}
		err, want := write(q, vnethdr.SizeTunnel, w.h, station(w.n)), w.h.Check(w.n)
		if nettest.IsLinux61() && err == nil && errors.Is(want, vnethdr.ErrCsum) {
			continue // it does not care for the network header
		}
		if (err == nil) != (want == nil) || err != nil && err != unix.EINVAL {
			t.Errorf("%d bytes with %+v: the kernel says %v, Check %v", w.n, w.h, err, want)
		}
	}
}

func TestTunnelsNeedTheLongHeader(t *testing.T) {
	_, q := port(t, vnethdr.SizeHash)
	h := vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOTCPv4 | in4, GSOSize: 1000, CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}
	if err := write(q, vnethdr.SizeHash, h, station(9000)); err != unix.EINVAL {
		t.Errorf("in a header of %d bytes: %v", vnethdr.SizeHash, err)
	}
}

// station is a frame of n bytes to the TAP's station, with a protocol that nobody expects.
func station(n int) []byte {
	f := make([]byte, n)
	copy(f, []byte{2, 5: 2, 6: 2, 11: 1, 12: 0x88, 0xb5})
	return f
}

// What the flags say of a UDP datagram's checksum, and whether the socket gets the datagram.
func TestChecksumFlags(t *testing.T) {
	ns, q := port(t, vnethdr.Size)
	var c net.PacketConn
	err := ns.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", "192.0.2.2:2561")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ip := []byte{0x45, 0, 0, 38, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
	binary.BigEndian.PutUint16(ip[10:], ^header.Sum(ip))
	pseudo := header.PseudoSum(ip, unix.IPPROTO_UDP, 18)
	for i, w := range []struct {
		flags uint8
		csum  uint16 // instead of the right one
		comes bool
	}{
		{0, 0, true}, {vnethdr.FlagDataValid, 0, true}, {needs, pseudo, true}, // right
		{0, 0xbad, false}, {vnethdr.FlagDataValid, 0xbad, false}, {needs, 0xbad, true}, // partial checksums are not looked at
	} {
		udp := []byte{10, 0, 10, 1, 0, 18, 0, 0, 'n', 'o', '.', ' ', byte('0' + i), 0, 0, 0, 0, 0}
		if w.csum == 0 {
			w.csum = ^header.Add(header.Sum(udp), pseudo)
		}
		binary.BigEndian.PutUint16(udp[6:], w.csum)
		f := station(14)
		copy(f[12:], []byte{0x08, 0x00})
		h := vnethdr.Header{Flags: w.flags, CsumStart: 34, CsumOffset: 6}
		if err := write(q, vnethdr.Size, h, append(append(f, ip...), udp...)); err != nil {
			t.Fatal(err)
		}
		if !w.comes {
			continue // or it would be taken for the next
		}
		if err := c.SetReadDeadline(time.Now().Add(nettest.Bound(10 * time.Second))); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if n, _, err := c.ReadFrom(b); err != nil || n != 10 || b[4] != udp[12] {
			t.Errorf("no. %d, %+v: %q, %v", i, w, b[:n], err)
		}
	}
}
