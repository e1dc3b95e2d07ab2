// SPDX-License-Identifier: BSD-3-Clause

// Package gso cuts large frames into packets and puts packets together to large
// frames, in software, on mbufs.
//
// # When to use it
//
// A port with large receive ([mbuf.RxLRO]) hands over many packets of one flow as
// one frame, and a port with TSO takes such a frame: a program that looks at
// headers alone passes them on whole ([mbuf.PassThrough]) and needs nothing of
// this package. That is the fast way.
//
// A program that must see packets of the size they have on the wire (it counts,
// delays, encrypts or drops them one by one, or sends them by something without
// segmentation offload) puts a [Segmenter] behind receiving, and a [Coalescer]
// before sending, so that the kernel still gets few large frames:
//
//	n := rx.RxBurst(bufs)
//	for in := bufs[:n]; len(in) > 0; {
//		taken, k := seg.Burst(in, pool, out)
//		in = in[taken:]
//		work(out[:k])
//		k = co.Burst(out[:k])
//		mbuf.PassThrough(out[:k])
//		send(out[:k])
//	}
//
// # As the kernel does it
//
// Cutting gives, byte for byte, what Linux makes of the same frame when it leaves
// by an interface without segmentation offload (tcp_gso_segment, __udp_gso_segment,
// inet_gso_segment, ipv6_gso_segment); the tests compare the two. Merging follows
// the rules of Linux's GRO (tcp_gro_receive, udp_gro_receive_segment,
// inet_gro_receive, ipv6_gro_receive), within one burst: nothing is held back for
// the next.
//
// Cutting what was merged gives the packets that were merged, with one exception.
// TCP and UDP packets that all carry the same IPv4 ID and must not be fragmented
// (DF) are merged, as in the kernel, but are cut with IDs that count up: neither
// mbufs nor struct virtio_net_hdr can say that the ID is to stay. Such IDs mean
// nothing (RFC 6864).
//
// # Start reading here
//
// segment.go has the Segmenter, plan.go what it needs to know of a frame, cut.go
// the making of one packet. coalesce.go has the Coalescer, flow.go its table and
// merge.go the rules by which two packets become one.
//
// # Cost
//
// Nothing here allocates, locks or panics, whatever the packets hold. A Segmenter
// or Coalescer serves one goroutine at a time.
package gso
