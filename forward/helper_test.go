// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/mbuf"
)

func TestMain(m *testing.M) { nettest.Main(m) }

var (
	portMAC = [6]byte{0x02, 0xaa, 0xaa, 0xaa, 0xaa, 0x01}
	hostMAC = [6]byte{0x02, 0xbb, 0xbb, 0xbb, 0xbb, 0x02}
)

// fakeRx hands out the packets that wait in it.
type fakeRx struct{ waiting []*mbuf.Mbuf }

func (q *fakeRx) Burst(bufs []*mbuf.Mbuf) int {
	n := copy(bufs, q.waiting)
	q.waiting = q.waiting[n:]
	return n
}

// fakeTx keeps what it takes, at most limit in all calls together (negative: no limit), and at most step a call
// (0: no limit).
type fakeTx struct {
	got         []*mbuf.Mbuf
	limit, step int
	calls       int
	largest     int // number of packets in a call
}

func (q *fakeTx) Burst(bufs []*mbuf.Mbuf) int {
	q.calls++
	q.largest = max(q.largest, len(bufs))
	n := len(bufs)
	if q.limit >= 0 {
		n = min(n, q.limit-len(q.got))
	}
	if q.step > 0 {
		n = min(n, q.step)
	}
	q.got = append(q.got, bufs[:n]...)
	return n
}

// newPool makes a pool that must be full again at the end of the test.
func newPool(t testing.TB, c mbuf.Config) *mbuf.Pool {
	t.Helper()
	if c.Count == 0 {
		c.Count = 256
	}
	p, err := mbuf.NewPool(c)
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

// packet makes a packet of data, cut into segments of the given lengths; what is left goes into a last one. With
// no cuts it is one segment.
func packet(t testing.TB, p *mbuf.Pool, data []byte, cuts ...int) *mbuf.Mbuf {
	t.Helper()
	var head *mbuf.Mbuf
	add := func(b []byte) {
		m := p.Alloc()
		if m == nil {
			t.Fatal("pool exhausted")
		}
		if len(b) > 0 {
			copy(m.Append(len(b)), b)
		}
		if head == nil {
			head = m
		} else if err := mbuf.Chain(head, m); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range cuts {
		n = min(n, len(data))
		add(data[:n])
		data = data[n:]
	}
	if len(data) > 0 || head == nil {
		add(data)
	}
	return head
}

// rig is one stream in a mode, between fake queues: one port that loops to itself.
type rig struct {
	t    testing.TB
	pool *mbuf.Pool
	rx   *fakeRx
	tx   *fakeTx
	port *Port
	s    *Stream
}

func newRig(t testing.TB, pool *mbuf.Pool, c Config) *rig {
	t.Helper()
	r := &rig{t: t, pool: pool, rx: &fakeRx{}, tx: &fakeTx{limit: -1}}
	r.port = NewPort(portMAC, []*fakeRx{r.rx}, []*fakeTx{r.tx})
	f, err := New(c, r.port)
	if err != nil {
		t.Fatal(err)
	}
	r.s = f.Streams()[0]
	return r
}

// pass sends one packet through the mode and returns what came out, nil for nothing. The packet is freed.
func (r *rig) pass(data []byte, cuts ...int) []byte {
	r.t.Helper()
	r.rx.waiting = append(r.rx.waiting, packet(r.t, r.pool, data, cuts...))
	if n := r.s.burst(); n != 1 {
		r.t.Fatalf("burst returned %d, not 1", n)
	}
	return r.take()
}

// take returns the bytes of the one packet sent since, if any.
func (r *rig) take() []byte {
	r.t.Helper()
	if len(r.tx.got) == 0 {
		return nil
	}
	if len(r.tx.got) > 1 {
		r.t.Fatalf("%d packets sent, not 1", len(r.tx.got))
	}
	m := r.tx.got[0]
	if err := m.Check(); err != nil {
		r.t.Errorf("sent: %v", err)
	}
	b := m.AppendTo([]byte{})
	m.Free()
	r.tx.got = r.tx.got[:0]
	return b
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n got %x\nwant %x", what, got, want)
	}
}

func wantStats(t testing.TB, s *Stream, want Stats) {
	t.Helper()
	if got := s.Stats(); got != want {
		t.Errorf("stats:\n got %+v\nwant %+v", got, want)
	}
}

// unhex reads hex digits with blanks between them, and the names of the addresses used in the tests.
func unhex(s string) []byte {
	s = strings.NewReplacer("PORT", hex.EncodeToString(portMAC[:]), "HOST", hex.EncodeToString(hostMAC[:]),
		" ", "", "\n", "", "\t", "").Replace(s)
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// inetSum is the Internet checksum by RFC 1071's definition, in another way than the package has it: the number
// that the bytes are, modulo 65535.
func inetSum(parts ...[]byte) uint16 {
	var rest uint64
	zero := true
	for i, b := range bytes.Join(parts, nil) {
		zero = zero && b == 0
		if i%2 == 0 {
			rest += uint64(b) * 256
		} else {
			rest += uint64(b)
		}
	}
	if rest %= 65535; rest == 0 && !zero {
		return 0
	}
	return uint16(65535 - rest)
}

func put16(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }

// sealIPv4 fills in the lengths and checksums of an IPv4 ICMP packet at b[l3:].
func sealIPv4(b []byte, l3 int) []byte {
	ip := b[l3:]
	hlen := int(ip[0]&15) * 4
	put16(ip[2:], uint16(len(ip)))
	put16(ip[10:], 0)
	put16(ip[10:], inetSum(ip[:hlen]))
	put16(ip[hlen+2:], 0)
	put16(ip[hlen+2:], inetSum(ip[hlen:]))
	return b
}

// sealIPv6 fills in the length and checksum of an ICMPv6 packet at b[l3:].
func sealIPv6(b []byte, l3 int) []byte {
	ip := b[l3:]
	n := len(ip) - 40
	put16(ip[4:], uint16(n))
	put16(ip[42:], 0)
	put16(ip[42:], inetSum(ip[8:40], []byte{0, 0, byte(n >> 8), byte(n), 0, 0, 0, 58}, ip[40:]))
	return b
}

// edit returns a copy of b changed by f.
func edit(b []byte, f func(b []byte)) []byte {
	b = bytes.Clone(b)
	f(b)
	return b
}
