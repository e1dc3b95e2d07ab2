// SPDX-License-Identifier: BSD-3-Clause

package vnethdr

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

var sizes = []int{Size, SizeV1, SizeHash, SizeTunnel}

// full has another value in every byte.
var full = Header{Flags: 1, GSOType: 2, HdrLen: 0x0403, GSOSize: 0x0605, CsumStart: 0x0807, CsumOffset: 0x0a09, NumBuffers: 0x0c0b,
	HashValue: 0x100f0e0d, HashReport: 0x1211, OuterTransport: 0x1615, InnerNetwork: 0x1817}

// The bytes as the kernel's structures have them; those at 18 and 19 are padding.
const fullBytes = "0102030405060708090a" + "0b0c" + "0d0e0f1011120000" + "15161718"

func TestLayout(t *testing.T) {
	b, err := hex.DecodeString(fullBytes)
	if err != nil {
		t.Fatal(err)
	}
	if got := Decode(b); got != full {
		t.Errorf("decoded %+v", got)
	}
	for _, n := range sizes {
		got := bytes.Repeat([]byte{0xee}, n)
		full.Encode(got)
		if !bytes.Equal(got, b[:n]) {
			t.Errorf("%d bytes: encoded %x", n, got)
		}
		want := full
		if n < SizeTunnel {
			want.OuterTransport, want.InnerNetwork = 0, 0
		}
		if n < SizeHash {
			want.HashValue, want.HashReport = 0, 0
		}
		if n < SizeV1 {
			want.NumBuffers = 0
		}
		if got := Decode(b[:n]); got != want {
			t.Errorf("%d bytes: decoded %+v", n, got)
		}
	}
}

func TestTooShort(t *testing.T) {
	for n := range Size {
		b := bytes.Repeat([]byte{0xee}, n)
		if got := Decode(b); got != (Header{}) {
			t.Errorf("%d bytes: decoded %+v", n, got)
		}
		full.Encode(b)
		if !bytes.Equal(b, bytes.Repeat([]byte{0xee}, n)) {
			t.Errorf("%d bytes: encoded %x", n, b)
		}
	}
}

// Frames that pass, as the kernel delivers them.
var (
	csum  = Header{Flags: FlagNeedsCsum, CsumStart: 34, CsumOffset: 6}
	tso4  = Header{Flags: FlagNeedsCsum, GSOType: GSOTCPv4, HdrLen: 66, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
	tso6  = Header{Flags: FlagNeedsCsum, GSOType: GSOTCPv6 | GSOECN, HdrLen: 86, GSOSize: 1428, CsumStart: 54, CsumOffset: 16}
	uso   = Header{Flags: FlagNeedsCsum, GSOType: GSOUDPL4, HdrLen: 42, GSOSize: 100, CsumStart: 34, CsumOffset: 6}
	vxlan = Header{Flags: FlagNeedsCsum | FlagUDPTunnelCsum, GSOType: GSOTCPv4 | GSOUDPTunnelIPv4, HdrLen: 116, GSOSize: 1398,
		CsumStart: 84, CsumOffset: 16, OuterTransport: 34, InnerNetwork: 64}
	vxlan6 = Header{Flags: FlagNeedsCsum, GSOType: GSOTCPv6 | GSOUDPTunnelIPv6, HdrLen: 156, GSOSize: 1358,
		CsumStart: 124, CsumOffset: 16, OuterTransport: 54, InnerNetwork: 84}
)

func TestCheck(t *testing.T) {
	with := func(h Header, f func(*Header)) Header { f(&h); return h }
	for _, c := range []struct {
		what string
		h    Header
		n    int
		want error
	}{
		{"nothing", Header{}, 14, nil},
		{"nothing, empty frame", Header{}, 0, nil},
		{"data valid, unknown flags", Header{Flags: 0xf2, CsumStart: 0xffff, CsumOffset: 0xffff, GSOSize: 0xffff}, 60, nil},
		{"checksum", csum, 42, nil},
		{"checksum at the frame's end", csum, 41, ErrCsum},
		{"checksum, largest numbers", Header{Flags: FlagNeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff}, 65535, ErrCsum},
		{"checksum in the network header", with(csum, func(h *Header) { h.CsumStart = 19 }), 60, ErrCsum},
		{"headers as long as the frame", Header{HdrLen: 60}, 60, nil},
		{"headers longer than the frame", Header{HdrLen: 61}, 60, ErrHdrLen},

		{"TSO", tso4, 65535, nil},
		{"TSO, not larger than a packet", tso4, 66, nil},
		{"TSO with ECN", tso6, 65535, nil},
		{"TSO, no room for the TCP header", with(tso4, func(h *Header) { h.HdrLen = 0 }), 53, ErrCsum},
		{"TSO, just room for it", with(tso4, func(h *Header) { h.HdrLen = 0 }), 54, nil},
		{"TSO, UDP's checksum", with(tso4, func(h *Header) { h.CsumOffset = 6 }), 1000, ErrGSOCsum},
		{"TSO without a checksum", with(tso4, func(h *Header) { h.Flags = 0; h.HdrLen = 0 }), 40, nil},
		{"TSO without a checksum, too short", with(tso4, func(h *Header) { h.Flags = 0; h.HdrLen = 0 }), 39, ErrShort},
		{"TSO over IPv6 without a checksum", with(tso6, func(h *Header) { h.Flags = 0; h.HdrLen = 0 }), 59, ErrShort},
		{"TSO over IPv6, place of IPv4", with(tso6, func(h *Header) { h.CsumStart = 39 }), 1000, ErrCsum},
		{"segments of 0", with(tso4, func(h *Header) { h.GSOSize = 0 }), 1000, ErrGSOSize},
		{"segments of 65535", with(tso4, func(h *Header) { h.GSOSize = 65535 }), 1000, ErrGSOSize},
		{"segments of 65534", with(tso4, func(h *Header) { h.GSOSize = 65534 }), 1000, nil},
		{"kind 2", with(tso4, func(h *Header) { h.GSOType = 2 }), 1000, ErrGSOType},
		{"kind 16", with(tso4, func(h *Header) { h.GSOType = 16 }), 1000, ErrGSOType},
		{"ECN of nothing", with(tso4, func(h *Header) { h.GSOType = GSOECN }), 1000, ErrGSOType},
		{"a tunnel of nothing", with(vxlan, func(h *Header) { h.GSOType = GSOUDPTunnelIPv4 }), 1000, ErrGSOType},
		{"UFO", with(uso, func(h *Header) { h.GSOType = GSOUDP }), 65535, nil},
		{"UFO without a checksum", with(uso, func(h *Header) { h.GSOType, h.Flags, h.HdrLen = GSOUDP, 0, 0 }), 28, nil},
		{"UFO without a checksum, too short", with(uso, func(h *Header) { h.GSOType, h.Flags, h.HdrLen = GSOUDP, 0, 0 }), 27, ErrShort},

		{"USO", uso, 42 + 128*100, nil},
		{"USO, one byte in a datagram more", uso, 42 + 128*100 + 1, ErrSegments},
		{"USO without a checksum", with(uso, func(h *Header) { h.Flags = 0 }), 1000, ErrGSOCsum},
		{"USO, TCP's checksum", with(uso, func(h *Header) { h.CsumOffset = 16 }), 1000, ErrGSOCsum},
		{"USO with ECN", with(uso, func(h *Header) { h.GSOType |= GSOECN }), 1000, ErrGSOType},

		{"tunnel", vxlan, 65535, nil},
		{"tunnel over IPv6", vxlan6, 65535, nil},
		{"tunnel, USO", with(vxlan, func(h *Header) { h.GSOType, h.CsumOffset = GSOUDPL4|GSOUDPTunnelIPv4, 6 }), 10000, nil},
		{"tunnel over both", with(vxlan6, func(h *Header) { h.GSOType |= GSOUDPTunnelIPv4 }), 1000, ErrGSOType},
		{"tunnel, UFO", with(vxlan, func(h *Header) { h.GSOType, h.CsumOffset = GSOUDP|GSOUDPTunnelIPv4, 6 }), 1000, ErrGSOType},
		{"tunnel without a checksum", with(vxlan, func(h *Header) { h.Flags = 0 }), 1000, ErrGSOCsum},
		{"tunnel, outer place", with(vxlan, func(h *Header) { h.OuterTransport = 33 }), 1000, ErrTunnel},
		{"tunnel over IPv6, outer place", with(vxlan6, func(h *Header) { h.OuterTransport = 53 }), 1000, ErrTunnel},
		{"tunnel, inner place", with(vxlan, func(h *Header) { h.InnerNetwork = 41 }), 1000, ErrTunnel},
		{"tunnel, inner place, least", with(vxlan, func(h *Header) { h.InnerNetwork = 42 }), 1000, nil},
		{"tunnel, innermost place", with(vxlan, func(h *Header) { h.CsumStart = 83 }), 1000, ErrTunnel},
		{"tunnel, innermost place of IPv6", with(vxlan6, func(h *Header) { h.CsumStart = 123 }), 1000, ErrTunnel},
	} {
		if err := c.h.Check(c.n); err != c.want {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestNoAllocation(t *testing.T) {
	var b [SizeTunnel]byte
	n := testing.AllocsPerRun(100, func() {
		for _, size := range sizes {
			h := vxlan
			h.Encode(b[:size])
			if h.Decode(b[:size]); h != Decode(b[:size]) {
				t.Fatal("one decodes otherwise than the other")
			}
			if h.Check(1000) == h.Check(10) {
				t.Fatal("all the same")
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever the bytes, decoding and encoding gives them back, the padding apart.
func FuzzBytes(f *testing.F) {
	for _, n := range append(sizes, 0, 9, 30) {
		b, _ := hex.DecodeString(fullBytes + "191a1b1c1d1e")
		f.Add(b[:min(n, len(b))], 100)
	}
	f.Fuzz(func(t *testing.T, b []byte, frameLen int) {
		h := Decode(b)
		within(t, &h, frameLen)
		for _, n := range sizes {
			if len(b) < n {
				continue
			}
			h := Decode(b[:n])
			got := bytes.Repeat([]byte{0xee}, n)
			h.Encode(got)
			want := bytes.Clone(b[:n])
			if n >= SizeHash {
				want[18], want[19] = 0, 0
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%x became %x", want, got)
			}
		}
	})
}

// Whatever the header, encoding and decoding gives it back.
func FuzzHeader(f *testing.F) {
	for _, h := range []Header{full, csum, tso4, tso6, uso, vxlan, vxlan6} {
		f.Add(h.Flags, h.GSOType, h.HdrLen, h.GSOSize, h.CsumStart, h.CsumOffset, h.NumBuffers, h.HashValue, h.HashReport,
			h.OuterTransport, h.InnerNetwork, 1000)
	}
	f.Fuzz(func(t *testing.T, flags, gsoType uint8, hdrLen, gsoSize, start, offset, buffers uint16, hash uint32,
		report, outer, inner uint16, frameLen int) {
		h := Header{flags, gsoType, hdrLen, gsoSize, start, offset, buffers, hash, report, outer, inner}
		var b [SizeTunnel]byte
		h.Encode(b[:])
		if got := Decode(b[:]); got != h {
			t.Errorf("%+v became %+v", h, got)
		}
		within(t, &h, frameLen)
	})
}

// within holds against Check that what it lets pass lies within the frame.
func within(t *testing.T, h *Header, frameLen int) {
	t.Helper()
	if frameLen < 0 || frameLen > 1<<17 {
		frameLen = 1000
	}
	if h.Check(frameLen) != nil {
		return
	}
	if int(h.HdrLen) > frameLen || h.Flags&FlagNeedsCsum != 0 && int(h.CsumStart)+int(h.CsumOffset)+2 > frameLen {
		t.Errorf("%+v passes for %d bytes", *h, frameLen)
	}
	if h.GSOType != GSONone && h.GSOSize == 0 {
		t.Errorf("%+v passes", *h)
	}
	if h.GSOType&gsoTunnel != 0 && (int(h.OuterTransport) >= frameLen || h.OuterTransport >= h.InnerNetwork || h.InnerNetwork >= h.CsumStart) {
		t.Errorf("%+v passes for %d bytes", *h, frameLen)
	}
}

func BenchmarkDecode(b *testing.B) {
	var raw [Size]byte
	tso4.Encode(raw[:])
	var h Header
	for b.Loop() {
		h.Decode(raw[:])
	}
	if h != tso4 {
		b.Error("wrong")
	}
}

func BenchmarkCheck(b *testing.B) {
	h := tso4
	for b.Loop() {
		if h.Check(65535) != nil {
			b.Fatal("refused")
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	var raw [Size]byte
	for b.Loop() {
		tso4.Encode(raw[:])
	}
}
