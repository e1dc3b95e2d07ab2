// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

const (
	oneTag  = mbuf.RxVLAN | mbuf.RxVLANStripped
	twoTags = oneTag | mbuf.RxQinQ | mbuf.RxQinQStripped
)

// asked is what m asks for, and what was left of it to ask for.
func asked(m *mbuf.Mbuf) uint64 {
	open := m.OlFlags & (mbuf.RxLRO | mbuf.RxVLANStripped | mbuf.RxQinQStripped)
	if m.OlFlags&mbuf.RxL4CksumMask == mbuf.RxL4CksumNone {
		open |= mbuf.RxL4CksumNone
	}
	return m.OlFlags&mbuf.TxOffloadMask | open
}

// TestPassThrough: modes that leave layers 3 and 4 alone send what they received as it was sent: cut into the same
// packets, with its checksum completed, its tags back in.
func TestPassThrough(t *testing.T) {
	tests := []struct {
		kind  string
		flags uint64
		want  uint64
	}{
		{"tcp4", 0, 0},
		{"tcp4", mbuf.RxL4CksumGood | mbuf.RxIPCksumGood, 0},
		{"tcp4", mbuf.RxL4CksumNone, mbuf.TxTCPCksum | mbuf.TxIPv4},
		{"udp6", mbuf.RxL4CksumNone | oneTag, mbuf.TxUDPCksum | mbuf.TxIPv6 | mbuf.TxVLAN},
		{"tcp6", lro, mbuf.TxTCPSeg | mbuf.TxTCPCksum | mbuf.TxIPv6},
		{"udp4", lro | twoTags, mbuf.TxUDPSeg | mbuf.TxUDPCksum | mbuf.TxIPv4 | mbuf.TxQinQ},
		{"vxlan4", lro | mbuf.RxOuterL4CksumInvalid, mbuf.TxTCPSeg | mbuf.TxTCPCksum | mbuf.TxIPv4 |
			mbuf.TxTunnelVXLAN | mbuf.TxOuterIPv4 | mbuf.TxOuterUDPCksum},
		{"arp", oneTag, mbuf.TxVLAN},
	}
	for _, mode := range []string{"io", "mac", "macswap"} {
		r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: mode})
		for _, tt := range tests {
			for _, cuts := range [][]int{nil, {3}, ones(20)} {
				in := frames(40)[tt.kind].damaged()
				want := bytes.Clone(in)
				switch mode {
				case "mac":
					want = fromPeer(in)
				case "macswap":
					swapAddrs(want)
				}
				m := r.received(in, tt.flags, 17, cuts...)
				lengths := m.Lengths()
				m = r.passMbuf(m)
				wantBytes(t, mode+" "+tt.kind, m.AppendTo(nil), want)
				if asked(m) != tt.want || m.Lengths() != lengths || m.VlanTCI != 0xe064 || m.VlanTCIOuter != 0x0123 {
					t.Errorf("%s, %s with %#x: flags %#x, want %#x; %+v, were %+v", mode, tt.kind, tt.flags, m.OlFlags,
						tt.want, m.Lengths(), lengths)
				}
				m.Free()
			}
		}
	}
}

// TestEchoFlags: an answer has right checksums whatever the request came with, and the tag that was stripped.
func TestEchoFlags(t *testing.T) {
	open := func(b []byte, pseudo ...[]byte) []byte {
		return edit(b, func(b []byte) {
			at := map[byte]int{0x08: 36, 0x86: 56}[b[12]]
			put16(b[at:], 0)
			if len(pseudo) > 0 {
				put16(b[at:], ^inetSum(pseudo...))
			}
		})
	}
	v6 := func(b []byte) []byte {
		return open(b, b[22:54], []byte{0, 0, b[18], b[19], 0, 0, 0, 58})
	}
	const none, good = mbuf.RxL4CksumNone, mbuf.RxL4CksumGood
	tests := []struct {
		name      string
		req, want []byte
		flags     uint64
		asks      uint64
	}{
		{"ping4", ping4, pong4, good | oneTag, mbuf.TxVLAN},
		{"ping4 two tags", ping4, pong4, twoTags, mbuf.TxQinQ},
		{"ping4 open", open(ping4), pong4, none | oneTag, mbuf.TxVLAN},
		{"ping6 open", v6(ping6), pong6, none, 0},
		{"ping6 open, tag in the data", tag(v6(ping6), "8100 0064"), tag(pong6, "8100 0064"), none | oneTag, mbuf.TxVLAN},
		{"solicit open", v6(solicit6), advert6, none | oneTag, mbuf.TxVLAN},
		{"solicit", solicit6, advert6, good | twoTags, mbuf.TxQinQ},
		{"arp", arpWho, arpIs, oneTag, mbuf.TxVLAN},
		{"large", ping4, nil, mbuf.RxLRO | none, 0},
		{"udp open", frames(9)["udp4"].b, nil, none, 0},
		{"tunnel open", frames(9)["ipip"].b, nil, none, 0},
	}
	for _, tt := range tests {
		r := echoRig(t, 0)
		for _, cuts := range [][]int{nil, {35}, {57, 1}, ones(len(tt.req))} {
			m := r.passMbuf(r.received(tt.req, tt.flags, 0, cuts...))
			if (m != nil) != (tt.want != nil) {
				t.Fatalf("%s: answered %v, want %v", tt.name, m != nil, tt.want != nil)
			}
			if m == nil {
				continue
			}
			wantBytes(t, tt.name, m.AppendTo(nil), tt.want)
			if asked(m) != tt.asks || m.VlanTCI != 0xe064 {
				t.Errorf("%s: flags %#x, want %#x", tt.name, m.OlFlags, tt.asks)
			}
			m.Free()
		}
		if st := r.s.Stats(); tt.want == nil && st != (Stats{RxPackets: 4, Ignored: 4}) {
			t.Errorf("%s: %+v, want it ignored", tt.name, st)
		}
	}
	// A driver that says something else than the packet is.
	r := echoRig(t, 0)
	m := r.received(open(ping4), none, 0)
	m.SetLengths(mbuf.Lengths{L2: 127, L3: 500})
	if m = r.passMbuf(m); m != nil {
		t.Error("answered with lengths beyond the packet")
		m.Free()
	}
}
