// SPDX-License-Identifier: BSD-3-Clause

package rtapsource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

// TestSource: packets come as they were sent, by both methods, and gopacket decodes them: IPv4 and IPv6, TAP and TUN.
func TestSource(t *testing.T) {
	for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
		t.Run(string(mode), func(t *testing.T) {
			src, inj := source(t, rtap.Config{Mode: mode})
			begin := time.Now()
			for i := range 100 {
				want := packet(t, mode, i%2 == 1, i)
				must(t, inj.Inject(want))
				read := src.ReadPacketData
				if i%4 > 1 {
					read = src.ZeroCopyReadPacketData
				}
				data, ci, err := read()
				must(t, err)
				if !bytes.Equal(data, want) {
					t.Fatalf("read % x, want % x", data, want)
				}
				if ci.Length != len(data) || ci.CaptureLength != len(data) || ci.InterfaceIndex != src.dev.Info().IfIndex ||
					ci.Timestamp.Before(begin) || ci.Timestamp.After(time.Now()) {
					t.Errorf("capture info is %+v", ci)
				}
				p := gopacket.NewPacket(data, src.LinkType(), gopacket.Default)
				if udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); !ok || udp.DstPort != 40001 || p.ErrorLayer() != nil {
					t.Fatalf("gopacket sees %v", p)
				}
			}
		})
	}
}

// TestPacketSource: gopacket's channel ends when the interface is deleted, and the reason can be told.
func TestPacketSource(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev := start(t, ns, rtap.Config{})
	src, err := New(t.Context(), dev, 0)
	must(t, err)
	defer src.Close()
	packets := gopacket.NewPacketSource(src, src.LinkType()).Packets()
	if err := src.Err(); err != nil {
		t.Errorf("there is an error: %v", err)
	}
	must(t, nettest.Conn(t, ns).Delete(dev.Info().IfIndex))
	select {
	case p, ok := <-packets:
		if ok {
			t.Errorf("a packet: %v", p)
		}
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("the channel stays open")
	}
	if err := src.Err(); !errors.Is(err, rtap.ErrGone) {
		t.Errorf("the reason is %v, want %v", err, rtap.ErrGone)
	}
}

// TestEnd: Close and the context's end unblock a read, and leave no mbuf; a stopped port is no end.
func TestEnd(t *testing.T) {
	nettest.NeedTun(t)
	pool, err := mbuf.NewPool(mbuf.Config{Count: 1000})
	must(t, err)
	defer func() { must(t, pool.Close()) }()
	ns := nettest.QuietNS(t)
	dev, err := rtap.Start(rtap.Config{Memory: pool, NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())})
	must(t, err)
	defer func() { must(t, dev.Close()) }()
	for name, end := range map[string]func(*Source, context.CancelFunc){
		"Close":  func(s *Source, _ context.CancelFunc) { s.Close() },
		"cancel": func(_ *Source, cancel context.CancelFunc) { cancel() },
	} {
		ctx, cancel := context.WithCancel(context.Background())
		src, err := New(ctx, dev, 0)
		must(t, err)
		got := make(chan error)
		go func() { _, _, err := src.ReadPacketData(); got <- err }()
		end(src, cancel)
		select {
		case err := <-got:
			if err != io.EOF {
				t.Errorf("%s: error %v, want EOF", name, err)
			}
		case <-time.After(nettest.Bound(wait)):
			t.Fatalf("%s does not end reading", name)
		}
		if _, _, err := src.ZeroCopyReadPacketData(); err != io.EOF || src.Err() != nil {
			t.Errorf("%s: then error %v, because of %v", name, err, src.Err())
		}
		src.Close()
		cancel()
	}
	src, err := New(t.Context(), dev, 0)
	must(t, err)
	defer src.Close()
	must(t, dev.Stop())
	if _, _, err := src.ReadPacketData(); !errors.Is(err, rtap.ErrStopped) {
		t.Errorf("stopped: error %v", err)
	}
	if _, err := New(t.Context(), dev, 1); !errors.Is(err, rtap.ErrNotConfigured) {
		t.Errorf("no such queue: error %v", err)
	}
}

// TestPending: what was received and not read goes back to the pool with Close.
func TestPending(t *testing.T) {
	src, inj := source(t, rtap.Config{})
	for range 10 {
		must(t, inj.Inject(packet(t, rtap.ModeTAP, false, 20)))
	}
	_, _, err := src.ReadPacketData()
	must(t, err)
	pool := src.dev.Pools()[0]
	src.Close()
	src.Close()
	must(t, src.dev.Stop())
	if n := pool.InUseCount(); n != 0 {
		t.Errorf("%d mbufs are in use", n)
	}
}

// TestChain: a packet in several mbufs comes in one piece.
func TestChain(t *testing.T) {
	src, inj := source(t, rtap.Config{MTU: 9000})
	for _, size := range []int{100, 8000, 3000} {
		want := packet(t, rtap.ModeTAP, true, size)
		must(t, inj.Inject(want))
		must(t, inj.Inject(want))
		a, _, err := src.ReadPacketData()
		must(t, err)
		b, _, err := src.ZeroCopyReadPacketData()
		must(t, err)
		if !bytes.Equal(a, want) || !bytes.Equal(b, want) {
			t.Errorf("%d bytes of payload: what came differs", size)
		}
	}
}

// TestAllocFree: reading without a copy allocates nothing.
func TestAllocFree(t *testing.T) {
	src, inj := source(t, rtap.Config{})
	p := packet(t, rtap.ModeTAP, false, 20)
	round := func() {
		if err := inj.Inject(p); err != nil {
			t.Error(err)
		}
		if _, _, err := src.ZeroCopyReadPacketData(); err != nil {
			t.Error(err)
		}
	}
	round()
	if n := nettest.Allocs(100, round); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// TestChecksums: with offloads the kernel leaves checksums to the port; what is read has them.
func TestChecksums(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev := start(t, ns, rtap.Config{Mode: rtap.ModeTUN, RxOffloads: rtap.RxOffloadChecksum})
	must(t, nettest.Conn(t, ns).AddAddr(dev.Info().IfIndex, netip.MustParsePrefix("192.0.2.1/24")))
	src, err := New(t.Context(), dev, 0)
	must(t, err)
	defer src.Close()
	must(t, ns.Do(func() error {
		c, err := net.Dial("udp", "192.0.2.2:2000")
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("a datagram"))
		return errors.Join(err, c.Close())
	}))
	data, _, err := src.ZeroCopyReadPacketData()
	must(t, err)
	p := gopacket.NewPacket(data, src.LinkType(), gopacket.NoCopy)
	ip, _ := p.NetworkLayer().(*layers.IPv4)
	udp, _ := p.TransportLayer().(*layers.UDP)
	if ip == nil || udp == nil {
		t.Fatalf("gopacket sees %v", p)
	}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	if err, r := udp.VerifyChecksum(); err != nil || !r.Valid {
		t.Errorf("the checksum is %#x, want %#x (%v)", r.Actual, r.Correct, err)
	}
}
