// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import "unsafe"

// Bits of Mbuf.OlFlags, with DPDK's values (rte_mbuf_core.h, RTE_MBUF_F_*).
const (
	// External marks an mbuf whose data lies in a buffer that belongs to no
	// pool: see [AttachExternal].
	External uint64 = 1 << 61
	// Indirect marks an mbuf whose data lies in another mbuf's buffer: see
	// [Attach].
	Indirect uint64 = 1 << 62
)

const (
	// PortInvalid is Mbuf.Port of an mbuf that came from no port.
	PortInvalid uint16 = 0xffff
	// MaxSegs is the longest chain that NbSegs can count.
	MaxSegs = 0xffff
	// Size is the size of an Mbuf in bytes, private area not counted.
	Size = 128
)

// Mbuf is one segment of a packet: its description, and where its data lies.
// The layout is that of struct rte_mbuf in DPDK 22.11 and later, on 64-bit
// machines; on 32-bit machines pointers are padded so that it stays the same.
// A packet is a chain of segments; PktLen, NbSegs, OlFlags, PacketType, Port
// and the VLAN and hash fields count in the first one only.
//
// Mbufs come from an [Allocator]. One made by hand has no buffer.
type Mbuf struct {
	bufAddr unsafe.Pointer // of the buffer: headroom, data, tailroom
	_       [ptrPad]byte
	// BufIOVA is the address of the buffer as a device would see it. Pools
	// set it to the virtual address; rtap does not read it.
	BufIOVA uint64
	// DataOff is where the data starts, in bytes from the buffer's start.
	DataOff uint16
	// RefCnt is the number of owners: this mbuf and the indirect mbufs
	// attached to it. Read and changed with atomics while it is above 1.
	RefCnt uint16
	// NbSegs is the number of segments of the packet (first segment only).
	NbSegs uint16
	// Port is the number of the port the packet came in by.
	Port uint16
	// OlFlags are the offload flags, RTE_MBUF_F_* in DPDK.
	OlFlags uint64
	// PacketType is what the packet was recognised as, RTE_PTYPE_* in DPDK.
	PacketType uint32
	// PktLen is the sum of DataLen over the chain (first segment only).
	PktLen uint32
	// DataLen is the number of data bytes in this segment.
	DataLen uint16
	// VlanTCI is the VLAN tag, valid as OlFlags say.
	VlanTCI uint16
	// Hash is DPDK's hash union: RSS hash, or flow director fields.
	Hash [2]uint32
	// VlanTCIOuter is the outer VLAN tag, valid as OlFlags say.
	VlanTCIOuter uint16
	// BufLen is the length of the buffer in bytes.
	BufLen uint16

	pool unsafe.Pointer // *header of the pool the mbuf goes home to
	_    [ptrPad]byte
	// Next is the packet's next segment, nil in the last one.
	Next *Mbuf
	_    [ptrPad]byte
	// TxOffload holds DPDK's bit fields l2_len, l3_len, l4_len, tso_segsz …
	TxOffload uint64
	shinfo    unsafe.Pointer // of an external buffer; DPDK's
	_         [ptrPad]byte
	// PrivSize is the size of the private area in front of the buffer; of an
	// indirect mbuf, that of the mbuf it is attached to.
	PrivSize uint16
	timesync uint16
	// dynfield1 is where DPDK registers fields at run time.
	dynfield1 [9]uint32
}

// ptrPad fills a pointer up to 8 bytes.
const ptrPad = 8 - unsafe.Sizeof(uintptr(0))

// refOff is where {DataOff, RefCnt} and the rearm word start.
const refOff = 16

// layout fails to compile when a field is not where rte_mbuf has it: an index
// that is not 0 is out of range.
var _ = [1]struct{}{}[unsafe.Offsetof(Mbuf{}.bufAddr)|
	unsafe.Offsetof(Mbuf{}.BufIOVA)^8|
	unsafe.Offsetof(Mbuf{}.DataOff)^refOff|
	unsafe.Offsetof(Mbuf{}.RefCnt)^18|
	unsafe.Offsetof(Mbuf{}.NbSegs)^20|
	unsafe.Offsetof(Mbuf{}.Port)^22|
	unsafe.Offsetof(Mbuf{}.OlFlags)^24|
	unsafe.Offsetof(Mbuf{}.PacketType)^32|
	unsafe.Offsetof(Mbuf{}.PktLen)^36|
	unsafe.Offsetof(Mbuf{}.DataLen)^40|
	unsafe.Offsetof(Mbuf{}.VlanTCI)^42|
	unsafe.Offsetof(Mbuf{}.Hash)^44|
	unsafe.Offsetof(Mbuf{}.VlanTCIOuter)^52|
	unsafe.Offsetof(Mbuf{}.BufLen)^54|
	unsafe.Offsetof(Mbuf{}.pool)^56|
	unsafe.Offsetof(Mbuf{}.Next)^64|
	unsafe.Offsetof(Mbuf{}.TxOffload)^72|
	unsafe.Offsetof(Mbuf{}.shinfo)^80|
	unsafe.Offsetof(Mbuf{}.PrivSize)^88|
	unsafe.Offsetof(Mbuf{}.timesync)^90|
	unsafe.Offsetof(Mbuf{}.dynfield1)^92|
	unsafe.Sizeof(Mbuf{})^Size]

// Bytes returns the data of this segment. The slice aliases the buffer: it is
// valid while the caller owns the mbuf, and appending to it copies. Offsets
// that point outside the buffer give nil.
func (m *Mbuf) Bytes() []byte {
	return m.window(int(m.DataOff), int(m.DataLen))
}

// window returns n bytes of the buffer from off, or nil if they are not all
// in it.
func (m *Mbuf) window(off, n int) []byte {
	if n < 0 || off+n > int(m.BufLen) || m.bufAddr == nil {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(m.bufAddr, off)), n)
}

// BufAddr returns the address of the buffer. DataOff counts from it.
func (m *Mbuf) BufAddr() uintptr { return uintptr(m.bufAddr) }

// DataAddr returns the address of this segment's data, as a driver hands it
// to the kernel. It is not checked against BufLen.
func (m *Mbuf) DataAddr() uintptr { return uintptr(m.bufAddr) + uintptr(m.DataOff) }

// Headroom returns the free bytes in front of the data of this segment.
func (m *Mbuf) Headroom() int { return int(m.DataOff) }

// Tailroom returns the free bytes behind the data of this segment.
func (m *Mbuf) Tailroom() int {
	return max(int(m.BufLen)-int(m.DataOff)-int(m.DataLen), 0)
}

// IsDirect reports whether the data lies in the mbuf's own buffer.
func (m *Mbuf) IsDirect() bool { return m.OlFlags&(Indirect|External) == 0 }

// IsWritable reports whether nobody else can see this segment's buffer: it is
// direct and its reference count is 1. Whoever writes in front of or behind
// data it did not allocate itself asks this first.
func (m *Mbuf) IsWritable() bool { return m.IsDirect() && m.RefCount() == 1 }

// IsContiguous reports whether the packet is a single segment.
func (m *Mbuf) IsContiguous() bool { return m.NbSegs == 1 }

// Priv returns the mbuf's private area, Config.PrivSize bytes that belong to
// the program and survive being freed and allocated. For mbufs of this
// package's pools only.
func (m *Mbuf) Priv() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(m), Size)), m.home().privSize)
}

// home returns the header of the pool that m goes back to.
func (m *Mbuf) home() *header { return (*header)(m.pool) }
