// SPDX-License-Identifier: BSD-3-Clause

package gso

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// segmenter is the kernel's: a bridge from a TAP that large frames are written to,
// to one that takes none.
type segmenter struct {
	in, out *tuntap.Queue
}

func kernelSegmenter(t *testing.T) segmenter {
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "bridge"
	nettest.NeedProbe(t, "bridges", func() error { return ns.Do(func() error { return netlink.LinkAdd(bridge) }) })
	if err := ns.Do(func() error { return netlink.LinkSetUp(bridge) }); err != nil {
		t.Fatal(err)
	}
	return segmenter{in: bridged(t, ns, "in", bridge), out: bridged(t, ns, "out", bridge)}
}

// bridged is a TAP that is up and a port of the bridge.
func bridged(t *testing.T, ns *netns.NS, name string, bridge netlink.Link) (q *tuntap.Queue) {
	t.Helper()
	err := ns.Do(func() (err error) {
		if q, err = tuntap.Attach(name, tuntap.Options{}); err != nil {
			return err
		}
		t.Cleanup(func() { q.Close() })
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMTU(l, traffic.FrameMax-14), netlink.LinkSetMaster(l, bridge), netlink.LinkSetUp(l))
	})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// cut writes a frame with its header of size bytes, and reads the n packets that it
// becomes.
func (k segmenter) cut(t *testing.T, h vnethdr.Header, size int, frame []byte, n int) ([][]byte, error) {
	t.Helper()
	b := make([]byte, size, size+len(frame))
	h.Encode(b)
	if _, err := unix.Write(k.in.FD(), append(b, frame...)); err != nil {
		return nil, err
	}
	var out [][]byte
	buf := make([]byte, tuntap.VnetHdrSize+traffic.FrameMax)
	for end := time.Now().Add(nettest.Bound(5 * time.Second)); len(out) < n; {
		if time.Now().After(end) {
			t.Fatalf("the kernel made %d packets of a frame, not %d", len(out), n)
		}
		poll := []unix.PollFd{{Fd: int32(k.out.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, 100); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		for {
			got, err := unix.Read(k.out.FD(), buf)
			if err == unix.EAGAIN || err == unix.EINTR {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			// The kernel sends packets of its own when an interface comes up.
			if b := buf[tuntap.VnetHdrSize:got]; string(b[:10]) == string(frame[:10]) {
				out = append(out, append([]byte(nil), b...))
			}
		}
	}
	return out, nil
}

// TestAsTheKernel: byte for byte what the kernel makes of the same frame.
func TestAsTheKernel(t *testing.T) {
	k := kernelSegmenter(t)
	big := newPool(t, 2, 65400)
	p := newPool(t, 256, 9200)
	for _, size := range []struct{ payload, mss int }{
		// Linux 7.2 drops TCP to be cut into fewer than 8 bytes.
		{1, 1}, {17, 8}, {63, 9}, {1448, 1448}, {1449, 1448}, {2895, 1448}, {2896, 1448}, {2897, 1448}, {20001, 999}, {40001, 8948}, {65515, 1448},
	} {
		for name, s := range variants(size.payload) {
			if s.pad != 0 || !s.partial || s.bare {
				continue // the kernel goes by the frame's length, and wants partial checksums; a bridge wants Ethernet
			}
			if l := s.lengths(0); size.payload > 0xffff-l.L3-l.L4 {
				s.payload = s.payload[:0xffff-l.L3-l.L4] // the largest there is
			}
			t.Run(fmt.Sprintf("%s %d by %d", name, size.payload, size.mss), func(t *testing.T) {
				m := largeOf(t, big, s, size.mss)
				defer m.Free()
				compare(t, k, p, m, s.header(size.mss), vnethdr.Size)
			})
		}
	}
}

// header says of a large frame what the kernel wants to know.
func (s *spec) header(mss int) vnethdr.Header {
	l := s.lengths(mss)
	h := vnethdr.Header{Flags: vnethdr.FlagNeedsCsum, GSOType: vnethdr.GSOUDPL4, HdrLen: uint16(l.Headers()),
		GSOSize: uint16(mss), CsumStart: uint16(l.L4Start()), CsumOffset: 6}
	if s.tcp {
		h.CsumOffset, h.GSOType = 16, vnethdr.GSOTCPv4
		if s.v6 {
			h.GSOType = vnethdr.GSOTCPv6
		}
		if s.flags&tcpCWR != 0 {
			h.GSOType |= vnethdr.GSOECN
		}
	}
	return h
}

func compare(t *testing.T, k segmenter, p *mbuf.Pool, m *mbuf.Mbuf, h vnethdr.Header, size int) {
	t.Helper()
	var seg Segmenter
	out := make([]*mbuf.Mbuf, 256)
	n, err := seg.Segment(m, p, out)
	if err != nil {
		t.Fatal(err)
	}
	defer mbuf.FreeBulk(out[:n])
	if n == 1 {
		// The kernel takes TCP options for payload when it asks whether there is more than
		// one packet (virtio_net_hdr_to_skb), and drops the frame when there is not.
		h.GSOType, h.GSOSize = vnethdr.GSONone, 0
	}
	want, err := k.cut(t, h, size, m.AppendTo(nil), n)
	if err == unix.EINVAL && h.GSOType == vnethdr.GSOUDPL4 {
		nettest.NeedSince(t, 6, 2, "UDP segmentation for TAPs")
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if d := differ(out[i].AppendTo(nil), want[i]); d != "" {
			t.Fatalf("packet %d of %d: %s, as the kernel has it", i, n, d)
		}
	}
}

// TestKernelCutsWhatWasMerged: to the packets that it was.
func TestKernelCutsWhatWasMerged(t *testing.T) {
	k := kernelSegmenter(t)
	p := newPool(t, 128, 2048)
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			t.Run(fmt.Sprintf("v6=%v tcp=%v", v6, tcp), func(t *testing.T) {
				s := base(v6, tcp, 40000)
				s.tcpOpts = []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}
				s.flags |= tcpPSH | tcpCWR
				packets := s.cutUp(1000)
				var bufs []*mbuf.Mbuf
				for _, b := range packets {
					bufs = append(bufs, packetOf(t, p, b))
				}
				var co Coalescer
				n := co.Burst(bufs)
				defer mbuf.FreeBulk(bufs[:n])
				if n != 1 {
					t.Fatalf("%d packets are left", n)
				}
				got, err := k.cut(t, s.header(1000), vnethdr.Size, bufs[0].AppendTo(nil), len(packets))
				if err == unix.EINVAL && !tcp {
					nettest.NeedSince(t, 6, 2, "UDP segmentation for TAPs")
				}
				if err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if d := differ(got[i], packets[i]); d != "" {
						t.Fatalf("packet %d: %s", i, d)
					}
				}
			})
		}
	}
}

// TestTunnelsAsTheKernel: likewise in tunnels in UDP, since Linux 6.17.
func TestTunnelsAsTheKernel(t *testing.T) {
	k := kernelSegmenter(t)
	const offloads = tuntap.OffloadCsum | tuntap.OffloadTSO4 | tuntap.OffloadTSO6 | tuntap.OffloadTSOECN |
		tuntap.OffloadUSO4 | tuntap.OffloadUSO6 | tuntap.OffloadUDPTunnelGSO | tuntap.OffloadUDPTunnelGSOCsum
	if err := k.in.SetOffload(offloads); err != nil {
		nettest.NeedSince(t, 6, 17, "tunnel segmentation for TAPs")
	}
	if err := k.in.SetVnetHdrSize(vnethdr.SizeTunnel); err != nil {
		t.Fatal(err)
	}
	p := newPool(t, 128, 9200)
	big := newPool(t, 2, 65400)
	for name, c := range tunnels() {
		if c.outer.bare {
			continue
		}
		for _, size := range []struct{ payload, mss int }{{17, 8}, {1449, 1448}, {30001, 1001}} {
			t.Run(fmt.Sprintf("%s %d by %d", name, size.payload, size.mss), func(t *testing.T) {
				m := packetOf(t, big, c.partial(size.payload))
				defer m.Free()
				m.OlFlags = mbuf.RxLRO | mbuf.RxL4CksumNone
				l := mbuf.Lengths{}
				if c.unknown() {
					l, m.PacketType = c.lengths(), c.ptype
				}
				l.TSOSegSize = size.mss
				m.SetLengths(l)
				compare(t, k, p, m, c.header(size.mss), vnethdr.SizeTunnel)
			})
		}
	}
}

// partial is frame with a partial outer checksum, if there is one.
func (c tunnel) partial(payload int) []byte {
	c.outer.partial = true
	return c.frame(payload)
}

func (c tunnel) header(mss int) vnethdr.Header {
	h := c.inner.header(mss)
	l := c.lengths()
	h.HdrLen, h.CsumStart = uint16(l.Headers()), uint16(l.L4Start())
	h.OuterTransport, h.InnerNetwork = uint16(l.OuterL2+l.OuterL3), uint16(l.IPStart())
	if c.outer.v6 {
		h.GSOType |= vnethdr.GSOUDPTunnelIPv6
	} else {
		h.GSOType |= vnethdr.GSOUDPTunnelIPv4
	}
	if c.sums {
		h.Flags |= vnethdr.FlagUDPTunnelCsum
	}
	return h
}
