// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"encoding/binary"
	"math"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// What a queue counts, one direction. A burst counts in plain memory of its own, and
// publishes when it is done, with one atomic addition for each counter that changed: a
// counter costs a burst of packets what it would cost each of them otherwise. What
// follows from other counters is not counted (see counts). Those in front of cntBytes are
// classes of packets, which add up.
const (
	cntSize      = 0               // packets by size: sizes of them
	cntBroadcast = cntSize + sizes // packets by address
	cntMulticast = cntSize + sizes + 1
	cntL4        = cntMulticast + 1 // Rx packets by what is known of the layer-4 checksum
	cntBytes     = cntL4 + 4

	cntIP        = cntBytes + 1 // Rx packets by what is known of the IPv4 header's checksum
	cntMultiseg  = cntIP + 4
	cntLarge     = cntIP + 5 // LRO, or asked for segmentation
	cntOuterNone = cntIP + 6
	cntCksum     = cntIP + 7 // asked for a checksum
	cntNoMbuf    = cntIP + 8
	cntEnters    = cntIP + 9
	cntSyscalls  = cntIP + 10
	cntEmpty     = cntIP + 11
	cntFull      = cntIP + 12
	cntBurst     = cntIP + 13 // by packets: burstSizes of them

	// Packets lost, by why: the errnos of the direction's table, then those of this
	// list.
	cntErrno  = cntBurst + burstSizes
	cntOther  = cntErrno + maxErrnos // another errno
	cntLength = cntOther + 1
	cntHeader = cntOther + 2
	cntUnsent = cntOther + 3

	counterCount = cntOther + 4
)

// What is known of a checksum: the bits of mbuf.Rx…CksumBad and …CksumGood side by
// side. The counters of unknown ones are left alone.
const (
	cksumBad = 1 + iota
	cksumGood
	cksumNone
)

// counterMax is what a mask of counters has room for: the index of an array of as many
// needs no check.
const counterMax = 64

const _ = uint(counterMax - counterCount)

const (
	sizes      = 12
	burstSizes = 10
	maxErrnos  = 8
)

// sizeOf is which of the sizes a packet of n bytes has: up to 64, up to 127 and so on by
// powers of two, and up to 1518, the longest without a tag at Ethernet's MTU. Packets of
// mixed sizes would make the processor guess wrong if it were for it to choose.
func sizeOf(n uint32) int {
	l := &sizeTable[bits.Len32(n)]
	i := int(l.size)
	if n > l.edge {
		i++
	}
	return i
}

// sizeTable has, for each length of a number in bits, the first size that it may be of,
// and the longest packet of that size.
var sizeTable = func() (t [33]struct{ edge, size uint32 }) {
	for length := range t {
		i := max(length-6, 0)
		if length > 11 {
			i++
		}
		t[length].edge, t[length].size = math.MaxUint32, uint32(min(i, sizes-1))
	}
	t[7].edge, t[7].size = 64, 0
	t[11].edge = 1518
	return t
}()

// burstOf is likewise of a burst of n packets: none, one, up to 3, up to 7 and so on.
func burstOf(n int) int { return min(bits.Len(uint(n)), burstSizes-1) }

// errnos that a TAP gives (drivers/net/tun.c, and sock_alloc_send_pskb that it calls),
// or io_uring for it. Of a read, EAGAIN means an empty queue.
var (
	rxErrnos = []errnoName{
		{tuntap.Gone, "ebadfd"}, {syscall.EFAULT, "efault"}, {syscall.EINVAL, "einval"}, {syscall.ENOMEM, "enomem"},
	}
	txErrnos = []errnoName{
		{syscall.EAGAIN, "eagain"}, {tuntap.Gone, "ebadfd"}, {syscall.EFAULT, "efault"}, {syscall.EINVAL, "einval"},
		{syscall.EIO, "eio"}, {syscall.EMSGSIZE, "emsgsize"}, {syscall.ENOBUFS, "enobufs"}, {syscall.ENOMEM, "enomem"},
	}
)

type errnoName struct {
	errno syscall.Errno
	name  string
}

// errnoOf is the counter of an errno.
func errnoOf(table []errnoName, e syscall.Errno) int {
	for i := range table {
		if table[i].errno == e {
			return cntErrno + i
		}
	}
	return cntOther
}

// pending is what a burst has counted and not published. It belongs to whoever is inside
// the queue's gate.
type pending struct {
	n       [counterMax]uint64
	touched uint64       // bit i: n[i] may be more than 0
	group   uint8        // layer2's
	io      pktio.Counts // what the engine counts
}

func (p *pending) add(i int, n uint64) {
	p.n[i&(counterMax-1)] += n
	p.touched |= 1 << (i & (counterMax - 1))
}

// received counts packets that came. Their length is that on the wire, with the tags that were
// stripped, as of the bytes. Mostly there is nothing to be said of a packet but its size, or
// else the same of all.
func (p *pending) received(bufs []*mbuf.Mbuf) {
	touched, group := uint64(0), p.group
	for _, m := range bufs {
		f := m.OlFlags
		size := sizeOf(m.PktLen+strippedLen(f)) & (counterMax - 1)
		p.n[size]++
		touched |= 1 << size
		if f&rxCksums != 0 {
			p.n[cntL4+(f/mbuf.RxL4CksumBad&1|f/mbuf.RxL4CksumGood&1<<1)]++
			p.n[cntIP+(f/mbuf.RxIPCksumBad&1|f/mbuf.RxIPCksumGood&1<<1)]++
			touched |= rxCksumCounters
		}
		b := m.Bytes()
		if len(b) < etherAddr || uint64(b[0]&group)|uint64(m.NbSegs-1)|f&rxRare != 0 {
			p.receivedRare(m, b)
		}
	}
	p.touched |= touched
}

const (
	rxCksums        = mbuf.RxL4CksumMask | mbuf.RxIPCksumMask
	rxCksumCounters = (1<<cksumBad|1<<cksumGood|1<<cksumNone)<<cntL4 | (1<<cksumBad|1<<cksumGood)<<cntIP
	rxRare          = mbuf.RxLRO | mbuf.RxOuterL4CksumMask
)

func (p *pending) receivedRare(m *mbuf.Mbuf, b []byte) {
	p.address(m, b)
	if m.NbSegs > 1 {
		p.add(cntMultiseg, 1)
	}
	if m.OlFlags&mbuf.RxLRO != 0 {
		p.add(cntLarge, 1)
	}
	if m.OlFlags&mbuf.RxOuterL4CksumMask == mbuf.RxOuterL4CksumInvalid {
		p.add(cntOuterNone, 1)
	}
}

// strippedLen is how long the tags were that were taken out of a packet with these flags.
func strippedLen(f uint64) uint32 {
	return vlanLen * uint32(f/mbuf.RxVLANStripped&1+f/mbuf.RxQinQStripped&1)
}

// sent counts packets that the kernel took, as so many bytes each or notSent.
func (p *pending) sent(bufs []*mbuf.Mbuf, lengths []uint32) {
	bytes, touched, group := uint64(0), uint64(0), p.group
	for i, n := range lengths[:len(bufs)] {
		if n == notSent {
			continue
		}
		bytes += uint64(n)
		m := bufs[i]
		size := sizeOf(n) & (counterMax - 1)
		p.n[size]++
		touched |= 1 << size
		if m.OlFlags&txCksums != 0 {
			p.n[cntCksum]++
			touched |= 1 << cntCksum
		}
		b := m.Bytes()
		if len(b) < etherAddr || uint64(b[0]&group)|uint64(m.NbSegs-1)|m.OlFlags&txSeg != 0 {
			p.sentRare(m, b)
		}
	}
	p.touched |= touched
	p.add(cntBytes, bytes)
}

// txCksums asks for a checksum; segmentation implies one.
const txCksums = txSeg | mbuf.TxL4Mask | mbuf.TxIPCksum | mbuf.TxOuterIPCksum | mbuf.TxOuterUDPCksum

func (p *pending) sentRare(m *mbuf.Mbuf, b []byte) {
	p.address(m, b)
	if m.NbSegs > 1 {
		p.add(cntMultiseg, 1)
	}
	if m.OlFlags&txSeg != 0 {
		p.add(cntLarge, 1)
	}
}

// address counts where a packet goes that begins with b.
func (p *pending) address(m *mbuf.Mbuf, b []byte) {
	var first [etherAddr]byte
	if len(b) < etherAddr {
		m.CopyOut(first[:], 0)
		b = first[:]
	}
	switch {
	case b[0]&p.group == 0:
	case binary.NativeEndian.Uint32(b) == math.MaxUint32 && binary.NativeEndian.Uint16(b[4:]) == math.MaxUint16:
		p.add(cntBroadcast, 1)
	default:
		p.add(cntMulticast, 1)
	}
}

// etherAddr is the length of a MAC address.
const etherAddr = 6

// engine takes over what the engine has counted.
func (p *pending) engine() {
	if p.io.Enters != 0 {
		p.add(cntEnters, p.io.Enters)
	}
	if p.io.Syscalls != 0 {
		p.add(cntSyscalls, p.io.Syscalls)
	}
	if p.io.Empty != 0 {
		p.add(cntEmpty, p.io.Empty)
	}
	if p.io.Full != 0 {
		p.add(cntFull, p.io.Full)
	}
	p.io = pktio.Counts{}
}

// tally is what the bursts of one queue and direction have published. It outlives the
// queue; see counters.
type tally struct {
	turns atomic.Uint32 // odd while a burst that moved packets publishes
	total [counterCount]atomic.Uint64
}

// burst ends a burst of n packets.
func (t *tally) burst(p *pending, n int) {
	p.add(cntBurst+burstOf(n), 1)
	p.engine()
	const packets = 1<<cntBytes - 1
	if p.touched&packets == 0 {
		t.publish(p)
		return
	}
	t.turns.Add(1)
	t.publish(p)
	t.turns.Add(1)
}

func (t *tally) publish(p *pending) {
	for left := p.touched; left != 0; left &= left - 1 {
		if i := bits.TrailingZeros64(left) & (counterMax - 1); p.n[i] != 0 {
			t.total[i].Add(p.n[i])
			p.n[i] = 0
		}
	}
	p.touched = 0
}

// loadWait bounds how long load tries to find no burst publishing meanwhile. That takes a fraction of a burst's time, so
// that one of the first tries succeeds; the rest is for a thread that does not get the processor in the midst of it.
const loadWait = time.Second

// load reads all counters between two bursts. Anybody may call it at any time. It goes
// backwards, so that even if it never finds such a moment no class has more than there are
// packets. Who has not gone on publishing in all that time is a process that was killed.
func (t *tally) load() (c counts) {
	first, begin := t.turns.Load(), time.Now()
	for try := 0; ; try++ {
		turns := t.turns.Load()
		for i := counterCount - 1; i >= 0; i-- {
			c[i] = t.total[i].Load()
		}
		switch {
		case turns&1 == 0 && t.turns.Load() == turns:
			return c
		case try < 100:
			runtime.Gosched()
		case time.Since(begin) < loadWait:
			time.Sleep(50 * time.Microsecond)
		default:
			if first&1 != 0 {
				t.turns.CompareAndSwap(first, first+1)
			}
			return c
		}
	}
}

// counts are the values of a tally at one time.
type counts [counterCount]uint64

func (c counts) since(base *counts) counts {
	for i := range c {
		c[i] -= base[i]
	}
	return c
}

func (c *counts) sum(from, to int) (n uint64) {
	for _, v := range c[from:to] {
		n += v
	}
	return n
}

// What follows from other counters. The classes of a packet always add up to the packets.
func (c *counts) packets() uint64 { return c.sum(cntSize, cntSize+sizes) }

func (c *counts) unicast() uint64 { return c.packets() - c[cntBroadcast] - c[cntMulticast] }

func (c *counts) cksumUnknown() uint64 { return c.packets() - c.sum(cntL4+cksumBad, cntL4+cksumNone+1) }

func (c *counts) txErrors() uint64 { return c.sum(cntErrno, counterCount) }

// rxErrors leaves out what a deleted interface says, which is not an error of any packet.
func (c *counts) rxErrors() uint64 {
	gone := slices.IndexFunc(rxErrnos, func(e errnoName) bool { return e.errno == tuntap.Gone })
	return c.txErrors() - c[cntErrno+gone]
}
