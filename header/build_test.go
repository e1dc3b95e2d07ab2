// SPDX-License-Identifier: BSD-3-Clause

package header

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// unhex reads hex digits with blanks between them.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		panic(err)
	}
	return b
}

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// ether is an Ethernet header, with tags in hex in front of the type.
func ether(tags string, typ uint16, payload []byte) []byte {
	return join(unhex("0200 0000 0001 0200 0000 0002"+tags), be.AppendUint16(nil, typ), payload)
}

// v4 is an IPv4 packet with options in hex.
func v4(options string, proto byte, payload []byte) []byte {
	opt := unhex(options)
	h := join(unhex("4500 0000 1234 4000 4000 0000 0a00 0001 0a00 0002"), opt)
	h[0] += byte(len(opt) / 4)
	h[9] = proto
	be.PutUint16(h[2:], uint16(len(h)+len(payload)))
	be.PutUint16(h[10:], ^naiveSum(h))
	return join(h, payload)
}

// v6 is an IPv6 packet; next is the type of the first extension header in ext, hex,
// or of the payload.
func v6(next byte, ext string, payload []byte) []byte {
	payload = join(unhex(ext), payload)
	h := unhex("6000 0000 0000 0040 fd00 0000 0000 0000 0000 0000 0000 0001 fd00 0000 0000 0000 0000 0000 0000 0002")
	h[6] = next
	be.PutUint16(h[4:], uint16(len(payload)))
	return join(h, payload)
}

// tcp is a TCP segment with options in hex, without checksum.
func tcp(options string, payload string) []byte {
	opt := unhex(options)
	h := join(unhex("1234 0050 0000 0001 0000 0002 5010 0100 0000 0000"), opt, []byte(payload))
	h[12] += byte(len(opt) / 4 << 4)
	return h
}

// udp is a UDP datagram to port, without checksum.
func udp(port uint16, payload []byte) []byte {
	h := join(unhex("c000 0000 0000 0000"), payload)
	be.PutUint16(h[2:], port)
	be.PutUint16(h[4:], uint16(len(h)))
	return h
}

func vxlanOf(frame []byte) []byte { return udp(4789, join(unhex("0800 0000 0000 0100"), frame)) }

// geneveOf is GENEVE with words words of options.
func geneveOf(words int, typ uint16, inner []byte) []byte {
	h := join(unhex("0000 0000 0000 0100"), make([]byte, 4*words), inner)
	h[0] = byte(words)
	be.PutUint16(h[2:], typ)
	return udp(6081, h)
}

// naiveSum is the Internet checksum's sum in another way than the package has it.
func naiveSum(b []byte) uint16 {
	var s uint32
	for i, c := range b {
		s += uint32(c) << (8 * (1 - i%2))
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// newPool makes a pool that must be full again at the end of the test.
func newPool(t testing.TB) *mbuf.Pool {
	t.Helper()
	p, err := mbuf.NewPool(mbuf.Config{Count: 512})
	nettest.NeedLinux(t, err)
	t.Cleanup(func() {
		if n := p.InUseCount(); n != 0 {
			t.Errorf("%d mbufs still in use", n)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// packet makes a packet of data in segments of the given lengths; what is left goes
// into more of them, as large as they get.
func packet(t testing.TB, p *mbuf.Pool, data []byte, cuts ...int) *mbuf.Mbuf {
	t.Helper()
	var head *mbuf.Mbuf
	for head == nil || len(data) > 0 {
		m := p.Alloc()
		if m == nil {
			t.Fatal("pool exhausted")
		}
		n := min(len(data), m.Tailroom())
		if len(cuts) > 0 {
			n, cuts = min(n, cuts[0]), cuts[1:]
		}
		copy(m.Append(n), data)
		data = data[n:]
		if head == nil {
			head = m
		} else if err := mbuf.Chain(head, m); err != nil {
			t.Fatal(err)
		}
	}
	return head
}

// randomCuts are lengths of segments, small ones and odd ones and empty ones.
func randomCuts(r *rand.Rand) []int {
	cuts := make([]int, r.IntN(60))
	for i := range cuts {
		cuts[i] = r.IntN([]int{2, 4, 30, 400}[r.IntN(4)])
	}
	return cuts
}

// newRand returns random numbers that are the same in every run.
func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
