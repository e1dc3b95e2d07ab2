// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/vnethdr"
)

// ledger is what all extended statistics must be, by a test's own bookkeeping. It knows
// nothing of how the driver counts. What is not booked must be 0.
type ledger struct {
	t    testing.TB
	want map[string]uint64
}

func newLedger(t testing.TB) *ledger { return &ledger{t, map[string]uint64{}} }

// totals are the port's names for what its queues count.
var totals = map[string]string{"rx_packets": "rx_good_packets", "tx_packets": "tx_good_packets", "rx_bytes": "rx_good_bytes", "tx_bytes": "tx_good_bytes",
	"rx_errors": "rx_errors", "tx_errors": "tx_errors", "rx_mbuf_alloc_failed": "rx_mbuf_allocation_errors"}

func (l *ledger) add(dir string, queue int, name string, n int) {
	if dir+name != "txerrors" { // which ethdev has for the port only
		l.want[fmt.Sprintf("%s_q%d_%s", dir, queue, name)] += uint64(n)
	}
	if total := totals[dir+"_"+name]; total != "" {
		l.want[total] += uint64(n)
	}
}

// packet books a packet of size bytes in segs mbufs that begins with dst.
func (l *ledger) packet(dir string, queue, size int, dst []byte, segs int) {
	l.add(dir, queue, "packets", 1)
	l.add(dir, queue, "bytes", size)
	l.add(dir, queue, "size_"+rangeOf(size, 64, 127, 255, 511, 1023, 1518, 2047, 4095, 8191, 16383, 32767)+"_packets", 1)
	switch {
	case bytes.HasPrefix(dst, []byte{255, 255, 255, 255, 255, 255}):
		l.add(dir, queue, "broadcast_packets", 1)
	case dst[0]%2 == 1:
		l.add(dir, queue, "multicast_packets", 1)
	default:
		l.add(dir, queue, "unicast_packets", 1)
	}
	if segs > 1 {
		l.add(dir, queue, "multiseg_packets", 1)
	}
}

// rangeOf names the range of n between edges.
func rangeOf(n int, edges ...int) string {
	from := 0
	for _, edge := range edges {
		if n <= edge {
			if from == 0 || from == edge {
				return fmt.Sprint(edge)
			}
			return fmt.Sprintf("%d_to_%d", from, edge)
		}
		from = edge + 1
	}
	return fmt.Sprintf("%d_to_max", from)
}

// burst books a burst of n packets.
func (l *ledger) burst(dir string, queue, n int) {
	l.add(dir, queue, "bursts_"+rangeOf(n, 0, 1, 3, 7, 15, 31, 63, 127, 255), 1)
}

// said books what must be said of a packet that was received.
func (l *ledger) said(queue int, flags uint64) {
	l4 := map[uint64]string{0: "checksum_unknown", mbuf.RxL4CksumGood: "checksum_good", mbuf.RxL4CksumNone: "checksum_none", mbuf.RxL4CksumBad: "checksum_bad"}
	l.add("rx", queue, l4[flags&(mbuf.RxL4CksumGood|mbuf.RxL4CksumBad)], 1)
	for flag, name := range map[uint64]string{mbuf.RxLRO: "lro_packets", mbuf.RxIPCksumGood: "ip_checksum_good", mbuf.RxIPCksumBad: "ip_checksum_bad",
		mbuf.RxOuterL4CksumInvalid: "outer_checksum_none"} {
		if flags&flag == flag {
			l.add("rx", queue, name, 1)
		}
	}
}

// check compares everything but the window and those whose names end so.
func (l *ledger) check(got []XStat, but ...string) {
	l.t.Helper()
	left := len(l.want)
	for _, x := range got {
		want, booked := l.want[x.Name]
		if booked {
			left--
		}
		open := func(end string) bool { return strings.HasSuffix(x.Name, end) }
		if x.Value != want && !slices.ContainsFunc(append(but, "_window"), open) {
			l.t.Errorf("%s is %d, want %d", x.Name, x.Value, want)
		}
	}
	if left != 0 {
		l.t.Errorf("%d names that are booked are not there", left)
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

func (p *port) xstats() []XStat {
	p.t.Helper()
	all, err := p.XStats()
	must(p.t, err)
	return all
}

// xstat is one of them.
func (p *port) xstat(name string) uint64 {
	p.t.Helper()
	id, err := p.XStatID(name)
	must(p.t, err)
	v, err := p.XStatsByID([]int{id})
	must(p.t, err)
	return v[0]
}

// receive is a burst on Rx queue i of up to n packets that books itself, what the engine
// does for it included, and frees what comes.
func (l *ledger) receive(p *port, i, n int) int {
	l.t.Helper()
	window := p.xstat(fmt.Sprintf("rx_q%d_window", i))
	if expect := p.RxQueue(i).expect; int(window) != expect {
		l.t.Fatalf("the window of queue %d is %d, want %d", i, window, expect)
	}
	reads := min(int(window), n)
	bufs := make([]*mbuf.Mbuf, n)
	got := p.RxQueue(i).Burst(bufs)
	l.burst("rx", i, got)
	if p.batches() && reads > 4 {
		l.add("rx", i, "enters", 1)
		l.add("rx", i, "empty_reads", reads-got)
	} else {
		l.add("rx", i, "syscalls", min(got+1, reads))
		l.add("rx", i, "empty_reads", min(reads-got, 1))
	}
	for _, m := range bufs[:got] {
		l.packet("rx", i, int(m.PktLen), m.AppendTo(nil), int(m.NbSegs))
		l.said(i, m.OlFlags)
	}
	mbuf.FreeBulk(bufs[:got])
	return got
}

// batches reports whether reads go in batches: see pktio.
func (p *port) batches() bool {
	return p.Info().Engine == EngineUring && !strings.Contains(p.engine.Notes(), "packet by packet")
}

// send is a burst on Tx queue i that books itself, as one that the kernel takes unless
// errors says why not, for each packet.
func (l *ledger) send(p *port, i int, bufs []*mbuf.Mbuf, errors ...string) {
	l.t.Helper()
	l.burst("tx", i, len(bufs))
	batch := 0 // packets that go to the kernel together
	flush := func() {
		if batch > 1 && p.Info().Engine == EngineUring {
			l.add("tx", i, "enters", 1)
		} else {
			l.add("tx", i, "syscalls", batch)
		}
		batch = 0
	}
	for k, m := range bufs {
		why := ""
		if k < len(errors) {
			why = errors[k]
		}
		if why == "unsendable" {
			flush()
		} else {
			batch++
		}
		if why != "" {
			l.add("tx", i, "error_"+why, 1)
			l.add("tx", i, "errors", 1)
		} else {
			l.packet("tx", i, int(m.PktLen), m.AppendTo(nil), int(m.NbSegs))
		}
	}
	flush()
	if n := p.TxQueue(i).Burst(bufs); n != len(bufs) {
		l.t.Fatalf("sent %d of %d", n, len(bufs))
	}
}

// xstatSizes are the shortest frame and those at both ends of each range.
var xstatSizes = []int{14, 63, 64, 65, 127, 128, 255, 256, 511, 512, 1023, 1024, 1518, 1519, 2047, 2048, 4095, 4096, 8191, 8192, 16383, 16384,
	32767, 32768, longestFrame}

// xstatFrame is a frame of a kind of address that depends on seq.
func xstatFrame(size, seq int) []byte {
	f := frame(size, seq)
	copy(f, [][]byte{{2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 0, 0x5e}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xfe}, {0xfe, 0xff}}[seq%5])
	return f
}

// TestXStats: every counter is what was sent and received, to the last packet, byte, burst and
// system call: frames of all sizes and addresses in bursts of all lengths, chains cut
// anywhere, what the kernel refuses and what the driver does.
func TestXStats(t *testing.T) {
	eachWay(t, func(t *testing.T, w way) {
		pool := newPool(t, mbuf.Config{Name: "xstats", Count: 7000}) // a slot has 33
		p := w.start(t, Config{MTU: MaxMTU}, 2, RxConfig{Memory: pool})
		l, r := newLedger(t), rand.New(rand.NewPCG(1, 2))
		for seq := range xstatSizes { // each at least once, whatever is drawn later
			l.exchange(p, r, xstatSizes[seq:seq+1], seq)
		}
		for range nettest.Scale(60) {
			l.exchange(p, r, xstatSizes, r.IntN(5))
			l.check(p.xstats())
		}
		must(t, p.SetLinkDown())
		l.send(p, 1, []*mbuf.Mbuf{p.mbufOf(frame(60, 0))}, "eio")
		l.send(p, 1, []*mbuf.Mbuf{p.mbufOf(frame(60, 0)), nil, p.mbufOf(frame(9000, 0))}, "eio", "unsendable", "eio")
		l.check(p.xstats())
		must(t, p.SetLinkUp())
		l.exchange(p, r, xstatSizes, 0)
		l.check(p.xstats())

		must(t, p.ResetStats())
		windows := []uint64{p.xstat("rx_q0_window"), p.xstat("rx_q1_window")}
		newLedger(t).check(p.xstats())
		if windows[0] == 0 || windows[1] == 0 {
			t.Errorf("the windows are %v: ResetStats is not for them", windows)
		}
		l = newLedger(t)
		l.exchange(p, r, xstatSizes, 1)
		l.check(p.xstats())
	})
}

// exchange receives some frames, and sends some.
func (l *ledger) exchange(p *port, r *rand.Rand, sizes []int, seq int) {
	l.t.Helper()
	left, room := 0, injectable
	for range 1 + r.IntN(60) {
		size := sizes[r.IntN(len(sizes))]
		if room -= size; room < 0 && left > 0 {
			break
		}
		p.inject(xstatFrame(size, seq+left))
		left++
	}
	for tries := 0; left > 0 || tries < 2; tries++ {
		left -= l.receive(p, tries%2, 1+r.IntN(80))
		if tries > 10000 {
			l.t.Fatalf("%d frames did not come", left)
		}
	}
	var bufs []*mbuf.Mbuf
	var errors []string
	for room = 3 * injectable; room > 0 && len(bufs) < 70; {
		size := sizes[r.IntN(len(sizes))]
		m, why := l.packetTo(p, r, size, seq+len(bufs))
		bufs, errors, room = append(bufs, m), append(errors, why), room-size
	}
	l.send(p, r.IntN(2), bufs, errors...)
	wantInUse(l.t, p.pool, 0)
}

// packetTo is a packet to send, in one mbuf or several, and why it cannot be sent.
func (l *ledger) packetTo(p *port, r *rand.Rand, size, seq int) (*mbuf.Mbuf, string) {
	l.t.Helper()
	f := xstatFrame(size, seq)
	switch cut := r.IntN(8); {
	case size > 1000:
		return p.mbufOf(f), ""
	case cut == 0:
		return nil, "unsendable"
	case cut == 1:
		return p.mbufOf(f[:13]), "einval"
	case cut <= 6:
		at := []int{0, 1, 5, 6, 7}[cut-2]
		return chain(l.t, p.pool, f, at, size-at), ""
	}
	return p.mbufOf(f), ""
}

// fakeXStats are those of queues over a fake engine; either may be nil.
func fakeXStats(rx *RxQueue, tx *TxQueue) []XStat {
	var c pairCounts
	var window uint32
	if rx != nil {
		c.rx, window = rx.stats.load(), rx.stats.window.Load()
	}
	if tx != nil {
		c.tx = tx.stats.load()
	}
	return listXStats(&Stats{QueueStats: c.stats()}, []rxView{{c.rx, window}}, []txView{{c.tx}})
}

// TestXStatsRxOffloads: what is said of packets, each way that it can be said, and the
// size on the wire.
func TestXStatsRxOffloads(t *testing.T) {
	for _, room := range []int{9200, 300} {
		pool := newPool(t, mbuf.Config{Name: "xstats", Count: 200, DataRoom: room})
		l := newLedger(t)
		var q *RxQueue
		var c rxCase
		e := &fakeEngine{read: func(_ []pktio.Desc, done []pktio.Completion) int {
			done[0] = deliver(q, 0, &c.hdr, c.frame)
			return 1
		}}
		q = fakeRx(t, e, RxConfig{Memory: pool, Ring: 1}, 9000)
		one, _ := tagOf(frame(65, 0), 1) // would be in the sizes below without their tags
		two, _ := tagOf(frame(130, 0), 2)
		for _, c = range append(rxCases(), rxCase{offloads: RxOffloadVLANStrip, frame: one}, rxCase{offloads: RxOffloadQinQStrip, frame: two}) {
			must(t, q.fit((&Device{conf: PortConfig{RxOffloads: c.offloads}}).rxShape(9000)))
			bufs := make([]*mbuf.Mbuf, 1)
			n := q.Burst(bufs)
			l.burst("rx", 0, n)
			if c.refused {
				l.add("rx", 0, "error_header", 1)
				l.add("rx", 0, "errors", 1)
				continue
			}
			l.packet("rx", 0, len(c.frame), c.frame, int(bufs[0].NbSegs))
			l.said(0, c.flags)
			bufs[0].Free()
		}
		l.check(fakeXStats(q, nil))
	}
}

// TestXStatsChecksumBad: no kernel says so, but the counter is there, as the C driver's is.
func TestXStatsChecksumBad(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "bad", Count: 1})
	q, l := fakeRx(t, &fakeEngine{}, RxConfig{Ring: 1, Memory: pool}, DefaultMTU), newLedger(t)
	m := mbufFrom(t, pool, frame(60, 0))
	defer m.Free()
	m.OlFlags = mbuf.RxL4CksumBad
	q.count.received([]*mbuf.Mbuf{m})
	q.stats.burst(&q.count, 1)
	l.packet("rx", 0, 60, frame(60, 0), 1)
	l.said(0, m.OlFlags)
	l.burst("rx", 0, 1)
	l.check(fakeXStats(q, nil), "_bytes")
}

// TestXStatsTxOffloads: what packets ask for, each way that they can, and the size with
// the tags that the driver inserts.
func TestXStatsTxOffloads(t *testing.T) {
	for _, room := range []int{4000, 130} {
		pool := newPool(t, mbuf.Config{Name: "xstats", Count: 64, DataRoom: room})
		e := &fakeEngine{write: func(descs []pktio.Desc, _ []pktio.Completion) (int, int) { return len(descs), 0 }}
		q, l := fakeTx(t, e, TxConfig{Ring: 1}), newLedger(t)
		for _, c := range txCases() {
			if c.only == 0 {
				c.only = everyTx
			}
			q.fit(&PortConfig{TxOffloads: c.only, RxOffloads: RxOffloadTCPLRO | RxOffloadTunnelLRO})
			m := c.mbuf(t, pool)
			l.burst("tx", 0, 1)
			if c.refused {
				l.add("tx", 0, "error_unsendable", 1)
				l.add("tx", 0, "errors", 1)
			} else {
				l.asked(m)
			}
			q.Burst([]*mbuf.Mbuf{m})
		}
		l.check(fakeXStats(nil, q))
	}
}

// asked books a packet that is sent on queue 0 and what it asks for.
func (l *ledger) asked(m *mbuf.Mbuf) {
	size, f := int(m.PktLen), m.OlFlags
	switch {
	case f&mbuf.TxQinQ != 0:
		size += 8
	case f&mbuf.TxVLAN != 0:
		size += 4
	}
	l.packet("tx", 0, size, m.AppendTo(nil), int(m.NbSegs))
	tso := f&(mbuf.TxTCPSeg|mbuf.TxUDPSeg) != 0
	if tso {
		l.add("tx", 0, "tso_packets", 1)
	}
	if tso || f&(mbuf.TxTCPCksum|mbuf.TxUDPCksum|mbuf.TxIPCksum|mbuf.TxOuterIPCksum|mbuf.TxOuterUDPCksum) != 0 {
		l.add("tx", 0, "checksum_offload", 1)
	}
}

// TestXStatsLRO: large frames of the kernel's, received and sent back, and what is said of
// packets between two ports and asked of the other.
func TestXStatsLRO(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		pool := newPool(t, mbuf.Config{Name: "lro", DataRoom: 65407, Count: 100})
		p := startPort(t, Config{Engine: e, RxOffloads: relayRx, TxOffloads: relayTx, Memory: pool, RxRing: 32, TxRing: 32})
		in, err := traffic.NewOffloadInjector(p.ns, p.index)
		must(t, err)
		defer in.Close()
		l := newLedger(t)
		for i, size := range []int{1519, 2048, 9000, 20000, 40000} {
			f, hdr := largeTCP(size, 700, i%2 == 1)
			b := make([]byte, vnethdr.Size, vnethdr.Size+size)
			hdr.Encode(b)
			must(t, in.Inject(append(b, f...)))
			m := p.burst(0, 1)[0]
			l.packet("rx", 0, size, f, 1)
			l.add("rx", 0, "lro_packets", 1)
			l.add("rx", 0, "checksum_none", 1)
			if i%2 == 0 { // IPv4
				l.add("rx", 0, "ip_checksum_good", 1)
			}
			mbuf.PassThrough([]*mbuf.Mbuf{m})
			l.asked(m)
			l.add("tx", 0, "syscalls", 1)
			l.burst("tx", 0, 1)
			if p.TxQueue(0).Burst([]*mbuf.Mbuf{m}) != 1 {
				t.Fatal("not sent")
			}
		}
		// How often the port had to look is left open here.
		l.check(p.xstats(), "rx_q0_bursts_0", "rx_q0_bursts_1", "rx_q0_enters", "rx_q0_syscalls", "rx_q0_empty_reads")

		relay := newRelay(t, relayConfig{engine: e, rx: relayRx, tx: relayTx})
		relay.tcp(traffic.TCPConfig{Bytes: 4 << 20}, relay.v4[1])
		for i, in := range relay.ports {
			seen, out := &relay.seen[i], relay.ports[1-i]
			nettest.Eventually(t, wait, "the same counts on both sides", func() bool {
				large := seen.lro.Load()
				return in.xstat("rx_q0_lro_packets") == large && out.xstat("tx_q0_tso_packets") == large &&
					in.xstat("rx_q0_checksum_none") == seen.none.Load() && in.xstat("rx_q0_checksum_good") == seen.good.Load()
			})
		}
		if relay.seen[0].lro.Load() == 0 {
			t.Error("no large frames came: the test does not test")
		}
	})
}

// TestXStatsBursts: bursts of every length, of both ends of each range.
func TestXStatsBursts(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "bursts", Count: 2000})
	burst := 0
	e := &fakeEngine{
		read: func(descs []pktio.Desc, done []pktio.Completion) int {
			for i := range min(len(descs), burst) {
				done[i] = pktio.Completion{Index: uint32(i), Res: hdrLen + 60}
			}
			return min(len(descs), burst)
		},
		write: func([]pktio.Desc, []pktio.Completion) (int, int) { return burst, 0 },
	}
	rx, tx, l := fakeRx(t, e, RxConfig{Ring: 512, Memory: pool}, DefaultMTU), fakeTx(t, e, TxConfig{Ring: 512}), newLedger(t)
	for _, burst = range []int{0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 400} {
		rx.expect = 512 // as if there had always been so many
		bufs := make([]*mbuf.Mbuf, 512)
		if n := rx.Burst(bufs); n != burst {
			t.Fatalf("received %d packets of %d", n, burst)
		}
		l.burst("rx", 0, burst)
		for _, m := range bufs[:burst] {
			copy(m.Bytes(), frame(60, 0))
			l.packet("tx", 0, 60, frame(60, 0), 1)
		}
		bufs[burst] = pool.Alloc() // so that there is something to be sent
		if n := tx.Burst(bufs[:burst+1]); n != burst {
			t.Fatalf("sent %d packets of %d", n, burst)
		}
		bufs[burst].Free()
		l.burst("tx", 0, burst)
	}
	l.check(slices.DeleteFunc(fakeXStats(rx, tx), func(x XStat) bool {
		return strings.HasPrefix(x.Name, "rx_") && !strings.Contains(x.Name, "_bursts_")
	}))
}

// TestXStatsErrors: each error that a read and a write can have, and a ring that is full.
func TestXStatsErrors(t *testing.T) {
	gone := map[string]syscall.Errno{"ebadfd": tuntap.Gone}
	reads := map[string]syscall.Errno{"efault": syscall.EFAULT, "einval": syscall.EINVAL, "enomem": syscall.ENOMEM, "other": syscall.EIO}
	writes := map[string]syscall.Errno{"eagain": syscall.EAGAIN, "efault": syscall.EFAULT, "einval": syscall.EINVAL, "eio": syscall.EIO,
		"emsgsize": syscall.EMSGSIZE, "enobufs": syscall.ENOBUFS, "enomem": syscall.ENOMEM, "other": syscall.EPERM}
	pool := newPool(t, mbuf.Config{Name: "errors", Count: 64})
	e := &fakeEngine{}
	rx, tx, l := fakeRx(t, e, RxConfig{Ring: 8, Memory: pool}, DefaultMTU), fakeTx(t, e, TxConfig{Ring: 8}), newLedger(t)
	read := func(results ...int32) {
		e.read = func(_ []pktio.Desc, done []pktio.Completion) int {
			*e.rx = pktio.Counts{Enters: 2, Syscalls: 3, Empty: 4, Full: 5}
			done[0] = pktio.Completion{Res: results[0]}
			return 1
		}
		for name, n := range map[string]int{"enters": 2, "syscalls": 3, "empty_reads": 4, "ring_full": 5} {
			l.add("rx", 0, name, n)
		}
		l.burst("rx", 0, rx.Burst(make([]*mbuf.Mbuf, 1)))
	}
	write := func(errno syscall.Errno) {
		e.write = func(descs []pktio.Desc, failed []pktio.Completion) (int, int) {
			*e.tx = pktio.Counts{Enters: 2, Syscalls: 3, Full: 5}
			failed[0] = pktio.Completion{Index: 1, Res: -int32(errno)} // of three taken, of four
			return 3, 1
		}
		for name, n := range map[string]int{"enters": 2, "syscalls": 3, "ring_full": 5} {
			l.add("tx", 0, name, n)
		}
		bufs := make([]*mbuf.Mbuf, 4)
		for i := range bufs {
			bufs[i] = mbufFrom(t, pool, frame(60+i, 0))
		}
		for i, size := range []int{60, 62} { // the second of which may be the third
			l.packet("tx", 0, size, frame(size, i), 1)
		}
		l.burst("tx", 0, tx.Burst(bufs))
		bufs[3].Free()
	}
	for name, errno := range reads {
		read(-int32(errno))
		l.add("rx", 0, "error_"+name, 1)
		l.add("rx", 0, "errors", 1)
	}
	for _, res := range []int32{rx.capacity, 0, hdrLen} {
		read(res)
		l.add("rx", 0, "error_length", 1)
		l.add("rx", 0, "errors", 1)
	}
	for name, errno := range writes {
		write(errno)
		l.add("tx", 0, "error_"+name, 1)
		l.add("tx", 0, "errors", 1)
	}
	l.check(fakeXStats(rx, tx))
	for name, errno := range gone { // not an error of a packet received
		read(-int32(errno))
		l.add("rx", 0, "error_"+name, 1)
		write(errno)
		l.add("tx", 0, "error_"+name, 1)
		l.add("tx", 0, "errors", 1)
	}
	l.check(fakeXStats(rx, tx))
	if rx.Burst(make([]*mbuf.Mbuf, 1))+tx.Burst(make([]*mbuf.Mbuf, 1)) != 0 {
		t.Error("a queue of a deleted interface moves packets")
	}
	l.check(fakeXStats(rx, tx))
}
