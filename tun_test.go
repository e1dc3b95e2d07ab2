// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// ipPacket is an IPv4 or IPv6 packet of size bytes with UDP in it, whose content depends on seq.
func ipPacket(v6 bool, size, seq int) []byte {
	s := spec{v6: v6, udp: true, src: byte(seq)}
	s.payload = size - (s.lengths().Headers() - 14)
	return s.ip()
}

// TestTUNBursts: IPv4 and IPv6 packets go both ways whole, with every engine, in one mbuf and in chains.
func TestTUNBursts(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		for _, room := range []int{2048, 128, 65407} {
			t.Run(fmt.Sprint(room), func(t *testing.T) {
				pool := newPool(t, mbuf.Config{Name: "tun", DataRoom: room, Count: 4 * (1 + 70000/room) * 8})
				p := w.start(t, Config{Mode: ModeTUN, MTU: MaxTunMTU, Port: 7}, 1, RxConfig{Memory: pool, Ring: 8})
				p.capturer()
				for seq, size := range []int{28, 48, 64, 127, 128, 129, 1500, 9000, 65534, 65535} {
					for _, v6 := range []bool{false, true} {
						if v6 && size < 48 {
							continue
						}
						p.crossTUN(ipPacket(v6, size, seq))
					}
				}
			})
		}
	})
}

// crossTUN sends a packet each way.
func (p *port) crossTUN(packet []byte) {
	p.t.Helper()
	p.inject(packet)
	m := p.burst(0, 1)[0]
	defer m.Free()
	if err := m.Check(); err != nil || m.Port != 7 || !bytes.Equal(m.AppendTo(nil), packet) {
		p.t.Fatalf("%d bytes were received as %d, %v", len(packet), m.PktLen, err)
	}
	want := mbuf.PTypeL3IPv4 | mbuf.PTypeL4UDP
	lengths := mbuf.Lengths{L3: 20, L4: 8}
	if packet[0]>>4 == 6 {
		want, lengths.L3 = mbuf.PTypeL3IPv6|mbuf.PTypeL4UDP, 40
	}
	if m.PacketType != want || m.Lengths() != lengths {
		p.t.Fatalf("%d bytes are said to be %#x, %+v", len(packet), m.PacketType, m.Lengths())
	}
	p.send(0, packet)
	if got := p.captured(1)[0]; !bytes.Equal(got, packet) {
		p.t.Fatalf("%d bytes were sent, %d captured", len(packet), len(got))
	}
}

// TestTUNQueues: each of four queue pairs carries its own flows.
func TestTUNQueues(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Mode: ModeTUN, Engine: e, Queues: 4})
		p.exchange()
	})
}

// TestTUNForeign: a persistent interface of the other mode is left alone, and the error says what it is.
func TestTUNForeign(t *testing.T) {
	ns := newNS(t)
	for _, mode := range []Mode{ModeTAP, ModeTUN} {
		p := openPortIn(t, ns, Config{Name: "mine", Mode: mode, Persist: true})
		must(t, p.Close())
		other := map[Mode]Mode{ModeTAP: ModeTUN, ModeTUN: ModeTAP}[mode]
		_, err := Open(Config{Name: "mine", Mode: other, NetNS: nsPath(ns)})
		wantIs(t, err, tuntap.ErrForeign)
		if want := "not a multi-queue " + strings.ToUpper(string(other)) + ": it is a " + strings.ToUpper(string(mode)); !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
		again := openPortIn(t, ns, Config{Name: "mine", Mode: mode})
		if again.Info().IfIndex != p.index {
			t.Error("a new interface was made")
		}
		again.forget()
		must(t, again.Close())
	}
}

// TestTUNInterrupt: who waits is woken by a packet.
func TestTUNInterrupt(t *testing.T) {
	p := startPort(t, Config{Mode: ModeTUN})
	done := start(func() error { return p.RxQueue(0).Wait(bounded(t)) })
	parked(t, inWait)
	p.inject(p.flow(1, 64))
	must(t, ended(t, done))
	p.receive(1)
}
