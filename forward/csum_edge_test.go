// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"strings"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// TestCsumUntouched: what is shorter than its headers state, and is nobody's to complete, goes on as it came.
func TestCsumUntouched(t *testing.T) {
	for kind, f := range frames(40) {
		if kind == "arp" {
			continue
		}
		r := csumRig(t, CsumConfig{ParseTunnel: true})
		in := f.damaged()
		in = in[:len(in)-1]
		m := r.passMbuf(r.received(in, 0, 0))
		wantBytes(t, kind, m.AppendTo(nil), fromPeer(in))
		if l := m.Lengths(); l.L2 < 14 || l != (mbuf.Lengths{L2: l.L2}) || m.PacketType&^mbuf.PTypeL2Mask != 0 {
			t.Errorf("%s: type %#x, lengths %+v; want nothing but Ethernet", kind, m.PacketType, l)
		}
		m.Free()
	}
	r := csumRig(t, CsumConfig{ParseTunnel: true})
	// An inner packet that states more than the outer one holds: the outer one is mended.
	long := tcp(10, "").ip4(6, "").ether("0800")
	long.b[17] += 20
	long.sums = nil
	f := vxlan(long, true).ip4(17, "").ether("0800")
	wantBytes(t, "inner too long", r.pass(f.damaged()), fromPeer(f.b))
	// An outer UDP header that states less than the inner packet needs: the IP header is mended.
	less := vxlan(tcp(10, "").ip4(6, "").ether("0800"), true)
	less.b[5] -= 9
	g := less.ip4(99, "").ether("0800")
	g.b[23], g.sums = 17, []int{24}
	put16(g.b[24:], 0)
	put16(g.b[24:], inetSum(g.b[14:34]))
	got := r.pass(g.damaged())
	wantBytes(t, "outer UDP too short", got[:40], fromPeer(g.b)[:40])
	wantBytes(t, "inside", got[42:], g.b[42:])
}

// TestCsumUDPLength: a datagram's checksum covers what its own header states, which may be less than the IP packet has,
// and is left alone if that is more.
func TestCsumUDPLength(t *testing.T) {
	for name, c := range csumSettings() {
		for _, more := range []int{0, 1, 5} {
			f := udp(20, 9, true).ip4(17, "")
			f.b = append(f.b, make([]byte, more)...)
			put16(f.b[2:], uint16(len(f.b)))
			fillIPv4(f.b[:20])
			f.b[len(f.b)-1] ^= byte(more) // not in the sum
			f = f.ether("0800")
			r := csumRig(t, c)
			m := r.passMbuf(r.received(f.damaged(), 0, 0, 7))
			wantBytes(t, name, transmit(t, m), fromPeer(f.b))
			m.Free()
		}
		for _, kind := range []string{"udp4", "vxlan4", "vxlan vlan both"} {
			f := frames(20)[kind]
			at := map[string]int{"vxlan vlan both": 42}[kind] // where the UDP length is
			if at == 0 {
				at = 38
			}
			put16(f.b[at:], uint16(len(f.b)))
			in := f.damaged()
			want := fromPeer(in)
			fillIPv4(want[at-24 : at-4])
			r := csumRig(t, c)
			m := r.passMbuf(r.received(in, 0, 0))
			wantBytes(t, name+" "+kind, transmit(t, m), want)
			m.Free()
		}
	}
}

// TestCsumZero: a checksum of 0 is 0xffff.
func TestCsumZero(t *testing.T) {
	for name, c := range csumSettings() {
		for _, kind := range []string{"udp4", "udp6", "tcp4"} {
			f := frames(20)[kind]
			at := f.sums[len(f.sums)-1]
			f.b = edit(f.b, func(b []byte) { // what is added to the data is missing from the checksum
				last := b[len(b)-2:]
				v := uint32(be.Uint16(last)) + uint32(be.Uint16(b[at:]))
				put16(last, uint16(v>>16+v))
				put16(b[at:], 0xffff)
			})
			r := csumRig(t, c)
			m := r.passMbuf(r.received(f.damaged(), 0, 0))
			wantBytes(t, name+" "+kind, transmit(t, m), fromPeer(f.b))
			m.Free()
		}
	}
}

// TestCsumLongHeaders: lengths that an mbuf cannot say are no reason to ask a driver for something wrong.
func TestCsumLongHeaders(t *testing.T) {
	options := "3f00 6558 0000 0100" + strings.Repeat("0001 021e "+strings.Repeat("0000 0000", 30)+" ", 2)
	opts := unhex(options)
	opts = append(opts, make([]byte, 8+63*4-len(opts))...)
	inner := tcp(20, "").ip4(6, "").ether("0800")
	f := udpAround(inner.under(opts), 6081, true).ip4(17, "").ether("0800")
	r := csumRig(t, allHardware)
	m := packet(t, r.pool, f.damaged(), 100)
	m.SetLengths(mbuf.Lengths{L2: 14, L3: 20, L4: 20})
	m = r.passMbuf(m)
	wantBytes(t, "long GENEVE options", m.AppendTo(nil), fromPeer(f.b))
	if m.OlFlags != 0 || m.TxOffload != 0 {
		t.Errorf("flags %#x, lengths %+v", m.OlFlags, m.Lengths())
	}
	m.Free()
}

// TestCsumSourceRoute: what an IP header sends by further stops has another pseudo-header: its layer 4 is left alone.
func TestCsumSourceRoute(t *testing.T) {
	for options, open := range map[string]bool{
		"8307 0400 0000 0900": true, "0101 8907 0400 0000 0900 0000": true, "8307 0800 0000 0900": false,
		"0100 8307 0400 0000": false, "9404 0000": false, "4400 8304": false, "0783 0400": false,
	} {
		for kind, c := range map[string]CsumConfig{"software": {}, "hardware": allHardware} {
			r := csumRig(t, c)
			f := tcp(20, "").ip4(6, options).ether("0800")
			in, want := f.damaged(), fromPeer(f.b)
			if at := 14 + 20 + len(unhex(options)) + 16; open {
				copy(want[at:at+2], in[at:])
			}
			m := r.passMbuf(r.received(in, 0, 0))
			wantBytes(t, kind+" "+options, transmit(t, m), want)
			m.Free()
		}
	}
}

// TestCsumRoutingHeader: likewise in IPv6, wherever the routing header is, and around a tunnel.
func TestCsumRoutingHeader(t *testing.T) {
	const dest = " fd00 0000 0000 0000 0000 0000 0000 0009 "
	before := map[byte]string{
		43: "",
		0:  "2b 00 0104 0000 0000",
		51: "2b 04 0000 0000 0001 0000 0001 0102 0304 0506 0708 090a 0b0c",
		44: "2b 03 0000 0000 0001", // a fragment that is the whole
	}
	for first, ext := range before {
		for _, left := range []string{"00", "01"} {
			f := tcp(20, "").ip6(6, first, ext+"06 02 04 "+left+" 0000 0000"+dest).ether("86dd")
			in, want := f.damaged(), fromPeer(f.b)
			if left == "01" {
				want = fromPeer(in)
			}
			for name, c := range csumSettings() {
				r := csumRig(t, c)
				m := r.passMbuf(r.received(in, 0, 0, 60))
				wantBytes(t, name, transmit(t, m), want)
				m.Free()
			}
		}
	}
	f := vxlan(tcp(20, "").ip4(6, "").ether("0800"), true).ip4(17, "8307 0400 0000 0900").ether("0800")
	in := f.damaged()
	want := fromPeer(in)
	fillIPv4(want[14:42])
	for name, c := range csumSettings() {
		r := csumRig(t, c)
		m := r.passMbuf(r.received(in, 0, 0))
		wantBytes(t, "tunnel "+name, transmit(t, m), want)
		m.Free()
	}
}
