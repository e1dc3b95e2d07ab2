// SPDX-License-Identifier: BSD-3-Clause

package traffic_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

var qtag, qinq = []traffic.VLANTag{{Type: 0x8100, TCI: 0x2064}}, []traffic.VLANTag{{Type: 0x88a8, TCI: 7}, {Type: 0x8100, TCI: 0x2064}}

// onWire are the bytes of tags in a frame.
func onWire(tags []traffic.VLANTag) (b []byte) {
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, t.Type), t.TCI)
	}
	return b
}

func TestPushVLAN(t *testing.T) {
	for _, tags := range [][]traffic.VLANTag{qtag, qinq} {
		a, b := wire(t, nil)
		c := capturer(t, b)
		for _, e := range []*end{a, b} {
			nettest.NeedProbe(t, "tc-bpf", func() error {
				err := traffic.PushVLAN(e.ns, e.index, tags...)
				if errors.Is(err, syscall.ENOENT) {
					return errors.Join(err, errors.ErrUnsupported)
				}
				return err
			})
		}
		acquaint(t, a, b.v4)
		acquaint(t, a, b.v6)
		if _, err := c.Next(within(t), func(f []byte) bool { return bytes.HasPrefix(f[12:], append(onWire(tags), 8, 0, 0x45)) }); err != nil {
			t.Errorf("%x: no IPv4 packet with these tags: %v", tags, err)
		}
		for _, dst := range []netip.Addr{b.v4, b.v6} {
			if _, err := traffic.TCP(within(t), traffic.TCPConfig{Server: b.ns, Client: a.ns, Addr: netip.AddrPortFrom(dst, 0)}); err != nil {
				t.Errorf("%x: %v", tags, err)
			}
		}
	}
}

func TestAddVLAN(t *testing.T) {
	a, b := wire(t, nil)
	c := capturer(t, b)
	for i, e := range []*end{a, b} {
		below := e.index
		for j, tag := range qinq {
			nettest.NeedProbe(t, "VLAN interface", func() (err error) {
				below, err = traffic.AddVLAN(e.ns, below, []string{"outer", "inner"}[j], traffic.VLANTag{Type: tag.Type, TCI: tag.TCI & 0xfff})
				return err
			})
		}
		if err := e.conn.AddAddr(below, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + i)}), 24)); err != nil {
			t.Fatal(err)
		}
	}
	acquaint(t, a, netip.MustParseAddr("198.51.100.2"))
	want := append(onWire([]traffic.VLANTag{qinq[0], {Type: qinq[1].Type, TCI: qinq[1].TCI & 0xfff}}), 8, 0, 0x45)
	if _, err := c.Next(within(t), func(f []byte) bool { return bytes.HasPrefix(f[12:], want) }); err != nil {
		t.Errorf("no IPv4 packet with these tags: %v", err)
	}
}

// TestRedirect: two ends that know nothing of what is between them.
func TestRedirect(t *testing.T) {
	ns := []*netns.NS{nettest.NS(t), nettest.NS(t), nettest.NS(t)}
	var end, middle [2]int
	for i, e := range []*netns.NS{ns[0], ns[2]} {
		nettest.NeedProbe(t, "veth", func() (err error) {
			end[i], middle[i], err = traffic.AddVeth(e, "end", ns[1], []string{"left", "right"}[i])
			return err
		})
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 24)
		if err := nettest.Conn(t, e).AddAddr(end[i], addr); err != nil {
			t.Fatal(err)
		}
	}
	nettest.NeedProbe(t, "tc-bpf", func() error {
		err := errors.Join(traffic.Redirect(ns[1], middle[0], middle[1]), traffic.Redirect(ns[1], middle[1], middle[0]))
		if errors.Is(err, syscall.ENOENT) {
			err = errors.Join(err, errors.ErrUnsupported)
		}
		return err
	})
	if _, err := traffic.TCP(within(t), traffic.TCPConfig{Server: ns[2], Client: ns[0], Addr: netip.MustParseAddrPort("192.0.2.2:0")}); err != nil {
		t.Error(err)
	}
	if err := traffic.Redirect(ns[1], middle[0], middle[1]); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("twice: %v", err)
	}
}

// veth is a pair of interfaces in namespaces of their own, with addresses and routes.
func veth(t testing.TB) (ns [2]*netns.NS, index [2]int, addr [2]netip.Prefix) {
	t.Helper()
	ns = [2]*netns.NS{nettest.NS(t), nettest.NS(t)}
	nettest.NeedProbe(t, "veth", func() (err error) {
		index[0], index[1], err = traffic.AddVeth(ns[0], "va", ns[1], "vb")
		return err
	})
	for i := range ns {
		addr[i] = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 24)
		if err := nettest.Conn(t, ns[i]).AddAddr(index[i], addr[i]); err != nil {
			t.Fatal(err)
		}
	}
	return ns, index, addr
}

func TestRouteMTU(t *testing.T) {
	ns, index, addr := veth(t)
	var got traffic.TCPInfo
	cfg := traffic.TCPConfig{Server: ns[1], Client: ns[0], Addr: netip.AddrPortFrom(addr[1].Addr(), 0), Sender: &got}
	for _, mtu := range []int{0, 1400, 0} {
		if err := traffic.SetRoute(ns[0], netip.MustParsePrefix("192.0.2.2/32"), netip.Addr{}, index[0], mtu); err != nil {
			t.Fatal(err)
		}
		want := mtu
		if mtu == 0 {
			want = 1500
		}
		if _, err := traffic.TCP(within(t), cfg); err != nil || got.PathMTU != want || got.MSS != want-52 {
			t.Errorf("mtu %d: %+v, %v", mtu, got, err)
		}
	}
	if err := traffic.SetRoute(ns[0], netip.MustParsePrefix("203.0.113.0/24"), addr[1].Addr(), index[0], 0); err != nil {
		t.Error(err)
	}
	if err := traffic.SetRoute(ns[0], netip.MustParsePrefix("203.0.113.0/24"), netip.Addr{}, 4711, 0); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
}

func TestFeatures(t *testing.T) {
	ns, index, addr := veth(t)
	f, err := traffic.ReadFeatures(ns[0], index[0])
	if err != nil || !f["tx-checksum-ip-generic"] || !f["tx-tcp-segmentation"] || f["no-such"] {
		t.Fatalf("%v, %v", f, err)
	}
	off := traffic.Features{"tx-checksum-ip-generic": false, "tx-tcp-segmentation": false, "tx-tcp6-segmentation": false}
	if err := traffic.SetFeatures(ns[0], index[0], off); err != nil {
		t.Fatal(err)
	}
	if f, err = traffic.ReadFeatures(ns[0], index[0]); err != nil || f["tx-checksum-ip-generic"] || f["tx-tcp-segmentation"] || !f["rx-checksum"] {
		t.Errorf("%v, %v", f, err)
	}
	if err := traffic.SetFeatures(ns[0], index[0], traffic.Features{"tx-tcp-segmentation": true}); !errors.Is(err, syscall.EOPNOTSUPP) {
		t.Errorf("segmentation without checksums: %v", err)
	}
	if err := traffic.SetFeatures(ns[0], index[0], traffic.Features{"no-such": true}); err == nil {
		t.Error("switched on what does not exist")
	}
	if _, err := traffic.ReadFeatures(ns[0], 4711); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("no such interface: %v", err)
	}
	// What is sent without these offloads is what a capture sees: no frame is longer than the MTU.
	c, err := traffic.NewCapturer(ns[1], index[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := traffic.TCP(within(t), traffic.TCPConfig{Server: ns[1], Client: ns[0], Addr: netip.AddrPortFrom(addr[1].Addr(), 0)}); err != nil {
		t.Fatal(err)
	}
	full := 0
	for full < 100 {
		f, err := c.Next(within(t), nil)
		if err != nil || len(f) > 1514 {
			t.Fatalf("frame of %d bytes, %v", len(f), err)
		}
		if len(f) == 1514 {
			full++
		}
	}
}

// TestOffloadInjector: what the kernel is asked to complete and to cut arrives so.
func TestOffloadInjector(t *testing.T) {
	a, b := wire(t, nil)
	in, err := traffic.NewOffloadInjector(a.ns, a.index)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out := capturer(t, b)
	const headers, payload, segment = 14 + 20 + 8, 2500, 1000
	f := frame(headers + payload)
	f[12], f[13] = 8, 0
	ip := f[14:]
	clear(ip[:28])
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[24:], uint16(len(ip)-20))
	copy(ip[12:], []byte{192, 0, 2, 1, 198, 51, 100, 1})
	hdr := []byte{1, 5} // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4
	for _, v := range []uint16{headers, segment, 34, 6} {
		hdr = binary.NativeEndian.AppendUint16(hdr, v)
	}
	if err := in.Inject(append(hdr, f...)); errors.Is(err, syscall.EINVAL) {
		nettest.NeedSince(t, 6, 2, "UDP segmentation for packet sockets")
	} else if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < payload; at += segment {
		n := min(segment, payload-at)
		got, err := out.Next(within(t), func(f []byte) bool { return len(f) > 30 && f[12] == 8 && f[23] == 17 })
		if err != nil || !bytes.Equal(got[headers:], f[headers+at:][:n]) || int(binary.BigEndian.Uint16(got[38:])) != n+8 {
			t.Errorf("at %d: %d bytes, %v", at, len(got), err)
		}
	}
	plain := append(make([]byte, 10), frame(60)...)
	if err := in.Inject(plain); err != nil {
		t.Error(err)
	}
	if got, err := out.Next(within(t), ours); err != nil || !bytes.Equal(got, plain[10:]) {
		t.Errorf("% x, %v", got, err)
	}
}
