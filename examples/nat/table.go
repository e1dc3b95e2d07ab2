// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/rtap-project/rtap/header"
)

const (
	idle      = 5 * time.Minute // until a port may be given to somebody else (RFC 4787)
	firstPort = 20000
	ports     = 40000 // of each protocol
)

// host is an inside host's address and port, or the identifier of its pings.
type host struct {
	proto byte
	addr  [4]byte
	port  uint16
}

// public is a port of the shared address.
type public struct {
	proto byte
	port  uint16
}

type mapping struct {
	host host
	seen time.Time
}

// table is who has which port.
type table struct {
	addr  [4]byte
	mu    sync.Mutex
	ports map[host]uint16
	hosts map[public]*mapping
	next  uint16
	now   func() time.Time
}

func newTable(addr [4]byte) *table {
	return &table{addr: addr, ports: map[host]uint16{}, hosts: map[public]*mapping{}, now: time.Now}
}

// out gives a packet from inside the shared address and a port. It is false if there is none, or the packet is of no kind
// that can be translated.
func (t *table) out(p []byte) bool {
	h, ok := parse(p, 0)
	if !ok {
		return false
	}
	port, ok := t.lend(host{h.proto, [4]byte(p[12:16]), binary.BigEndian.Uint16(p[h.port:])})
	if !ok {
		return false
	}
	h.rewrite(p, 12, t.addr, port)
	return true
}

// in gives a packet from outside the address and port that it is meant for.
func (t *table) in(p []byte) bool {
	h, ok := parse(p, 2)
	if !ok || [4]byte(p[16:20]) != t.addr {
		return false
	}
	t.mu.Lock()
	m, ok := t.hosts[public{h.proto, binary.BigEndian.Uint16(p[h.port:])}]
	var to host
	if ok {
		m.seen, to = t.now(), m.host
	}
	t.mu.Unlock()
	if ok {
		h.rewrite(p, 16, to.addr, to.port)
	}
	return ok
}

// lend is the port that a host has, or gets: the next that is free, or was not used for long.
func (t *table) lend(from host) (uint16, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if port, ok := t.ports[from]; ok {
		t.hosts[public{from.proto, port}].seen = now
		return port, true
	}
	for range 100 {
		k := public{from.proto, firstPort + t.next}
		t.next = (t.next + 1) % ports
		if m := t.hosts[k]; m != nil {
			if now.Sub(m.seen) < idle {
				continue
			}
			delete(t.ports, m.host)
		}
		t.hosts[k], t.ports[from] = &mapping{from, now}, k.port
		return k.port, true
	}
	return 0, false
}

// layout is where things are in an IPv4 packet.
type layout struct {
	proto     byte
	port, sum int  // offsets of what is translated, and of the layer-4 checksum
	addresses bool // the checksum covers the addresses
}

// parse finds the source's port at 0, the destination's at 2. Fragments, which have no ports, and packets that have been
// through too many routers are left out, and so are errors of ICMP.
func parse(p []byte, at int) (layout, bool) {
	if len(p) < 20 || p[0]>>4 != 4 || p[8] <= 1 || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return layout{}, false
	}
	l4, end := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if l4 < 20 || end > len(p) {
		return layout{}, false
	}
	switch left := end - l4; {
	case p[9] == 6 && left >= 20:
		return layout{6, l4 + at, l4 + 16, true}, true
	case p[9] == 17 && left >= 8:
		return layout{17, l4 + at, l4 + 6, true}, true
	case p[9] == 1 && left >= 8 && p[l4] == [3]byte{0: 8, 2: 0}[at]: // a ping, or the answer
		return layout{1, l4 + 4, l4 + 2, false}, true
	}
	return layout{}, false
}

// rewrite stores the address at and the port, and counts the hop.
func (h *layout) rewrite(p []byte, at int, addr [4]byte, port uint16) {
	p[8]--
	fix(p[10:12], []byte{p[8] + 1, p[9]}, p[8:10])
	var now [2]byte
	binary.BigEndian.PutUint16(now[:], port)
	if sum := p[h.sum : h.sum+2]; h.proto != 17 || sum[0]|sum[1] != 0 { // UDP may have none
		fix(sum, p[h.port:h.port+2], now[:])
		if h.addresses {
			fix(sum, p[at:at+4], addr[:])
		}
		if h.proto == 17 && sum[0]|sum[1] == 0 {
			sum[0], sum[1] = 0xff, 0xff
		}
	}
	fix(p[10:12], p[at:at+4], addr[:])
	copy(p[at:], addr[:])
	copy(p[h.port:], now[:])
}

// fix changes a checksum as old becomes new in what it covers (RFC 1624).
func fix(sum, old, new []byte) {
	s := header.Add(^binary.BigEndian.Uint16(sum), header.Add(^header.Sum(old), header.Sum(new)))
	binary.BigEndian.PutUint16(sum, ^s)
}
