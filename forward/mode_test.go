// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

func TestModes(t *testing.T) {
	want := []string{"io", "mac", "macswap", "rxonly", "txonly", "icmpecho", "csum", "mtu"}
	ms := Modes()
	if len(ms) != len(want) {
		t.Fatalf("%d modes, want %d", len(ms), len(want))
	}
	for i, m := range ms {
		if m.Name != want[i] || m.Help == "" || strings.Contains(m.Help, "\n") {
			t.Errorf("mode %d: %q, help %q; want %q and one line", i, m.Name, m.Help, want[i])
		}
		if got, err := ModeByName(m.Name); err != nil || got.Name != m.Name {
			t.Errorf("ModeByName(%q): %q, %v", m.Name, got.Name, err)
		}
	}
	ms[0].Name = "changed"
	if Modes()[0].Name != "io" {
		t.Error("Modes hands out the table itself")
	}
}

func TestModeByNameUnknown(t *testing.T) {
	_, err := ModeByName("5tswap")
	if !errors.Is(err, ErrUnknownMode) {
		t.Fatalf("error %v is not ErrUnknownMode", err)
	}
	for _, m := range append(Modes(), Mode{Name: "5tswap"}) {
		if !strings.Contains(err.Error(), m.Name) {
			t.Errorf("%q does not name %s", err, m.Name)
		}
	}
}

// frame is an Ethernet frame with something of everything in it, to see that nothing else is touched.
var frame = unhex(`0211 1111 1111 0222 2222 2222 0800 4500 001e 1234 4000 4011 0000 0a00 0001 0a00 0002
	0001 0002 000a 0000 6869`)

// TestModesRewrite sends frame through each mode that forwards, in one piece and in every cut.
func TestModesRewrite(t *testing.T) {
	peer := [6]byte{0x02, 0xcc, 0, 0, 0, 3}
	tests := []struct {
		name   string
		c      Config
		header string
	}{
		{"io", Config{}, "0211 1111 1111 0222 2222 2222"},
		{"mac", Config{Mode: "mac"}, "0200 0000 0000 PORT"},
		{"mac eth-peer", Config{Mode: "mac", EthPeers: map[int][6]byte{0: peer}}, "02cc 0000 0003 PORT"},
		{"macswap", Config{Mode: "macswap"}, "0222 2222 2222 0211 1111 1111"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, newPool(t, mbuf.Config{DataRoom: 64}), tt.c)
			want := append(unhex(tt.header), frame[12:]...)
			n := uint64(1)
			wantBytes(t, "one segment", r.pass(frame), want)
			for cut := range len(frame) {
				wantBytes(t, "two segments", r.pass(frame, cut), want)
				wantBytes(t, "three segments", r.pass(frame, cut/2, cut), want)
				n += 2
			}
			wantBytes(t, "single bytes", r.pass(frame, ones(len(frame))...), want)
			wantStats(t, r.s, Stats{RxPackets: n + 1, TxPackets: n + 1})
		})
	}
}

func ones(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = 1
	}
	return s
}

// TestModesShortFrame: less than an Ethernet header is malformed for a mode that writes one, and nothing to io.
func TestModesShortFrame(t *testing.T) {
	for _, mode := range []string{"io", "mac", "macswap", "icmpecho", "csum"} {
		r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: mode})
		want := Stats{RxPackets: 4, Malformed: 4}
		if mode == "io" {
			want = Stats{RxPackets: 4, TxPackets: 4}
		}
		for _, data := range [][]byte{nil, frame[:1], frame[:13]} {
			if got := r.pass(data); (got != nil) != (mode == "io") {
				t.Errorf("%s: %d bytes came out as %x", mode, len(data), got)
			}
		}
		r.pass(frame[:13], 6, 6)
		wantStats(t, r.s, want)
	}
}

// TestModesDropOne: a malformed packet in the middle of a burst leaves the others in order.
func TestModesDropOne(t *testing.T) {
	for _, mode := range []string{"mac", "macswap"} {
		r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: mode})
		for _, n := range []int{20, 13, 30, 40} {
			r.rx.waiting = append(r.rx.waiting, packet(t, r.pool, make([]byte, n)))
		}
		if n := r.s.burst(); n != 4 {
			t.Errorf("%s: burst returned %d, not 4", mode, n)
		}
		var lens []uint32
		for _, m := range r.tx.got {
			lens = append(lens, m.PktLen)
		}
		if len(lens) != 3 || lens[0] != 20 || lens[1] != 30 || lens[2] != 40 {
			t.Errorf("%s: sent packets of %d bytes, want 20, 30, 40", mode, lens)
		}
		mbuf.FreeBulk(r.tx.got)
		wantStats(t, r.s, Stats{RxPackets: 4, TxPackets: 3, Malformed: 1})
	}
}

// TestSetMAC: a port's new address is used from the next burst on.
func TestSetMAC(t *testing.T) {
	r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: "mac"})
	wantBytes(t, "before", r.pass(frame)[6:12], portMAC[:])
	r.port.SetMAC(hostMAC)
	wantBytes(t, "after", r.pass(frame)[6:12], hostMAC[:])
	if r.port.MAC() != hostMAC {
		t.Errorf("MAC is %x, want %x", r.port.MAC(), hostMAC)
	}
}

func TestRxOnly(t *testing.T) {
	r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: "rxonly", Burst: 4})
	for range 6 {
		r.rx.waiting = append(r.rx.waiting, packet(t, r.pool, frame, 3, 9))
	}
	for i, want := range []int{4, 2, 0} {
		if n := r.s.burst(); n != want {
			t.Errorf("burst %d returned %d, want %d", i, n, want)
		}
	}
	if r.tx.calls != 0 {
		t.Errorf("%d calls of the Tx queue, want none", r.tx.calls)
	}
	wantStats(t, r.s, Stats{RxPackets: 6})
}
