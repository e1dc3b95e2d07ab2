// SPDX-License-Identifier: BSD-3-Clause

// Package forward moves packets between ports the way DPDK's testpmd does: the same modes under the same
// names, the same port topology, the same rule for packets that could not be sent.
//
// It knows a port only as a MAC address, or as one of IP packets without any, and two lists of queues ([Port]), so it works over the queues of
// package rtap and over anything else that hands out and takes bursts of mbufs.
//
//	ports ─ New(Config, ports…) ─ Forwarder
//	                                 └─ Worker  one goroutine, one core
//	                                      └─ Stream  one Rx queue → mode → one Tx queue
//
// Start reading at [New]; the modes are one file each (io.go, mac.go, …) and stand in one table in mode.go.
//
// # The data path
//
// Once [Forwarder.Run] has started, nothing is allocated, locked, logged or returned as an error: what went
// wrong is a counter of the stream ([Stats]). Every packet a stream receives or builds is either taken by
// the Tx queue or freed, so the mbufs of a pool are all accounted for when the workers have stopped.
//
// Modes that change packets do so in place, as in DPDK: they are meant for packets fresh from an Rx queue, whose
// buffers nobody else shares. Freed are mbufs of package mbuf's pools.
//
// # Offloads
//
// What the driver of the receiving port said of a packet is turned into what the driver of the sending port is to do,
// so that a packet goes out as it was sent:
//
//   - io, mac and macswap leave layers 3 and 4 as they are and pass the state through ([mbuf.PassThrough]): a frame
//     received with LRO is sent as TSO, a checksum that is not complete is completed, a tag that was stripped is
//     inserted. Nothing in the packet is touched for it, which is what makes this fast. The sending port must have
//     the offloads enabled that are asked for.
//   - csum makes every checksum right, in software or by asking the driver, as [CsumConfig] says, and can have large
//     TCP packets cut.
//   - mtu cuts large frames into packets of wire size, in software, and merges them again before they are sent: it
//     shows what a program does that must see each packet (see package gso), and what that costs.
//   - icmpecho completes what it reads, and answers with complete checksums.
//
// # Without Ethernet
//
// Ports whose packets begin with their IP header ([NewIPPort]) have the same modes, but for mac and macswap, which [New]
// refuses. csum writes no addresses, txonly sends IP packets of the lengths given, icmpecho answers pings: there is
// nobody to ask for a neighbour's address. What one port receives the other must be able to send: both of a pair have
// Ethernet headers, or neither.
//
// # Reference
//
// DPDK, "Testpmd Application User Guide", chapters "Running the Application" (--forward-mode, --txpkts,
// --eth-peer, --port-topology, --nb-cores) and "Testpmd Runtime Functions" (set fwd, csum set, csum parse-tunnel, tso
// set, tunnel_tso set).
package forward
