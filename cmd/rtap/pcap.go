// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/rtap-project/rtap/mbuf"
)

// The format of libpcap's files (pcap-savefile(5)), with times in nanoseconds. Readers tell the byte order by the
// magic number.
const (
	pcapMagic      = 0xa1b23c4d
	pcapEthernet   = 1   // LINKTYPE_ETHERNET
	pcapRaw        = 101 // LINKTYPE_RAW: an IPv4 or IPv6 header comes first
	pcapHeaderLen  = 24
	pcapRecordLen  = 16
	maxSnapLen     = 262144 // of tcpdump and dpdk-dumpcap; libpcap refuses more
	defaultSnapLen = maxSnapLen
)

// pcapWriter writes such a file. What it has not flushed it holds back.
type pcapWriter struct {
	*bufio.Writer
	snapLen int // bytes of each packet
	record  [pcapRecordLen]byte
}

// newPcap begins a file of packets with headers of that link type.
func newPcap(w io.Writer, snapLen int, linkType uint32) (*pcapWriter, error) {
	p := &pcapWriter{Writer: bufio.NewWriterSize(w, 64<<10), snapLen: snapLen}
	h := make([]byte, 0, pcapHeaderLen)
	h = binary.LittleEndian.AppendUint32(h, pcapMagic)
	h = binary.LittleEndian.AppendUint16(h, 2) // version 2.4
	h = binary.LittleEndian.AppendUint16(h, 4)
	h = append(h, make([]byte, 8)...) // time zone and accuracy, which nobody uses
	h = binary.LittleEndian.AppendUint32(h, uint32(snapLen))
	h = binary.LittleEndian.AppendUint32(h, linkType)
	_, err := p.Write(h)
	return p, err
}

// packet writes m, which was seen at, in nanoseconds of Unix time, and is the beginning of a packet of length bytes.
func (p *pcapWriter) packet(at int64, length int, m *mbuf.Mbuf) error {
	left := min(int(m.PktLen), p.snapLen)
	h := p.record[:0]
	h = binary.LittleEndian.AppendUint32(h, uint32(at/1e9))
	h = binary.LittleEndian.AppendUint32(h, uint32(at%1e9))
	h = binary.LittleEndian.AppendUint32(h, uint32(left))
	h = binary.LittleEndian.AppendUint32(h, uint32(length))
	_, err := p.Write(h)
	for ; err == nil && left > 0 && m != nil; m = m.Next {
		b := m.Bytes()
		b = b[:min(len(b), left)]
		left -= len(b)
		_, err = p.Write(b)
	}
	return err
}
