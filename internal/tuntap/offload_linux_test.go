// SPDX-License-Identifier: BSD-3-Clause

package tuntap_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/vnethdr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	offTSO    = tuntap.OffloadCsum | tuntap.OffloadTSO4 | tuntap.OffloadTSO6 | tuntap.OffloadTSOECN
	offUSO    = tuntap.OffloadUSO4 | tuntap.OffloadUSO6
	offTunnel = tuntap.OffloadUDPTunnelGSO | tuntap.OffloadUDPTunnelGSOCsum
	needs     = vnethdr.FlagNeedsCsum
)

// has reports whether the kernel has the offloads, which it then sets.
func has(q *tuntap.Queue, offloads uint32) bool { return q.SetOffload(offloads) == nil }

// plain sets all offloads there are but tunnels'.
func plain(t testing.TB, q *tuntap.Queue) (uso bool) {
	t.Helper()
	if uso = has(q, offTSO|offUSO); !uso && !has(q, offTSO) {
		t.Fatal("no offloads")
	}
	return uso
}

func TestOffloadSets(t *testing.T) {
	q := attach(t, nettest.NS(t), "port", tuntap.Options{})
	uso, tunnel := has(q, 0x6f), has(q, 0x18f) // TUN_F_* in numbers, so that a wrong constant is no missing offload
	for _, c := range []struct {
		offloads uint32
		ok       bool
	}{
		{0, true}, {tuntap.OffloadCsum, true}, {tuntap.OffloadTSO4, false}, {tuntap.OffloadCsum | tuntap.OffloadTSO6, true},
		{tuntap.OffloadCsum | tuntap.OffloadTSOECN, false}, {tuntap.OffloadCsum | tuntap.OffloadTSO6 | tuntap.OffloadTSOECN, true},
		{tuntap.OffloadCsum | offUSO, uso}, {offUSO, false}, {tuntap.OffloadCsum | tuntap.OffloadUSO4, false},
		{tuntap.OffloadCsum | offUSO | tuntap.OffloadUDPTunnelGSO, tunnel}, {offTSO | offTunnel, tunnel},
		{tuntap.OffloadCsum | offTunnel, false}, {offTSO | tuntap.OffloadUDPTunnelGSOCsum, false},
	} {
		if err := q.SetOffload(c.offloads); (err == nil) != c.ok {
			t.Errorf("offloads %#x: %v", c.offloads, err)
		}
	}
}

// arrival is a frame that the kernel sent.
type arrival struct {
	h     vnethdr.Header
	n     int    // bytes
	start []byte // the first of them
}

// wire is two TAPs in namespaces of their own, 192.0.2.1 and .2, fd00::1 and ::2. What arrives on one is
// written to the other unchanged, header and all.
type wire struct {
	ns    [2]*netns.NS
	q     [2]*tuntap.Queue
	index [2]int
	mu    sync.Mutex
	seen  []arrival
}

func newWire(t *testing.T, size int, offloads uint32) *wire {
	t.Helper()
	w := new(wire)
	for i := range w.q {
		w.ns[i] = nettest.NS(t)
		w.q[i] = attach(t, w.ns[i], "port", tuntap.Options{})
		w.index[i] = indexOf(t, w.q[i])
		c := nettest.Conn(t, w.ns[i])
		err := errors.Join(w.q[i].SetVnetHdrSize(size), w.q[i].SetOffload(offloads), c.SetUp(w.index[i]))
		for _, a := range []string{"192.0.2.%d/24", "fd00::%d/64"} {
			err = errors.Join(err, c.AddAddr(w.index[i], netip.MustParsePrefix(fmt.Sprintf(a, i+1))))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var stop [2]int
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range w.q {
		wg.Go(func() { w.pump(t, w.q[i].FD(), w.q[1-i].FD(), stop[0], size) })
	}
	t.Cleanup(func() {
		unix.Close(stop[1])
		wg.Wait()
		unix.Close(stop[0])
	})
	return w
}

func (w *wire) pump(t *testing.T, from, to, stop, size int) {
	b := make([]byte, 1<<17)
	for {
		p := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR || p[1].Revents != 0 {
			return
		}
		n, err := unix.Read(from, b)
		if err != nil {
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			t.Error("read:", err)
			return
		}
		// Before Linux 6.17, what is beyond the shortest header is not written.
		a := arrival{vnethdr.Decode(b[:vnethdr.Size]), n - size, append([]byte(nil), b[size:min(n, size+160)]...)}
		if a.h.GSOType&(vnethdr.GSOUDPTunnelIPv4|vnethdr.GSOUDPTunnelIPv6) != 0 {
			a.h.Decode(b[:size])
		}
		w.mu.Lock()
		w.seen = append(w.seen, a)
		w.mu.Unlock()
		if _, err := unix.Write(to, b[:n]); err != nil || a.h.Check(a.n) != nil {
			t.Errorf("%+v of %d bytes arrived and is refused: %v, %v", a.h, a.n, err, a.h.Check(a.n))
		}
	}
}

// await waits until a frame has arrived that is as h says, HdrLen apart, and returns it.
func (w *wire) await(t *testing.T, h vnethdr.Header) (found arrival) {
	t.Helper()
	nettest.Eventually(t, 10*time.Second, fmt.Sprintf("a frame with %+v", h), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, a := range w.seen {
			h.HdrLen = a.h.HdrLen
			if a.h == h {
				found = a
				return true
			}
		}
		return false
	})
	return found
}

// tcp transfers over the wire to addr, and awaits a frame as h says.
func (w *wire) tcp(t *testing.T, addr string, h vnethdr.Header) arrival {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(20*time.Second))
	defer cancel()
	cfg := traffic.TCPConfig{Server: w.ns[1], Client: w.ns[0], Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 0)}
	if _, err := traffic.TCP(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	return w.await(t, h)
}

// udp sends n bytes in datagrams of 1000 to addr, and awaits a frame as h says.
func (w *wire) udp(t *testing.T, addr string, n int, h vnethdr.Header) arrival {
	t.Helper()
	err := w.ns[0].Do(func() error {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 9)))
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000) })
		_, sendErr := c.Write(make([]byte, n))
		return errors.Join(ctlErr, err, sendErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.await(t, h)
}

func TestWhatArrives(t *testing.T) {
	for _, size := range []int{vnethdr.Size, vnethdr.SizeTunnel} {
		w := newWire(t, size, offTSO)
		uso := plain(t, w.q[0])
		for addr, at := range map[string]uint16{"192.0.2.2": 34, "fd00::2": 54} {
			kind, mss := vnethdr.GSOTCPv4, uint16(1448)
			if at == 54 {
				kind, mss = vnethdr.GSOTCPv6, 1428
			}
			w.tcp(t, addr, vnethdr.Header{Flags: needs, CsumStart: at, CsumOffset: 16})
			a := w.tcp(t, addr, vnethdr.Header{Flags: needs, GSOType: kind, GSOSize: mss, CsumStart: at, CsumOffset: 16})
			if a.h.HdrLen != at+32 || a.n > 65535 {
				t.Errorf("%+v of %d bytes", a.h, a.n)
			}
			w.udp(t, addr, 1000, vnethdr.Header{Flags: needs, CsumStart: at, CsumOffset: 6})
			if uso { // the last datagram is shorter
				a := w.udp(t, addr, 3500, vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOUDPL4, GSOSize: 1000, CsumStart: at, CsumOffset: 6})
				if a.h.HdrLen != at+8 || a.n != int(at)+8+3500 {
					t.Errorf("%+v of %d bytes", a.h, a.n)
				}
			}
		}
	}
}

// add makes a device on top of each end, with addresses 198.51.100.1 and .2, or skips the test.
func (w *wire) add(t *testing.T, what string, device func(end int) netlink.Link) {
	t.Helper()
	for i := range w.q {
		l := device(i)
		nettest.NeedProbe(t, what, func() error {
			return w.ns[i].Do(func() error {
				if err := netlink.LinkAdd(l); err != nil {
					return err
				}
				a, err := netlink.ParseAddr(fmt.Sprintf("198.51.100.%d/24", i+1))
				return errors.Join(err, netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
			})
		})
	}
}

// The kernel inserts the tag at the last moment: CsumStart counts it, HdrLen and the bound do not.
func TestWhatArrivesFromAVLANDevice(t *testing.T) {
	w := newWire(t, vnethdr.Size, offTSO)
	w.add(t, "VLAN devices", func(i int) netlink.Link {
		return &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan", ParentIndex: w.index[i]}, VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	})
	a := w.tcp(t, "198.51.100.2", vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOTCPv4, GSOSize: 1448, CsumStart: 38, CsumOffset: 16})
	if binary.BigEndian.Uint32(a.start[12:]) != 0x81000005 || a.h.HdrLen != 66 {
		t.Errorf("%+v, %x", a.h, a.start)
	}
	w.udp(t, "198.51.100.2", 1000, vnethdr.Header{Flags: needs, CsumStart: 38, CsumOffset: 6})
	if !plain(t, w.q[0]) {
		return
	}
	if err := nettest.Conn(t, w.ns[0]).SetGSOMaxSize(w.index[0], 9000); err != nil {
		t.Fatal(err)
	}
	h := vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOUDPL4, GSOSize: 1000, CsumStart: 38, CsumOffset: 6}
	if a = w.udp(t, "198.51.100.2", 8999-42, h); a.n != 8999+4 {
		t.Errorf("%d bytes", a.n)
	}
}

func TestWhatArrivesFromATunnel(t *testing.T) {
	if probe := attach(t, nettest.NS(t), "port", tuntap.Options{}); !has(probe, offTSO|offTunnel) {
		nettest.NeedSince(t, 6, 17, "segmentation of UDP tunnels")
	}
	for _, c := range []struct {
		outer string
		sum   bool
	}{{"192.0.2.", true}, {"fd00::", true}, {"fd00::", false}} {
		w := newWire(t, vnethdr.SizeTunnel, offTSO|offTunnel)
		h := vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOTCPv4 | vnethdr.GSOUDPTunnelIPv4, GSOSize: 1348, CsumStart: 84, CsumOffset: 16,
			OuterTransport: 34, InnerNetwork: 64}
		if c.outer == "fd00::" {
			h.GSOType, h.CsumStart, h.OuterTransport, h.InnerNetwork = vnethdr.GSOTCPv4|vnethdr.GSOUDPTunnelIPv6, 104, 54, 84
		}
		if c.sum {
			h.Flags |= vnethdr.FlagUDPTunnelCsum
		}
		w.add(t, "VXLAN devices", func(i int) netlink.Link {
			return &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan", MTU: 1400}, VxlanId: 7, VtepDevIndex: w.index[i], Port: 4789,
				Group: net.ParseIP(fmt.Sprint(c.outer, 2-i)), UDPCSum: c.sum, UDP6ZeroCSumTx: !c.sum, UDP6ZeroCSumRx: !c.sum}
		})
		a := w.tcp(t, "198.51.100.2", h)
		outer := a.start[h.OuterTransport:]
		want := uint16(0)
		if c.sum {
			want = header.PseudoSum(a.start[14:], unix.IPPROTO_UDP, int(binary.BigEndian.Uint16(outer[4:])))
		}
		if got := binary.BigEndian.Uint16(outer[6:]); got != want || a.h.HdrLen != h.CsumStart+32 {
			t.Errorf("%+v: outer checksum %#x, want %#x", a.h, got, want)
		}
		// Packets that are not large: inner checksum left to do, the outer one done; or the outer one.
		w.await(t, vnethdr.Header{Flags: needs, CsumStart: h.CsumStart, CsumOffset: 16})
	}
}

// Frames of tunnels need the long header: without it, every read fails while the offload is on.
func TestTunnelsNeedTheLongHeader(t *testing.T) {
	ns, q, index := up(t)
	send := injectVnet(t, ns, index)
	if !has(q, offTSO|offTunnel) {
		nettest.NeedSince(t, 6, 17, "segmentation of UDP tunnels")
	}
	for _, size := range []int{vnethdr.Size, vnethdr.SizeHash, vnethdr.SizeTunnel} {
		if err := errors.Join(q.SetVnetHdrSize(size), send(vnethdr.Header{}, frame(60))); err != nil {
			t.Fatal(err)
		}
		await(t, q)
		if _, err := unix.Read(q.FD(), make([]byte, 1<<17)); (err == unix.EFAULT) != (size < vnethdr.SizeTunnel) {
			t.Errorf("header of %d bytes: %v", size, err)
		}
	}
}

// injectVnet opens a socket that sends frames out of the interface, with a header before them.
func injectVnet(t testing.TB, ns *netns.NS, index int) func(h vnethdr.Header, frame []byte) error {
	t.Helper()
	fd := -1
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1), unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})); err != nil {
		t.Fatal(err)
	}
	return func(h vnethdr.Header, frame []byte) error {
		b := make([]byte, vnethdr.Size, vnethdr.Size+len(frame))
		h.Encode(b)
		return unix.Send(fd, append(b, frame...), 0)
	}
}

// large is a TCP frame of n bytes that is to be sent in segments of 1000.
func large(n int) (vnethdr.Header, []byte) {
	f := make([]byte, n)
	copy(f, []byte{0x02, 5: 2, 6: 2, 12: 0x08, 14: 0x45, 22: 64, unix.IPPROTO_TCP, 26: 192, 0, 2, 1, 192, 0, 2, 2, 46: 0x50, 0x10})
	binary.BigEndian.PutUint16(f[16:], uint16(n-14))
	return vnethdr.Header{Flags: needs, GSOType: vnethdr.GSOTCPv4, HdrLen: 54, GSOSize: 1000, CsumStart: 34, CsumOffset: 16}, f
}

// arrives reads the next frame to the station that large sends to.
func arrives(t testing.TB, q *tuntap.Queue) (h vnethdr.Header, n int) {
	t.Helper()
	for b := make([]byte, 1<<17); ; {
		await(t, q)
		n, err := unix.Read(q.FD(), b)
		if err != nil {
			t.Fatal(err)
		}
		if b[hdr] == 2 && b[hdr+5] == 2 {
			return vnethdr.Decode(b[:hdr]), n - hdr
		}
	}
}

func TestGSOMaxSizeIsExact(t *testing.T) {
	ns, q, index := up(t)
	plain(t, q)
	send, c := injectVnet(t, ns, index), nettest.Conn(t, ns)
	for _, bound := range []int{65536, 16384, 9000, 2000} {
		if err := errors.Join(c.SetGSOMaxSize(index, bound), send(large(bound-1))); err != nil {
			t.Fatal(err)
		}
		if h, n := arrives(t, q); n != bound-1 || h.GSOType != vnethdr.GSOTCPv4 || h.GSOSize != 1000 {
			t.Errorf("bound %d: %d bytes with %+v", bound, n, h)
		}
		if bound > traffic.FrameMax {
			continue
		}
		if err := send(large(bound)); err != nil {
			t.Fatal(err)
		}
		for left := bound - 54; left > 0; left -= 1000 { // cut up by the kernel
			if h, n := arrives(t, q); n != 54+min(left, 1000) || h.GSOType != vnethdr.GSONone {
				t.Fatalf("bound %d: %d bytes with %+v", bound, n, h)
			}
		}
	}
}

// What is queued keeps what it was queued with; the requests work on a disabled queue, too.
func TestOffloadsOfWhatIsQueued(t *testing.T) {
	ns, q, index := up(t)
	other := attach(t, ns, "port", tuntap.Options{IfIndex: index})
	send := injectVnet(t, ns, index)
	if err := errors.Join(other.Disable(), other.SetOffload(offTSO), send(large(3054)), other.SetOffload(0), send(large(3054))); err != nil {
		t.Fatal(err)
	}
	if h, n := arrives(t, q); n != 3054 || h.GSOType != vnethdr.GSOTCPv4 {
		t.Errorf("queued before: %d bytes with %+v", n, h)
	}
	for range 3 {
		if h, n := arrives(t, q); n != 1054 || h != (vnethdr.Header{}) {
			t.Errorf("queued after: %d bytes with %+v", n, h)
		}
	}
}
