// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/packetio"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestGenerator: a kernel's socket gets all packets, in order and of the right size; at a rate they do not come faster.
func TestGenerator(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	conn, err := packetio.Open(rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD()), Mode: rtap.ModeTUN})
	must(t, err)
	defer conn.Close()
	must(t, nettest.Conn(t, ns).AddAddr(conn.Device().Info().IfIndex, netip.MustParsePrefix("198.18.0.1/24")))
	var sock *net.UDPConn
	must(t, ns.Do(func() (err error) {
		sock, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 1)})
		return err
	}))
	defer sock.Close()
	must(t, sock.SetReadDeadline(time.Now().Add(nettest.Bound(10*time.Second))))
	l := load{from: netip.MustParseAddrPort("198.18.0.2:9"), to: sock.LocalAddr().(*net.UDPAddr).AddrPort(), size: 100, count: 150, rate: 1000}
	must(t, l.check())
	begin := time.Now()
	sent, err := run(t.Context(), conn, l)
	must(t, err)
	if sent != l.count {
		t.Errorf("%d packets were sent, want %d", sent, l.count)
	}
	if d := time.Since(begin); d < 150*time.Millisecond {
		t.Errorf("150 packets at 1000 a second took %v", d)
	}
	b := make([]byte, 200)
	for i := range l.count {
		n, from, err := sock.ReadFromUDPAddrPort(b)
		must(t, err)
		if n != l.size-headers || from != l.from || binary.BigEndian.Uint64(b) != i {
			t.Fatalf("packet %d: %d bytes from %s, number %d", i, n, from, binary.BigEndian.Uint64(b))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l.count = 0
	if sent, err := run(ctx, conn, l); sent != 0 || err != nil {
		t.Errorf("after the end %d packets, %v", sent, err)
	}
	must(t, conn.Close())
	if sent, err := run(t.Context(), conn, l); sent != 0 || err == nil {
		t.Errorf("through a closed Conn %d packets, %v", sent, err)
	}
}

func TestCheck(t *testing.T) {
	a, b := netip.MustParseAddrPort("198.18.0.2:9"), netip.MustParseAddrPort("[2001:db8::1]:9")
	for _, l := range []load{{a, a, minSize - 1, 0, 0}, {a, a, 70000, 0, 0}, {a, b, 64, 0, 0}, {b, a, 64, 0, 0}} {
		if l.check() == nil {
			t.Errorf("%+v is taken", l)
		}
	}
}
